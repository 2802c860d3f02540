"""The C++ compiler: which one it is, how it is called, and what a compiled file depends on."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-fvisibility=hidden"),
    # no exceptions of arithmetic are looked at; NaN, infinity and the order of sums are kept
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
# tried in this order: some compilers come without OpenMP, and run on one thread then
THREADS = (("-fopenmp",), ())
#: The environment variable that switches compiled code off.
SWITCH = "PYG_GT_NATIVE"
_TIMEOUT = 300.0


class Unavailable(Exception):
    """Why there is no compiled code, and what helps."""


def find_compiler() -> list[str]:
    """The C++ compiler: the command ``CXX``, or the first of the usual names that is there.

    Raises:
        Unavailable: if there is none.
    """
    given = os.environ.get("CXX")
    names = [[name] for name in ("g++", "c++", "clang++")]
    if given:
        try:  # a path may hold spaces; 'ccache g++' is two words
            names = [[given] if shutil.which(given) else shlex.split(given)]
        except ValueError as error:
            raise Unavailable(f"CXX='{given}' is no command ({error})") from error
    for name, *rest in filter(None, names):
        if found := shutil.which(name):
            # as a link: 'clang++' and 'ccache' go by their name
            return [os.path.abspath(found), *rest]
    looked_for = ", ".join(name[0] for name in names if name) or f"{given!r}"
    raise Unavailable(
        f"no C++ compiler was found (looked for {looked_for}); install one, for instance "
        f"'g++', or name yours in CXX"
    )


def compile_source(cxx: list[str], source: Path, target: str, flags: tuple[str, ...]) -> None:
    """Compiles ``source`` to the shared library ``target``.

    Raises:
        Unavailable: if the compiler cannot be run or fails, with what it said.
    """
    message = ""
    for threads in THREADS:
        command = [*cxx, *FLAGS, *flags, *threads, str(source), "-o", target]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(
                f"'{shlex.join(cxx)}' could not be run ({error}); name another compiler in CXX, "
                f"or set {SWITCH}=0"
            ) from error
        if done.returncode == 0:
            return
        message = message or done.stderr.strip()
    raise Unavailable(
        f"'{shlex.join(cxx)}' failed on '{source}': {message[:500]}; name another compiler in "
        f"CXX, or set {SWITCH}=0"
    )


def build_key(source: Path, cxx: list[str], flags: tuple[str, ...]) -> str:
    """A hash of all that a compiled file depends on: sources, flags, compiler and processor."""
    parts = [repr((FLAGS, flags, THREADS, cxx)), _processor()]
    for word in cxx:  # of 'ccache g++' both
        if found := shutil.which(word):
            about = os.stat(found)  # its version would cost a process
            parts += [os.path.realpath(found), str(about.st_size), str(about.st_mtime_ns)]
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in [source, *sorted(source.parent.glob("*.h"))]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


@lru_cache(maxsize=1)
def _processor() -> str:
    """What ``-march=native`` looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features", "CPU part", "isa")
    found = [line for line in lines if line.split(":")[0].strip() in names]
    return "\n".join([platform.machine(), platform.processor(), *found])
