"""An edge set, checked and ordered once for all layers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_edge_index

from .graph_layout import GraphLayout, check_count
from .identity import (
    IdentityCache,
    cached,
    check_not_captured,
    check_not_mapped,
    in_numpy,
    is_readable,
    same_numbers,
    unwrapped,
    version_of,
)

T = TypeVar("T")
Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


@dataclass(frozen=True, eq=False, repr=False, init=False)
class EdgeLayout:
    r"""The edges along which attention runs, checked to lie in range.

    Make one with :meth:`of`, which finds it again when it is given the same edge set. It owns its
    numbers (8 bytes an edge) and means what it meant when it was made.

    Args:
        edge_index: ``[2, E]`` of integers, key nodes above query nodes.
        num_src: number of key nodes.
        num_dst: number of query nodes.

    Attributes:
        ends: ``[2, E]``, key nodes above query nodes, in the caller's edge order; int32 where
            node numbers fit.
        num_src: number of key nodes.
        num_dst: number of query nodes.

    Raises:
        ValueError: if ``edge_index`` has the wrong type or shape.
        IndexError: if an index is out of range.
    """

    ends: Tensor
    num_src: int
    num_dst: int

    def __init__(self, edge_index: Tensor, num_src: int, num_dst: int) -> None:
        check_count("num_src", num_src)
        check_count("num_dst", num_dst)
        source, target = _rows_of(edge_index, "source_to_target", [num_dst, num_src]).rows
        if not is_readable(source):
            raise ValueError("'edge_index' holds no values (meta, fake, traced); they are checked")
        self._fill(source, target, num_src, num_dst)

    def _fill(self, source: Tensor, target: Tensor, num_src: int, num_dst: int) -> None:
        few = max(num_src, num_dst) < 2**31
        # training could not save an inference tensor, and wrappers outlive their transform
        with torch.inference_mode(False), torch._C._DisableFuncTorch():
            source, target = unwrapped(source), unwrapped(target)
            _check_range(source, num_src, "source")
            _check_range(target, num_dst, "target")
            dtype = torch.int32 if few else torch.int64
            ends = torch.empty((2, source.numel()), dtype=dtype, device=source.device)
            ends[0].copy_(source)
            ends[1].copy_(target)
            if ends.is_cpu:  # another thread may have written since the check
                _check_range(ends[0], num_src, "source")
                _check_range(ends[1], num_dst, "target")
        vars(self).update(
            ends=ends, num_src=num_src, num_dst=num_dst, _cache={}, _given=(),
            _handed_out=[(ends, version_of(ends))],
        )  # fmt: skip

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

        Returns:
            An :class:`EdgeLayout`; inside ``torch.compile`` or with tensors that hold no values,
            a :class:`DeferredEdges`.

        Raises:
            ValueError: if ``edges`` has the wrong type or shape.
            IndexError: if an index is out of range.
        """
        check_count("num_src", num_src)
        num_dst = num_src if num_dst is None else num_dst
        check_count("num_dst", num_dst)
        if isinstance(edges, (EdgeLayout, DeferredEdges)):
            if (edges.num_src, edges.num_dst) != (num_src, num_dst):
                raise ValueError(
                    f"this edge layout joins {edges.num_src} key and {edges.num_dst} query nodes, "
                    f"but there are {num_src} and {num_dst}"
                )
            if isinstance(edges, EdgeLayout) and is_readable(edges.ends):
                edges.check_unedited()
                return edges
            # of traced code that runs by now, or does not
            edges, flow = edges.edge_index, "source_to_target"
        return edges_of(edges, num_src, num_dst, flow)

    def check_unedited(self) -> None:
        """Raises ``ValueError`` if somebody wrote to the tensors of this layout."""
        if self.is_edited():
            raise ValueError(
                "the tensors of this 'EdgeLayout' were edited in place, but a layout is frozen: "
                "the orders that backends made of them would not follow. Make a new one with "
                "'EdgeLayout.of'"
            )

    def is_edited(self) -> bool:
        """Whether somebody wrote to the tensors of this layout."""
        for x, version in vars(self)["_handed_out"]:  # in half the time of a generator
            if version_of(x) != version:
                return True
        return False

    def _made_and_watched(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        def watched() -> Tensors:
            made = make()
            vars(self)["_handed_out"].extend((x, version_of(x)) for x in made)
            return made

        return self.cached(key, watched)

    @property
    def edge_index(self) -> Tensor:
        """``[2, E]`` int64, key nodes above query nodes; made when first asked for, and kept."""
        if not is_readable(self.ends):
            return self.ends.long()
        return self._made_and_watched("edge_index", self._widened)[0]

    def _widened(self) -> tuple[Tensor]:
        wide = self.ends.long()
        _BY_OWN_EDGES.put(wide, weakref.ref(self))  # for an op that is handed it
        return (wide,)

    @property
    def source(self) -> Tensor:
        """``[E]``, the key node of each edge."""
        return self.edge_index[0]

    @property
    def target(self) -> Tensor:
        """``[E]``, the query node of each edge."""
        return self.edge_index[1]

    @property
    def device(self) -> torch.device:
        """Where :attr:`ends` lie."""
        return self.ends.device

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The caller's tensors that this layout was made from, as far as they live."""
        alive = (ref() for ref in vars(self)["_given"])
        return tuple(tensor for tensor in alive if tensor is not None)

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """What a backend needs to make only once per edge set (CSR, block tables)."""
        made: dict[Any, Any] = vars(self)["_cache"]
        return cached(made, key, make)

    @property
    def num_edges(self) -> int:
        """``E``."""
        return self.ends.size(1)

    @property
    def by_target(self) -> tuple[Tensor, Tensor]:
        """CSR: ``ptr [num_dst + 1]`` and the edge numbers ``[E]``, target by target."""
        return self._made_and_watched("by_target", lambda: _csr(self.ends[1].long(), self.num_dst))

    @property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """The transposed CSR: ``ptr [num_src + 1]`` and the edge numbers ``[E]``."""
        return self._made_and_watched("by_source", lambda: _csr(self.ends[0].long(), self.num_src))

    @property
    def has_repeats(self) -> bool:
        """Whether an edge stands twice; reads the device once."""

        def find() -> bool:
            source, target = self.ends.long()
            pairs = (target * max(self.num_src, 1) + source).sort().values
            return bool((pairs[1:] == pairs[:-1]).any())

        return self.cached("has_repeats", find)

    def check_within_graphs(self, query_layout: GraphLayout, layout: GraphLayout) -> None:
        """Raises ``ValueError`` if an edge joins two graphs; reads the device once."""
        for name, given in (("query_layout", query_layout), ("layout", layout)):
            if not isinstance(given, GraphLayout):
                raise ValueError(f"'{name}' must be a 'GraphLayout' (got {given!r})")
        if layout.num_graphs <= 1:
            return
        key = ("within", weakref.ref(query_layout), weakref.ref(layout))
        if key in vars(self)["_cache"]:
            return
        crossing = query_layout.batch[self.ends[1]] != layout.batch[self.ends[0]]
        if bool(crossing.any()):
            edge = int(crossing.nonzero()[0])
            source, target = self.ends[:, edge].tolist()
            raise ValueError(
                f"edge {edge} joins node {source} of graph {int(layout.batch[source])} to node "
                f"{target} of graph {int(query_layout.batch[target])}; attention stays inside a "
                f"graph. Drop such edges, or use one graph for all nodes ('batch=None')"
            )
        self.cached(key, lambda: True)

    def __reduce__(self) -> tuple[Any, ...]:
        return EdgeLayout, (self.ends, self.num_src, self.num_dst)

    def __repr__(self) -> str:
        return (
            f"EdgeLayout(num_edges={self.num_edges}, num_src={self.num_src}, "
            f"num_dst={self.num_dst}, device='{self.device}')"
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

    @property
    def num_edges(self) -> int:
        """``E``."""
        return self.edge_index.size(1)

    @property
    def device(self) -> torch.device:
        """Where :attr:`edge_index` lies."""
        return self.edge_index.device


_BY_EDGES: IdentityCache[EdgeLayout] = IdentityCache()
_BY_OWN_EDGES: IdentityCache[weakref.ref[EdgeLayout]] = IdentityCache()


def edges_of(
    edges: Any,
    num_src: int,
    num_dst: int,
    flow: str = "source_to_target",
    *,
    by_value: bool = False,
) -> EdgeLayout | DeferredEdges:
    """:meth:`EdgeLayout.of` for what is no layout yet.

    With ``by_value``, numbers are compared on an accelerator too, which waits for it.
    """
    if type(edges) is Tensor and edges.layout == torch.strided and _is_on_host(edges):
        # what was found to be an edge set and still has its numbers need not be looked at again
        strided = edges
        found = _BY_EDGES.get(
            strided, (num_src, num_dst, flow), lambda known: _is_same(known, strided, flow)
        )
        if found is not None and not found.is_edited():
            return found
    if isinstance(edges, Tensor) and edges.layout == torch.strided and is_readable(edges):
        own = _BY_OWN_EDGES.get_unedited(edges)
        made = None if own is None or flow != "source_to_target" else own()
        if (
            made is not None
            and (made.num_src, made.num_dst) == (num_src, num_dst)
            and (not edges.is_cpu or same_numbers(made.ends, edges))
        ):
            return made
    if isinstance(edges, Tensor) and edges.layout == torch.sparse_csr and is_readable(edges):
        # without spelling out its rows, which takes a quarter of a layer's evaluation
        matrix = edges

        def is_same_matrix(known: EdgeLayout) -> bool:
            columns = same_numbers(known.ends[0], matrix.col_indices())
            return columns and same_numbers(known.by_target[0], matrix.crow_indices())

        kind: tuple[Any, ...] = (num_src, num_dst, flow)
        found = _BY_EDGES.get(matrix, kind, is_same_matrix, by_value=by_value)
        if found is not None and not found.is_edited():
            return found
    given = _rows_of(edges, flow, [num_dst, num_src])
    source, target = given.rows
    if not is_readable(source):
        index = torch.stack([source, target]) if given.joined is None else given.joined.long()
        return DeferredEdges(index, num_src, num_dst)
    key, *others = given.keys
    check_not_mapped("edge_index", source, "the edges of each node, which are sorted once")
    check_not_captured("edge_index", key, "Make an 'EdgeLayout' before the capture and pass it")

    def is_same(known: EdgeLayout) -> bool:
        if given.joined is not None:
            return same_numbers(known.ends, given.joined)
        return same_numbers(known.ends[0], source) and same_numbers(known.ends[1], target)

    kind = num_src, num_dst, flow, *((id(other), version_of(other)) for other in others)
    found = _BY_EDGES.get(key, kind, is_same, by_value=by_value)
    if found is not None and not found.is_edited():
        return found
    layout = object.__new__(EdgeLayout)
    layout._fill(source, target, num_src, num_dst)
    vars(layout)["_given"] = tuple(weakref.ref(tensor) for tensor in given.keys)
    _BY_EDGES.put(key, layout, kind)
    return layout


def _is_on_host(edges: Tensor) -> bool:
    return is_readable(edges) and edges.is_cpu


def _is_same(known: EdgeLayout, edge_index: Tensor, flow: str) -> bool:
    return same_numbers(
        known.ends, edge_index if flow == "source_to_target" else edge_index.flip(0)
    )


class _Given(NamedTuple):
    """An edge set as a caller holds it.

    Attributes:
        keys: the caller's tensors by whose identity it is looked up.
        rows: ``[E]`` each, the key and the query node of each edge.
        joined: both in one tensor ``[2, E]``, if they lie so.
    """

    keys: tuple[Tensor, ...]
    rows: tuple[Tensor, Tensor]
    joined: Tensor | None = None


def _rows_of(edges: Any, flow: str, shape: list[int]) -> _Given:
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
            col, row = edges.storage.col(), edges.storage.row()
            return _Given((col, row), (col, row))
        if edges.layout == torch.sparse_coo:
            # PyG's 'to_edge_index' would mark the caller's matrix as coalesced
            row, col = edges._indices().detach()
        else:
            row, col = to_edge_index(edges)[0]
        # the parts of a torch.sparse tensor are made anew at each access; the tensor is not
        return _Given((edges,), (col, row))
    if not isinstance(edges, Tensor) or edges.is_nested:
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
        raise ValueError(f"'flow' must be 'source_to_target' or 'target_to_source' (got '{flow}')")
    plain = (edges.as_tensor() if isinstance(edges, EdgeIndex) else edges).detach()
    if flow == "source_to_target":
        return _Given((edges,), (plain[0], plain[1]), plain)
    return _Given((edges,), (plain[1], plain[0]))


def _check_range(index: Tensor, size: int, name: str) -> None:
    if index.numel() == 0:
        return
    if index.is_cuda:  # no sync: the device reports it, as with PyG's own gather
        low, high = index.aminmax()
        torch._assert_async((low >= 0) & (high < size), f"a {name} index is out of range")
        return
    numbers = in_numpy(index)
    first, last = int(numbers.min()), int(numbers.max())
    if first < 0 or last >= size:
        raise IndexError(
            f"Found {name} index {first if first < 0 else last} in 'edge_index', but there are "
            f"{size} {name} nodes: indices must lie in [0, {size})"
        )


def _csr(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    counts = index.new_zeros(size + 1).index_add_(0, index + 1, torch.ones_like(index))
    return counts.cumsum(0), index.argsort(stable=True)
