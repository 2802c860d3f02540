"""Launches of Triton kernels: by triton, or without what it works out anew for each of them.

``kernel[grid](...)`` looks at every argument to find the compilation that fits, which takes longer
than a small graph does; a layer on a batch of molecules makes a dozen launches. Calls that need
the same compilations differ in addresses and a few numbers: where
:func:`~.replay.replays`, :class:`KeptArguments` of the first one are kept, and
the others only write theirs in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .again import Again, Block, Part
from .direct import Direct, direct, is_watched, knobs, number
from .replay import replays

# kinds of calls whose arguments are remembered, in each thread
MAX_KNOWN = 256


class Step(NamedTuple):
    """A launch: a kernel, its number of programs, arguments of it alone, and triton's options."""

    kernel: Any
    grid: int
    own: Mapping[str, Any]
    options: Mapping[str, int]


class Arguments:
    """Arguments of kernels, by name; those that several launches have in common.

    See :meth:`Call.arguments`.

    Args:
        fixed: those that all calls of a kind have in common.
    """

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        self._fixed = dict(fixed)
        self._varying: Mapping[str, Any] = {}
        self._steps: list[Step] = []
        self._device = -1

    def __getitem__(self, name: str) -> Any:
        return self._fixed[name]

    def begin(self, varying: Mapping[str, Any], beside: Tensor) -> None:
        """Takes what a call brings; its kernels run on the device of ``beside``."""
        self._varying, self._steps = varying, []
        self._device = beside.get_device()

    def launch(self, kernel: Any, grid: int, own: Mapping[str, Any], **options: int) -> None:
        """Adds a launch to those that :meth:`end` makes.

        Args:
            kernel: a function of a module, under ``triton.jit``.
            grid: number of programs; nothing happens for none.
            own: arguments of this launch alone, in place of those of the same name.
            **options: ``num_warps`` and ``num_stages``.
        """
        if grid:
            self._steps.append(Step(kernel, grid, own, options))

    def end(self) -> Again | None:
        """Runs the kernels on the current stream, and lets go of the call's tensors.

        Returns:
            What runs them once more with other tensors, if that can be done.
        """
        try:
            if self._device < 0:
                self._launch_each()
            else:
                with torch.cuda.device(self._device):
                    self._launch_each()
            return None
        finally:
            self._varying, self._steps = {}, []

    def _launch_each(self) -> None:
        for kernel, grid, own, options in self._steps:
            kernel[(grid,)](**self._named(kernel, own), **options)

    def _named(self, kernel: Any, own: Mapping[str, Any]) -> dict[str, Any]:
        named = {**self._fixed, **self._varying, **own}
        return {name: named[name] for name in kernel.arg_names}


class KeptArguments(Arguments):
    """Arguments that are written where the driver reads them, of one thread.

    Args:
        fixed: those that all calls of a kind have in common.
        tensors: names of the tensors that each call brings.
    """

    def __init__(self, fixed: Mapping[str, Any], tensors: Sequence[str]) -> None:
        super().__init__(fixed)
        self._kernels: dict[tuple[Any, ...], Direct] = {}
        self._tensors = tuple(tensors)
        self._block = Block(len(tensors))
        self._cells: dict[str, Any] = dict(zip(tensors, self._block.cells(), strict=True))

    def end(self) -> Again | None:
        """As of :class:`Arguments`; kernels that ran before go without triton's launcher."""
        try:
            again = self._again()
            tensors = [self._varying[name] for name in self._tensors]
            if self._steps and (again is None or not again(tensors, self._device)):
                self._one_by_one()
                again = self._again()
            return again
        finally:
            self._varying, self._steps = {}, []

    def _again(self) -> Again | None:
        kernels = [self._kernels.get(_key(step)) for step in self._steps]
        # of one kernel twice, each launch writes what the other has written
        if not kernels or None in kernels or len(set(map(id, kernels))) < len(kernels):
            return None
        cells = list(self._cells.items())[len(self._tensors) :]
        others = [(cell, self._varying[name]) for name, cell in cells]
        steps = zip(kernels, self._steps, strict=True)
        return Again(self._block, others, [Part(k, s.grid, s.own) for k, s in steps if k])

    def _one_by_one(self) -> None:
        self._block.writer = -1
        for name, cell in self._cells.items():
            cell.value = number(self._varying[name])
        if self._device < 0:
            self._launch_all(0)
        else:
            with torch.cuda.device(self._device):
                self._launch_all(torch._C._cuda_getCurrentRawStream(self._device))

    def _launch_all(self, stream: int) -> None:
        watched = is_watched()
        for step in self._steps:
            kernel, grid, own, options = step
            key = _key(step)
            ready = self._kernels.get(key)
            if ready is not None and not watched and ready(grid, own, stream):
                continue
            needed = self._named(kernel, own)
            compiled = kernel[(grid,)](**needed, **options)
            if ready is None:
                varying = self._varying.keys() - own.keys()
                ready = direct(compiled, needed, varying, own, self._cells)
                if ready is not None:
                    self._kernels[key] = ready


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
        if not replays():
            plain = Arguments(self.fixed())
            plain.begin(self.varying, self.beside)
            return plain
        settings = knobs()
        known: dict[Any, KeptArguments] = _KNOWN.__dict__
        key = (
            self.key, self.beside.get_device(), settings.runtime.debug,
            settings.compilation.instrumentation_mode,
        )  # fmt: skip
        made = known.get(key)
        if made is None:
            if len(known) >= MAX_KNOWN:
                known.clear()
            made = known[key] = KeptArguments(self.fixed(), self.tensors)
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


def _key(step: Step) -> tuple[Any, ...]:
    """Launches that have it in common need one compilation."""
    kernel, _, own, options = step
    others = _OTHERS.get(id(kernel)) or _know(kernel)
    return (
        id(kernel), *options.values(),
        *[_kind(x) if name in others else x for name, x in own.items()],
    )  # fmt: skip


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
