"""The ragged shape of a batch of graphs.

Letters used in every docstring of this package: N nodes, B graphs, M nodes of the largest graph,
E edges, P = sum over graphs of n^2 (ordered pairs), F channels, H heads, C channels per head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch_geometric.data import Data

from .checks import as_device, check_count, check_integers, check_num_nodes
from .comparison import same_numbers
from .deferred import DeferredLayout
from .frozen import FrozenLayout
from .graph_forms import (
    GraphFields,
    checked_fields,
    fields_of_batch,
    fields_of_counts,
    fields_of_data,
    fields_of_ptr,
    fields_of_sizes,
)
from .layout_cache import LayoutCache
from .values import check_not_captured, in_numpy, is_readable, unwrapped


@dataclass(frozen=True, eq=False, repr=False)
class GraphLayout(FrozenLayout):
    r"""How ``N`` nodes are split into ``B`` graphs. Made once per batch, shared by all layers.

    Make one with :meth:`from_batch`, :meth:`from_ptr`, :meth:`from_sizes` or :meth:`from_data`;
    layers call :meth:`of`. It can be an attribute of a PyG batch: it has :meth:`to` and
    :meth:`pin_memory`. It owns its numbers: an edit of the tensors that it was made from does not
    change it.

    The arguments are checked and copied, and kept as attributes:

    Args:
        ptr (torch.Tensor): ``[B + 1]`` int64, where each graph begins when nodes stand graph by
            graph.
        batch (torch.Tensor): ``[N]`` int64, the graph of each node, in the caller's node order.
        num_nodes (int): ``N``.
        num_graphs (int): ``B``; graphs without nodes count.
        max_nodes (int): ``M``.
        sizes (tuple[int, ...]): The nodes of each graph, on the host.
        order (torch.Tensor, optional): ``[N]`` int64, the nodes graph by graph; :obj:`None` where
            the caller's order is that. (default: :obj:`None`)

    Raises:
        ValueError: if the arguments contradict each other.

    Example::

        >>> layout = GraphLayout.from_batch(torch.tensor([0, 0, 0, 1, 1]))
        >>> layout
        GraphLayout(num_nodes=5, num_graphs=2, max_nodes=3, device='cpu')
        >>> layout.ptr
        tensor([0, 3, 5])
        >>> layout.pos
        tensor([0, 1, 2, 0, 1])
    """

    ptr: Tensor
    batch: Tensor
    num_nodes: int
    num_graphs: int
    max_nodes: int
    sizes: tuple[int, ...]
    order: Tensor | None = None

    _REMEDY = (
        "its sizes and the tables of backends would not follow. Make a new one, for instance with "
        "'GraphLayout.from_batch'"
    )

    def __post_init__(self) -> None:
        """Replaces what a caller gave by hand with checked copies."""
        given = {name: getattr(self, name) for name in GraphFields._fields}
        self._fill(checked_fields(**given))

    @classmethod
    def _from_own(cls, fields: GraphFields) -> GraphLayout:
        """From tensors that nobody else holds and that are known to fit."""
        if any(x is not None and x.is_inference() for x in fields[:3]):
            order = fields.order
            with torch.inference_mode(False):  # training could not save them
                fields = fields._replace(
                    ptr=fields.ptr.clone(),
                    batch=fields.batch.clone(),
                    order=None if order is None else order.clone(),
                )
        layout = object.__new__(cls)
        layout._fill(fields)
        return layout

    def _fill(self, fields: GraphFields) -> None:
        vars(self).update(fields._asdict())
        if not is_readable(self.batch):
            self._freeze(())
            return
        self._freeze(x for x in fields[:3] if x is not None)
        if _LAYOUTS.owner(self.batch) is None:  # a shallow copy leaves it to the original
            _LAYOUTS.put_own(self.batch, self)

    @classmethod
    def from_sizes(
        cls, sizes: Sequence[int] | Tensor, device: torch.device | str | None = None
    ) -> GraphLayout:
        """The layout of graphs whose numbers of nodes are known; nodes stand graph by graph.

        Args:
            sizes (list[int] or torch.Tensor): ``[B]``, the number of nodes of each graph.
            device (torch.device or str, optional): The device of the layout; :obj:`None` is that
                of ``sizes``, or the CPU for a list. (default: :obj:`None`)

        Raises:
            ValueError: if a size is negative or not an integer.
        """
        return cls._from_own(fields_of_sizes(sizes, device))

    @classmethod
    def from_ptr(cls, ptr: Tensor, ptr_host: Sequence[int] | None = None) -> GraphLayout:
        """The layout of PyG's ``ptr``; with ``ptr_host`` it waits for no device.

        Args:
            ptr (torch.Tensor): ``[B + 1]`` of integers, where each graph begins.
            ptr_host (list[int], optional): The same numbers on the host. (default: :obj:`None`)

        Raises:
            ValueError: if ``ptr`` does not begin at 0 or falls somewhere.
        """
        return cls._from_own(fields_of_ptr(ptr, ptr_host))

    @classmethod
    def from_batch(cls, batch: Tensor, num_graphs: int | None = None) -> GraphLayout:
        """The layout of PyG's ``batch``, sorted or not; costs one copy of it to the host.

        Args:
            batch (torch.Tensor): ``[N]`` of integers, the graph of each node.
            num_graphs (int, optional): ``B``; :obj:`None` is one more than the largest number in
                ``batch``. (default: :obj:`None`)

        Raises:
            ValueError: if ``batch`` is not a vector of integers, holds a negative number, or a
                number that ``num_graphs`` does not allow.
        """
        return cls._from_own(fields_of_batch(batch, num_graphs))

    @classmethod
    def from_data(cls, data: Data) -> GraphLayout:
        """The layout of a PyG ``Data`` or ``Batch``; in a collate function it waits for no device.

        Goes by ``data.batch`` where it is there, else by ``data.ptr``; without either there is
        one graph. A ``batch`` on an accelerator is copied to the host once.

        Args:
            data (torch_geometric.data.Data): The graphs. Of a ``Batch``, graphs without nodes
                count.

        Raises:
            ValueError: if ``data`` is not a homogeneous PyG graph, contradicts itself, or is a
                batch that lost both ``batch`` and ``ptr``.
        """
        return cls._from_own(fields_of_data(data))

    @staticmethod
    def of(
        batch: Tensor | GraphLayout | DeferredLayout | None,
        num_nodes: int,
        num_graphs: int | None = None,
        device: torch.device | str | None = None,
    ) -> GraphLayout | DeferredLayout:
        """The layout of ``batch``, found again if it was made before; what layers call.

        Args:
            batch (torch.Tensor or GraphLayout, optional): ``[N]``, the graph of each node; a
                layout, which is returned; or :obj:`None` for one graph.
            num_nodes (int): ``N``, checked against ``batch``.
            num_graphs (int, optional): ``B``, where it is known; PyG's ``batch`` does not show
                trailing empty graphs. (default: :obj:`None`)
            device (torch.device or str, optional): The device of the layout of ``batch=None``;
                :obj:`None` is the CPU. (default: :obj:`None`)

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
        if isinstance(batch, DeferredLayout):  # which reached eager code, or is traced on
            check_num_nodes(batch.num_nodes, num_nodes, "layout")
            known = None if batch.num_graphs < 0 else batch.num_graphs
            return GraphLayout.of(batch.batch, num_nodes, known, device)
        if batch is None:
            device = as_device(device)
            if not _holds_values(device):
                return DeferredLayout(None, num_nodes, 1)
            layout = _single(num_nodes, device)
            if layout.is_edited():  # by a caller, and others share it
                _single.cache_clear()
                layout = _single(num_nodes, device)
            return layout
        check_integers("batch", batch)
        check_num_nodes(batch.size(0), num_nodes, "batch")
        if not is_readable(batch):
            return DeferredLayout(batch, num_nodes, -1 if num_graphs is None else num_graphs)
        check_not_captured(
            "batch", batch, "Make a 'GraphLayout' before the capture and pass it: all replays are "
            "then of graphs of these sizes"
        )  # fmt: skip
        return layout_of(batch, num_graphs)

    @property
    def pos(self) -> Tensor:
        """``[N]`` int64, the position of each node in its graph; computed on first access."""
        if torch.compiler.is_compiling():  # which can trace neither 'cached' nor 'unwrapped'
            return self._positions()
        return self._cached_tensors("pos", lambda: (unwrapped(self._positions()),))[0]

    def _positions(self) -> Tensor:
        slots = torch.arange(self.num_nodes, device=self.device)
        if self.order is None:
            return slots - self.ptr[self.batch]
        starts = self.ptr[self.batch[self.order]]
        return torch.empty_like(slots).index_copy(0, self.order, slots - starts)

    @property
    def device(self) -> torch.device:
        """The device of :attr:`ptr` and :attr:`batch`."""
        return self.ptr.device

    @property
    def num_pairs(self) -> int:
        """``P``, the ordered pairs of nodes of one graph, over all graphs."""
        return sum(n * n for n in self.sizes)

    def to(self, *args: Any, **kwargs: Any) -> GraphLayout:
        """The layout on another device.

        Args:
            *args (any): Positional arguments of :meth:`torch.Tensor.to`, but no dtype.
            **kwargs (any): Its keyword arguments.

        Raises:
            ValueError: if another dtype is asked for.
        """
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

    def __reduce__(self) -> tuple[Any, ...]:
        tensors, rest = _flatten(self)
        return _unflatten, (tensors, rest)

    def __repr__(self) -> str:
        return (
            f"GraphLayout(num_nodes={self.num_nodes}, num_graphs={self.num_graphs}, "
            f"max_nodes={self.max_nodes}, device='{self.device}')"
        )


