"""The ragged shape of a batch of graphs.

Letters used in every docstring of this package: N nodes, B graphs, M nodes of the largest graph,
E edges, P = sum over graphs of n^2 (ordered pairs), F channels, H heads, C channels per head.
"""

from __future__ import annotations

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

from ._identity import IdentityCache, is_readable, remember, unwrapped

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class GraphLayout:
    r"""How ``N`` nodes are split into ``B`` graphs. Made once per batch, shared by all layers.

    Make one with :meth:`from_batch`, :meth:`from_ptr`, :meth:`from_sizes` or :meth:`from_data`;
    layers call :meth:`of`. It can ride on a PyG batch: it has :meth:`to` and :meth:`pin_memory`.

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
    _made: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lets an op that is handed :attr:`batch` find this layout again."""
        if is_readable(self.batch):
            owner = _BY_OWN_BATCH.get(self.batch)
            if owner is None or owner() is None:  # a shallow copy leaves it to the original
                _BY_OWN_BATCH.put(self.batch, weakref.ref(self))

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
            device = sizes.device if device is None else device
            sizes = sizes.tolist()
        host = tuple(int(n) for n in sizes)
        if any(n < 0 for n in host) or any(n != s for n, s in zip(host, sizes, strict=True)):
            raise ValueError(f"'sizes' must hold integers of at least 0 (got {list(sizes)})")
        return cls._of_sizes(host, torch.device("cpu" if device is None else device))

    @classmethod
    def from_ptr(cls, ptr: Tensor, ptr_host: Sequence[int] | None = None) -> GraphLayout:
        """From PyG's ``ptr [B + 1]``; with ``ptr_host`` (the same numbers) nothing is synced.

        Raises:
            ValueError: if ``ptr`` does not begin at 0 or falls somewhere.
        """
        _check_integers("ptr", ptr)
        if ptr.numel() == 0:
            raise ValueError("'ptr' must have shape [num_graphs + 1], so at least one element")
        host = ptr.tolist() if ptr_host is None else [int(p) for p in ptr_host]
        if len(host) != ptr.numel():
            raise ValueError(f"'ptr_host' has {len(host)} numbers, 'ptr' has {ptr.numel()}")
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
        # the caller's object must not be held, and training cannot save an inference tensor
        batch = batch.clone() if batch.is_inference() else batch.detach()
        # in numpy, whose operations on few numbers take a fifth of the time of torch's
        host = _in_numpy(batch.to("cpu", torch.int64))
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
        sizes = np.bincount(host, minlength=num_graphs)
        order = None
        if not in_order:
            places = torch.from_numpy(host.argsort(kind="stable"))
            order = unwrapped(places.to(batch.device, non_blocking=True))
        return cls._of_sizes(sizes, batch.device, batch.long(), order)

    @classmethod
    def from_data(cls, data: Data) -> GraphLayout:
        """From a PyG ``Data`` or ``Batch`` without a host sync; meant for a collate function.

        Raises:
            ValueError: if ``data`` is not a homogeneous PyG graph, or a batch that lost both its
                slices and its ``ptr``.
        """
        if not isinstance(data, Data):
            raise ValueError(
                f"expected a 'torch_geometric.data.Data' or 'Batch' (got '{type(data).__name__}')"
            )
        ptr = data.get("ptr")
        device = data.batch.device if data.get("batch") is not None else _device_of(data)
        if not isinstance(data, Batch) and ptr is None:
            return cls.from_sizes([int(data.num_nodes or 0)], device)
        if isinstance(ptr, Tensor) and ptr.device.type == "cpu":
            return cls.from_ptr(ptr) if device.type == "cpu" else cls.from_ptr(ptr).to(device)
        # what a Batch was made of stays on the host when its tensors move
        before = getattr(data, "_inc_dict", {}).get("edge_index")
        if isinstance(before, Tensor) and before.dim() == 1 and before.device.type == "cpu":
            return cls._from_host([*before.tolist(), int(data.num_nodes)], device)
        # without edges, what has as many rows as there are nodes belongs to the nodes
        for name, slices in getattr(data, "_slice_dict", {}).items():
            if data.is_node_attr(name) and int(slices[-1]) == data.num_nodes:
                return cls._from_host([int(s) for s in slices], device)
        raise ValueError(
            "this batch has neither 'ptr' on the host nor slices of a node attribute; use "
            "'GraphLayout.from_batch(data.batch)', which copies it to the host once"
        )

    @classmethod
    def _from_host(cls, ptr: list[int], device: torch.device) -> GraphLayout:
        # 'torch.tensor(ptr, device=...)' would wait for the device
        return cls.from_ptr(torch.tensor(ptr).to(device, non_blocking=True), ptr)

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
            _check_num_nodes(batch.num_nodes, num_nodes, "layout")
            if not is_readable(batch.batch):
                return DeferredLayout(batch.batch, num_nodes, batch.num_graphs)
            return batch
        if isinstance(batch, DeferredLayout):  # made in traced code that runs by now, or does not
            _check_num_nodes(batch.num_nodes, num_nodes, "layout")
            known = None if batch.num_graphs < 0 else batch.num_graphs
            return GraphLayout.of(batch.batch, num_nodes, known, device)
        if batch is None:
            if not is_readable(torch.empty(0, device=device)):
                return DeferredLayout(None, num_nodes, 1)
            return _single(num_nodes, torch.device("cpu" if device is None else device))
        _check_integers("batch", batch)
        _check_num_nodes(batch.size(0), num_nodes, "batch")
        if not is_readable(batch):
            return DeferredLayout(batch, num_nodes, -1 if num_graphs is None else num_graphs)
        own = _BY_OWN_BATCH.get(batch)
        for made in (None if own is None else own(), _BY_BATCH.get(batch)):
            if made is not None and num_graphs in (None, made.num_graphs):
                return made
        made = GraphLayout.from_batch(batch, num_graphs)
        _BY_BATCH.put(batch, made)
        return made

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What a backend needs to make only once per layout (buckets, block tables)."""
        return remember(self._made, key, make)

    @property
    def pos(self) -> Tensor:
        """``[N]`` int64, the place of each node in its graph; made when first asked for."""
        if torch.compiler.is_compiling():  # which can trace neither 'once' nor 'unwrapped'
            return self._places()
        return self.once("pos", lambda: unwrapped(self._places()))

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
        ptr = torch.from_numpy(host).to(device, non_blocking=True)
        if batch is None:
            batch = torch.repeat_interleave(ptr.diff(), output_size=num_nodes)
        known = tuple(np.diff(host).tolist())
        return cls(
            ptr=unwrapped(ptr),
            batch=unwrapped(batch),
            num_nodes=num_nodes,
            num_graphs=len(known),
            max_nodes=max(known, default=0),
            sizes=known,
            order=order,
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


@lru_cache(maxsize=2)
def _single(num_nodes: int, device: torch.device) -> GraphLayout:
    # whole-graph training calls this with one size all along
    return GraphLayout._of_sizes((num_nodes,), device)


def _flatten(layout: GraphLayout) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    tensors = [layout.ptr, layout.batch, layout.order]
    return tensors, (layout.num_nodes, layout.num_graphs, layout.max_nodes, layout.sizes)


def _unflatten(tensors: Any, rest: Any) -> GraphLayout:
    ptr, batch, order = tensors
    num_nodes, num_graphs, max_nodes, sizes = rest
    return GraphLayout(ptr, batch, num_nodes, num_graphs, max_nodes, sizes, order)


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


def _in_numpy(tensor: Tensor) -> npt.NDArray[np.int64]:
    if torch._C._functorch.is_batchedtensor(tensor):
        raise ValueError(
            "'batch' cannot be mapped over by 'torch.vmap': the sizes of graphs, by which tensors "
            "are shaped, would differ between its calls; loop over them, or keep it out"
        )
    # inside a transform of 'torch.func' even a plain tensor does not tell where it lies
    with torch._C._DisableFuncTorch():
        numbers: npt.NDArray[np.int64] = unwrapped(tensor).numpy()
    return numbers


def _device_of(data: Data) -> torch.device:
    for value in data.to_dict().values():
        if isinstance(value, Tensor):
            return value.device
    return torch.device("cpu")


def _check_integers(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"'{name}' must be a tensor (got '{type(tensor).__name__}')")
    if tensor.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(
            f"'{name}' must hold integers (got {tensor.dtype}); convert it with '.long()'"
        )
    if tensor.dim() != 1:
        raise ValueError(f"'{name}' must be a vector (got shape {list(tensor.shape)})")


def _check_num_nodes(described: int, num_nodes: int, name: str) -> None:
    if described != num_nodes:
        raise ValueError(
            f"'{name}' describes {described} nodes, but there are {num_nodes}; pass the one that "
            f"belongs to these node features"
        )


def _shorten(numbers: list[int]) -> str:
    return str(numbers) if len(numbers) <= 10 else f"{numbers[:9]} and more"
