"""Checks of arguments that several layers and encoders share."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, NoReturn, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.typing import SparseTensor

from ..layout.deferred import DeferredEdges, DeferredLayout
from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout
from ..ops import AttentionBias
from ..ops.bias import KINDS, check_is_bias

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_counts(least: int = 1, *, lazy: bool = False, **values: Any) -> None:
    """Raises ``ValueError`` unless each value is a whole number of at least ``least``.

    With ``lazy``, -1 (PyG's "derive it from the first input") is allowed too.
    """
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or (value < least and not (lazy and value == -1)):
            derived = ", or -1 to derive it from the first input" if lazy else ""
            raise ValueError(
                f"'{name}' must be a whole number of at least {least}{derived} (got {value!r})"
            )


def check_probabilities(**values: Any) -> None:
    """Raises ``ValueError`` unless each value is a number in [0, 1]."""
    for name, value in values.items():
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real or math.isnan(value) or not 0 <= value <= 1:
            raise ValueError(f"'{name}' must be a number in [0, 1] (got {value!r})")


def check_flags(**values: Any) -> None:
    """Raises ``ValueError`` unless each value is True or False (or 0 or 1)."""
    for name, value in values.items():
        if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
            raise ValueError(f"'{name}' must be True or False (got {value!r})")


def check_heads(channels: Any, heads: Any) -> None:
    """Raises ``ValueError`` unless ``channels`` can be split among ``heads``."""
    check_counts(channels=channels, heads=heads)
    if channels % heads != 0:
        raise ValueError(
            f"'channels' must be divisible by 'heads' (got {channels} channels, {heads} heads)"
        )


def check_module(name: str, module: Any) -> None:
    """Raises ``ValueError`` unless ``module`` is None or can be called."""
    if module is not None and (isinstance(module, type) or not callable(module)):
        got = f"the class '{module.__name__}'" if isinstance(module, type) else repr(module)
        raise ValueError(f"'{name}' must be a module, or None (got {got})")


def check_resolvable(name: str, value: Any) -> None:
    """Raises ``ValueError`` unless ``value`` is a name for PyG to resolve, or can be called."""
    if isinstance(value, type) or not (isinstance(value, str) or callable(value)):
        raise ValueError(f"'{name}' must be a name or a module (got {value!r})")


def check_aggr(aggr: Any) -> None:
    """Raises ``ValueError`` unless ``aggr`` is an aggregation, several of them, or None.

    With None, as in PyG, a subclass brings an ``aggregate`` of its own.
    """
    if aggr is None:
        return
    several = list(aggr) if isinstance(aggr, (list, tuple)) else [aggr]
    named = [isinstance(a, Aggregation) or (isinstance(a, str) and a) for a in several]
    if not several or not all(named):
        raise ValueError(
            f"'aggr' must be the name of an aggregation, a module or a list of them (got {aggr!r})"
        )


def check_kwargs(**values: Any) -> None:
    """Raises ``ValueError`` unless each value is a dictionary, or None."""
    for name, value in values.items():
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"'{name}' must be a dictionary of arguments (got {value!r})")


def check_features(
    name: str, x: Any, channels: int, rows: str = "N", *, sparse: bool = False
) -> None:
    """Raises ``ValueError`` unless ``x`` is dense, floating-point and ``[N, channels]``.

    Args:
        name: What to call it.
        x: What came.
        channels: Its width; -1: any.
        rows: What its length is called.
        sparse: Take sparse matrices too, which linear maps can read.
    """
    if (
        isinstance(x, Tensor)
        and (x.layout is torch.strided or (sparse and not x.is_nested))
        and not x.is_nested
        and x.dim() == 2
        and x.is_floating_point()
        and (channels < 0 or x.size(1) == channels)
    ):
        return
    width = "F" if channels < 0 else channels
    raise ValueError(
        f"'{name}' must be a dense floating-point tensor of shape [{rows}, {width}] "
        f"(got {describe(x)}){_cure(x)}"
    )


def is_dense(x: Any) -> TypeGuard[Tensor]:
    """Whether ``x`` is a tensor, and neither sparse nor nested."""
    return isinstance(x, Tensor) and x.layout is torch.strided and not x.is_nested


def describe(x: Any) -> str:
    """What came, for an error message."""
    if not isinstance(x, Tensor):
        return "None" if x is None else f"'{type(x).__name__}'"
    if x.is_nested:
        return "a nested tensor"
    kind = "" if x.layout is torch.strided else f"{x.layout} "
    return f"{kind}{x.dtype} of shape {list(x.shape)}"


def _cure(x: Any) -> str:
    if isinstance(x, (tuple, list)):
        return "; every node both sends and receives, so there is one tensor of them"
    if not isinstance(x, Tensor):
        return ""
    if x.is_nested or (x.layout is torch.strided and x.dim() == 3):
        return "; give the nodes of all graphs as rows, and the graph of each as 'batch'"
    if x.layout is not torch.strided:
        return "; convert it with '.to_dense()'"
    if x.dim() == 2 and not x.is_floating_point():
        return "; convert it with '.float()', or embed categories first"
    return ""


def check_tensor(
    name: str,
    tensor: Any,
    columns: tuple[str, int] | None,
    integers: tuple[torch.dtype, ...] | None,
    cure: str,
) -> None:
    """Raises ``ValueError`` unless ``tensor`` has these columns and these types.

    Args:
        name: What to call it.
        tensor: What came.
        columns: What its second dimension is called and how large it is; None: a vector.
        integers: The types that it may have; None: any floating-point type.
        cure: What to do about it.
    """
    sizes = [] if columns is None else [columns[1]]
    dense = isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_nested
    if dense and tensor.dim() > 0 and list(tensor.shape[1:]) == sizes:
        if tensor.is_floating_point() if integers is None else tensor.dtype in integers:
            return
    kind = "floating-point" if integers is None else " or ".join(str(t)[6:] for t in integers)
    form = "a vector" if columns is None else f"of {columns[1]} columns ('{columns[0]}')"
    got = describe(tensor)
    if dense:
        got = f"shape {list(tensor.shape)}, {tensor.dtype}"
    raise ValueError(f"'{name}' must be a tensor of {kind}, {form} (got {got}); {cure}")


def check_edge_index(edge_index: Any, *, read_here: bool) -> None:
    """Raises ``ValueError`` where a batch vector, or no edge set at all, came by mistake.

    Args:
        edge_index: What came.
        read_here: Whether it has to be one of PyG's edge sets, or None; a local part of the
            caller's may take other things.
    """
    if edge_index is None:
        return
    if isinstance(edge_index, Tensor) and edge_index.layout is torch.strided:
        integers = edge_index.dtype in _INTEGERS
        if integers and edge_index.dim() == 1:
            _refuse_batch(f"a vector of shape {list(edge_index.shape)}")
        right = integers and edge_index.dim() == 2 and edge_index.size(0) == 2
    elif isinstance(edge_index, (GraphLayout, DeferredLayout)):
        _refuse_batch(f"a '{type(edge_index).__name__}'")
    else:
        right = isinstance(edge_index, (Tensor, SparseTensor, EdgeLayout, DeferredEdges))
    if read_here and not right:
        raise ValueError(
            f"'edge_index' must hold integers and have shape [2, E], or be a sparse adjacency "
            f"(got {describe(edge_index)})"
        )


def _refuse_batch(got: str) -> NoReturn:
    raise ValueError(
        f"'edge_index' must have shape [2, E] (got {got}); which graph each node belongs to is "
        f"given by name: 'batch='"
    )


def as_biases(biases: Any) -> tuple[AttentionBias, ...]:
    """``biases`` as a tuple; a single bias need not be in one.

    Raises:
        ValueError: if something in it is no bias.
    """
    if type(biases) is tuple and not biases:
        return biases
    if not isinstance(biases, (tuple, list)):
        if isinstance(biases, KINDS):
            return (biases,)
        raise ValueError(f"'biases' must be a bias or a tuple of them (got {describe(biases)})")
    for bias in biases:
        check_is_bias(bias)
    return tuple(biases)
