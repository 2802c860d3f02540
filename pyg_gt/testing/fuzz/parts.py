"""The parts of the fuzz, by the names that the command line has."""

from __future__ import annotations

from . import arguments, attention
from .draws import Part

PARTS = {
    "attention": Part(attention.draw),
    "arguments": Part(arguments.draw, arguments.size),
}
