"""Refuses a backward pass whose edges were edited since the forward pass, as torch does."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from ..layout.edge_layout import EdgeLayout
from ..layout.tensor_cache import version_of
from .bias import AttentionBias, EdgeBias, EdgeMask
from .memory import has_raw_memory


def watch_edges(out: Tensor, biases: tuple[AttentionBias, ...]) -> None:
    """Makes the backward pass of ``out`` raise ``RuntimeError`` if a caller's edges changed.

    A layout owns its numbers, so gradients would be those of the forward pass; but PyG's layers
    raise here, and a model that edits its edges too early has a mistake in it.
    """
    if torch.compiler.is_compiling() or out.grad_fn is None or not has_raw_memory(out):
        return
    seen = [
        (weakref.ref(tensor), version_of(tensor))
        for bias in biases
        if isinstance(bias, (EdgeBias, EdgeMask)) and isinstance(bias.edges, EdgeLayout)
        for tensor in bias.edges.given
    ]
    if not seen:
        return

    def check(_: object) -> None:
        for ref, version in seen:
            tensor = ref()
            if tensor is not None and version_of(tensor) != version:
                raise RuntimeError(
                    f"one of the variables needed for gradient computation has been modified by "
                    f"an inplace operation: edges of shape {list(tensor.shape)} are at version "
                    f"{version_of(tensor)}, and were at version {version} in the forward pass. "
                    f"Edit a copy ('edge_index.clone()'), or call 'backward' before"
                )

    out.grad_fn.register_prehook(check)
