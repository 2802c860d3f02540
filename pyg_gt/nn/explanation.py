"""The attention route and backend of each layer of a model, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from .attention.route import AttentionRoute

_ROUTES = {
    "fused": "fused attention",
    "messages": "PyG's messages",
    "padded": "padded batch",
    "module": "module of its own",
}


def _attends(module: torch.nn.Module) -> bool:
    """Whether a layer computes attention by ``_attend``, and says how by ``_attention_route``.

    Its class is asked: wrappers hand on the attributes of what they wrap.
    """
    return all(hasattr(type(module), name) for name in ("_attend", "_attention_route"))


class Explanation(Mapping[str, AttentionRoute]):
    """How each attention layer of a model ran: a mapping from module paths to routes.

    Printed, it is a table. A layer that was called more than once has a row for each call, and one
    that was not called has none.

    Attributes:
        not_called: Paths of the layers that the model did not call.
    """

    def __init__(
        self,
        routes: Mapping[str, AttentionRoute],
        classes: Mapping[str, str],
        not_called: tuple[str, ...] = (),
    ) -> None:
        self._routes = dict(routes)
        self._classes = dict(classes)
        self.not_called = not_called

    def __getitem__(self, path: str) -> AttentionRoute:
        return self._routes[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def __repr__(self) -> str:
        if not self._routes and not self.not_called:
            return (
                "No attention layer of 'pyg_gt' in this model; "
                "'pyg_gt.swap' turns PyG's into them."
            )
        rows = [("layer", "class", "route", "backend", "why")]
        for path, route in self._routes.items():
            ran = route.backend or "-"
            if route.name == "fused" and route.requested != "auto":
                ran += f" (asked for: {route.requested})"
            rows.append((path, self._classes[path], _ROUTES[route.name], ran, route.reason or ""))
        for path in self.not_called:
            rows.append((path, self._classes[path], "not called", "-", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for choices, paths in self._by_choices():
            width = max(map(len, choices))
            lines += ["", f"Backends for {', '.join(paths)}:"]
            lines += [f"  {name.ljust(width)}  {line}" for name, line in choices.items()]
        return "\n".join(lines)

    def _by_choices(self) -> list[tuple[dict[str, str], list[str]]]:
        """The lines of the backends, each set once, with the layers that they are for."""
        found: list[tuple[dict[str, str], list[str]]] = []
        for path, route in self._routes.items():
            if not route.choices:
                continue
            for choices, paths in found:
                if choices == route.choices:
                    paths.append(path)
                    break
            else:
                found.append((route.choices, [path]))
        return found


def explain(model: torch.nn.Module, /, *inputs: Any, **kwargs: Any) -> Explanation:
    """Which route and backend each attention layer of ``model`` takes, and why.

    The model runs forward once, in the mode in which it is (training or evaluation) and with
    gradients where they are enabled, since backends are chosen by that too. It is left as it was:
    buffers, gradients and random numbers are those of before (hooks of the caller's are called).
    A compiled model runs uncompiled. A layer whose ``backend`` refuses its inputs is reported, and
    runs with ``"auto"``.

    Args:
        model (torch.nn.Module): Any module.
        *inputs (optional): Its arguments, such as a batch, or ``data.x``, ``data.edge_index`` and
            ``data.batch``.
        **kwargs (optional): Its arguments by name.

    Returns:
        A mapping from the path of each layer that was called to its
        :class:`~pyg_gt.nn.attention.route.AttentionRoute`, which prints as a table.

    Raises:
        ValueError: If ``model`` is no module, or has lazy parameters that no call has made yet.

    Example:
        >>> import torch
        >>> import pyg_gt
        >>> from pyg_gt.nn import TransformerBlock
        >>> block = TransformerBlock(8, heads=2, backend="reference")
        >>> print(pyg_gt.explain(block, torch.randn(3, 8)))  # doctest: +ELLIPSIS
        layer               class             route            backend ...
        (the model itself)  TransformerBlock  fused attention  reference (asked for: reference)
        ...
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"expected a 'torch.nn.Module' (got '{type(model).__name__}')")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"'{name}' is made by the first call of this model, which must not be this one: "
                f"call the model once before"
            )
    layers = {_path(name): module for name, module in model.named_modules() if _attends(module)}
    routes: dict[str, AttentionRoute] = {}
    classes = {path: type(layer).__name__ for path, layer in layers.items()}
    called: set[str] = set()
    with ExitStack() as stack:
        stack.enter_context(_random_numbers_kept(model, inputs, kwargs))
        stack.enter_context(_buffers_kept(model))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for path, layer in layers.items():
            stack.enter_context(_recorded(layer, path, routes, classes, called))
        model(*inputs, **kwargs)
    return Explanation(routes, classes, tuple(path for path in layers if path not in called))


def _path(name: str) -> str:
    """The name of a module, without the wrappers of ``torch.compile``."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    return ".".join(parts) or "(the model itself)"


@contextmanager
def _recorded(
    layer: Any,
    path: str,
    routes: dict[str, AttentionRoute],
    classes: dict[str, str],
    called: set[str],
) -> Iterator[None]:
    """Asks ``layer`` for its route each time that it attends."""
    attend, backend = layer._attend, layer.backend

    def record(*args: Any) -> Any:
        calls = sum(1 for name in routes if name == path or name.startswith(f"{path} (call "))
        name = f"{path} (call {calls + 1})" if calls else path
        layer.backend = backend
        routes[name] = route = layer._attention_route(*args)
        classes[name] = classes[path]
        called.add(path)
        if route.is_refused:
            layer.backend = "auto"
        return attend(*args)

    # an attribute of this one object, so that layers pay nothing for it
    outer = vars(layer).get("_attend")  # of an explanation that called this model
    vars(layer)["_attend"] = record
    try:
        yield
    finally:
        del vars(layer)["_attend"]
        if outer is not None:
            vars(layer)["_attend"] = outer
        layer.backend = backend


@contextmanager
def _buffers_kept(model: torch.nn.Module) -> Iterator[None]:
    """Has ``model`` run on copies of its buffers, such as the statistics of norms."""
    copies: dict[int, Tensor] = {}
    kept = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        for module, buffers in kept:
            for name, buffer in buffers.items():
                if buffer is not None:
                    if id(buffer) not in copies:
                        copies[id(buffer)] = buffer.clone()
                    module._buffers[name] = copies[id(buffer)]
        yield
    finally:
        for module, buffers in kept:  # also those that the call has added or filled
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def _random_numbers_kept(model: torch.nn.Module, *arguments: Any) -> Iterator[None]:
    """Leaves torch's generators as they were, on the CPU and wherever the tensors lie."""
    tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
    tensors += [*model.parameters(), *model.buffers()]
    devices = sorted({x.device.index for x in tensors if x.is_cuda})
    with torch.random.fork_rng(devices):
        yield
