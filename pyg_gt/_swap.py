"""Turns the PyG layers of a model into this library's, in place."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.nn import MessagePassing, TransformerConv

from .nn import FullTransformerConv, GPSConv, MaskedTransformerConv

ModelT = TypeVar("ModelT", bound=torch.nn.Module)

_TWINS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    PyGGPSConv: GPSConv,
    TransformerConv: MaskedTransformerConv,
}


def swap(model: ModelT, *, backend: str = "auto", verbose: bool = False) -> ModelT:
    """Turns every PyG ``GPSConv`` and ``TransformerConv`` in ``model`` into its faster twin.

    The objects stay the same, and so do their parameters, buffers and hooks: optimizers, tied
    modules, DDP and ``torch.compile`` go on as they are. Only the exact types are turned;
    subclasses, scripted and parametrised layers are left and listed. Swapping again is harmless.

    Args:
        model: any module; it may be such a layer itself.
        backend: for every layer that was turned, now or earlier.
        verbose: print a line for each layer.

    Returns:
        ``model``, the same object.

    Raises:
        ValueError: if ``model`` is no module.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"expected a 'torch.nn.Module' (got '{type(model).__name__}')")
    left = []
    for name, module in model.named_modules():
        name = name or "(the model itself)"
        twin = _TWINS.get(type(module))
        if twin is not None:
            _become(module, twin)
            if verbose:
                print(f"swap: {name}: {twin.__name__}")
        if type(module) in _TWINS.values():
            module.backend = backend
        elif (reason := _why_left(module)) is not None:
            left.append(f"{name} ({reason})")
            if verbose:
                print(f"swap: {name}: left, {reason}")
    if left and not verbose:
        warnings.warn(f"swap left {len(left)} layers as they are: {'; '.join(left)}", stacklevel=2)
    return model


def _become(module: torch.nn.Module, twin: type[torch.nn.Module]) -> None:
    """Assigns the class and adds only the fields that are missing."""
    fresh: MessagePassing | None = None
    if twin is GPSConv:
        # PyG's GPSConv is no MessagePassing yet: these fields come from an empty one
        fresh = GPSConv.__new__(GPSConv)
        MessagePassing.__init__(fresh, node_dim=0)
    module.__class__ = twin
    if fresh is None:
        return
    for name, value in vars(fresh).items():
        vars(module).setdefault(name, value)
    for name, child in fresh._modules.items():
        module._modules.setdefault(name, child)
    # on the module itself, since PyG then binds its 'propagate' to it
    module.explain = False  # type: ignore[assignment]
    module.norm_first = False  # type: ignore[assignment]


def _why_left(module: torch.nn.Module) -> str | None:
    """Why a relative of the layers above was not turned; None if it is none, or one of ours."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        scripted = getattr(module, "original_name", "")
        return "it is scripted" if scripted in {t.__name__ for t in _TWINS} else None
    if isinstance(module, (FullTransformerConv, *_TWINS.values())):
        return None
    for theirs in _TWINS:
        if isinstance(module, theirs):
            if hasattr(module, "parametrizations"):
                return f"it is a parametrised {theirs.__name__}"
            return f"'{kind.__name__}' is a subclass of {theirs.__name__}"
    return None
