"""The starter policies: Rego and schemas as package data, found with `importlib.resources.files(__name__)`."""
