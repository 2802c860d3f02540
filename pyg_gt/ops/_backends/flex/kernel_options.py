"""Tiles and other options of FlexAttention's kernels that torch would not choose by itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention import flex_attention as torch_flex


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
    is_float32 = dtype == torch.float32
    options: dict[str, Any] = {
        # never the kernel for decoding, which torch takes for fewer than 128 queries
        "BACKEND": "TRITON",
        # both axes are multiples of the block, which shapes that vary do not tell
        "IS_DIVISIBLE": True,
    }
    if reads:
        rows = 32 if is_float32 and channels > 64 else 64
        cols = 32 if channels > (32 if is_float32 else 128) else 64
        options |= {"fwd_BLOCK_M": rows, "fwd_BLOCK_N": cols}
        options |= {"fwd_num_warps": 4 if rows == 32 and channels <= 128 else 8}
        options |= {"fwd_num_stages": 1 if channels > 128 else 2}
    # torch's tiles of a float32 backward are 16 x 16, which beyond 128 channels is what fits
    if (is_float32 and channels <= 128) or (reads and not is_float32):
        long = 32 if is_float32 or channels > 128 else 64
        options |= {"bwd_BLOCK_M1": 32, "bwd_BLOCK_N1": long}
        options |= {"bwd_BLOCK_M2": long, "bwd_BLOCK_N2": 32}
        options |= {"bwd_num_warps": 4 if channels < 64 else 8, "bwd_num_stages": 1}
    return options
