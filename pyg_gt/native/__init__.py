"""C++ compiled on first use by the system's compiler, kept in the user's cache, loaded by ctypes.

:class:`~pyg_gt.native.library.Library` is what the package uses; it asks the cache, and the cache
asks the compiler.
"""

from .cache import cache_folder, compiled
from .compiler import FLAGS, SWITCH, Unavailable, find_compiler
from .library import Library

__all__ = [
    "FLAGS",
    "SWITCH",
    "Library",
    "Unavailable",
    "cache_folder",
    "compiled",
    "find_compiler",
]
