"""Stepgrant's SDK: what an agent, and a resource server that checks grants, import."""

__version__ = "0.1.0"
