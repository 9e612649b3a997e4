"""The store: rows and entries, behind the ports `Store`, `Reads` and `SecretSource`."""
