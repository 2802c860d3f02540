"""Encoders of the features of OGB's sets of graphs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import Data

from ..nn.arguments import check_counts
from .encoders import CategoryEncoder, read

# Values of each column of ogb's features ('ogb.utils.features'); a test compares them with the
# installed ogb's. Up to ogb 1.3.5 chirality had one value less.
ATOM_SIZES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
BOND_SIZES = (5, 6, 2)


class AtomEncoder(CategoryEncoder):
    """The sum of nine embeddings of ogb's atom features; ogb's parameter names.

    Args:
        channels (int): ``F``.
        atom_rows (int): Rows of all tables: 174, as in today's ogb, or 173, as in the versions
            with which models were published until 2023. (default: :obj:`174`)

    Raises:
        ValueError: If there is no such number of rows; in a call as :class:`CategoryEncoder`.
        IndexError: As :class:`CategoryEncoder`.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import AtomEncoder
        >>> AtomEncoder(16)(Data(x=torch.zeros(3, 9, dtype=torch.long))).shape
        torch.Size([3, 16])
    """

    tables = "atom_embedding_list"

    def __init__(self, channels: int, atom_rows: int = 174) -> None:
        if atom_rows not in (173, 174):
            raise ValueError(f"'atom_rows' must be 174, or 173 of older ogb (got {atom_rows!r})")
        sizes = list(ATOM_SIZES)
        sizes[1] -= 174 - atom_rows
        super().__init__(sizes, channels)

    def reset_parameters(self) -> None:
        """Draws all tables anew: Xavier-uniform, as ogb does."""
        _draw_as_ogb(getattr(self, self.tables))


class BondEncoder(CategoryEncoder):
    """The sum of three embeddings of ogb's bond features; ogb's parameter names.

    Args:
        channels (int): ``F``.

    Raises:
        ValueError: As :class:`CategoryEncoder`.
        IndexError: As :class:`CategoryEncoder`.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import BondEncoder
        >>> data = Data(edge_attr=torch.zeros(4, 3, dtype=torch.long))
        >>> BondEncoder(16)(data).shape
        torch.Size([4, 16])
    """

    tables = "bond_embedding_list"

    def __init__(self, channels: int) -> None:
        super().__init__(BOND_SIZES, channels, "edge_attr")

    def reset_parameters(self) -> None:
        """Draws all tables anew: Xavier-uniform, as ogb does."""
        _draw_as_ogb(getattr(self, self.tables))


class SharedVector(torch.nn.Module):
    """One learned vector for every node: of sets without node features, as ogbg-ppa.

    Args:
        channels (int): ``F``.

    Raises:
        ValueError: If ``channels`` is no whole number of at least 1.

    Example:
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import SharedVector
        >>> SharedVector(16)(Data(num_nodes=3)).shape
        torch.Size([3, 16])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_counts(channels=channels)
        self.table = Embedding(1, channels)

    def reset_parameters(self) -> None:
        """Draws the vector anew."""
        self.table.reset_parameters()

    def forward(self, data: Data) -> Tensor:
        """``[N, F]``."""
        weight: Tensor = self.table.weight
        return weight.expand(data.num_nodes or 0, -1)


class ASTNodeEncoder(torch.nn.Module):
    """The sum of embeddings of type, attribute and depth: of ogbg-code2's syntax trees.

    Args:
        channels (int): ``F``.
        num_types (int): (default: :obj:`98`)
        num_attributes (int): (default: :obj:`10030`)
        max_depth (int): Deeper nodes share its vector. (default: :obj:`20`)

    Raises:
        ValueError: If a number is out of range; in a call, if ``data.x`` is not ``[N, 2]`` or
            ``data.node_depth`` is missing.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import ASTNodeEncoder
        >>> zeros = torch.zeros(3, 2, dtype=torch.long)
        >>> ASTNodeEncoder(16)(Data(x=zeros, node_depth=zeros[:, :1])).shape
        torch.Size([3, 16])
    """

    def __init__(
        self, channels: int, num_types: int = 98, num_attributes: int = 10030, max_depth: int = 20
    ) -> None:
        super().__init__()
        check_counts(num_types=num_types, num_attributes=num_attributes, channels=channels)
        check_counts(0, max_depth=max_depth)
        self.max_depth = max_depth
        self.labels = CategoryEncoder([num_types, num_attributes], channels)
        self.depth = Embedding(max_depth + 1, channels)

    def reset_parameters(self) -> None:
        """Draws all tables anew."""
        self.labels.reset_parameters()
        self.depth.reset_parameters()

    def forward(self, data: Data) -> Tensor:
        """``[N, F]``."""
        depth = read(self, data, "node_depth").view(-1).clamp(0, self.max_depth)
        out: Tensor = self.labels(data) + self.depth(depth)
        return out


def _draw_as_ogb(tables: Iterable[Embedding]) -> None:
    for table in tables:
        torch.nn.init.xavier_uniform_(table.weight)
