"""A collate function that encodes the graphs of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Batch, Data

from ..graphs.arguments import check_names
from .columns import attach
from .encode import encode, encodings_of


class EncodeAndCollate:
    """Encodes a list of graphs at once and makes a `Batch` of them.

    For encodings too large to be kept, those of pairs above all. It is a ``collate_fn`` of
    `torch.utils.data.DataLoader` (PyG's loader takes none), whose workers then compute them.

    Args:
        transform (GraphEncoding, list, tuple or torch_geometric.transforms.Compose): One encoding
            or several.
        follow_batch (list of str, optional): As in `torch_geometric.loader.DataLoader`.
            (default: :obj:`None`)
        exclude_keys (list of str, optional): Likewise. (default: :obj:`None`)

    Raises:
        ValueError: if an argument is something else. What is wrong with a graph is said with its
            number in the list.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddShortestPathDistance, EncodeAndCollate
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> loader = torch.utils.data.DataLoader(
        ...     [path] * 8, batch_size=4, collate_fn=EncodeAndCollate(AddShortestPathDistance(20))
        ... )
        >>> next(iter(loader)).pair_distance.shape
        torch.Size([36])
    """

    def __init__(
        self,
        transform: Any,
        follow_batch: list[str] | None = None,
        exclude_keys: list[str] | None = None,
    ) -> None:
        self.transform = transform
        self.encodings = encodings_of(transform)
        check_names(self, "follow_batch", follow_batch)
        check_names(self, "exclude_keys", exclude_keys)
        self.follow_batch = follow_batch
        self.exclude_keys = exclude_keys

    def __call__(self, datas: Sequence[Data]) -> Batch:
        """``datas`` as one `Batch`, with their encodings."""
        if not len(datas):
            raise ValueError("expected at least one graph to make a batch of, got none")
        encoded = attach(datas, encode(datas, self.encodings)[1])
        # PyG makes batch and ptr of graphs in memory on the default device
        with torch.device("cpu"):
            return Batch.from_data_list(encoded, self.follow_batch, self.exclude_keys)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transform})"
