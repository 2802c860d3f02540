"""Random numbers that are the same on every device: Philox-4x32-10 (Salmon et al. 2011).

Bit for bit what ``triton.language.rand(seed, offset)`` gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def draw_seed(device: torch.device) -> Tensor:
    """A fresh seed ``[1]`` from torch's generator, as a tensor: no sync, and safe to trace."""
    return torch.randint(0, 2**63 - 1, (1,), device=device)


def philox_uniform(seed: Tensor, offset: Tensor) -> Tensor:
    """Uniform float32 numbers in ``[0, 1)``, one for each number in ``offset`` (int64)."""
    c0, c1 = offset & _LOW, (offset >> 32) & _LOW
    c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        high2, low2 = _multiply(0xCD9E8D57, c2)
        high0, low0 = _multiply(0xD2511F53, c0)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    signed = torch.where(c0 >= 2**31, c0 - 2**32, c0)
    return torch.where(signed < 0, -signed - 1, signed).float() * 4.6566127342e-10


def keep(seed: Tensor, rows: Tensor, heads: int, dropout_p: float, dtype: torch.dtype) -> Tensor:
    """Dropout factors ``[..., H]``: 0, or 1 / (1 - p) where the weight is kept.

    The weight of pair or edge ``t`` at head ``h`` is kept where Philox(seed, t * H + h) >= p.

    Args:
        seed: ``[1]`` int64.
        rows: ``[...]`` int64, the flat number ``t`` of each pair or edge.
        heads: ``H``.
        dropout_p: probability of a zero.
        dtype: of the result.
    """
    offset = rows.unsqueeze(-1) * heads + torch.arange(heads, device=rows.device)
    kept = philox_uniform(seed, offset) >= dropout_p
    return kept.to(dtype) * (0.0 if dropout_p >= 1 else 1 / (1 - dropout_p))


def _multiply(factor: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low halves of a 32 x 32 bit product, without leaving int64."""
    low = factor * (x & 0xFFFF)
    mid = (low >> 16) + factor * (x >> 16)
    return mid >> 16, ((mid & 0xFFFF) << 16) | (low & 0xFFFF)
