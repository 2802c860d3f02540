"""Learned nodes that join each graph of a batch and attend to all of it."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from ..layout.checks import check_num_nodes
from ..layout.deferred import DeferredEdges, DeferredLayout
from ..layout.edge_layout import EdgeLayout
from ..layout.graph_forms import fields_of_counts
from ..layout.graph_layout import GraphLayout
from ..ops import AttentionBias
from ..ops.bias import ADDITIVE, EdgeBias, EdgeMask, EdgeSet, PairBias, TableBias, take_rows
from .arguments import as_biases, check_counts, check_features, describe

Layout = GraphLayout | DeferredLayout


class GraphToken(torch.nn.Module):
    r"""``T`` learned nodes added to each graph, which see all of its nodes and are seen by them.

    The virtual node ``[VNode]`` of `"Do Transformers Really Perform Bad for Graph
    Representation?" <https://arxiv.org/abs/2106.05234>`_ (Ying et al. 2021), section 3.2, whose
    pairs have a learned score instead of a distance: for each head

    .. math::
        b'_{ij} = \begin{cases} b_{ij} & i \text{ and } j \text{ are nodes} \\
        t_j & j \text{ is a token} \\ t_i & i \text{ alone is one} \end{cases}

    Tokens stand behind all nodes, whose numbers stay: of ``N`` nodes in ``B`` graphs, token ``t``
    of graph ``b`` is node ``N + b T + t``, the last but ``T - t - 1`` of its graph. A graph
    without nodes has its tokens too.

    Args:
        channels (int): ``F``.
        heads (int): ``H``.
        num_tokens (int): ``T``. (default: :obj:`1`)

    Attributes:
        weight: ``[T, F]``, the tokens.
        bias: ``[T, H]``, the scores ``t``.

    Raises:
        ValueError: If an argument is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from pyg_gt.nn import GraphToken, TransformerBlock
        >>> token, block = GraphToken(16, heads=4), TransformerBlock(16, heads=4)
        >>> x, batch = torch.randn(5, 16), torch.tensor([0, 0, 0, 1, 1])
        >>> x, layout, biases = token(x, batch)
        >>> nodes, tokens = token.split(block(x, layout, biases), layout)
        >>> nodes.shape, tokens.shape
        (torch.Size([5, 16]), torch.Size([2, 1, 16]))
    """

    def __init__(self, channels: int, heads: int, num_tokens: int = 1) -> None:
        super().__init__()
        check_counts(channels=channels, heads=heads, num_tokens=num_tokens)
        self.channels = channels
        self.heads = heads
        self.num_tokens = num_tokens
        self.weight = torch.nn.Parameter(torch.empty(num_tokens, channels))
        self.bias = torch.nn.Parameter(torch.empty(num_tokens, heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws tokens and scores anew, as the authors do."""
        torch.nn.init.normal_(self.weight, std=0.02)
        torch.nn.init.normal_(self.bias, std=0.02)

    def forward(
        self,
        x: Tensor,
        batch: Tensor | GraphLayout | None = None,
        biases: AttentionBias | tuple[AttentionBias, ...] = (),
        num_graphs: int | None = None,
    ) -> tuple[Tensor, GraphLayout, tuple[AttentionBias, ...]]:
        """Adds the tokens.

        Biases are laid out anew: a table gets ``T`` rows more, an
        :class:`~pyg_gt.EdgeMask` the edges between tokens and everything else. The first of them
        that adds to scores carries ``t``, the others zero; without any, an
        :class:`~pyg_gt.EdgeBias` is added for it.

        Args:
            x (Tensor): ``[N, F]``.
            batch (Tensor or GraphLayout, optional): ``[N]``, the graph of each node, or a layout
                made before; None for one graph. (default: :obj:`None`)
            biases (AttentionBias or tuple): What is added to scores of the nodes' pairs.
                (default: :obj:`()`)
            num_graphs (int, optional): ``B``, which a ``batch`` does not tell where the last
                graphs have no nodes, or in compiled code. (default: :obj:`None`)

        Returns:
            ``[N + B T, F]``, a layout of as many nodes, and the biases.

        Raises:
            ValueError: For a wrong shape or type, a bias of other pairs or heads, a
                :class:`~pyg_gt.ScoreMod`, or in compiled code without the number of graphs.
        """
        check_features("x", x, self.channels)
        given = as_biases(biases)
        layout = GraphLayout.of(batch, x.size(0), num_graphs, x.device)
        if layout.num_graphs < 0:
            raise ValueError(
                "a token is added to each graph, and in traced code a 'batch' tensor does not "
                "tell how many there are; pass 'num_graphs=' or a 'GraphLayout'"
            )
        relaid = _Relaid(layout, self.bias, x.device)
        tokens = self.weight.to(x.dtype).repeat(layout.num_graphs, 1)  # [B T, F]
        # layers take a deferred layout, which stands in for one in traced code
        return torch.cat([x, tokens]), relaid.layout, relaid.biases(given)  # type: ignore[return-value]

    def split(self, x: Tensor, layout: GraphLayout) -> tuple[Tensor, Tensor]:
        """Takes the tokens off again.

        Args:
            x (Tensor): ``[N + B T, ...]``.
            layout (GraphLayout): The one that the call returned.

        Returns:
            The nodes ``[N, ...]`` in the order in which they came, and the tokens
            ``[B, T, ...]``.

        Raises:
            ValueError: If ``x`` is no dense tensor, or the layout is of another number of nodes.
        """
        if (
            not isinstance(x, Tensor)
            or x.is_nested
            or x.layout is not torch.strided
            or x.dim() < 1
        ):
            raise ValueError(
                f"'x' must be a dense tensor of shape [N + B T, ...] (got {describe(x)})"
            )
        check_num_nodes(layout.num_nodes, x.size(0), "layout")
        num_nodes = x.size(0) - layout.num_graphs * self.num_tokens
        tokens = x[num_nodes:]
        shape = (layout.num_graphs, self.num_tokens, *x.shape[1:])
        return x[:num_nodes], tokens.reshape(shape)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.channels}, heads={self.heads}, "
            f"num_tokens={self.num_tokens})"
        )


