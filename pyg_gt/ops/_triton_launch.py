"""Launches of Triton kernels, without what triton works out anew for each of them.

``kernel[grid](...)`` looks at every argument to find the compilation that fits, which takes longer
than a small graph does; a layer on a batch of molecules makes a dozen launches. Calls that need
the same compilations differ in addresses and a few numbers: :class:`Arguments` of the first one
are kept, and the others only write theirs in.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._triton_direct import Direct, direct, number

# kinds of calls whose arguments are remembered, in each thread
MAX_KNOWN = 256


class Step(NamedTuple):
    """A launch: a kernel, its number of programs, and arguments of it alone."""

    kernel: Direct
    grid: int
    own: Mapping[str, Any]


class Arguments:
    """Arguments of kernels, by name; those that several launches have in common.

    Of one thread, which writes into them; see :meth:`Call.arguments`.

    Args:
        fixed: those that all calls of a kind have in common.
        tensors: names of the tensors that each call brings.

    Attributes:
        addresses: where those tensors lie, in their order.
        writer: number of the call that wrote all other cells last, see ``_triton_again``.
    """

    def __init__(self, fixed: Mapping[str, Any], tensors: Sequence[str]) -> None:
        self._fixed = dict(fixed)
        self._kernels: dict[tuple[Any, ...], Direct] = {}
        self.addresses = (ctypes.c_uint64 * len(tensors))()
        self._cells: dict[str, Any] = {
            name: ctypes.c_uint64.from_buffer(self.addresses, 8 * place)
            for place, name in enumerate(tensors)
        }
        self._tensors = frozenset(tensors)
        self._varying: Mapping[str, Any] = {}
        self._steps: list[Step | None] = []
        self._device, self._stream = -1, 0
        self._is_elsewhere = self._is_watched = False
        self.writer = -1

    def __getitem__(self, name: str) -> Any:
        return self._fixed[name]

    def begin(self, varying: Mapping[str, Any], beside: Tensor) -> None:
        """Takes what a call brings; its kernels run on the device of ``beside``."""
        self.writer = -1
        for name, cell in self._cells.items():
            cell.value = number(varying[name])
        self._varying, self._steps = varying, []
        self._is_watched = is_watched()
        self._device = device = beside.get_device()
        if device >= 0:
            self._is_elsewhere = device != torch.cuda.current_device()
            self._stream = torch._C._cuda_getCurrentRawStream(device)

    def end(self) -> Made | None:
        """Lets go of the call's tensors; its launches, if all of them can be repeated."""
        cells = self._cells.items()
        others = [(x, self._varying[name]) for name, x in cells if name not in self._tensors]
        self._varying, steps = {}, self._steps
        made = [step for step in steps if step is not None]
        # of one kernel twice, each launch writes what the other has written
        if len({id(step.kernel) for step in made}) < len(steps):
            return None
        return Made(self, made, others)

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
        self._steps.append(None if ready is None else Step(ready, grid, own))


class Made(NamedTuple):
    """The launches of a call.

    Attributes:
        arguments: what they have in common.
        steps: one for each.
        others: cells of what is no tensor of the call, with what the call wrote into them.
    """

    arguments: Arguments
    steps: list[Step]
    others: list[tuple[Any, Any]]


class Call(NamedTuple):
    """A call of some kernels.

    Attributes:
        key: calls of one key have kinds of :attr:`varying` and values of :attr:`fixed` in common.
        varying: tensors, numbers and None, by name.
        tensors: names of those of them that a call brings or makes, in an order of their own.
        fixed: makes all other arguments.
        beside: a tensor on the device of the kernels.
    """

    key: tuple[Any, ...]
    varying: Mapping[str, Any]
    tensors: Sequence[str]
    fixed: Callable[[], Mapping[str, Any]]
    beside: Tensor

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
            made = known[key] = Arguments(self.fixed(), self.tensors)
        made.begin(self.varying, self.beside)
        return made


def likeness(x: Tensor | None) -> Any:
    """Tensors that have it in common need the same compilations, whatever their first size."""
    if x is None:
        return None
    strides = x.stride()
    if len(strides) == 2 and strides[0] == 1:  # the other one is told as a number
        strides = (1,)
    return x.dtype, x.shape[1:], strides, x.data_ptr() % 16 == 0


def number_kind(x: int) -> int:
    """Numbers that have it in common need the same compilations."""
    return (x == 1) + 2 * (x % 16 == 0) + 4 * (-(2**31) <= x < 2**31)


def is_watched() -> bool:
    """Whether somebody wants to be told of launches."""
    runtime = _knobs().runtime
    for hook in (runtime.launch_enter_hook, runtime.launch_exit_hook):
        if hook is not None and getattr(hook, "calls", True):
            return True
    return False


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
