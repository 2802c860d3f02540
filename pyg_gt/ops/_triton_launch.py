"""Launches of Triton kernels, without what triton works out anew for each of them.

``kernel[grid](...)`` looks at every argument to find the compilation that fits, which takes longer
than the launch itself; a layer on a batch of small graphs makes a dozen launches. Here the
compilation is found by a key that tells apart all that triton tells apart, and what several
launches have in common is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._triton_again import Again


class Arguments:
    """Arguments of kernels, by name; those that several launches have in common.

    Args:
        named: the arguments.
        beside: a tensor; kernels run on its device.
    """

    def __init__(self, named: Mapping[str, Any], beside: Tensor) -> None:
        self._named, self._beside = named, beside
        self._launched: list[_Launched | None] = []
        self._kinds = {name: _kind(x) for name, x in named.items()}

    def __getitem__(self, name: str) -> Any:
        return self._named[name]

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
        named = {**self._named, **own}
        known = _KERNELS.get(id(kernel)) or _know(kernel)
        with torch.cuda.device_of(self._beside):
            if known is None:  # in the interpreter
                kernel[(grid,)](**{name: named[name] for name in kernel.arg_names}, **options)
                self._launched.append(None)
                return
            kinds = {**self._kinds, **{name: _kind(x) for name, x in own.items()}}
            key = (
                known.constants(named), known.others(kinds), *options.values(),
                self._beside.get_device(), known.knobs.runtime.debug,
                known.knobs.compilation.instrumentation_mode,
            )  # fmt: skip
            compiled = known.compiled.get(key)
            if compiled is not None:
                compiled[(grid, 1, 1)](*known.all(named))
                self._launched.append(_Launched(compiled, grid, kernel, known.all(named)))
                return
            needed = {name: named[name] for name in kernel.arg_names}
            compiled = kernel[(grid,)](**needed, **options)
            self._launched.append(None)
            if hasattr(compiled, "packed_metadata"):  # not one that is still being compiled
                known.compiled[key] = compiled
                self._launched[-1] = _Launched(compiled, grid, kernel, known.all(named))

    def again(self, tensors: Iterable[str]) -> Again | None:
        """All launches so far, to be done once more with other tensors of these names.

        None if one of them cannot: in the interpreter, or where it is still being compiled.
        """
        names = set(tensors)
        launches = []
        for launched in self._launched:
            if launched is None:
                return None
            places = [(i, x) for i, x in enumerate(launched.kernel.arg_names) if x in names]
            # nothing keeps a tensor of this call alive
            kept = [
                None if name in names else x
                for name, x in zip(launched.kernel.arg_names, launched.arguments, strict=True)
            ]
            launches.append((launched.compiled[(launched.grid, 1, 1)], kept, places))
        return Again(launches)


class _Launched(NamedTuple):
    compiled: Any
    grid: int
    kernel: Any
    arguments: tuple[Any, ...]


class _Kernel(NamedTuple):
    """What is known of a kernel.

    Attributes:
        all: takes all its arguments out of named ones, in their order.
        constants: takes out those that it is compiled for.
        others: takes out the rest, of which only the kind decides.
        compiled: its compilations so far. Triton keeps them too.
        knobs: triton's settings.
    """

    all: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    constants: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    others: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    compiled: dict[tuple[Any, ...], Any]
    knobs: Any


# By address, which a kernel keeps as long as there is its module.
_KERNELS: dict[int, _Kernel] = {}


def _know(kernel: Any) -> _Kernel | None:
    """None in the interpreter."""
    if not hasattr(kernel, "params"):
        return None
    from triton import knobs

    constants = [each.name for each in kernel.params if each.is_constexpr]
    others = [each.name for each in kernel.params if not each.is_constexpr]
    # a getter of two names or more gives a tuple
    known = _Kernel(
        itemgetter(*kernel.arg_names), itemgetter(*constants), itemgetter(*others), {}, knobs
    )
    return _KERNELS.setdefault(id(kernel), known)


def _kind(x: Any) -> Any:
    """All that triton compiles for, of an argument that is no constant."""
    if x is None:
        return None
    if isinstance(x, Tensor):
        return x.dtype, x.data_ptr() % 16 == 0
    if type(x) is int:
        return (x == 1) + 2 * (x % 16 == 0) + 4 * (-(2**31) <= x < 2**31)
    return type(x)
