"""The ragged shape of a batch of graphs.

Letters used in every docstring of this package: N nodes, B graphs, M nodes of the largest graph,
E edges, P = sum over graphs of n^2 (ordered pairs), F channels, H heads, C channels per head.
"""

from __future__ import annotations

import numbers
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch_geometric.data import Batch, Data

from .identity import (
    IdentityCache,
    cached,
    check_not_captured,
    check_not_mapped,
    in_numpy,
    is_readable,
    is_recorded,
    is_traced,
    same_numbers,
    unwrapped,
    version_of,
)

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class GraphLayout:
    r"""How ``N`` nodes are split into ``B`` graphs. Made once per batch, shared by all layers.

    Make one with :meth:`from_batch`, :meth:`from_ptr`, :meth:`from_sizes` or :meth:`from_data`;
    layers call :meth:`of`. It can ride on a PyG batch: it has :meth:`to` and :meth:`pin_memory`.
    It owns its numbers and means what it meant when it was made, whatever happens to the tensors
    that it was made from.

    Attributes:
        ptr: ``[B + 1]`` int64, where each graph begins when nodes stand graph by graph.
        batch: ``[N]`` int64, the graph of each node, in the caller's node order.
        num_nodes: ``N``.
        num_graphs: ``B``; graphs without nodes count.
        max_nodes: ``M``.
        sizes: nodes of each graph, on the host.
        order: ``[N]`` int64, the nodes graph by graph, or None where the caller's order is that.
    """

    ptr: Tensor
    batch: Tensor
    num_nodes: int
    num_graphs: int
    max_nodes: int
    sizes: tuple[int, ...]
    order: Tensor | None = None
    _cache: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Takes copies of what a caller gave by hand, and checks that it describes one batch.

        Raises:
            ValueError: if the fields contradict each other.
        """
        tensors = [_own(name, getattr(self, name)) for name in ("ptr", "batch", "order")]
        sizes = tuple(_whole_numbers("sizes", self.sizes))
        rest = self.num_nodes, self.num_graphs, self.max_nodes, sizes
        _check_contents(tensors, rest)
        vars(self).update(zip(("ptr", "batch", "order"), tensors, strict=True), sizes=rest[3])
        self._register()

    @classmethod
    def _from_own(cls, tensors: Sequence[Tensor | None], rest: tuple[Any, ...]) -> GraphLayout:
        """From parts that nobody else holds and that are known to fit."""
        if any(x is not None and x.is_inference() for x in tensors):
            with torch.inference_mode(False):  # training could not save them
                tensors = [None if x is None else x.clone() for x in tensors]
        layout = object.__new__(cls)
        vars(layout).update(zip(_FIELDS, (*tensors, *rest), strict=True), _cache={})
        layout._register()
        return layout

    def _register(self) -> None:
        """Lets an op that is handed :attr:`batch` find this layout again."""
        vars(self)["_handed_out"] = []
        if is_readable(self.batch):
            tensors = self.ptr, self.batch, self.order
            vars(self)["_handed_out"] = [(x, version_of(x)) for x in tensors if x is not None]
            owner = _BY_OWN_BATCH.get_unedited(self.batch)
            if owner is None or owner() is None:  # a shallow copy leaves it to the original
                _BY_OWN_BATCH.put(self.batch, weakref.ref(self))

    def is_edited(self) -> bool:
        """Whether somebody wrote to the tensors of this layout."""
        if torch.compiler.is_compiling():
            return False
        for x, version in vars(self)["_handed_out"]:  # in half the time of a generator
            if version_of(x) != version:
                return True
        return False

    def check_unedited(self) -> None:
        """Raises ``ValueError`` if somebody wrote to the tensors of this layout."""
        if self.is_edited():
            raise ValueError(
                "the tensors of this 'GraphLayout' were edited in place, but a layout is frozen: "
                "its sizes and the tables of backends would not follow. Make a new one, for "
                "instance with 'GraphLayout.from_batch'"
            )

    @classmethod
    def from_sizes(
        cls, sizes: Sequence[int] | Tensor, device: torch.device | str | None = None
    ) -> GraphLayout:
        """From the number of nodes of each graph, ``[B]``; nodes stand graph by graph.

        Raises:
            ValueError: if a size is negative or not an integer.
        """
        if isinstance(sizes, Tensor):
            _check_integers("sizes", sizes)
            _check_values("sizes", sizes)
            _check_not_recorded("sizes")
            device = sizes.device if device is None else device
            sizes = sizes.tolist()
        host = tuple(_whole_numbers("sizes", sizes))
        if any(n < 0 for n in host):
            raise ValueError(f"'sizes' must hold integers of at least 0 (got {_shorten(host)})")
        return cls._of_sizes(host, _device(device))

    @classmethod
    def from_ptr(cls, ptr: Tensor, ptr_host: Sequence[int] | None = None) -> GraphLayout:
        """From PyG's ``ptr [B + 1]``; with ``ptr_host`` (the same numbers) nothing is synced.

        Raises:
            ValueError: if ``ptr`` does not begin at 0 or falls somewhere.
        """
        _check_integers("ptr", ptr)
        _check_not_recorded("ptr")
        if ptr.numel() == 0:
            raise ValueError("'ptr' must have shape [num_graphs + 1], so at least one element")
        if ptr_host is None:
            _check_values("ptr", ptr)
        host = ptr.tolist() if ptr_host is None else _whole_numbers("ptr_host", ptr_host)
        if len(host) != ptr.numel():
            raise ValueError(f"'ptr_host' has {len(host)} numbers, 'ptr' has {ptr.numel()}")
        if ptr_host is not None and ptr.is_cpu and ptr.tolist() != host:
            raise ValueError(
                f"'ptr_host' must hold the numbers of 'ptr' (got {_shorten(host)} and "
                f"{_shorten(ptr.tolist())})"
            )
        sizes = tuple(b - a for a, b in zip(host, host[1:], strict=False))
        if host[0] != 0 or any(n < 0 for n in sizes):
            raise ValueError(f"'ptr' must begin at 0 and never fall (got {_shorten(host)})")
        return cls._of_sizes(sizes, ptr.device)

    @classmethod
    @torch.inference_mode(False)
    def from_batch(cls, batch: Tensor, num_graphs: int | None = None) -> GraphLayout:
        """From PyG's ``batch [N]``, sorted or not; costs one copy of it to the host.

        Raises:
            ValueError: if ``batch`` is not a vector of integers, holds a negative number, or a
                number that ``num_graphs`` does not allow.
        """
        _check_integers("batch", batch)
        _check_values("batch", batch)
        if num_graphs is not None:
            check_count("num_graphs", num_graphs)
        check_not_mapped("batch", batch, "the sizes of graphs, by which tensors are shaped")
        # copied: a layout owns its numbers, and training cannot save an inference tensor
        own = unwrapped(batch).to(torch.int64, copy=True)
        host = in_numpy(own)
        in_order = bool((host[1:] >= host[:-1]).all())
        low, high = 0, -1
        if host.size:
            low, high = map(int, (host[0], host[-1]) if in_order else (host.min(), host.max()))
        if low < 0:
            raise ValueError(f"'batch' must not hold negative numbers (got {low})")
        if num_graphs is None:
            num_graphs = high + 1
        elif high >= num_graphs:
            raise ValueError(
                f"'batch' names graph {high}, but there are only {num_graphs} graphs; "
                f"pass a larger 'num_graphs' or leave it out"
            )
        if num_graphs > max(_MANY_GRAPHS, 16 * host.size):
            raise ValueError(
                f"{host.size} nodes in {num_graphs} graphs (the largest number in 'batch' is "
                f"{high}, or 'num_graphs' says so): graphs are numbered from 0 without gaps, and "
                f"each takes memory. "
                f"Number them anew with 'batch.unique(return_inverse=True)[1]'"
            )
        sizes = np.bincount(host, minlength=num_graphs)
        order = None
        if not in_order:
            places = torch.from_numpy(host.argsort(kind="stable"))
            order = unwrapped(places.to(batch.device, non_blocking=True))
        return cls._of_sizes(sizes, batch.device, own, order)

    @classmethod
    def from_data(cls, data: Data) -> GraphLayout:
        """From a PyG ``Data`` or ``Batch``; in a collate function it never waits for a device.

        Goes by ``data.batch`` where it is there, else by ``data.ptr``; without either there is
        one graph. A ``batch`` on an accelerator is copied to the host once.

        Args:
            data: the graphs. Of a ``Batch``, graphs without nodes count.

        Raises:
            ValueError: if ``data`` is not a homogeneous PyG graph, contradicts itself, or is a
                batch that lost both ``batch`` and ``ptr``.
        """
        if not isinstance(data, Data):
            raise ValueError(
                f"expected a 'torch_geometric.data.Data' or 'Batch' (got '{type(data).__name__}')"
            )
        batch, ptr = data.get("batch"), data.get("ptr")
        num_nodes = int(data.num_nodes or 0)
        if batch is not None:
            _check_integers("batch", batch)
            check_num_nodes(batch.numel(), num_nodes, "data.batch")
            if not is_readable(batch):
                raise ValueError(
                    "the graphs of 'data.batch' are needed, and a tensor without values (meta, "
                    "fake) does not tell them; make the layout before and use its '.to'"
                )
            known = data.num_graphs if isinstance(data, Batch) else None
            if known is None and isinstance(ptr, Tensor):
                known = ptr.numel() - 1
            layout = cls.from_batch(batch, known)
            if isinstance(ptr, Tensor) and ptr.is_cpu:
                _check_ptr(ptr, layout)
            return layout
        if ptr is not None:
            layout = cls.from_ptr(ptr)
            check_num_nodes(layout.num_nodes, num_nodes, "data.ptr")
            return layout
        if isinstance(data, Batch):
            raise ValueError(
                "this batch has neither 'batch' nor 'ptr', by which its nodes are told apart; "
                "keep one of them, or use 'GraphLayout.from_sizes'"
            )
        return cls.from_sizes([num_nodes], _device_of(data))

    @staticmethod
    def of(
        batch: Tensor | GraphLayout | DeferredLayout | None,
        num_nodes: int,
        num_graphs: int | None = None,
        device: torch.device | str | None = None,
    ) -> GraphLayout | DeferredLayout:
        """What layers call: the layout of ``batch``, found again if it was made before.

        Args:
            batch: a layout (returned as it is), ``batch [N]``, or None for one graph.
            num_nodes: ``N``, checked against ``batch``.
            num_graphs: ``B``, where it is known; PyG's ``batch`` does not show trailing empty
                graphs.
            device: where the layout of ``batch=None`` lies.

        Returns:
            A :class:`GraphLayout`; inside ``torch.compile`` or with tensors that hold no values,
            a :class:`DeferredLayout`.

        Raises:
            ValueError: if ``batch`` is of the wrong type or describes another number of nodes.
        """
        if isinstance(batch, GraphLayout):
            check_num_nodes(batch.num_nodes, num_nodes, "layout")
            if not is_readable(batch.batch):
                return DeferredLayout(batch.batch, num_nodes, batch.num_graphs)
            batch.check_unedited()
            return batch
        if isinstance(batch, DeferredLayout):  # made in traced code that runs by now, or does not
            check_num_nodes(batch.num_nodes, num_nodes, "layout")
            known = None if batch.num_graphs < 0 else batch.num_graphs
            return GraphLayout.of(batch.batch, num_nodes, known, device)
        if batch is None:
            device = _device(device)
            if not _holds_values(device):
                return DeferredLayout(None, num_nodes, 1)
            layout = _single(num_nodes, device)
            if layout.is_edited():  # which must not be everybody else's
                _single.cache_clear()
                layout = _single(num_nodes, device)
            return layout
        _check_integers("batch", batch)
        check_num_nodes(batch.size(0), num_nodes, "batch")
        if not is_readable(batch):
            return DeferredLayout(batch, num_nodes, -1 if num_graphs is None else num_graphs)
        check_not_captured(
            "batch", batch, "Make a 'GraphLayout' before the capture and pass it: all replays are "
            "then of graphs of these sizes"
        )  # fmt: skip
        return layout_of(batch, num_graphs)

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """What a backend needs to make only once per layout (buckets, block tables)."""
        return cached(self._cache, key, make)

    @property
    def pos(self) -> Tensor:
        """``[N]`` int64, the place of each node in its graph; made when first asked for."""
        if torch.compiler.is_compiling():  # which can trace neither 'cached' nor 'unwrapped'
            return self._places()
        return self.cached("pos", self._places_handed_out)

    def _places_handed_out(self) -> Tensor:
        places = unwrapped(self._places())
        vars(self)["_handed_out"].append((places, version_of(places)))
        return places

    def _places(self) -> Tensor:
        places = torch.arange(self.num_nodes, device=self.device)
        if self.order is None:
            return places - self.ptr[self.batch]
        starts = self.ptr[self.batch[self.order]]
        return torch.empty_like(places).index_copy(0, self.order, places - starts)

    @property
    def device(self) -> torch.device:
        """Where :attr:`ptr` and :attr:`batch` lie."""
        return self.ptr.device

    @property
    def num_pairs(self) -> int:
        """``P``, the ordered pairs of nodes of one graph, over all graphs."""
        return sum(n * n for n in self.sizes)

    def to(self, *args: Any, **kwargs: Any) -> GraphLayout:
        """The layout on another device; takes the arguments of ``Tensor.to`` but no dtype."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> GraphLayout:
        """The layout in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> GraphLayout:
        tensors, rest = _flatten(self)
        mapped = [None if t is None else function(t) for t in tensors]
        if any(t is not None and t.dtype != torch.int64 for t in mapped):
            raise ValueError("a 'GraphLayout' holds int64 numbers: '.to' cannot change that")
        if all(a is b for a, b in zip(tensors, mapped, strict=True)):
            return self
        return _unflatten(mapped, rest)

    @classmethod
    @torch.inference_mode(False)
    def _of_sizes(
        cls,
        sizes: Sequence[int] | npt.NDArray[np.int64],
        device: torch.device,
        batch: Tensor | None = None,
        order: Tensor | None = None,
    ) -> GraphLayout:
        host = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=host[1:])
        num_nodes = int(host[-1])
        if not 0 <= num_nodes < 2**40:  # or 'batch' alone would take eight terabytes
            raise ValueError(
                f"the sizes of these graphs add up to more nodes than a machine can hold (the "
                f"largest has {max(int(n) for n in sizes)})"
            )
        ptr = torch.from_numpy(host).to(device, non_blocking=True)
        if batch is None:
            batch = torch.repeat_interleave(ptr.diff(), output_size=num_nodes)
        known = tuple(np.diff(host).tolist())
        return cls._from_own(
            (unwrapped(ptr), unwrapped(batch), order),
            (num_nodes, len(known), max(known, default=0), known),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        tensors, rest = _flatten(self)
        return _unflatten, (tensors, rest)

    def __repr__(self) -> str:
        return (
            f"GraphLayout(num_nodes={self.num_nodes}, num_graphs={self.num_graphs}, "
            f"max_nodes={self.max_nodes}, device='{self.device}')"
        )


@dataclass(frozen=True, eq=False)
class DeferredLayout:
    """What traced code holds in place of a layout: the tensor by which an op finds it.

    Attributes:
        batch: ``[N]``, or None for one graph.
        num_nodes: ``N``.
        num_graphs: ``B``, or -1 where only the values of ``batch`` tell.
    """

    batch: Tensor | None
    num_nodes: int
    num_graphs: int


_BY_BATCH: IdentityCache[GraphLayout] = IdentityCache()
_BY_OWN_BATCH: IdentityCache[weakref.ref[GraphLayout]] = IdentityCache()


def layout_of(
    batch: Tensor, num_graphs: int | None = None, *, by_value: bool = False
) -> GraphLayout:
    """The layout of ``batch [N]``, made before or now; for code that runs, not traced.

    Args:
        batch: the graph of each node.
        num_graphs: ``B``, where it is known.
        by_value: compare numbers on an accelerator too, which waits for it.
    """
    if num_graphs is not None:
        check_count("num_graphs", num_graphs)
    own = _BY_OWN_BATCH.get_unedited(batch)
    made = None if own is None else own()
    if made is not None and num_graphs in (None, made.num_graphs) and _is_intact(made):
        return made
    found = _BY_BATCH.get(
        batch, num_graphs, lambda known: same_numbers(known.batch, batch), by_value=by_value
    )
    if found is not None and not found.is_edited():
        return found
    made = GraphLayout.from_batch(batch, num_graphs)
    for kind in {num_graphs, made.num_graphs}:
        _BY_BATCH.put(batch, made, kind)
    return made


def _is_intact(layout: GraphLayout) -> bool:
    """Whether the ``batch`` that a layout handed out still says what its sizes say."""
    if not layout.batch.is_cpu:
        return True
    graph = in_numpy(layout.batch)
    if layout.order is not None:
        graph = graph[in_numpy(layout.order)]
    return bool((graph == np.repeat(np.arange(layout.num_graphs), layout.sizes)).all())


# whole-graph training has one size all along, bipartite layers two, sampled ones some
@lru_cache(maxsize=8)
def _single(num_nodes: int, device: torch.device) -> GraphLayout:
    return GraphLayout._of_sizes((num_nodes,), device)


_FIELDS = ("ptr", "batch", "order", "num_nodes", "num_graphs", "max_nodes", "sizes")

# graphs beyond this, and 16 times as many as there are nodes, are a mistake
_MANY_GRAPHS = 2**20


def _flatten(layout: GraphLayout) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    tensors = [layout.ptr, layout.batch, layout.order]
    return tensors, (layout.num_nodes, layout.num_graphs, layout.max_nodes, layout.sizes)


def _unflatten(tensors: Any, rest: Any) -> GraphLayout:
    return GraphLayout._from_own(tuple(tensors), tuple(rest))


def _flatten_with_keys(layout: GraphLayout) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    tensors, rest = _flatten(layout)
    keys = [pytree.GetAttrKey(name) for name in ("ptr", "batch", "order")]
    return list(zip(keys, tensors, strict=True)), rest


pytree.register_pytree_node(
    GraphLayout,
    _flatten,
    _unflatten,
    flatten_with_keys_fn=_flatten_with_keys,
    serialized_type_name="pyg_gt.GraphLayout",
    to_dumpable_context=list,
    from_dumpable_context=lambda rest: (*rest[:3], tuple(rest[3])),
)


def _own(name: str, tensor: Any) -> Tensor | None:
    if name == "order" and tensor is None:
        return None
    _check_integers(name, tensor)
    with torch.inference_mode(False):
        copy: Tensor = unwrapped(tensor).to(torch.int64, copy=True)
    return copy


def _check_contents(tensors: Sequence[Tensor | None], rest: tuple[Any, ...]) -> None:
    ptr, batch, order = tensors
    num_nodes, num_graphs, max_nodes, sizes = rest
    for name, tensor in zip(("ptr", "batch", "order"), tensors, strict=True):
        if tensor is not None:
            _check_values(name, tensor)
    assert ptr is not None and batch is not None
    host = GraphLayout.from_sizes(sizes)
    counts = {
        "num_nodes": (num_nodes, host.num_nodes),
        "num_graphs": (num_graphs, host.num_graphs),
        "max_nodes": (max_nodes, host.max_nodes),
        "the length of 'batch'": (batch.numel(), host.num_nodes),
    }
    wrong = [f"{name} is {got}, not {want}" for name, (got, want) in counts.items() if got != want]
    if not wrong and is_readable(batch):
        graph = batch.cpu()
        if order is not None:
            if not torch.equal(order.cpu().sort().values, torch.arange(num_nodes, device="cpu")):
                wrong.append("'order' does not name each node once")
            else:
                graph = graph[order.cpu()]
        if not torch.equal(ptr.cpu(), host.ptr):
            wrong.append(f"'ptr' is {_shorten(ptr.tolist())}, not {_shorten(host.ptr.tolist())}")
        elif not wrong and not torch.equal(graph, host.batch):
            wrong.append("'batch', in that order, does not give graphs of these sizes")
    if wrong:
        raise ValueError(
            f"the fields of this 'GraphLayout' contradict 'sizes': {'; '.join(wrong)}. Make it "
            f"with 'GraphLayout.from_batch' or another of its constructors"
        )


def _check_ptr(ptr: Tensor, layout: GraphLayout) -> None:
    """``Data.subgraph`` leaves the ``ptr`` of before, which is seen by its end, and not used."""
    if int(ptr[-1]) == layout.num_nodes and not torch.equal(ptr.long(), layout.ptr.cpu()):
        raise ValueError(
            f"'data.batch' counts {_shorten(list(layout.sizes))} nodes in its graphs, but "
            f"'data.ptr' {_shorten(ptr.diff().tolist())}; drop the one that is wrong"
        )


def _device_of(data: Data) -> torch.device:
    for value in data.to_dict().values():
        if isinstance(value, Tensor):
            return value.device
    return torch.device("cpu")


def check_count(name: str, number: object) -> None:
    """Raises ``ValueError`` unless ``number`` is a whole number of at least 0."""
    if type(number) is int and number >= 0:
        return
    # traced code has whole numbers of types of its own, whose values nobody may ask for
    if isinstance(number, torch.SymInt) or (isinstance(number, Tensor) and is_traced()):
        return
    whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    if not whole or number < 0:  # type: ignore[operator]
        raise ValueError(f"'{name}' must be a whole number of at least 0 (got {number!r})")


def _whole_numbers(name: str, given: Any) -> list[int]:
    try:
        whole = [int(n) for n in given]
        fits = all(n == g and abs(n) < 2**62 for n, g in zip(whole, given, strict=True))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        fits = False
    if not fits:
        shown = list(given) if isinstance(given, (list, tuple)) else given
        raise ValueError(f"'{name}' must hold integers of at least 0 (got {shown!r})")
    return whole


def _device(device: Any) -> torch.device:
    try:
        return torch.device("cpu" if device is None else device)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"'device' must name a device (got {device!r})") from error


def _holds_values(device: torch.device) -> bool:
    """Whether a tensor made now on ``device`` would hold values that the host can read."""
    if torch.compiler.is_compiling() or device.type == "meta" or torch._C._is_tracing():
        return False
    # without a mode that makes them, there are no fake tensors
    return torch._C._len_torch_dispatch_stack() == 0 or is_readable(torch.empty(0, device=device))


def _check_values(name: str, tensor: Tensor) -> None:
    if tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor):
        raise ValueError(f"'{name}' holds no values (it is meta or fake), and they are needed")


def _check_integers(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"'{name}' must be a tensor (got '{type(tensor).__name__}')")
    if tensor.is_nested or tensor.layout is not torch.strided:
        kind = "nested" if tensor.is_nested else str(tensor.layout)
        raise ValueError(f"'{name}' must be a dense tensor of integers (got one that is {kind})")
    if tensor.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(
            f"'{name}' must hold integers (got {tensor.dtype}); convert it with '.long()'"
        )
    if tensor.dim() != 1:
        raise ValueError(f"'{name}' must be a vector (got shape {list(tensor.shape)})")


def _check_not_recorded(name: str) -> None:
    """Raises ``RuntimeError`` where the sizes of the example's graphs would be constants."""
    if not torch.compiler.is_compiling() and is_recorded():
        raise RuntimeError(
            f"'{name}' is read on the host, and 'torch.jit.trace' and 'make_fx' would keep its "
            f"numbers as constants: hand the layer a 'batch', or use 'torch.export.export'"
        )


def check_num_nodes(described: int, num_nodes: int, name: str) -> None:
    """Raises ``ValueError`` if a layout or a ``batch`` is of another number of nodes."""
    if described != num_nodes:
        raise ValueError(
            f"'{name}' describes {described} nodes, but there are {num_nodes}; pass the one that "
            f"belongs to these node features"
        )


def _shorten(numbers: Sequence[int]) -> str:
    return str(list(numbers)) if len(numbers) <= 10 else f"{list(numbers[:9])} and more"
