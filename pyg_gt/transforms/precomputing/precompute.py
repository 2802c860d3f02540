"""Encodings of a whole dataset, in bulk, by several processes, kept on disk if asked."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch_geometric.data import Data, Dataset

from ..graphs.arguments import check_count, check_flag
from .chunks import chunks
from .columns import Column, attach
from .dataset import PrecomputedDataset
from .encode import encodings_of
from .store import Shards, Store
from .workers import Work, run


def precompute(
    data: Sequence[Data] | Dataset,
    transform: Any,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    num_workers: int = 0,
    progress: bool = True,
    rebuild: bool = False,
) -> list[Data] | PrecomputedDataset:
    """Runs encodings over many graphs at once: the same as one by one, and far faster.

    Graphs of one size share calls of linear algebra, and encodings asked for together share an
    eigendecomposition.

    **On disk.** With ``cache_dir`` the encodings lie in a folder of it named after the graphs, the
    transforms and the version of this library. There they are computed once, a shard at a time;
    after a crash the next call goes on where it stopped. They are read through memory maps, so
    memory stays flat whatever the size. The files are plain arrays; nothing in them is run. Every
    call reads all graphs, to know their folder, and all files of it, to know that they are whole.
    Of a transform of your own the name, arguments and limits (attributes in capitals) are known,
    not the code: pass ``rebuild=True`` once it has changed. Nor is it known which machine and
    linear algebra wrote a folder: others round otherwise and may choose another basis of an
    eigenspace.

    Args:
        data (list of Data or torch_geometric.data.Dataset): Graphs, or a dataset of them, which is
            read as it is given, with its ``transform``.
        transform (GraphEncoding, list, tuple or torch_geometric.transforms.Compose): One encoding
            or several.
        cache_dir (str or os.PathLike, optional): Folder to keep the encodings in; :obj:`None`
            keeps them in memory. (default: :obj:`None`)
        num_workers (int, optional): Number of processes that compute; 0 computes in this one. As
            in any `torch.utils.data.DataLoader`, they need ``if __name__ == "__main__"`` where
            processes are not forked. (default: :obj:`0`)
        progress (bool, optional): Whether a progress bar is shown, on a terminal.
            (default: :obj:`True`)
        rebuild (bool, optional): Whether an existing folder of these encodings is deleted and made
            anew. No other process may be reading or writing it. (default: :obj:`False`)

    Returns:
        Of a dataset, a :class:`PrecomputedDataset` of the same length and order; else a list. The
        graphs are shallow copies, the originals stay as they are. Encodings of neighbouring graphs
        lie in one piece of memory, of which each graph saves and pickles its own part.

    Raises:
        ValueError: if an argument is not as said, the cache is damaged or not the one asked for,
            or graphs change from one read to the next. What is wrong with a graph is said with
            its number.
        IndexError: if an ``edge_index`` holds a node that is not there.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_gt.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE, precompute
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> encode = [AddLaplacianEigenvectorPE(8), AddRandomWalkPE(16)]
        >>> graphs = precompute([path] * 100, encode, progress=False)
        >>> graphs[0].laplacian_eigenvector_pe.shape, graphs[0].random_walk_pe.shape
        (torch.Size([3, 8]), torch.Size([3, 16]))
    """
    is_sequence = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if isinstance(data, (Data, str)) or not is_sequence:
        raise ValueError(
            f"expected a list of graphs or a dataset, got {type(data).__name__}; a single graph "
            "is encoded by calling the transform on it"
        )
    if not isinstance(data, Dataset):
        data = [data[i] for i in range(len(data))]  # read once: the result holds them all anyway
    encodings = encodings_of(transform)
    num_workers = check_count("precompute", "num_workers", num_workers, least=0)
    progress = check_flag("precompute", "progress", progress)
    rebuild = check_flag("precompute", "rebuild", rebuild)
    _check_cache_dir(cache_dir)
    shards: Iterable[Sequence[Column]]
    with _no_garbage_collection():
        if cache_dir is not None:
            store = Store.open(cache_dir, data, encodings, rebuild=rebuild, progress=progress)
            work = Work(data, encodings, store.chunks, store)
            for _ in run(work, store.missing(progress), num_workers, progress):
                pass
            store.finish()
            shards = Shards(store)
        else:
            work = Work(data, encodings, chunks(data), None)
            shards = run(work, list(range(len(work.chunks))), num_workers, progress)
        if isinstance(data, Dataset):
            kept = shards if isinstance(shards, Shards) else list(shards)
            return PrecomputedDataset(data, encodings, work.chunks, kept)
        encoded = []
        for chunk, columns in zip(work.chunks, shards, strict=True):
            encoded += attach([data[i] for i in chunk], columns, chunk.start)
        return encoded


def _check_cache_dir(cache_dir: Any) -> None:
    if cache_dir is None or (isinstance(cache_dir, os.PathLike) and os.fspath(cache_dir)):
        return
    if not isinstance(cache_dir, str) or not cache_dir:
        raise ValueError(
            f"precompute got cache_dir={cache_dir!r}; expected the name of a folder ('.' is the "
            "working directory), or None to keep the encodings in memory"
        )


_FEW_FROZEN = 2000


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Without garbage collection, which would look at all graphs time and again for nothing.

    Degrees of 60,000 molecules take 1.9 s so, and 3.0 s with it.

    It does not run at once afterwards either: all objects count as old then, unless the caller has
    frozen some, which only the caller may thaw. (Python
    3.12 has frozen a few hundred when it starts; that they are looked at too costs nothing.)
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() < _FEW_FROZEN:
                gc.freeze()
                gc.unfreeze()
            gc.enable()
