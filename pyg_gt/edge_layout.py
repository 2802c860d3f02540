"""An edge set, checked and ordered once for all layers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_edge_index

from ._identity import IdentityCache, is_readable, remember, unwrapped
from .layout import GraphLayout

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class EdgeLayout:
    r"""The edges along which attention runs, checked to lie in range.

    Make one with :meth:`of`, which finds it again when it is given the same edge set.

    Attributes:
        edge_index: ``[2, E]`` int64, key nodes above query nodes, in the caller's edge order.
        num_src: number of key nodes.
        num_dst: number of query nodes.
    """

    edge_index: Tensor
    num_src: int
    num_dst: int
    _made: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lets an op that is handed :attr:`edge_index` find this layout again."""
        if is_readable(self.edge_index):
            owner = _BY_OWN_EDGES.get(self.edge_index)
            if owner is None or owner() is None:  # a shallow copy leaves it to the original
                _BY_OWN_EDGES.put(self.edge_index, weakref.ref(self))

    @staticmethod
    def of(
        edges: Any,
        num_src: int,
        num_dst: int | None = None,
        flow: str = "source_to_target",
    ) -> EdgeLayout | DeferredEdges:
        """The layout of an edge set in any of PyG's forms.

        Args:
            edges: ``edge_index [2, E]`` (also an ``EdgeIndex``), or the transposed adjacency as
                ``torch_sparse.SparseTensor`` or ``torch.sparse`` tensor ``[num_dst, num_src]``.
            num_src: number of key nodes.
            num_dst: number of query nodes; None: as many as key nodes.
            flow: as in PyG: which row of ``edge_index`` sends.

        Raises:
            ValueError: if ``edges`` has the wrong type or shape.
            IndexError: if an index is out of range.
        """
        num_dst = num_src if num_dst is None else num_dst
        if isinstance(edges, (EdgeLayout, DeferredEdges)):
            if (edges.num_src, edges.num_dst) != (num_src, num_dst):
                raise ValueError(
                    f"this edge layout joins {edges.num_src} key and {edges.num_dst} query nodes, "
                    f"but there are {num_src} and {num_dst}"
                )
            if isinstance(edges, EdgeLayout) and is_readable(edges.edge_index):
                return edges
            # of traced code that runs by now, or does not
            edges, flow = edges.edge_index, "source_to_target"
        keys, read = _keys_and_reader(edges, flow, [num_dst, num_src])
        if not is_readable(keys[0]):
            return DeferredEdges(read(), num_src, num_dst)
        own = _BY_OWN_EDGES.get(keys[0])
        wanted = (num_src, num_dst, flow, *((id(key), _version(key)) for key in keys[1:]))
        known = own() if own is not None and flow == "source_to_target" else None
        if known is not None and (known.num_src, known.num_dst) == (num_src, num_dst):
            return known
        made = _BY_EDGES.get(keys[0])
        if made is not None and made[0] == wanted and all(r() is not None for r in made[1]):
            return made[2]
        layout = _made_from(read, num_src, num_dst)
        _BY_EDGES.put(keys[0], (wanted, [weakref.ref(key) for key in keys[1:]], layout))
        return layout

    @property
    def source(self) -> Tensor:
        """``[E]``, the key node of each edge."""
        return self.edge_index[0]

    @property
    def target(self) -> Tensor:
        """``[E]``, the query node of each edge."""
        return self.edge_index[1]

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What a backend needs to make only once per edge set (CSR, block tables)."""
        return remember(self._made, key, make)

    @property
    def num_edges(self) -> int:
        """``E``."""
        return self.edge_index.size(1)

    @property
    def by_target(self) -> tuple[Tensor, Tensor]:
        """CSR: ``ptr [num_dst + 1]`` and the edge numbers ``[E]``, target by target."""
        return self.once("by_target", lambda: _csr(self.target, self.num_dst))

    @property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """The transposed CSR: ``ptr [num_src + 1]`` and the edge numbers ``[E]``."""
        return self.once("by_source", lambda: _csr(self.source, self.num_src))

    @property
    def has_repeats(self) -> bool:
        """Whether an edge stands twice; reads the device once."""

        def find() -> bool:
            pairs = (self.target * max(self.num_src, 1) + self.source).sort().values
            return bool((pairs[1:] == pairs[:-1]).any())

        return self.once("has_repeats", find)

    def check_within_graphs(self, query_layout: GraphLayout, layout: GraphLayout) -> None:
        """Raises ``ValueError`` if an edge joins two graphs; reads the device once."""
        if layout.num_graphs <= 1:
            return
        key = ("within", weakref.ref(query_layout), weakref.ref(layout))
        if key in self._made:
            return
        crossing = query_layout.batch[self.target] != layout.batch[self.source]
        if bool(crossing.any()):
            edge = int(crossing.nonzero()[0])
            source, target = int(self.source[edge]), int(self.target[edge])
            raise ValueError(
                f"edge {edge} joins node {source} of graph {int(layout.batch[source])} to node "
                f"{target} of graph {int(query_layout.batch[target])}; attention stays inside a "
                f"graph. Drop such edges, or use one graph for all nodes ('batch=None')"
            )
        self.once(key, lambda: True)

    def __reduce__(self) -> tuple[Any, ...]:
        return EdgeLayout, (self.edge_index, self.num_src, self.num_dst)

    def __repr__(self) -> str:
        return (
            f"EdgeLayout(num_edges={self.num_edges}, num_src={self.num_src}, "
            f"num_dst={self.num_dst}, device='{self.source.device}')"
        )


@dataclass(frozen=True, eq=False)
class DeferredEdges:
    """What traced code holds in place of an edge layout.

    Attributes:
        edge_index: ``[2, E]``, key nodes and query nodes, not yet checked.
        num_src: number of key nodes.
        num_dst: number of query nodes.
    """

    edge_index: Tensor
    num_src: int
    num_dst: int


_Made = tuple[tuple[Any, ...], list["weakref.ref[Tensor]"], EdgeLayout]
_BY_EDGES: IdentityCache[_Made] = IdentityCache()
_BY_OWN_EDGES: IdentityCache[weakref.ref[EdgeLayout]] = IdentityCache()


def _keys_and_reader(
    edges: Any, flow: str, shape: list[int]
) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """The tensors that stand for the edge set, and how to read ``[2, E]`` (source, target)."""
    if isinstance(edges, SparseTensor) or is_torch_sparse_tensor(edges):
        if flow != "source_to_target":
            raise ValueError(
                f"a sparse adjacency holds targets as rows, so the flow must be "
                f"'source_to_target' (got '{flow}'); pass the transposed adjacency instead"
            )
        got = list(edges.sizes() if isinstance(edges, SparseTensor) else edges.shape)
        if got[:2] != shape:
            raise ValueError(
                f"the transposed adjacency must have shape [num_dst, num_src] = {shape} "
                f"(got {got})"
            )
        if isinstance(edges, SparseTensor):
            # '.set_value()' gives a new object around the same rows and columns
            storage = edges.storage
            keys = [storage.col(), storage.row()]
            return keys, lambda: torch.stack([storage.col(), storage.row()])
        # the parts of a torch.sparse tensor are made anew at each access; the tensor is not
        return [edges], lambda: to_edge_index(edges)[0].flip(0)
    if not isinstance(edges, Tensor):
        raise ValueError(
            f"edges must be an 'edge_index' tensor, a 'SparseTensor' or a 'torch.sparse' tensor "
            f"(got '{type(edges).__name__}')"
        )
    if edges.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(
            f"'edge_index' must hold integers (got {edges.dtype}); convert it with '.long()'"
        )
    if edges.dim() != 2 or edges.size(0) != 2:
        raise ValueError(f"'edge_index' must have shape [2, E] (got {list(edges.shape)})")
    if flow not in ("source_to_target", "target_to_source"):
        raise ValueError(
            f"'flow' must be 'source_to_target' or 'target_to_source' (got '{flow}')"
        )

    def read() -> Tensor:
        plain = edges.as_tensor() if isinstance(edges, EdgeIndex) else edges
        plain = plain.detach().long()
        return plain if flow == "source_to_target" else plain.flip(0)

    return [edges], read


@torch.inference_mode(False)
def _made_from(read: Callable[[], Tensor], num_src: int, num_dst: int) -> EdgeLayout:
    edge_index = unwrapped(read())
    if edge_index.is_inference():  # training could not save it
        edge_index = edge_index.clone()
    _check_range(edge_index[0], num_src, "source")
    _check_range(edge_index[1], num_dst, "target")
    return EdgeLayout(edge_index, num_src, num_dst)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _check_range(index: Tensor, size: int, name: str) -> None:
    if index.numel() == 0:
        return
    if index.is_cuda:  # no sync: the device reports it, as with PyG's own gather
        low, high = index.aminmax()
        torch._assert_async((low >= 0) & (high < size), f"a {name} index is out of range")
        return
    first, last = (int(x) for x in index.aminmax())
    if first < 0 or last >= size:
        raise IndexError(
            f"Found {name} index {first if first < 0 else last} in 'edge_index', but there are "
            f"{size} {name} nodes: indices must lie in [0, {size})"
        )


def _csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    counts = index.new_zeros(size + 1).index_add_(0, index + 1, torch.ones_like(index))
    return counts.cumsum(0), index.argsort(stable=True)
