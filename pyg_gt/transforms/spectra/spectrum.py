"""Whole spectra of Laplacians of small components, shared by the encodings that read them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ..graphs.arguments import Normalization
from ..graphs.components import Components
from ..graphs.graphs import Floats, Graphs
from .laplacian import deflated_laplacian, symmetrized
from .symmetric import symmetric_eigenpairs

# How an encoding reads a spectrum: of all components that are not too large, of small ones only,
# or only if another encoding has made it.
SpectrumUse = Literal["whole", "small", "reuse"]
# Up to here all eigenvectors of a component cost about as much as a few of them, and walks that
# are read off them nothing.
SMALL = 96


class Spectrum(NamedTuple):
    """All eigenpairs of the symmetric Laplacians of equally large components.

    Attributes:
        values: ``[G, n - 1]``, the non-trivial ones, ascending.
        vectors: ``[G, n, n - 1]``, orthonormal.
        trivial: ``[G, n]``, the null vector.
        root: ``[G, n]``, what scales the Laplacian: ``D^(1/2)``, or one without normalisation.
        simple: whether all components are undirected and without self-loops, so that walks have
            this spectrum too.
    """

    values: Floats
    vectors: Floats
    trivial: Floats
    root: Floats
    simple: bool


def full_spectrum(graphs: Graphs, stack: Components, normalization: Normalization) -> Spectrum:
    """All eigenpairs of a stack of ``component_stacks(graphs)``, shared if ``graphs`` says so.

    ``"sym"`` and ``"rw"`` are one matrix up to a scaling; this is the symmetric one.
    """
    key = _key(stack, normalization)
    if key[1] not in graphs.shared:
        return _decompose(stack, key[1])
    return graphs.cached(key, lambda: _decompose(stack, key[1]))


def has_spectrum(graphs: Graphs, stack: Components, normalization: Normalization) -> bool:
    """Whether :func:`full_spectrum` has been computed and kept."""
    return graphs.is_cached(_key(stack, normalization))


def laplacian_kind(normalization: Normalization) -> Normalization:
    """The symmetric Laplacian of ``normalization``: ``"sym"`` for ``"rw"`` too."""
    return None if normalization is None else "sym"


def _key(stack: Components, normalization: Normalization) -> tuple[str, Normalization, int]:
    return "spectrum", laplacian_kind(normalization), int(stack.nodes[0])


def _decompose(stack: Components, normalization: Normalization) -> Spectrum:
    adjacency, simple = symmetrized(stack)
    laplacian, trivial, root = deflated_laplacian(adjacency, normalization)
    values, vectors = symmetric_eigenpairs(laplacian)
    return Spectrum(np.maximum(values[:, :-1], 0), vectors[:, :, :-1], trivial, root, simple)
