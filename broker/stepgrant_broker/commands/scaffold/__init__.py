"""What `stepgrant init` copies into a new project. Nothing here is imported."""
