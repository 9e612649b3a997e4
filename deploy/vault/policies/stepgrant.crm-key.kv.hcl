path "secret/data/agents/crm" {
  # The one thing that a per-grant token can do.
  capabilities = ["read"]
}
