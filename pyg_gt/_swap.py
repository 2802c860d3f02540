"""Turns the PyG layers of a model into this library's, in place."""

from __future__ import annotations

import warnings
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch_geometric.nn import GPSConv as PyGGPSConv
from torch_geometric.nn import MessagePassing, TransformerConv

from .nn import FullTransformerConv, GPSConv, MaskedTransformerConv
from .ops.dispatch import check_backend

ModelT = TypeVar("ModelT", bound=torch.nn.Module)

_TWINS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    PyGGPSConv: GPSConv,
    TransformerConv: MaskedTransformerConv,
}
_LAYERS = (FullTransformerConv, GPSConv, MaskedTransformerConv)
# the backend that ``swap`` last set on a layer, to tell it from a choice of the user's
_SET_BY_SWAP: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()


def swap(model: ModelT, *, backend: str | None = None, verbose: bool = False) -> ModelT:
    """Turns every PyG ``GPSConv`` and ``TransformerConv`` in ``model`` into its twin of here.

    The objects stay the same, and so do their parameters, buffers and hooks: optimizers, tied
    modules, DDP and ``torch.compile`` go on as they are. Only the exact types are turned;
    subclasses, scripted and parametrised layers are left and listed. Swapping again is harmless.
    There is a warning if no layer of these kinds is in ``model``.

    Args:
        model (torch.nn.Module): Any module; it may be such a layer itself.
        backend (str, optional): Which attention backend runs, for layers that are turned now or
            were earlier. A backend that was chosen for one layer (by its constructor, or by
            setting ``layer.backend``) is kept. None: ``"auto"`` for layers that are turned now,
            nothing new for others. (default: :obj:`None`)
        verbose (bool): Print a line for each layer. (default: :obj:`False`)

    Returns:
        ``model``, the same object.

    Raises:
        ValueError: If ``model`` is no module, or there is no such backend.

    Example:
        >>> import pyg_gt
        >>> from torch_geometric.nn import GPSConv
        >>> model = pyg_gt.swap(GPSConv(16, None, heads=4), verbose=True)
        swap: (the model itself): GPSConv
        >>> type(model).__module__.split(".")[0]
        'pyg_gt'
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"expected a 'torch.nn.Module' (got '{type(model).__name__}')")
    if backend is not None:
        check_backend(backend)
    lines, left, kept = [], [], []
    for name, module in model.named_modules():
        name = name or "(the model itself)"
        twin = _TWINS.get(type(module))
        if twin is not None:
            _become(module, twin)
            lines.append(f"{name}: {twin.__name__}")
        if type(module) in _TWINS.values():
            if twin is None:
                lines.append(f"{name}: {type(module).__name__} already")
            if not _set_backend(module, backend, turned=twin is not None):
                kept.append(f"{name} ('{module.backend}')")
                lines[-1] += f", keeps backend='{module.backend}'"
        elif (reason := _reason_to_leave(module)) is not None:
            left.append(f"{name} ({reason})")
            lines.append(f"{name}: left, {reason}")
        elif isinstance(module, _LAYERS):
            lines.append(f"{name}: {type(module).__name__} already")
    if verbose:
        for line in lines:
            print(f"swap: {line}")
    elif left:
        warnings.warn(f"swap left {len(left)} layers as they are: {'; '.join(left)}", stacklevel=2)
    if kept and not verbose:
        warnings.warn(
            f"swap kept the backend of {len(kept)} layers, for which another than "
            f"backend='{backend}' had been chosen: {'; '.join(kept)}",
            stacklevel=2,
        )
    if not lines:
        warnings.warn(
            f"swap found no 'torch_geometric.nn.GPSConv' or 'TransformerConv' in this "
            f"'{type(model).__name__}', and changed nothing",
            stacklevel=2,
        )
    return model


def _set_backend(module: torch.nn.Module, backend: str | None, turned: bool) -> bool:
    """Sets the backend of a layer of ours; False if it keeps another that was chosen for it."""
    if turned:
        module.backend = "auto"  # type: ignore[assignment]
    if backend is None or module.backend == backend:
        return True
    if module.backend not in ("auto", _SET_BY_SWAP.get(module)):
        return False
    module.backend = _SET_BY_SWAP[module] = backend  # type: ignore[assignment]
    return True


def _become(module: torch.nn.Module, twin: type[torch.nn.Module]) -> None:
    """Assigns the class and adds only the fields that are missing."""
    empty: MessagePassing | None = None
    if twin is GPSConv:
        # PyG's GPSConv is no MessagePassing yet: these fields come from an empty one
        empty = GPSConv.__new__(GPSConv)
        MessagePassing.__init__(empty, node_dim=0)
    module.__class__ = twin
    if empty is None:
        return
    for name, value in vars(empty).items():
        vars(module).setdefault(name, value)
    for name, child in empty._modules.items():
        module._modules.setdefault(name, child)
    # on the module itself, since PyG then binds its 'propagate' to it
    module.explain = False  # type: ignore[assignment]
    module.norm_first = False  # type: ignore[assignment]


def _reason_to_leave(module: torch.nn.Module) -> str | None:
    """Why a relative of the layers above was not turned; None if it is none, or one of ours."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        scripted = getattr(module, "original_name", "")
        return "it is scripted" if scripted in {t.__name__ for t in _TWINS} else None
    if isinstance(module, _LAYERS):
        return None
    for kind_of_pyg in _TWINS:
        if isinstance(module, kind_of_pyg):
            if hasattr(module, "parametrizations"):
                return f"it is a parametrised {kind_of_pyg.__name__}"
            return f"'{kind.__name__}' is a subclass of {kind_of_pyg.__name__}"
    return None
