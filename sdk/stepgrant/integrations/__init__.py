"""Adapters for agent frameworks, one module each, one extra each: `stepgrant[langgraph]`.

Every adapter stands on the one guard (`stepgrant._adapter`) and passes `stepgrant.testing.adapter_suite`. The base
install imports none of these modules.
"""
