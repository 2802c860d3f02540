"""C++ compiled on first use by the system's compiler, kept in the user's cache, loaded by ctypes.

``library`` is what the package uses; it asks ``cache`` for a compiled file, and that ``compiler``.
"""

from .compiler import FLAGS, SWITCH, Unavailable, find_compiler
from .library import Library

__all__ = ["FLAGS", "SWITCH", "Library", "Unavailable", "find_compiler"]
