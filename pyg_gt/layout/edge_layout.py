"""An edge set, checked and ordered once for all layers."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks import check_count
from .comparison import same_numbers
from .deferred import DeferredEdges
from .edge_forms import check_range, csr, rows_of
from .frozen import FrozenLayout
from .graph_layout import GraphLayout
from .layout_cache import LayoutCache
from .tensor_cache import version_of
from .values import check_not_captured, check_not_mapped, is_readable, unwrapped


@dataclass(frozen=True, eq=False, repr=False, init=False)
class EdgeLayout(FrozenLayout):
    r"""The edges along which attention runs, checked to lie in range.

    Make one with :meth:`of`, which finds it again when it is given the same edge set. It owns its
    numbers (8 bytes an edge): an edit of the tensors that it was made from does not change it.

    Args:
        edge_index (torch.Tensor): ``[2, E]`` of integers, key nodes above query nodes.
        num_src (int): The number of key nodes.
        num_dst (int): The number of query nodes.

    Attributes:
        ends: ``[2, E]``, key nodes above query nodes, in the caller's edge order; int32 where
            node numbers fit.
        num_src: number of key nodes.
        num_dst: number of query nodes.

    Raises:
        ValueError: if ``edge_index`` has the wrong type or shape.
        IndexError: if an index is out of range.

    Example::

        >>> edges = EdgeLayout.of(torch.tensor([[0, 2, 1], [1, 1, 0]]), num_src=3)
        >>> edges
        EdgeLayout(num_edges=3, num_src=3, num_dst=3, device='cpu')
        >>> ptr, order = edges.by_target
        >>> ptr
        tensor([0, 1, 3, 3])
        >>> order
        tensor([2, 0, 1])
    """

    ends: Tensor
    num_src: int
    num_dst: int

    _REMEDY = (
        "the orders that backends made of them would not follow. Make a new one with "
        "'EdgeLayout.of'"
    )

    def __init__(self, edge_index: Tensor, num_src: int, num_dst: int) -> None:
        check_count("num_src", num_src)
        check_count("num_dst", num_dst)
        source, target = rows_of(edge_index, "source_to_target", [num_dst, num_src]).rows
        if not is_readable(source):
            raise ValueError("'edge_index' holds no values (meta, fake, traced); they are checked")
        self._fill(source, target, num_src, num_dst)

    def _fill(self, source: Tensor, target: Tensor, num_src: int, num_dst: int) -> None:
        few = max(num_src, num_dst) < 2**31
        # training could not save an inference tensor, and wrappers outlive their transform
        with torch.inference_mode(False), torch._C._DisableFuncTorch():
            source, target = unwrapped(source), unwrapped(target)
            check_range(source, num_src, "source")
            check_range(target, num_dst, "target")
            dtype = torch.int32 if few else torch.int64
            ends = torch.empty((2, source.numel()), dtype=dtype, device=source.device)
            ends[0].copy_(source)
            ends[1].copy_(target)
            if ends.is_cpu:  # another thread may have written since the check
                check_range(ends[0], num_src, "source")
                check_range(ends[1], num_dst, "target")
        vars(self).update(ends=ends, num_src=num_src, num_dst=num_dst, _given=())
        self._freeze((ends,))

    @staticmethod
    def of(
        edges: Any,
        num_src: int,
        num_dst: int | None = None,
        flow: str = "source_to_target",
    ) -> EdgeLayout | DeferredEdges:
        """The layout of an edge set in any of PyG's forms, found again if it was made before.

        Args:
            edges (torch.Tensor or SparseTensor or EdgeLayout): ``edge_index [2, E]`` (also an
                ``EdgeIndex``), the transposed adjacency as ``torch_sparse.SparseTensor`` or
                ``torch.sparse`` tensor ``[num_dst, num_src]``, or a layout, which is returned.
            num_src (int): The number of key nodes.
            num_dst (int, optional): The number of query nodes; :obj:`None` is as many as key
                nodes. (default: :obj:`None`)
            flow (str): As in PyG: ``"source_to_target"`` where the first row of ``edge_index``
                sends, else ``"target_to_source"``. (default: :obj:`"source_to_target"`)

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
            # a deferred layout that reached eager code, or is traced on
            edges, flow = edges.edge_index, "source_to_target"
        return edges_of(edges, num_src, num_dst, flow)

    @property
    def edge_index(self) -> Tensor:
        """``[2, E]`` int64, key nodes above query nodes; computed on first access, and kept."""
        if not is_readable(self.ends):
            return self.ends.long()
        return self._cached_tensors("edge_index", self._widened)[0]

    def _widened(self) -> tuple[Tensor]:
        edge_index = self.ends.long()
        _LAYOUTS.put_own(edge_index, self)  # an op may be given it
        return (edge_index,)

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
        """The device of :attr:`ends`."""
        return self.ends.device

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The caller's tensors that this layout was made from, as far as they live."""
        alive = (ref() for ref in vars(self)["_given"])
        return tuple(tensor for tensor in alive if tensor is not None)

    @property
    def num_edges(self) -> int:
        """``E``."""
        return self.ends.size(1)

    @property
    def by_target(self) -> tuple[Tensor, Tensor]:
        """CSR by target: ``ptr [num_dst + 1]`` and the edge numbers ``[E]``, target by target."""
        return self._cached_tensors("by_target", lambda: csr(self.ends[1].long(), self.num_dst))

    @property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """CSR by source: ``ptr [num_src + 1]`` and the edge numbers ``[E]``, source by source."""
        return self._cached_tensors("by_source", lambda: csr(self.ends[0].long(), self.num_src))

    @property
    def has_repeats(self) -> bool:
        """Whether an edge stands twice; reads the device once."""

        def find() -> bool:
            source, target = self.ends.long()
            pairs = (target * max(self.num_src, 1) + source).sort().values
            return bool((pairs[1:] == pairs[:-1]).any())

        return self.cached("has_repeats", find)

    def check_within_graphs(self, query_layout: GraphLayout, layout: GraphLayout) -> None:
        """Refuses edges between two graphs; reads the device once.

        Args:
            query_layout (GraphLayout): The graphs of the query nodes.
            layout (GraphLayout): The graphs of the key nodes.

        Raises:
            ValueError: if an edge joins two graphs.
        """
        for name, given in (("query_layout", query_layout), ("layout", layout)):
            if not isinstance(given, GraphLayout):
                raise ValueError(f"'{name}' must be a 'GraphLayout' (got {given!r})")
        if layout.num_graphs <= 1:
            return
        key = ("within", weakref.ref(query_layout), weakref.ref(layout))
        if key in self._cache:
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


