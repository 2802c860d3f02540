"""Whether calls of Triton's kernels may be made without triton's own launcher.

A call like an earlier one differs in addresses: they can be written where its arguments lie, the
driver's function be called, and what was checked be left unchecked. That rests on how triton lays
out arguments and keeps compilations, which is no interface of it: so it is done only where it is
asked for, with a triton that was read for it. Otherwise each launch is ``kernel[grid](...)``.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec

SWITCH = "PYG_GT_TRITON_REPLAY"
# the versions of triton whose launcher was read
VERSIONS = ("3.6", "3.7")
_ON, _OFF = ("1", "true", "on", "yes"), ("", "0", "false", "off", "no")


@cache
def replays() -> bool:
    """Read once in a process. Not for traced code.

    Raises:
        ValueError: if the environment variable is neither on nor off.
    """
    asked = os.environ.get(SWITCH, "").strip().lower()
    if asked in _OFF:
        return False
    if asked not in _ON:
        raise ValueError(f"{SWITCH} must be 1 or 0 (got '{os.environ[SWITCH]}')")
    if find_spec("triton") is None:
        return False
    from triton import __version__ as version

    if version.startswith(tuple(f"{known}." for known in VERSIONS)):
        return True
    warnings.warn(
        f"{SWITCH} is set, but launches without triton's launcher were made for triton "
        f"{' and '.join(VERSIONS)} (got {version}): it launches them. Unset {SWITCH}",
        stacklevel=2,
    )
    return False
