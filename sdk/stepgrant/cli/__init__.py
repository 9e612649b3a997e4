"""The command line `stepgrant` (extra `cli`): people's side of the broker, over HTTP with an operator token.

Rules:
* Machine output (`--json`) is the only thing on stdout; questions, notes and errors go to stderr.
* An error is one line and an exit code of `exits.py`, never a traceback. No token, key or secret is ever printed, nor
  taken from the command line's arguments, which every user of the machine can read.
* What comes from agents, policies and the broker is data: it is shown with `plain.visible`, never as terminal control.
* The broker adds its own commands through the entry-point group `stepgrant.commands`.
"""