_LAYOUTS: LayoutCache[EdgeLayout] = LayoutCache()


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
    kind: tuple[Any, ...] = num_src, num_dst, flow
    if type(edges) is Tensor and edges.layout == torch.strided and _is_on_host(edges):
        # what was found to be an edge set and still has its numbers need not be looked at again
        strided = edges
        layout = _LAYOUTS.find(strided, kind, lambda known: _is_same(known, strided, flow))
        if layout is not None:
            return layout
    if isinstance(edges, Tensor) and edges.layout == torch.strided and is_readable(edges):
        owner = _LAYOUTS.owner(edges) if flow == "source_to_target" else None
        if (
            owner is not None
            and (owner.num_src, owner.num_dst) == (num_src, num_dst)
            and (not edges.is_cpu or same_numbers(owner.ends, edges))
        ):
            return owner
    if isinstance(edges, Tensor) and edges.layout == torch.sparse_csr and is_readable(edges):
        # without spelling out its rows, which takes a quarter of a layer's evaluation
        matrix = edges
        layout = _LAYOUTS.find(
            matrix, kind, lambda known: _is_same_matrix(known, matrix), by_value
        )
        if layout is not None:
            return layout
    given = rows_of(edges, flow, [num_dst, num_src])
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

    kind = *kind, *((id(other), version_of(other)) for other in others)
    layout = _LAYOUTS.find(key, kind, is_same, by_value)
    if layout is None:
        layout = object.__new__(EdgeLayout)
        layout._fill(source, target, num_src, num_dst)
        vars(layout)["_given"] = tuple(weakref.ref(tensor) for tensor in given.keys)
        _LAYOUTS.put(key, kind, layout)
    return layout


def _is_on_host(edges: Tensor) -> bool:
    return edges.is_cpu and is_readable(edges)


def _is_same(known: EdgeLayout, edge_index: Tensor, flow: str) -> bool:
    in_order = edge_index if flow == "source_to_target" else edge_index.flip(0)
    return same_numbers(known.ends, in_order)


def _is_same_matrix(known: EdgeLayout, matrix: Tensor) -> bool:
    columns = same_numbers(known.ends[0], matrix.col_indices())
    return columns and same_numbers(known.by_target[0], matrix.crow_indices())
