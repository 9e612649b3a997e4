path "database/creds/orders-rw" {
  # The one thing that a per-grant token can do.
  capabilities = ["read"]
}
