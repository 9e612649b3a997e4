path "pki/sign/agents" {
  # The one thing that a per-grant token can do. No `not_after`: it gets past the role's max_ttl.
  capabilities = ["update"]
  allowed_parameters = {
    "csr" = []
    "ttl" = []
    "format" = ["pem"]
    "uri_sans" = []
    "alt_names" = []
    "common_name" = []
    "exclude_cn_from_sans" = [true]
  }
}
