"""Random numbers that are the same on every device: Philox-4x32-10 (Salmon et al. 2011).

Which attention weights are dropped, for a seed (its low and high 32 bits are the key):

- Full attention: query row ``r`` (its number when nodes stand graph by graph), the key at position
  ``j`` of its graph, head ``h``: word ``j & 3`` of counter ``(j >> 2, r, h, 0)``.
- Along edges: edge ``e`` (the caller's number), head ``h``: word ``h & 3`` of counter
  ``(e & 0xffffffff, e >> 32, h >> 2, 1)``.

A weight is kept where its word, as an unsigned integer, is at least ``min(floor(p * 2^32),
2^32 - 1)``; what is kept is multiplied by ``1 / (1 - p)``. At ``p = 1`` every factor is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def draw_seed(device: torch.device) -> Tensor:
    """A fresh seed ``[1]`` from torch's generator, as a tensor: no sync, and safe to trace."""
    return torch.randint(0, 2**63 - 1, (1,), device=device)


def philox(seed: Tensor, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> Tensor:
    """``[..., 4]`` int64, the four 32-bit words of each counter.

    Bit for bit what ``triton.language.philox(seed, c0, c1, c2, c3)`` gives.

    Args:
        seed: ``[1]`` int64.
        c0: ``[...]`` int64, the first 32-bit word of each counter; the counters broadcast.
        c1: ``[...]``, the second.
        c2: ``[...]``, the third.
        c3: ``[...]``, the fourth.
    """
    key = seed.reshape(())
    k0, k1 = key & _LOW, (key >> 32) & _LOW
    for _ in range(10):
        high2, low2 = _multiply(0xCD9E8D57, c2)
        high0, low0 = _multiply(0xD2511F53, c0)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return torch.stack([c0, c1, c2, c3], -1)


def keep_pairs(
    seed: Tensor,
    rows: Tensor,
    positions: Tensor,
    heads: int,
    dropout_p: float,
    dtype: torch.dtype,
) -> Tensor:
    """Dropout factors ``[..., H]`` of pairs: 0, or 1 / (1 - p) where the weight is kept.

    Args:
        seed: ``[1]`` int64.
        rows: ``[...]`` int64, the numbers of the queries, graph by graph.
        positions: ``[...]`` int64, the places of the keys in their graphs; broadcasts with rows.
        heads: ``H``.
        dropout_p: probability of a zero.
        dtype: of the result.
    """
    head = torch.arange(heads, device=rows.device)
    rows, positions = rows.unsqueeze(-1), positions.unsqueeze(-1)
    words = philox(seed, positions >> 2, rows, head, torch.zeros_like(head))  # [..., H, 4]
    which = (positions & 3).unsqueeze(-1).expand(*words.shape[:-1], 1)
    return _factors(words.gather(-1, which).squeeze(-1), dropout_p, dtype)


def keep_rows(
    seed: Tensor, rows: Tensor, width: int, heads: int, dropout_p: float, dtype: torch.dtype
) -> Tensor:
    """``[..., width, H]``: :func:`keep_pairs` of the first keys of each graph, at a quarter of it.

    Args:
        seed: ``[1]`` int64.
        rows: ``[...]`` int64, the numbers of the queries, graph by graph.
        width: number of keys.
        heads: ``H``.
        dropout_p: probability of a zero.
        dtype: of the result.
    """
    quad = torch.arange((width + 3) // 4, device=rows.device).unsqueeze(-1)
    head = torch.arange(heads, device=rows.device)
    words = philox(seed, quad, rows[..., None, None], head, torch.zeros_like(head))
    words = words.transpose(-1, -2).flatten(-3, -2)  # [..., width + 3 at most, H]
    return _factors(words[..., :width, :], dropout_p, dtype)


def keep_edges(
    seed: Tensor, numbers: Tensor, heads: int, dropout_p: float, dtype: torch.dtype
) -> Tensor:
    """Dropout factors ``[..., H]`` of edges: 0, or 1 / (1 - p) where the weight is kept.

    Args:
        seed: ``[1]`` int64.
        numbers: ``[...]`` int64, the caller's numbers of the edges.
        heads: ``H``.
        dropout_p: probability of a zero.
        dtype: of the result.
    """
    quad = torch.arange((heads + 3) // 4, device=numbers.device)
    numbers = numbers.unsqueeze(-1)
    words = philox(seed, numbers & _LOW, numbers >> 32, quad, torch.ones_like(quad))
    words = words.flatten(-2)  # [..., H + 3 at most]
    return _factors(words[..., :heads], dropout_p, dtype)


def threshold(dropout_p: float) -> int:
    """The smallest word that keeps a weight; not for traced code."""
    return min(int(dropout_p * 2**32), 2**32 - 1)


def _factors(words: Tensor, dropout_p: float, dtype: torch.dtype) -> Tensor:
    # words >= threshold in float64, which holds words exactly: the 'int' of a traced number comes
    # out of inductor's cache as that of an earlier p (torch 2.13)
    kept = words.double() + 1 > dropout_p * 2.0**32
    return kept.to(dtype) * (0.0 if dropout_p >= 1 else 1 / (1 - dropout_p))


def _multiply(factor: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low halves of a 32 x 32 bit product, without leaving int64."""
    low = factor * (x & 0xFFFF)
    mid = (low >> 16) + factor * (x >> 16)
    return mid >> 16, ((mid & 0xFFFF) << 16) | (low & 0xFFFF)
