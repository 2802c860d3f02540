"""Launches of Triton kernels, without what triton works out anew for each of them.

``kernel[grid](...)`` looks at every argument to find the compilation that fits, which takes longer
than a small graph does; a layer on a batch of molecules makes a dozen launches. Calls that need
the same compilations differ in addresses and a few numbers: :class:`Arguments` of the first one
are kept, and the others only write theirs in. On a batch that is known, as it is to all layers but
the first, not even the tables of its programs are looked up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._triton_direct import Direct, direct

# kinds of calls whose launches are remembered, in each thread
MAX_KNOWN = 256


class Arguments:
    """Arguments of kernels, by name; those that several launches have in common.

    Of one thread, which writes into them; see :meth:`Call.arguments`.

    Args:
        fixed: those that all calls of a kind have in common.
    """

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        self._fixed = dict(fixed)
        self._kernels: dict[tuple[Any, ...], Direct] = {}
        self._cells: dict[str, Any] = {}
        self._varying: Mapping[str, Any] = {}
        self._steps: list[_Step | None] = []
        self._device, self._stream = -1, 0
        self._is_elsewhere = self._is_watched = False

    def __getitem__(self, name: str) -> Any:
        return self._fixed[name]

    def begin(self, varying: Mapping[str, Any], beside: Tensor) -> None:
        """Takes what a call brings; its kernels run on the device of ``beside``."""
        for name, cell in self._cells.items():
            x = varying[name]
            cell.value = x.data_ptr() if isinstance(x, Tensor) else x
        self._varying, self._steps = varying, []
        self._is_watched = _is_watched()
        self._device = device = beside.get_device()
        if device >= 0:
            self._is_elsewhere = device != torch.cuda.current_device()
            self._stream = torch._C._cuda_getCurrentRawStream(device)

    def again(self, varying: Mapping[str, Any], beside: Tensor, steps: Iterable[_Step]) -> bool:
        """Launches what an earlier call did; False, before or amid, where that cannot be."""
        self.begin(varying, beside)
        self._varying = {}
        if self._is_elsewhere or self._is_watched:
            return False
        stream = self._stream
        return all([kernel(grid, own, stream) for kernel, grid, own in steps])

    def end(self) -> Again | None:
        """Lets go of the call's tensors; its launches, if all of them can be repeated."""
        self._varying, steps = {}, self._steps
        made = [step for step in steps if step is not None]
        return Again(self, made) if len(made) == len(steps) else None

    def launch(self, kernel: Any, grid: int, own: Mapping[str, Any], **options: int) -> None:
        """Runs a kernel on the current stream.

        Args:
            kernel: a function of a module, under ``triton.jit``.
            grid: number of programs; nothing happens for none.
            own: arguments of this launch alone, in place of those of the same name.
            **options: ``num_warps`` and ``num_stages``.
        """
        if not grid:
            return
        if self._is_elsewhere:
            with torch.cuda.device(self._device):
                self._launch(kernel, grid, own, options)
        else:
            self._launch(kernel, grid, own, options)

    def _launch(
        self, kernel: Any, grid: int, own: Mapping[str, Any], options: Mapping[str, int]
    ) -> None:
        others = _OTHERS.get(id(kernel)) or _know(kernel)
        key = (
            id(kernel), *options.values(),
            *[_kind(x) if name in others else x for name, x in own.items()],
        )  # fmt: skip
        ready = self._kernels.get(key)
        if ready is None or self._is_watched or not ready(grid, own, self._stream):
            named = {**self._fixed, **self._varying, **own}
            needed = {name: named[name] for name in kernel.arg_names}
            compiled = kernel[(grid,)](**needed, **options)
            if ready is None:
                varying = self._varying.keys() - own.keys()
                ready = direct(compiled, needed, varying, own, self._cells)
                if ready is not None:
                    self._kernels[key] = ready
        self._steps.append(None if ready is None else _Step(ready, grid, own))


class _Step(NamedTuple):
    kernel: Direct
    grid: int
    own: Mapping[str, Any]


class Again(NamedTuple):
    """The launches of a call, and what they read and write of it."""

    arguments: Arguments
    steps: list[_Step]


class Call(NamedTuple):
    """A call of some kernels.

    Attributes:
        key: calls of one key have kinds of :attr:`varying` and values of :attr:`fixed` in common.
        varying: tensors, numbers and None, by name.
        fixed: makes all other arguments.
        beside: a tensor on the device of the kernels.
    """

    key: tuple[Any, ...]
    varying: Mapping[str, Any]
    fixed: Callable[[], Mapping[str, Any]]
    beside: Tensor

    def done_again(self, known: Mapping[Any, Again]) -> bool:
        """Whether one of the ``known`` calls was like this one; its launches are made then."""
        again = known.get((threading.get_ident(), self.key))
        return again is not None and again.arguments.again(self.varying, self.beside, again.steps)

    def arguments(self) -> Arguments:
        """Those of an earlier call of the same key, or new ones; ready for launches."""
        knobs = _knobs()
        known: dict[Any, Arguments] = _KNOWN.__dict__
        key = (
            self.key, self.beside.get_device(), knobs.runtime.debug,
            knobs.compilation.instrumentation_mode,
        )  # fmt: skip
        made = known.get(key)
        if made is None:
            if len(known) >= MAX_KNOWN:
                known.clear()
            made = known[key] = Arguments(self.fixed())
        made.begin(self.varying, self.beside)
        return made

    def keep(self, known: dict[Any, Again], again: Again | None) -> None:
        """For later calls with the same tables of programs."""
        if again is not None:
            if len(known) >= MAX_KNOWN:
                known.clear()
            known[threading.get_ident(), self.key] = again


def likeness(x: Tensor | None) -> Any:
    """Tensors that have it in common need the same compilations, whatever their first size."""
    if x is None:
        return None
    return x.dtype, x.shape[1:], x.stride(), x.data_ptr() % 16 == 0


def number_kind(x: int) -> int:
    """Numbers that have it in common need the same compilations."""
    return (x == 1) + 2 * (x % 16 == 0) + 4 * (-(2**31) <= x < 2**31)


def _kind(x: Any) -> Any:
    """All that triton compiles for, of an argument that is no constant."""
    if isinstance(x, Tensor):
        return x.dtype, x.data_ptr() % 16 == 0
    return number_kind(x) if type(x) is int else x if x is None else type(x)


_KNOWN = threading.local()
# Names of a kernel's arguments that are no constants; by address, which it keeps as long as there
# is its module. The interpreter's kernels have no 'params', and nothing is remembered of them.
_OTHERS: dict[int, frozenset[str]] = {}


def _know(kernel: Any) -> frozenset[str]:
    params = getattr(kernel, "params", ())
    names = frozenset(each.name for each in params if not each.is_constexpr)
    return _OTHERS.setdefault(id(kernel), names)


@cache
def _knobs() -> Any:
    """Triton's settings."""
    from triton import knobs

    return knobs


def _is_watched() -> bool:
    """Whether somebody wants to be told of launches."""
    runtime = _knobs().runtime
    for hook in (runtime.launch_enter_hook, runtime.launch_exit_hook):
        if hook is not None and getattr(hook, "calls", True):
            return True
    return False
