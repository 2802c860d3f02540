"""The parts of the fuzz, by the names that the command line has."""

from __future__ import annotations

from . import arguments
from .draws import Part

PARTS = {
    "arguments": Part(arguments.draw, arguments.size),
}
