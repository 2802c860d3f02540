"""A shared library of C++, compiled, tested and loaded when it is first asked for."""

from __future__ import annotations

import ctypes
import os
import shlex
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from .cache import CACHE, find_or_compile
from .compiler import SWITCH, Unavailable, find_compiler

_SWITCHED_OFF, _SWITCHED_ON = ("0", "off", "false", "no"), ("1", "on", "true", "yes", "")


class Library:
    """One shared library, compiled and loaded when it is first asked for.

    Args:
        source (pathlib.Path): the C++ file; every header beside it counts as part of it.
        declare (callable): sets the argument types of the functions of the loaded library.
        check (callable): runs them once on a known case; returns what is wrong, or None.
        flags (tuple of str): for the compiler, behind the usual ones. (default: :obj:`()`)
    """

    def __init__(
        self,
        source: Path,
        declare: Callable[[ctypes.CDLL], None],
        check: Callable[[ctypes.CDLL], str | None],
        flags: tuple[str, ...] = (),
    ) -> None:
        self._source = source
        self._flags = flags
        self._declare = declare
        self._check = check
        self._lock = threading.Lock()
        self._loaded: ctypes.CDLL | None = None
        self._reason: str | None = None

    def why_not(self) -> str | None:
        """Why it cannot be used, or None; the first call compiles, and warns once if it fails.

        Raises:
            ValueError: if ``PYG_GT_NATIVE`` says neither on nor off.
        """
        given = os.environ.get(SWITCH)
        if given is not None and _is_off(given):
            return f"compiled code is switched off by {SWITCH}={given}"
        if self._loaded is not None:
            return None
        with self._lock:
            if self._loaded is None and self._reason is None:
                try:
                    self._loaded = self._find_or_compile()
                except Unavailable as error:
                    self._reason = str(error)
                    warnings.warn(
                        f"pyg_gt runs without its compiled '{self._source.name}', which is "
                        f"slower: {self._reason}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
        return self._reason

    def get(self) -> ctypes.CDLL:
        """The loaded library.

        Raises:
            NotImplementedError: if it cannot be used, with the reason.
        """
        if self._loaded is None and (reason := self.why_not()) is not None:
            raise NotImplementedError(reason)
        assert self._loaded is not None
        return self._loaded

    def _find_or_compile(self) -> ctypes.CDLL:
        try:
            return find_or_compile(self._source, self._flags, self._load)[1]
        except OSError as error:  # a full disk, a source that is not there
            raise Unavailable(
                f"'{self._source}' cannot be compiled ({error}); set {CACHE} to another folder, "
                f"or {SWITCH}=0"
            ) from error

    def _load(self, path: Path) -> ctypes.CDLL:
        """The library at ``path``, declared and checked."""
        try:
            library = ctypes.CDLL(str(path))
            self._declare(library)
            wrong = self._check(library)
        except (OSError, AttributeError) as error:
            raise Unavailable(
                f"'{path}' cannot be loaded ({error}); set {CACHE} to another folder, or "
                f"{SWITCH}=0"
            ) from error
        if wrong is not None:
            raise Unavailable(
                f"the self-test of '{path}' failed ({wrong}); set {SWITCH}=0 and report it with "
                f"the output of '{shlex.join(find_compiler())} --version'"
            )
        return library


def _is_off(given: str) -> bool:
    word = given.strip().lower()
    if word not in _SWITCHED_OFF + _SWITCHED_ON:
        raise ValueError(
            f"{SWITCH} must be one of {', '.join(_SWITCHED_OFF)} (off) and "
            f"{', '.join(_SWITCHED_ON[:-1])} (on), but it is '{given}'; unset it to use compiled "
            f"code where there is a compiler"
        )
    return word in _SWITCHED_OFF
