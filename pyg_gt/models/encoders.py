"""Encoders of raw features, called with a batch, and what joins them with encodings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, Linear, ModuleList
from torch_geometric.data import Data

from ..nn.arguments import check_counts, check_module, describe


class FeatureEncoder(torch.nn.Module):
    """A linear map of floating-point features of nodes or edges.

    Args:
        in_channels (int): Width of the features.
        channels (int): ``F``.
        attr_name (str): The attribute of the batch. (default: :obj:`"x"`)

    Raises:
        ValueError: If a number is out of range; in a call, if the attribute is missing or of
            another shape.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import FeatureEncoder
        >>> FeatureEncoder(7, 16)(Data(x=torch.randn(3, 7))).shape
        torch.Size([3, 16])
    """

    def __init__(self, in_channels: int, channels: int, attr_name: str = "x") -> None:
        super().__init__()
        check_counts(in_channels=in_channels, channels=channels)
        self.attr_name = attr_name
        self.lin = Linear(in_channels, channels)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.lin.reset_parameters()

    def forward(self, data: Data) -> Tensor:
        """``[N, F]`` (or ``[E, F]``) from ``data.{attr_name}``."""
        x = read(self, data, self.attr_name)
        width = self.lin.in_features
        if not x.is_floating_point() or x.dim() != 2 or x.size(1) != width:
            raise ValueError(
                f"'data.{self.attr_name}' must be floating-point features of {width} columns (got "
                f"{describe(x)}); categories go through 'CategoryEncoder'"
            )
        out: Tensor = self.lin(x)
        return out


class CategoryEncoder(torch.nn.Module):
    """The sum of an embedding for each column of categories of nodes or edges.

    Args:
        sizes (int or list of int): Number of categories, of each column where there are several.
        channels (int): ``F``.
        attr_name (str): The attribute of the batch. (default: :obj:`"x"`)

    Raises:
        ValueError: If a number is out of range; in a call, if the attribute is missing or has
            another number of columns.
        IndexError: In a call on a CPU, if a category is beyond its vocabulary.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import CategoryEncoder
        >>> encoder = CategoryEncoder(28, 16)
        >>> encoder(Data(x=torch.tensor([[3], [0], [27]]))).shape
        torch.Size([3, 16])
    """

    tables: str = "embeddings"  # the name under which the tables are saved

    def __init__(self, sizes: int | Iterable[int], channels: int, attr_name: str = "x") -> None:
        super().__init__()
        self.sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        check_counts(channels=channels)
        for size in self.sizes:
            check_counts(sizes=size)
        self.channels = channels
        self.attr_name = attr_name
        setattr(self, self.tables, ModuleList(Embedding(n, channels) for n in self.sizes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all tables anew: normal, torch's own."""
        for table in getattr(self, self.tables):
            table.reset_parameters()

    def forward(self, data: Data) -> Tensor:
        """``[N, F]`` (or ``[E, F]``) from ``data.{attr_name}``."""
        x = read(self, data, self.attr_name)
        index = x.unsqueeze(1) if x.dim() == 1 else x
        if x.is_floating_point() or index.dim() != 2 or index.size(1) != len(self.sizes):
            raise ValueError(
                f"'data.{self.attr_name}' must be integers of {len(self.sizes)} columns (got "
                f"{describe(x)}); floating-point features go through 'FeatureEncoder'"
            )
        tables = getattr(self, self.tables)
        try:
            out: Tensor = tables[0](index[:, 0])
            for column, table in enumerate(tables[1:], 1):
                out = out + table(index[:, column])
        except IndexError as error:
            raise IndexError(self._beyond(index)) from error
        return out

    def _beyond(self, index: Tensor) -> str:
        sizes = index.new_tensor(self.sizes)
        row, column = ((index < 0) | (index >= sizes)).nonzero()[0].tolist()
        return (
            f"'data.{self.attr_name}[{row}, {column}]' is {int(index[row, column])}, and this "
            f"'{type(self).__name__}' has {self.sizes[column]} categories in that column (0 to "
            f"{self.sizes[column] - 1}); make it with more, or check how the data were made"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sizes}, {self.channels})"


class _Joined(torch.nn.Module):
    def __init__(self, *encoders: torch.nn.Module) -> None:
        super().__init__()
        if not encoders:
            raise ValueError(f"'{type(self).__name__}' joins encoders, and got none")
        for i, encoder in enumerate(encoders):
            check_module(f"encoders[{i}]", encoder)
        self.encoders = ModuleList(encoders)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        for encoder in self.encoders:
            encoder.reset_parameters()  # type: ignore[operator]

    def _encoded(self, data: Data) -> Sequence[Tensor]:
        # those of 'pyg_gt.nn' are called with tensors, and read a batch by 'from_data'
        return [getattr(encoder, "from_data", encoder)(data) for encoder in self.encoders]


class CatEncoder(_Joined):
    """Features and encodings of nodes side by side.

    Args:
        *encoders (torch.nn.Module): Called with the batch; those of ``pyg_gt.nn`` by
            ``from_data``.

    Raises:
        ValueError: If there is none; in a call, if the batch lacks what one of them reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import CatEncoder, FeatureEncoder
        >>> from pyg_gt.nn import RandomWalkEncoder
        >>> encoder = CatEncoder(FeatureEncoder(7, 12), RandomWalkEncoder(6, 4))
        >>> encoder(Data(x=torch.randn(3, 7), random_walk_pe=torch.rand(3, 6))).shape
        torch.Size([3, 16])
    """

    def forward(self, data: Data) -> Tensor:
        """``[N, F]``, the sum of the encoders' widths."""
        return torch.cat(list(self._encoded(data)), dim=-1)


class SumEncoder(_Joined):
    """The sum of features and encodings of nodes.

    Args:
        *encoders (torch.nn.Module): Called with the batch; those of ``pyg_gt.nn`` by
            ``from_data``.

    Raises:
        ValueError: If there is none; in a call, if the batch lacks what one of them reads.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import FeatureEncoder, SumEncoder
        >>> from pyg_gt.nn import RandomWalkEncoder
        >>> encoder = SumEncoder(FeatureEncoder(7, 16), RandomWalkEncoder(6, 16))
        >>> encoder(Data(x=torch.randn(3, 7), random_walk_pe=torch.rand(3, 6))).shape
        torch.Size([3, 16])
    """

    def forward(self, data: Data) -> Tensor:
        """``[N, F]``."""
        first, *others = self._encoded(data)
        return sum(others, first)


def read(encoder: object, data: Any, attr_name: str) -> Tensor:
    """``data.{attr_name}``.

    Raises:
        ValueError: If ``data`` is no graph or does not have it.
    """
    if not isinstance(data, Data):
        raise ValueError(
            f"a model is called with a 'torch_geometric.data.Data' or 'Batch' (got "
            f"{describe(data)}); its layers can be called with tensors"
        )
    x = data.get(attr_name)
    if not isinstance(x, Tensor):
        raise ValueError(
            f"'{type(encoder).__name__}' reads 'data.{attr_name}', which this "
            f"'{type(data).__name__}' does not have; give it, or another encoder"
        )
    return x
