"""One file per verb. Each is three beats: load, decide (pure), commit."""
