"""The parts of the fuzz, by the names that the command line has."""

from __future__ import annotations

from . import arguments, attention, edits, layers, transforms
from .draws import Part

PARTS = {
    "attention": Part(attention.draw),
    "edits": Part(edits.draw),
    "layers": Part(layers.draw),
    "transforms": Part(transforms.draw),
    "arguments": Part(arguments.draw, arguments.size),
}
