"""The edges along which Exphormer attends: of the graph, an expander and virtual nodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Embedding

from ..layout.edge_layout import EdgeLayout
from ..layout.graph_layout import GraphLayout
from .arguments import check_counts, check_edge_index, check_features, check_flags, describe


class Interactions(NamedTuple):
    """Nodes with the virtual ones behind them, and all edges along which they attend.

    Attributes:
        x: ``[N + B V, F]``: the nodes as they stand, then the ``V`` virtual nodes of each graph,
            graph by graph; ``x[:num_nodes]`` takes them off again.
        edge_index: ``[2, E]``: edges of the graph, of the expander, from nodes to virtual nodes
            and back, one set after the other.
        edge_attr: ``[E, D]``, their features.
        edge_type: ``[E]``: 0 on edges of the graph, 1 of the expander, ``2 + k`` from a node to
            the virtual node ``k``, ``2 + V + k`` back.
        batch: ``[N + B V]``, the graph of each.
        num_nodes: ``N``.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    edge_type: Tensor
    batch: Tensor
    num_nodes: int


class InteractionGraph(torch.nn.Module):
    """Joins the edges of a graph, of an expander and of virtual nodes to one set with features.

    The interaction graph of `"Exphormer: Sparse Transformers for Graphs"
    <https://arxiv.org/abs/2303.06147>`_ (Shirzad et al. 2023), for :class:`ExphormerConv`. All
    edges of an expander share one learned vector; each virtual node has one for the edges that
    lead to it, one for those that lead away, and one as its first state, the same in every graph.
    An edge that the graph and the expander share stands twice.

    Args:
        channels (int): ``F``.
        edge_channels (int, optional): ``D``; None: ``channels``. (default: :obj:`None`)
        num_virtual_nodes (int): ``V``, of each graph. (default: :obj:`0`)
        expander (bool): Whether there are edges of an expander. (default: :obj:`True`)

    Raises:
        ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import ExphormerConv, InteractionGraph
        >>> interactions = InteractionGraph(16, num_virtual_nodes=1, expander=False)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> edge_index = torch.tensor([[0, 1, 3, 4], [1, 0, 4, 3]])
        >>> graph = interactions(x, edge_index, torch.randn(4, 16), batch)
        >>> graph.x.shape, graph.edge_index.shape  # two more nodes, twice five more edges
        (torch.Size([7, 16]), torch.Size([2, 14]))
        >>> conv = ExphormerConv(16, 4, heads=4, edge_dim=16)
        >>> conv(graph.x, graph.edge_index, graph.edge_attr)[: graph.num_nodes].shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        channels: int,
        edge_channels: int | None = None,
        num_virtual_nodes: int = 0,
        expander: bool = True,
    ) -> None:
        super().__init__()
        edge_channels = channels if edge_channels is None else edge_channels
        check_counts(channels=channels, edge_channels=edge_channels)
        check_counts(0, num_virtual_nodes=num_virtual_nodes)
        check_flags(expander=expander)
        self.channels = channels
        self.edge_channels = edge_channels
        self.num_virtual_nodes = num_virtual_nodes
        self.expander = Embedding(1, edge_channels) if expander else None
        self.virtual_nodes = self.to_virtual = self.from_virtual = None
        if num_virtual_nodes > 0:
            self.virtual_nodes = Embedding(num_virtual_nodes, channels)
            self.to_virtual = Embedding(num_virtual_nodes, edge_channels)
            self.from_virtual = Embedding(num_virtual_nodes, edge_channels)

    def reset_parameters(self) -> None:
        """Draws all vectors anew."""
        for table in (self.expander, self.virtual_nodes, self.to_virtual, self.from_virtual):
            if table is not None:
                table.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_attr: Tensor,
        batch: Tensor | GraphLayout | None = None,
        expander_edge_index: Any = None,
    ) -> Interactions:
        """Joins the edges.

        Args:
            x (Tensor): ``[N, F]``.
            edge_index (Tensor): ``[2, E]``, or another of PyG's edge sets.
            edge_attr (Tensor): ``[E, D]``.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. Virtual nodes need to know how many graphs there
                are: compiled code has to be given a layout. (default: :obj:`None`)
            expander_edge_index (Tensor, optional): ``[2, E']``, or another of PyG's edge sets;
                :class:`~pyg_gt.transforms.AddExpanderEdges` makes it. (default: :obj:`None`)

        Raises:
            ValueError: For a wrong shape or type, or if expander edges are missing or given in
                vain.
            IndexError: If an index is out of range.
            NotImplementedError: If traced code does not know the number of graphs.
        """
        check_features("x", x, self.channels)
        check_edge_index(edge_index, read_here=True)
        if not isinstance(edge_attr, Tensor):
            raise ValueError(
                f"'edge_attr' must hold the features of each edge (got {describe(edge_attr)})"
            )
        check_features("edge_attr", edge_attr, self.edge_channels, rows="E")
        num_nodes = x.size(0)
        # numbers from N on would be virtual nodes, so edges are checked here
        edges = [EdgeLayout.of(edge_index, num_nodes).edge_index]
        if edges[0].size(1) != edge_attr.size(0):
            raise ValueError(
                f"'edge_attr' has {edge_attr.size(0)} rows, but there are {edges[0].size(1)} edges"
            )
        features = [edge_attr]
        types = [edges[0].new_zeros(edge_attr.size(0))]
        if self.expander is not None or expander_edge_index is not None:
            added = self._expander_edges(expander_edge_index, num_nodes)
            edges.append(added)
            assert self.expander is not None
            features.append(self.expander.weight.expand(added.size(1), -1))
            types.append(added.new_ones(added.size(1)))
        layout = GraphLayout.of(batch, num_nodes, device=x.device)
        graph = edges[0].new_zeros(num_nodes) if layout.batch is None else layout.batch
        if self.virtual_nodes is not None:
            assert self.to_virtual is not None and self.from_virtual is not None
            num_graphs, count = layout.num_graphs, self.num_virtual_nodes
            if num_graphs < 0:
                raise NotImplementedError(
                    "virtual nodes need the number of graphs, which traced code cannot find in a "
                    "'batch' tensor: pass 'GraphLayout.from_batch(batch)', made before"
                )
            each = torch.arange(count, device=x.device)
            node = torch.arange(num_nodes, device=x.device).repeat_interleave(count)
            virtual = (num_nodes + count * graph.unsqueeze(1) + each).flatten()  # [N * V]
            edges += [torch.stack([node, virtual]), torch.stack([virtual, node])]
            features += [
                table.weight.repeat(num_nodes, 1) for table in (self.to_virtual, self.from_virtual)
            ]
            types += [2 + each.repeat(num_nodes), 2 + count + each.repeat(num_nodes)]
            x = torch.cat([x, self.virtual_nodes.weight.repeat(num_graphs, 1)])
            graphs = torch.arange(num_graphs, device=x.device)
            graph = torch.cat([graph, graphs.repeat_interleave(count)])
        return Interactions(
            x, torch.cat(edges, dim=1), torch.cat(features), torch.cat(types), graph, num_nodes
        )

    def _expander_edges(self, edges: Any, num_nodes: int) -> Tensor:
        """``[2, E']``, checked."""
        if self.expander is None:
            raise ValueError(
                "'expander_edge_index' was given, but this module was made with 'expander=False' "
                "and would not read it"
            )
        if edges is None:
            raise ValueError(
                "this module has 'expander=True' and needs 'expander_edge_index'; "
                "'pyg_gt.transforms.AddExpanderEdges(degree)' adds it"
            )
        try:
            check_edge_index(edges, read_here=True)
            return EdgeLayout.of(edges, num_nodes).edge_index
        except (ValueError, IndexError) as error:
            raise type(error)(f"'expander_edge_index' is no edge set here: {error}") from error

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, num_virtual_nodes="
            f"{self.num_virtual_nodes}, expander={self.expander is not None})"
        )
