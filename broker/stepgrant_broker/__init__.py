"""The Stepgrant broker."""
