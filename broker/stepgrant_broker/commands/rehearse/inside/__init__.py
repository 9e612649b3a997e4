"""What runs inside the agent's process while it is rehearsed. `sitecustomize.py` is found through PYTHONPATH."""
