"""What a GPU's machine code says of the time that a kernel takes, without the GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import NamedTuple

import triton

INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
LABEL = re.compile(r"\s*(\.L_\w+):")
JUMP = re.compile(r"\bBRA\b.*`\((\.L_\w+)\)")


class Usage(NamedTuple):
    """Of a thread.

    Attributes:
        registers: how many.
        spilled: bytes that did not fit into them.
    """

    registers: int
    spilled: int


def usage_of(cubin: bytes) -> Usage:
    said = _said_of(cubin, triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", said)
    assert found, said
    registers, stack, local = map(int, found.groups())
    return Usage(registers, stack + local)


def loops_of(cubin: bytes) -> list[list[str]]:
    """The instructions of the kernel, and of each of its loops with the inner ones."""
    lines: list[str] = []
    places: dict[str, int] = {}
    found = [lines]
    for text in _said_of(cubin, triton.knobs.nvidia.nvdisasm.path, "-c").splitlines():
        if label := LABEL.match(text):
            places[label[1]] = len(lines)
        elif instruction := INSTRUCTION.match(text):
            lines.append(instruction[1])
            jump = JUMP.search(instruction[1])
            if jump and jump[1] in places:
                found.append(lines[places[jump[1]] :])
    return found


def powers_of_two(lines: list[str]) -> int:
    """How many a thread computes."""
    return sum("MUFU.EX2" in line for line in lines)


def _said_of(cubin: bytes, program: str, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [program, option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
