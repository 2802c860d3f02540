"""Categories of several columns in one table, by offsets: as Graphormer reads molecules."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import Data

from ..layout.values import is_readable
from ..nn.arguments import check_counts, describe
from .encoders import read
from .preset import choose


class JointTableEncoder(torch.nn.Module):
    r"""The sum or the mean of a row for each column of categories, all in one table.

    Category ``v`` of column ``c`` is row ``shift + 512 c + v``; row 0 is that of padding, and
    nothing here is padded.

    Args:
        num_columns (int): Number of columns of categories.
        num_rows (int): Rows of the table.
        channels (int): ``F``.
        attr_name (str): The attribute of the batch. (default: :obj:`"x"`)
        shift (int): Row of the first category. (default: :obj:`2`)
        reduce (str): ``"sum"`` or ``"mean"`` over the columns. (default: :obj:`"sum"`)

    Raises:
        ValueError: If a number is out of range, or the table is too small for the columns; in a
            call, if the attribute is missing or has another number of columns.
        IndexError: In a call on a CPU, if a category is beyond its vocabulary; on an accelerator
            the device reports it.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.models import JointTableEncoder
        >>> encoder = JointTableEncoder(9, 4609, 16)
        >>> encoder(Data(x=torch.zeros(3, 9, dtype=torch.long))).shape
        torch.Size([3, 16])
    """

    OFFSET = 512

    def __init__(
        self,
        num_columns: int,
        num_rows: int,
        channels: int,
        attr_name: str = "x",
        shift: int = 2,
        reduce: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        check_counts(num_columns=num_columns, num_rows=num_rows, channels=channels, shift=shift)
        self.reduce = choose("reduce", reduce, ("sum", "mean"))
        if num_rows <= shift + self.OFFSET * (num_columns - 1):
            raise ValueError(
                f"{num_columns} columns begin at row {shift} and {self.OFFSET} rows apart, so "
                f"'num_rows' must be more than {shift + self.OFFSET * (num_columns - 1)} (got "
                f"{num_rows})"
            )
        self.attr_name = attr_name
        self.shift = shift
        self.table = Embedding(num_rows, channels, padding_idx=0)
        rest = num_rows - shift
        self.sizes = [min(self.OFFSET, rest - self.OFFSET * c) for c in range(num_columns)]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the table anew, as Graphormer does: normal, of deviation 0.02; row 0 is zero."""
        normal_rows(self.table.weight)

    def forward(self, data: Data) -> Tensor:
        """``[N, F]`` (or ``[E, F]``) from ``data.{attr_name}``."""
        x = read(self, data, self.attr_name)
        index = x.unsqueeze(1) if x.dim() == 1 else x
        whole = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
        if not whole or index.dim() != 2 or index.size(1) != len(self.sizes):
            raise ValueError(
                f"'data.{self.attr_name}' must be integers of {len(self.sizes)} columns (got "
                f"{describe(x)}); floating-point features go through 'FeatureEncoder'"
            )
        index = index.long()
        self._check(index)
        columns = torch.arange(len(self.sizes), device=index.device)
        rows: Tensor = self.table(index + self.OFFSET * columns + self.shift)  # [N, K, F]
        return rows.sum(1) if self.reduce == "sum" else rows.mean(1)

    def _check(self, index: Tensor) -> None:
        # a row of the next column's would be read without a word
        if not is_readable(index):
            return
        wrong = (index < 0) | (index >= index.new_tensor(self.sizes))
        if index.is_cuda:
            torch._assert_async(~wrong.any(), f"a category of 'data.{self.attr_name}' is beyond")
        elif bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise IndexError(
                f"'data.{self.attr_name}[{row}, {column}]' is {int(index[row, column])}, and this "
                f"'{type(self).__name__}' has {self.sizes[column]} categories in that column (0 "
                f"to {self.sizes[column] - 1}); make it with more rows, or check how the data "
                f"were made"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.sizes)}, {self.table.num_embeddings}, "
            f"{self.table.embedding_dim})"
        )


@torch.no_grad()
def normal_rows(table: Any) -> None:
    """Draws a table anew, as Graphormer does; row 0, of padding, is zero."""
    torch.nn.init.normal_(table, std=0.02)
    table[0].zero_()
