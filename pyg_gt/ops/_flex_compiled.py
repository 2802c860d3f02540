"""FlexAttention, compiled: once for each kind of call, never again for another batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config as shapes
from torch.nn.attention.flex_attention import BlockMask, flex_attention

Function = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Function | None,
    mask: BlockMask,
    scale: float,
    kind: Hashable,
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

    Raises:
        RuntimeError: if calls of one kind were compiled more often than torch allows.
    """
    # Inductor's CPU template replaces names of sizes by text, 'ks1' also in 'ks17': with tensors
    # that a function captures it gives C++ errors or wrong numbers (torch 2.13).
    cuda = query.device.type == "cuda"
    kernel = _compiled("inductor" if cuda else "eager", kind)
    options = kernel_options(query.dtype, query.size(-1)) if cuda else None
    try:
        # two sizes that happen to be equal are not taken for one
        with shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            out: Tensor = kernel(query, key, value, score_mod, mask, scale, options)
    except torch._dynamo.exc.FailOnRecompileLimitHit as error:
        raise RuntimeError(
            f"FlexAttention was compiled {torch._dynamo.config.recompile_limit} times for calls "
            f"of one kind, which is the limit. A 'ScoreMod' whose function captures numbers is "
            f"compiled for each of them: capture a tensor instead, or raise "
            f"'torch._dynamo.config.recompile_limit'"
        ) from error
    return out


def kernel_options(dtype: torch.dtype, channels: int) -> dict[str, Any]:
    """What torch 2.11 to 2.13 would not choose by themselves on CUDA."""
    options: dict[str, Any] = {
        # never the kernel for decoding, which torch takes for fewer than 128 queries
        "BACKEND": "TRITON",
        # both axes are multiples of the block, which shapes that vary do not tell
        "IS_DIVISIBLE": True,
    }
    if dtype == torch.float32 and channels <= 128:
        # the tiles of a float32 backward would be 16 x 16
        long = 64 if channels <= 64 else 32
        tiles = {"bwd_BLOCK_M1": 32, "bwd_BLOCK_N1": long}
        tiles |= {"bwd_BLOCK_M2": long, "bwd_BLOCK_N2": 32}
        options |= {**tiles, "bwd_num_warps": 4, "bwd_num_stages": 1}
    return options


@cache
def _compiled(backend: str, kind: Hashable) -> Callable[..., Any]:
    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        score_mod: Function | None,
        mask: BlockMask,
        scale: float,
        options: Any,
    ) -> Any:
        return flex_attention(
            query, key, value, score_mod=score_mod, block_mask=mask, scale=scale,
            kernel_options=options,
        )  # fmt: skip

    # torch counts compilations by code object, which all functions made here would share
    own = FunctionType(attend.__code__.replace(), attend.__globals__, attend.__name__)
    # fullgraph: past the limit an error, not a silent fallback that fills N x N
    return torch.compile(own, dynamic=True, fullgraph=True, backend=backend)
