"""Is a program, but no agent."""

import sys

sys.stdout.write("hello\n")
