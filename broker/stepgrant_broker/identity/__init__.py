"""Workload identity: who calls, by what evidence, and that the evidence is fresh. One file per method."""
