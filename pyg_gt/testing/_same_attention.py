"""Compares a backend with the definition, in outputs and in every gradient."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from ..layout.graph_layout import GraphLayout
from ..ops import AttentionBias, attention, explain_choice

_TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def assert_same_attention(
    backend: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: GraphLayout,
    biases: AttentionBias | Sequence[AttentionBias] = (),
    *,
    query_layout: GraphLayout | None = None,
    scale: float | None = None,
    captured: Sequence[Tensor] = (),
    tolerance: float | None = None,
) -> None:
    """Compares a backend with the reference, in outputs and in every gradient.

    The gradients are those of the tensors that require one: ``query``, ``key``, ``value``, the
    fields of the biases, and what their functions capture.

    Args:
        backend (str): The name of the backend.
        query (torch.Tensor): ``[Nq, H, C]``.
        key (torch.Tensor): ``[Nk, H, C]``.
        value (torch.Tensor): ``[Nk, H, C]``.
        layout (GraphLayout): How the keys are split into graphs.
        biases (AttentionBias or list, optional): One bias or several, added to the scores.
            (default: :obj:`()`)
        query_layout (GraphLayout, optional): How the queries are split; :obj:`None` is as the
            keys. (default: :obj:`None`)
        scale (float, optional): The factor of the scores; :obj:`None` is that of ``attention``.
            (default: :obj:`None`)
        captured (list[torch.Tensor], optional): Tensors that a ``ScoreMod`` reads.
            (default: :obj:`()`)
        tolerance (float, optional): The largest difference, relative to the largest number of the
            tensor (or to 1, if that is more); :obj:`None` goes by the dtype of ``query``.
            (default: :obj:`None`)

    Raises:
        ValueError: for wrong arguments.
        AssertionError: naming what differs, and by how much.
        NotImplementedError: if the backend cannot run these inputs.
    """
    # which refuses what cannot be compared, with a message
    explain_choice(query, key, value, layout, biases, query_layout=query_layout, scale=scale)
    biases = (biases,) if isinstance(biases, AttentionBias) else tuple(biases)
    if tolerance is None:
        tolerance = _TOLERANCE[query.dtype]
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not tolerance >= 0:
        raise ValueError(f"'tolerance' must be a number of at least 0 (got {tolerance!r})")
    if not isinstance(captured, (list, tuple)) or not all(isinstance(x, Tensor) for x in captured):
        raise ValueError(f"'captured' must hold tensors (got {captured!r})")
    named = {"query": query, "key": key, "value": value}
    for i, bias in enumerate(biases):
        fields = vars(bias).items()
        kind = f"biases[{i}].{type(bias).__name__}"
        named |= {f"{kind}.{name}": x for name, x in fields if isinstance(x, Tensor)}
    named |= {f"captured[{i}]": x for i, x in enumerate(captured)}
    leaves = {name: x for name, x in named.items() if x.requires_grad}

    def run(name: str) -> dict[str, Tensor]:
        out = attention(
            query, key, value, layout, biases, query_layout=query_layout, scale=scale, backend=name
        )
        if not leaves:
            return {"the output": out}
        wave = torch.arange(out.numel(), device=out.device).view(out.shape).cos().to(out.dtype)
        gradients = torch.autograd.grad(out, list(leaves.values()), wave, materialize_grads=True)
        results = zip(leaves, gradients, strict=True)
        return {"the output": out.detach(), **{f"the gradient of {n}": g for n, g in results}}

    actual, expected = run(backend), run("reference")
    for what, want in expected.items():
        got = actual[what]
        if got.shape != want.shape or got.dtype != want.dtype:
            raise AssertionError(
                f"{what} on '{backend}' is {list(got.shape)} of {got.dtype}, expected "
                f"{list(want.shape)} of {want.dtype}"
            )
        if want.numel() == 0:
            continue
        allowed = tolerance * max(1.0, float(want.abs().max()))
        difference = float((got - want).abs().max())
        if not difference <= allowed:  # also where it is NaN
            raise AssertionError(
                f"{what} on '{backend}' differs from the reference by {difference:.3g} (allowed: "
                f"{allowed:.3g})"
            )
