"""Issuers: what makes and takes back credentials, one file per kind; `tests/conformance/issuer` is run over all."""
