"""The starter policy as data: rules, settings, tests, cases and schemas. Nothing here runs in Python."""
