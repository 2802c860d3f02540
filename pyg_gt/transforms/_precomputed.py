"""A dataset whose graphs get encodings as they are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from torch_geometric.data import Data, Dataset

from ._attributes import Column, device_of, put, shallow_copy
from ._encoding import GraphEncoding


class PrecomputedDataset(Dataset):
    """What :func:`precompute` makes of a dataset: the same graphs in the same order, encoded.

    It is indexed as any `torch_geometric.data.Dataset`. What it has not itself (``get_idx_split``,
    ``num_tasks``) it takes from the dataset it was made of.

    Args:
        dataset: the graphs.
        encodings: what was computed.
        pieces: which graphs each shard is of.
        shards: the attributes of each.
    """

    def __init__(
        self,
        dataset: Dataset,
        encodings: Sequence[GraphEncoding],
        pieces: Sequence[range],
        shards: Sequence[Sequence[Column]],
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.encodings = encodings
        self._starts = [piece.start for piece in pieces]
        self._shards = shards

    def len(self) -> int:
        """Number of graphs."""
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        """Graph ``idx`` with its encodings.

        Raises:
            ValueError: if the graph is not the one that was encoded.
        """
        data = shallow_copy(self.dataset[idx])
        device = device_of(data)
        shard = bisect_right(self._starts, idx) - 1
        for column in self._shards[shard]:
            part = column.part(idx - self._starts[shard])
            if column.per_node and part.size(0) != data.num_nodes:
                raise ValueError(
                    f"graph {idx} has {data.num_nodes} nodes, and {part.size(0)} when it was "
                    "encoded: the dataset must give the same graphs at every read, so a random "
                    "transform belongs behind the encodings (PrecomputedDataset.transform)"
                )
            put(data, column.name, part, device)
        return data

    @property
    def num_classes(self) -> int:
        """That of the dataset it was made of."""
        return int(self.dataset.num_classes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.dataset, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset!r}, {list(self.encodings)})"
