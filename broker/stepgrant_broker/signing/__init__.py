"""Adapters of the `Signer` and `KeyWrap` ports: keys in a folder of this machine, and keys in Vault (Transit)."""
