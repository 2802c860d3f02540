"""FlexAttention, compiled: once for each kind of call, never again for another batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask, flex_attention

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
    """So that two sizes that happen to be equal are not taken for one."""
    from torch.fx.experimental import _config as shapes

    if not hasattr(shapes, "use_duck_shape"):
        return nullcontext()
    patch: AbstractContextManager[Any] = shapes.patch(use_duck_shape=False)  # type: ignore[attr-defined]
    return patch


@cache
def known_options(dtype: torch.dtype, channels: int, reads: bool) -> dict[str, Any]:
    """:func:`kernel_options`, of which what is not known to this torch is left out."""
    known = getattr(getattr(torch_flex, "FlexKernelOptions", None), "__annotations__", None)
    options = kernel_options(dtype, channels, reads)
    if known is None:  # nothing is known of any of them
        return {}
    always = ("IS_DIVISIBLE",)  # not documented; who does not read it ignores it
    return {
        name: x for name, x in options.items()
        if name in always or name.removeprefix("fwd_").removeprefix("bwd_") in known
    }  # fmt: skip


def kernel_options(dtype: torch.dtype, channels: int, reads: bool) -> dict[str, Any]:
    """What torch 2.11 to 2.14 would not choose by themselves on CUDA.

    Tiles are chosen by what the compiler says of shared memory and registers on sm_90, not by
    time. Torch's own are made for kernels that read nothing but queries, keys and values: with 64
    channels in half precision and a mask of edges they need more shared memory than an H100 has.

    Args:
        dtype: of queries, keys and values.
        channels: ``C``, padded.
        reads: whether a mask of edges or a function of scores reads a tensor at each pair.
    """
    single = dtype == torch.float32
    options: dict[str, Any] = {
        # never the kernel for decoding, which torch takes for fewer than 128 queries
        "BACKEND": "TRITON",
        # both axes are multiples of the block, which shapes that vary do not tell
        "IS_DIVISIBLE": True,
    }
    if reads:
        rows = 32 if single and channels > 64 else 64
        cols = 32 if channels > (32 if single else 128) else 64
        options |= {"fwd_BLOCK_M": rows, "fwd_BLOCK_N": cols}
        options |= {"fwd_num_warps": 4 if rows == 32 and channels <= 128 else 8}
        options |= {"fwd_num_stages": 1 if channels > 128 else 2}
    # torch's tiles of a float32 backward are 16 x 16, which beyond 128 channels is what fits
    if (single and channels <= 128) or (reads and not single):
        long = 32 if single or channels > 128 else 64
        options |= {"bwd_BLOCK_M1": 32, "bwd_BLOCK_N1": long}
        options |= {"bwd_BLOCK_M2": long, "bwd_BLOCK_N2": 32}
        options |= {"bwd_num_warps": 4 if channels < 64 else 8, "bwd_num_stages": 1}
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