class _Relaid:
    """A layout with tokens, and what biases of the nodes become in it.

    What depends on the layout and on edge sets is kept by them: along 280,000 edges of one graph
    of 20,000 nodes, a training step of attention takes 50 ms where it is found, 65 to 74 ms where
    it is made anew (one thread). A batch of molecules is new in each step, and pays about 1 ms.

    Args:
        old: The layout of the nodes.
        bias: ``[T, H]``.
        device: Where new tensors go.
    """

    def __init__(self, old: Layout, bias: Tensor, device: torch.device) -> None:
        self.old = old
        self.bias = bias
        self.num_tokens = bias.size(0)
        self.device = device
        self.layout: Layout
        if isinstance(old, GraphLayout):
            self.layout = old.cached(("graph token", self.num_tokens), lambda: self._layout(old))
        else:
            batch = torch.cat([self._batch(), self._token_batch()])
            self.layout = DeferredLayout(batch, batch.size(0), old.num_graphs)

    def biases(self, given: tuple[AttentionBias, ...]) -> tuple[AttentionBias, ...]:
        """Those of all pairs; the first that can carries the scores of tokens."""
        kinds: list[type | tuple[type, ...]] = [ADDITIVE, EdgeMask]
        carriers = [bias for kind in kinds for bias in given if isinstance(bias, kind)]
        edges: dict[int, EdgeLayout | DeferredEdges] = {}  # one set for all that lie on one
        carrier = carriers[0] if carriers else None
        made = tuple(self._relay(bias, bias is carrier, edges) for bias in given)
        if carrier is not None:
            return made
        index, token = self._token_edges()
        return (*made, EdgeBias(self._edges(index), take_rows(self.bias, token)))

    def _relay(
        self,
        bias: AttentionBias,
        carries: bool,
        edges: dict[int, EdgeLayout | DeferredEdges],
    ) -> AttentionBias:
        values = self.bias if carries else torch.zeros_like(self.bias)
        if isinstance(bias, PairBias):
            self._check("PairBias.values", bias.values, bias.values.size(0))
            rows = torch.cat([bias.values, values.to(bias.values.dtype)])
            return PairBias(take_rows(rows, self._pairs(bias.values.size(0))))
        if isinstance(bias, TableBias):
            self._check("TableBias.table", bias.table, bias.index.size(0))
            size = bias.table.size(0)
            index = bias.index
            if size + self.num_tokens - 1 > torch.iinfo(index.dtype).max:
                index = index.int()
            rows = torch.arange(size, size + self.num_tokens, device=index.device)
            index = torch.cat([index, rows.to(index.dtype)])[self._pairs(index.size(0))]
            return TableBias(torch.cat([bias.table, values.to(bias.table.dtype)]), index)
        if not isinstance(bias, (EdgeBias, EdgeMask)):
            raise ValueError(
                f"a '{type(bias).__name__}' goes by the numbers of nodes, and tokens have numbers "
                f"behind them; add it to the biases that 'GraphToken' returns, made for its layout"
            )
        index, token = self._token_edges()
        if id(bias.edges) not in edges:
            edges[id(bias.edges)] = self._joined(bias.edges)
        joined = edges[id(bias.edges)]
        old = bias.values
        if old is None and carries:
            old = self.bias.new_zeros(joined.num_edges - token.numel(), self.bias.size(1))
        if old is not None:
            self._check(f"{type(bias).__name__}.values", old)
            old = torch.cat([old, take_rows(values, token).to(old.dtype)])
        if isinstance(bias, EdgeBias):
            assert old is not None
            return EdgeBias(joined, old)
        features = bias.features
        if features is not None:
            features = torch.cat(
                [features, features.new_zeros(token.numel(), *features.shape[1:])]
            )
        return EdgeMask(joined, old, features)

    def _check(self, name: str, values: Tensor, pairs: int | None = None) -> None:
        heads = self.bias.size(1)
        if values.dim() != 2 or values.size(1) != heads:
            raise ValueError(
                f"'{name}' must have a column for each of the token's {heads} heads (got shape "
                f"{list(values.shape)})"
            )
        if pairs is not None and isinstance(self.old, GraphLayout):
            if pairs != self.old.num_pairs:
                raise ValueError(
                    f"a bias describes {pairs} pairs, but the graphs have {self.old.num_pairs}: "
                    f"the sum of their nodes squared, without tokens; it was made for others"
                )

    def _layout(self, old: GraphLayout) -> GraphLayout:
        """With host sizes and without a copy to the host."""
        T, B = self.num_tokens, old.num_graphs
        batch = torch.cat([old.batch, self._token_batch()])
        order = None
        if B > 1:  # else the caller's order is that of the graphs
            ptr = old.ptr + T * torch.arange(B + 1, device=old.device)
            last = ptr[1:, None] - T + torch.arange(T, device=old.device)  # [B, T]
            slots = torch.cat([ptr[old.batch] + old.pos, last.flatten()])
            order = torch.empty_like(slots)
            order[slots] = torch.arange(slots.numel(), device=old.device)
        sizes = [n + T for n in old.sizes]
        return GraphLayout._from_own(fields_of_counts(sizes, old.device, batch, order))

    def _batch(self) -> Tensor:
        if self.old.batch is None:
            return torch.zeros(self.old.num_nodes, dtype=torch.long, device=self.device)
        return self.old.batch.long()

    def _token_batch(self) -> Tensor:
        graphs = torch.arange(self.old.num_graphs, device=self.device)
        return graphs.repeat_interleave(self.num_tokens)

    def _pairs(self, num_pairs: int) -> Tensor:
        """``[P']``: where the score of each pair stands among those of the old ones, and ``t``."""
        if isinstance(self.old, GraphLayout):
            key = ("pairs of graph token", self.num_tokens)
            return self.old.cached(key, lambda: self._compute_pairs(num_pairs))
        return self._compute_pairs(num_pairs)

    def _compute_pairs(self, num_pairs: int) -> Tensor:
        T, N, B = self.num_tokens, self.old.num_nodes, self.old.num_graphs
        batch = self._batch()
        n = torch.zeros(B, dtype=torch.long, device=self.device)
        n = n.index_add(0, batch, torch.ones_like(batch))
        begin, new_begin = (s.cumsum(0) - s for s in (n * n, (n + T) ** 2))
        size = num_pairs + 2 * N * T + B * T * T
        graph = torch.repeat_interleave((n + T) ** 2, output_size=size)  # [P']
        n = n[graph]
        place = torch.arange(size, device=self.device) - new_begin[graph]
        query, key = place // (n + T), place % (n + T)
        token = torch.where(key >= n, key, query) - n
        return torch.where(token < 0, begin[graph] + query * n + key, num_pairs + token)

    def _token_edges(self) -> tuple[Tensor, Tensor]:
        """``[2, 2 N T + B T^2]``, all that have a token at an end, and whose ``t`` each has."""
        if isinstance(self.old, GraphLayout):
            key = ("edges of graph token", self.num_tokens)
            return self.old.cached(key, self._compute_token_edges)
        return self._compute_token_edges()

    def _compute_token_edges(self) -> tuple[Tensor, Tensor]:
        T, N, B = self.num_tokens, self.old.num_nodes, self.old.num_graphs
        number = torch.arange(T, device=self.device)
        node = torch.arange(N, device=self.device).repeat_interleave(T)
        of_node = (N + T * self._batch()[:, None] + number).flatten()  # [N T]
        first = N + T * torch.arange(B, device=self.device)[:, None]
        source = (first + number.repeat_interleave(T)).flatten()  # [B T^2]
        target = (first + number.repeat(T)).flatten()
        index = torch.cat([node, of_node, source]), torch.cat([of_node, node, target])
        token = torch.cat([number.repeat(2 * N), number.repeat_interleave(T).repeat(B)])
        return torch.stack(index), token

    def _joined(self, given: EdgeSet) -> EdgeLayout | DeferredEdges:
        """The edges of a bias and those of tokens, found again by the layouts of both."""
        edges = EdgeLayout.of(given, self.old.num_nodes)
        index, _ = self._token_edges()

        def make() -> EdgeLayout | DeferredEdges:
            return self._edges(torch.cat([edges.edge_index.to(index.dtype), index], dim=1))

        if isinstance(edges, EdgeLayout) and isinstance(self.old, GraphLayout):
            return edges.cached(("graph token", self.num_tokens, weakref.ref(self.old)), make)
        return make()

    def _edges(self, index: Tensor) -> EdgeLayout | DeferredEdges:
        return EdgeLayout.of(index, self.layout.num_nodes)
