"""Sizes of tiles and grids: quotients and powers of two, rounded up."""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """``a / b``, rounded up."""
    return (a + b - 1) // b


def next_power_of_two(x: int) -> int:
    """The smallest power of two that is at least ``x``."""
    return 1 << (x - 1).bit_length()
