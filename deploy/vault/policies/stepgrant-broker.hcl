# The Stepgrant broker's own session. Written by `stepgrant vault setup`; it says what each line is for.

path "auth/token/create/stepgrant" {
  # Makes the token of each grant. The role allows it our issuers' policies only.
  capabilities = ["update"]
}

path "auth/token/lookup-self" {
  # Tells a session that has ended from a call that is not allowed.
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  # Keeps the session.
  capabilities = ["update"]
}

path "auth/token/revoke-accessor" {
  # Ends the token of a grant; only its accessor is kept, never the token.
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  # Gives the session back when the broker stops.
  capabilities = ["update"]
}

path "database/roles/orders-rw" {
  # Compares the role with what a grant allows, before anything is made.
  capabilities = ["read"]
}

path "pki/revoke" {
  # Puts a certificate that was taken back on Vault's list.
  capabilities = ["update"]
}

path "pki/roles/agents" {
  # Compares the role with what a grant allows, before anything is made.
  capabilities = ["read"]
}

path "sys/capabilities-self" {
  # Lets `stepgrant doctor` see what is missing.
  capabilities = ["update"]
}

path "sys/leases/lookup" {
  # Tells a login that is gone from one that cannot be taken back now.
  capabilities = ["update"]
  allowed_parameters = {
    "lease_id" = ["database/creds/orders-rw/*"]
  }
  required_parameters = ["lease_id"]
}

path "sys/leases/revoke" {
  # Takes a login back, at once; no other leases than those of our issuers.
  capabilities = ["update"]
  allowed_parameters = {
    "lease_id" = ["database/creds/orders-rw/*"]
    "sync" = [true]
  }
  required_parameters = ["lease_id", "sync"]
}

path "transit/datakey/wrapped/stepgrant-wrap" {
  # Makes a wrap key for what rests; it comes out wrapped only.
  capabilities = ["update"]
}

path "transit/decrypt/stepgrant-wrap" {
  # Opens the wrap keys in keys_dir, once at each start.
  capabilities = ["update"]
}

path "transit/keys/stepgrant-access" {
  # Reads public keys: to publish them, and to check each signature.
  capabilities = ["read"]
}

path "transit/keys/stepgrant-grants" {
  # Reads public keys: to publish them, and to check each signature.
  capabilities = ["read"]
}

path "transit/keys/stepgrant-heads" {
  # Reads public keys: to publish them, and to check each signature.
  capabilities = ["read"]
}

path "transit/rewrap/stepgrant-wrap" {
  # Brings the wrap keys in keys_dir under a newer version.
  capabilities = ["update"]
}

path "transit/sign/stepgrant-access" {
  # Signs the broker's tokens or run heads. The key cannot be read.
  capabilities = ["update"]
}

path "transit/sign/stepgrant-grants" {
  # Signs the broker's tokens or run heads. The key cannot be read.
  capabilities = ["update"]
}

path "transit/sign/stepgrant-heads" {
  # Signs the broker's tokens or run heads. The key cannot be read.
  capabilities = ["update"]
}
