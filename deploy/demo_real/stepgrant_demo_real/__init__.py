"""`make demo-real`: the demo beside the real thing: OPA decides, Vault makes logins, PostgreSQL keeps the state.

A provisioning agent makes an account in an application's PostgreSQL database in four steps, each with a database login
of its own and rights of its own. It is killed with a login in its hand, in the middle of a step, and after a step that
nobody recorded; a thief keeps a login; one of two brokers is killed. What came of it is looked up in the database, in
Vault and in the ledger. `show.main` is the whole face; `story.py` tells it.
"""
