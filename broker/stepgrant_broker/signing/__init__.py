"""Adapters of the `Signer` and `KeyWrap` ports. One file per variant; so far: keys in a folder of this machine."""
