"""What a function captures, handed to it as arguments, as compilers do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import CellType, FunctionType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
from torch._higher_order_ops.flex_attention import create_fw_bw_graph

from pyg_gt.ops._backends import flex as _flex

from ...cases import Case


class NotRun(Exception):
    """Raised in place of the kernel."""


def handed_over(case: Case) -> dict[str, Any]:
    """What ``attention`` gives to the compiled kernel, which does not run."""
    with patch.object(_flex, "run", side_effect=NotRun) as run, suppress(NotRun):
        case.attention("flex")
    names = ("query", "key", "value", "score_mod", "mask", "scale", "kind")
    return dict(zip(names, run.call_args.args, strict=True)) | run.call_args.kwargs


def rebuilt(x: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The function with other tensors in its closure."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, FunctionType) and x.__closure__:
        cells = tuple(CellType(rebuilt(cell.cell_contents, change)) for cell in x.__closure__)
        return FunctionType(x.__code__, x.__globals__, x.__name__, x.__defaults__, cells)
    return type(x)(rebuilt(y, change) for y in x) if isinstance(x, (list, tuple)) else x


def captured(function: Any) -> list[Tensor]:
    """Each tensor that it captures, once."""
    found: dict[int, Tensor] = {}
    rebuilt(function, lambda x: found.setdefault(id(x), x))
    return list(found.values())


def with_arguments(function: Any, indices: int) -> Callable[..., Any]:
    """The function, given what it captures behind its own arguments."""
    names = [id(x) for x in captured(function)]

    def call(*args: Any) -> Any:
        given = dict(zip(names, args[indices:], strict=True))
        return rebuilt(function, lambda x: given[id(x)])(*args[:indices])

    return call


def joint_graph(score_mod: Any, dtype: torch.dtype) -> torch.fx.GraphModule:
    """Its derivative for the score and for each captured tensor of floating-point numbers."""
    index = [torch.zeros((), dtype=torch.int32) for _ in range(4)]
    score = torch.zeros((), dtype=dtype, requires_grad=True)
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in captured(score_mod)]
    with TransformGetItemToIndex():
        made = create_fw_bw_graph(with_arguments(score_mod, 5), (score, *index), tuple(leaves))
    graph = made[1]
    assert isinstance(graph, torch.fx.GraphModule)
    return graph
