"""How a value is made that every call makes: frozen, compared by its members, and built in C.

A frozen dataclass writes each field through `object.__setattr__`, which costs ten times as much. The use cases take
these from here, so that they know the domain and nothing else.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

__all__ = ["Struct", "field", "replace"]
