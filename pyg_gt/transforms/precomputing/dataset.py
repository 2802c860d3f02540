"""A dataset whose graphs receive their encodings as they are read."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch_geometric.data import Batch, Data, Dataset, InMemoryDataset, OnDiskDataset
from torch_geometric.data.dataset import IndexType

from ..graph_encoding import GraphEncoding
from ..graphs.attributes import device_of, put
from .columns import Column, gather, shallow_copy


class PrecomputedDataset(Dataset):
    """What :func:`precompute` makes of a dataset: the same graphs in the same order, encoded.

    It is indexed as any `torch_geometric.data.Dataset`, and has ``copy``, ``to_on_disk_dataset``,
    ``data``, ``slices``, ``to``, ``cpu`` and ``cuda`` of `torch_geometric.data.InMemoryDataset`;
    its encodings can be asked for as ``y`` can there, of all graphs together. Other
    attributes (``y``, ``get_idx_split``, ``num_tasks``) are those of the dataset it was made of,
    indexed as it is.

    Args:
        dataset (torch_geometric.data.Dataset): The graphs.
        encodings (sequence of GraphEncoding): What was computed.
        chunks (sequence of range): The numbers of the graphs of each shard.
        shards (sequence): The attributes of the graphs of each shard.

    Example:
        >>> from pyg_gt.datasets import LongRange
        >>> from pyg_gt.transforms import AddRandomWalkPE, precompute
        >>> rings = LongRange(12, sizes=(6, 12))
        >>> dataset = precompute(rings, AddRandomWalkPE(4), progress=False)
        >>> len(dataset), dataset[0].random_walk_pe.shape
        (12, torch.Size([6, 4]))
    """

    def __init__(
        self,
        dataset: Dataset,
        encodings: Sequence[GraphEncoding],
        chunks: Sequence[range],
        shards: Sequence[Sequence[Column]],
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.encodings = encodings
        self._starts = [chunk.start for chunk in chunks]
        self._shards = shards

    def len(self) -> int:
        """Number of graphs."""
        return len(self.dataset)

    def get(self, idx: int) -> Data:
        """Graph ``idx`` of all, with its encodings and before ``transform``.

        Raises:
            IndexError: if there is no such graph.
            ValueError: if the graph is not the one that was encoded.
        """
        shard, place = self._place(idx)
        data = shallow_copy(self.dataset[idx])
        device = device_of(data)
        for column in self._shards[shard]:
            part = column.part(place)
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
        """That of the dataset it was made of, or of what ``transform`` makes of the graphs."""
        if self.transform is not None:
            return int(super().num_classes)
        return int(self._source().num_classes)

    @property
    def data(self) -> Data:
        """All graphs as one, as in `torch_geometric.data.InMemoryDataset`; made at every call."""
        return self._collated()[0]

    @property
    def slices(self) -> Any:
        """Where each graph begins in the attributes of :attr:`data`."""
        return self._collated()[1]

    def copy(self, idx: IndexType | None = None) -> PrecomputedDataset:
        """A copy with graphs and encodings of its own, of these graphs or those of ``idx``.

        Raises:
            AttributeError: if the dataset it was made of has no ``copy``, as those have that do
                not lie in memory.
        """
        chosen = self if idx is None else self.index_select(idx)
        indices = list(chosen.indices())
        places = [self._place(each) for each in indices]
        opened = [self._shards[shard] for shard, _ in places]
        columns = [
            gather(one_attribute, [place for _, place in places])
            for one_attribute in zip(*opened, strict=True)
        ]
        copied = copy.copy(self)
        with _slices_on_host():
            copied.dataset = self.dataset.copy(indices) if indices else chosen._source()
        copied._indices = None
        copied._starts, copied._shards = ([0], [columns]) if indices else ([], [])
        return copied

    def to_on_disk_dataset(
        self, root: str | None = None, backend: str = "sqlite", log: bool = True
    ) -> OnDiskDataset:
        """Writes the graphs and their encodings to a `torch_geometric.data.OnDiskDataset`.

        Args:
            root: folder to write to. What lies there already is read and not written anew, so
                each part of a split needs its own.
            backend: as in `torch_geometric.data.InMemoryDataset.to_on_disk_dataset`.
            log: likewise.

        Raises:
            ValueError: if there is no ``root``.
        """
        if root is None:
            raise ValueError(
                "PrecomputedDataset.to_on_disk_dataset needs a folder to write to: pass root="
            )
        return InMemoryDataset.to_on_disk_dataset(self, root, backend, log)

    def to(self, device: int | str) -> PrecomputedDataset:
        """Moves the graphs of all the dataset to ``device``; encodings follow as they are read."""
        self._source().to(device)
        return self

    def cpu(self, *args: str) -> PrecomputedDataset:
        """Moves the graphs of all the dataset to the CPU's memory."""
        return self.to("cpu")

    def cuda(self, device: int | str | None = None) -> PrecomputedDataset:
        """Moves the graphs of all the dataset to a GPU."""
        return self.to(f"cuda:{device}" if isinstance(device, int) else device or "cuda")

    def _source(self) -> Dataset:
        """The dataset it was made of, indexed as it is."""
        if self._indices is None:
            return self.dataset
        return self.dataset.index_select(list(self._indices))

    def _place(self, idx: int) -> tuple[int, int]:
        """The shard of graph ``idx`` of all, and its number there."""
        if not 0 <= idx < len(self.dataset):
            raise IndexError(f"there are {len(self.dataset)} graphs, and none of number {idx}")
        shard = bisect_right(self._starts, idx) - 1
        return shard, idx - self._starts[shard]

    def _read(self) -> Iterator[Data]:
        return (self.get(idx) for idx in self.indices())

    def _collated(self) -> Any:
        graphs = list(self._read())
        with _slices_on_host():
            return InMemoryDataset.collate(graphs)

    def _encodes(self, name: str) -> bool:
        names = {column.name for column in self._shards[0]} if len(self._shards) else set()
        return name in names or (name == "x" and None in names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("dataset", "encodings"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if not self._encodes(name):
            return getattr(self._source(), name)
        graphs = list(self._read())
        others = sorted({key for graph in graphs for key in graph.keys()} - {name})
        with _slices_on_host():
            return Batch.from_data_list(graphs, exclude_keys=others)[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._source()!r}, {list(self.encodings)})"


def _slices_on_host() -> torch.device:
    """PyG makes slices and ``batch`` of graphs in memory on the default device."""
    return torch.device("cpu")
