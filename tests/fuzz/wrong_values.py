"""Values that an argument might get by mistake, by a label, and which of them a type allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Made = Callable[[Any], Any]

_ANY: dict[str, Made] = {
    "None": lambda valid: None,
    "''": lambda valid: "",
    "'x'": lambda valid: "x",
    "-1": lambda valid: -1,
    "0": lambda valid: 0,
    "1.5": lambda valid: 1.5,
    "True": lambda valid: True,
    "nan": lambda valid: math.nan,
    "inf": lambda valid: math.inf,
    "10**9": lambda valid: 10**9,
    "[]": lambda valid: [],
    "{}": lambda valid: {},
    "object()": lambda valid: object(),
    "tensor(0.5)": lambda valid: torch.tensor(0.5),
    "long [3]": lambda valid: torch.tensor([0, 1, 2]),
    "float [2, 3, 4]": lambda valid: torch.randn(2, 3, 4),
}

# of a tensor that is right
_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "one dimension more": lambda t: t.unsqueeze(0),
    "one dimension fewer": lambda t: t[0],
    "first dimension longer": lambda t: torch.cat([t, t[:1]]),
    "first dimension shorter": lambda t: t[:-1],
    "last dimension longer": lambda t: torch.cat([t, t[..., :1]], -1),
    "last dimension shorter": lambda t: t[..., :-1],
    "no rows": lambda t: t[:0],
    "transposed": lambda t: t.transpose(0, -1),
    "complex": lambda t: t.to(torch.complex64),
    "bool": lambda t: t.bool(),
    "other kind of number": lambda t: t.long() if t.is_floating_point() else t.float(),
    "half": lambda t: t.half(),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "nested": lambda t: torch.nested.nested_tensor([t, t]),
    "numpy": lambda t: t.numpy(),
    "list": lambda t: t.tolist(),
}
_INTEGERS: dict[str, Callable[[Tensor], Any]] = {
    "one entry -1": lambda t: _with(t, -1),
    "one entry -2**40": lambda t: _with(t, -(2**40)),
    "one entry 10**9": lambda t: _with(t, 10**9),
    "one entry 2**62": lambda t: _with(t, 2**62),
}
# without harm where a tensor of real numbers belongs, if nothing objects to it
_HARMLESS = {"half", "transposed"}


def _with(tensor: Tensor, number: int) -> Tensor:
    flat = tensor.long().flatten()
    return torch.cat([flat[:-1], torch.tensor([number])]).view(tensor.shape)


def wrong_values(valid: Any) -> dict[str, Made]:
    """What may be tried in place of ``valid``."""
    found = dict(_ANY)
    if isinstance(valid, Tensor):
        found |= _TENSORS
        if valid.dtype == torch.bool:
            del found["bool"]
        if not valid.is_floating_point() and valid.dtype != torch.bool:
            found |= _INTEGERS
    return found


def is_right(label: str, value: Any, valid: Any, annotation: str, name: str) -> bool:
    """Whether a call may take the value in silence, by the annotation of the argument.

    What no annotation can tell (a vector of another length) is wrong here; a table of what is
    right all the same stands with the calls.
    """
    if label in _HARMLESS:
        return True
    kinds = {kind.strip() for kind in annotation.replace("'", "").split("|")}
    if "bool" in kinds:
        return True  # a flag has a truth value, as everywhere in Python
    if value is None:
        return "None" in kinds
    if isinstance(value, Tensor) or label in _TENSORS:
        return False
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return bool(kinds & {"int", "float"}) and (value >= 1 or name == "seed")
    if isinstance(value, float):
        return "float" in kinds and math.isfinite(value)
    if isinstance(value, str):
        return "str" in kinds and value != ""
    if isinstance(value, (list, tuple)) and not value:
        return annotation.startswith(("tuple", "Sequence", "Iterable", "list"))
    if isinstance(value, dict):
        return annotation.startswith("dict")
    if isinstance(value, torch.nn.Module):
        return "Module" in annotation or "Any" in kinds
    if callable(value):
        return "Callable" in annotation
    return False
