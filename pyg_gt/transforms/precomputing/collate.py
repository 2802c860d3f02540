"""Encodings computed batch by batch, where a data loader makes its batches."""

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
    `torch.utils.data.DataLoader` (PyG's loader takes none), whose workers then compute them::

        loader = torch.utils.data.DataLoader(
            dataset, batch_size=32, num_workers=4,
            collate_fn=EncodeAndCollate(AddShortestPathDistance(20)),
        )

    Args:
        transform: a transform of this package, a list or tuple of them, or a
            `torch_geometric.transforms.Compose` of them.
        follow_batch: as in `torch_geometric.loader.DataLoader`.
        exclude_keys: likewise.

    Raises:
        ValueError: if an argument is something else. What is wrong with a graph is said with its
            number in the list.
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
