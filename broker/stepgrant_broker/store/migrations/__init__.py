"""Alembic's folder: `env.py` runs the revisions in `versions/`, which are written by hand and never changed later."""
