"""The HTTP face: parse, call a use case, render. It holds no rule of its own but who may call what."""
