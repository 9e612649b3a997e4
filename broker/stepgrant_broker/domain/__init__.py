"""The pure core: values in, values or a named error out. No clock, no randomness, no I/O (import-linter checks it)."""
