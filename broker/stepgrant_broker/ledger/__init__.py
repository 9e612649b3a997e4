"""The ledger proves: receipts for others, and the check of our own chains and tables. The store keeps the entries."""
