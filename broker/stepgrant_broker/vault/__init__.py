"""Vault or OpenBao over HTTP: the wire, the broker's own login, and the client that issuers and signers share."""