_LAYOUTS: LayoutCache[GraphLayout] = LayoutCache()


def layout_of(
    batch: Tensor, num_graphs: int | None = None, *, by_value: bool = False
) -> GraphLayout:
    """The layout of ``batch [N]``, found or made; for code that runs, not traced.

    Args:
        batch: the graph of each node.
        num_graphs: ``B``, where it is known.
        by_value: compare numbers on an accelerator too, which waits for it.
    """
    if num_graphs is not None:
        check_count("num_graphs", num_graphs)
    owner = _LAYOUTS.owner(batch)
    if owner is not None and num_graphs in (None, owner.num_graphs) and _is_intact(owner):
        return owner
    layout = _LAYOUTS.find(
        batch, num_graphs, lambda known: same_numbers(known.batch, batch), by_value
    )
    if layout is None:
        layout = GraphLayout.from_batch(batch, num_graphs)
        for kind in {num_graphs, layout.num_graphs}:
            _LAYOUTS.put(batch, kind, layout)
    return layout


def _is_intact(layout: GraphLayout) -> bool:
    """Whether the ``batch`` of a layout, which users can reach, agrees with its sizes."""
    if not layout.batch.is_cpu:
        return True
    graph = in_numpy(layout.batch)
    if layout.order is not None:
        graph = graph[in_numpy(layout.order)]
    return bool((graph == np.repeat(np.arange(layout.num_graphs), layout.sizes)).all())


# whole-graph training has one size all along, bipartite layers two, sampled ones some
@lru_cache(maxsize=8)
def _single(num_nodes: int, device: torch.device) -> GraphLayout:
    return GraphLayout._from_own(fields_of_counts((num_nodes,), device))


def _holds_values(device: torch.device) -> bool:
    """Whether a tensor made now on ``device`` would hold values that the host can read."""
    if torch.compiler.is_compiling() or device.type == "meta" or torch._C._is_tracing():
        return False
    # without a mode that makes them, there are no fake tensors
    return torch._C._len_torch_dispatch_stack() == 0 or is_readable(torch.empty(0, device=device))


def _flatten(layout: GraphLayout) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    tensors = [layout.ptr, layout.batch, layout.order]
    return tensors, (layout.num_nodes, layout.num_graphs, layout.max_nodes, layout.sizes)


def _unflatten(tensors: Any, rest: Any) -> GraphLayout:
    return GraphLayout._from_own(GraphFields(*tensors, *rest))


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
