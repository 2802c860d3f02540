"""FlexAttention compiled: once for each kind of call, whatever the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .kernel_options import known_options

Function = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

# private to torch: where one of them is missing, a call is slower or compiled once more
_PastTheLimit: Any = getattr(torch._dynamo.exc, "FailOnRecompileLimitHit", ())
_CompilerFailed: Any = getattr(torch._dynamo.exc, "BackendCompilerFailed", ())


def run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Function | None,
    mask: BlockMask,
    scale: float,
    kind: Hashable,
    reads: bool,
) -> Tensor:
    """``[1, H, rows, C]``.

    Args:
        query: ``[1, H, rows, C]``.
        key: ``[1, H, cols, C]``.
        value: ``[1, H, cols, C]``.
        score_mod: what happens to scores.
        mask: the block tables.
        scale: factor of the scores.
        kind: what a compilation depends on by design. Each kind has a limit of its own on
            compilations, so that many models in one process do not use up that of one.
        reads: whether ``mask`` or ``score_mod`` reads a tensor at each pair.

    Raises:
        RuntimeError: if calls of one kind were compiled more often than torch allows.
    """
    # Inductor's CPU template replaces names of sizes by text, 'ks1' also in 'ks17': with tensors
    # that a function captures it gives C++ errors or wrong numbers (torch 2.13).
    cuda = query.device.type == "cuda"
    kernel = _compiled("inductor" if cuda else "eager", kind)
    options = known_options(query.dtype, query.size(-1), reads) if cuda else None
    if kind in _WITHOUT_OPTIONS:
        options = None
    given = query, key, value, score_mod, mask, scale
    try:
        with _no_duck_shapes():
            try:
                out: Tensor = kernel(*given, options)
            except _CompilerFailed as error:
                if options is None:
                    raise
                out = kernel(*given, None)
                _WITHOUT_OPTIONS.add(kind)
                warnings.warn(
                    f"torch {torch.__version__} cannot compile FlexAttention with the tiles that "
                    f"'flex' asks for, and goes on with its own, which may be slower: {error}",
                    stacklevel=2,
                )
    except _PastTheLimit as error:
        raise RuntimeError(
            f"FlexAttention was compiled {torch._dynamo.config.recompile_limit} times for calls "
            f"of one kind, which is the limit. A 'ScoreMod' whose function captures numbers is "
            f"compiled for each of them: capture a tensor instead, or raise "
            f"'torch._dynamo.config.recompile_limit'"
        ) from error
    return out


# kinds of calls whose options this torch does not take
_WITHOUT_OPTIONS: set[Hashable] = set()


def _no_duck_shapes() -> AbstractContextManager[Any]:
    """A context in which sizes that happen to be equal are not taken for one."""
    from torch.fx.experimental import _config as shapes

    if not hasattr(shapes, "use_duck_shape"):
        return nullcontext()
    patch: AbstractContextManager[Any] = shapes.patch(use_duck_shape=False)  # type: ignore[attr-defined]
    return patch


@cache
def _compiled(backend: str, kind: Hashable) -> Callable[..., Any]:
    def attend(
        query: Tensor, key: Tensor, value: Tensor, score_mod: Function | None, mask: BlockMask,
        scale: float, options: Any,
    ) -> Any:  # fmt: skip
        return flex_attention(
            query, key, value, score_mod=score_mod, block_mask=mask, scale=scale,
            kernel_options=options,
        )  # fmt: skip

    # torch counts compilations by code object, which all functions made here would share
    copied = FunctionType(attend.__code__.replace(), attend.__globals__, attend.__name__)
    # fullgraph: past the limit an error, not a silent fallback that fills N x N
    return torch.compile(copied, dynamic=True, fullgraph=True, backend=backend)
