"""Encodings on disk: what is there is right and whole, whatever happened to those who wrote it."""

import copy
import errno
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data, Dataset
from torch_geometric.loader import DataLoader
from torch_geometric.utils import from_networkx

from pyg_gt.transforms import (
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    PrecomputedDataset,
    precompute,
)
from pyg_gt.transforms.graph_encoding import GraphEncoding
from pyg_gt.transforms.graphs.attributes import Attribute
from pyg_gt.transforms.graphs.graphs import Graphs, offsets
from pyg_gt.transforms.precomputing import chunks, files, manifest, store
from tests.transforms.samples import ReadAnew

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


class EveryKind(GraphEncoding):
    """An attribute of every kind; what it does at a call can be set, and is no part of it."""

    before: Callable[[Graphs], None] = staticmethod(lambda graphs: None)

    def __init__(self, k: int = 3, attr_name: str = "kind") -> None:
        self.k, self.attr_name = k, attr_name

    def encode(self, graphs: Graphs) -> list[Attribute]:
        self.before(graphs)
        name, sizes = self.attr_name, np.diff(graphs.ptr)
        nodes = np.arange(graphs.num_nodes) - np.repeat(graphs.ptr[:-1], sizes)
        floats = np.outer(nodes + 1.0, np.arange(self.k))
        loops = np.flatnonzero(nodes % 2 == 0)  # an edge at every other node
        rows = offsets((sizes + 1) // 2)
        first = np.repeat(graphs.pair_ptr[:-1], sizes**2)
        pairs = (np.arange(first.size) - first).astype(np.uint8)
        return [
            Attribute(f"{name}_floats", floats, graphs.ptr),
            Attribute(f"{name}_mask", floats > 2, graphs.ptr),
            Attribute(f"{name}_columns", np.asfortranarray(floats), graphs.ptr),
            Attribute(f"{name}_none", floats[:, :0], graphs.ptr),
            Attribute(f"{name}_pairs", pairs, graphs.pair_ptr),
            Attribute(f"{name}_edge_index", np.stack([loops, loops]), rows, is_edge_index=True),
            Attribute(f"{name}_nothing", np.empty((0, 2), np.int32), 0 * graphs.ptr),
            Attribute(None, floats[:, :1], graphs.ptr),
        ]


ONE = [EveryKind()]
ALL = [*ONE, AddLaplacianEigenvectorPE(3), AddRandomWalkPE(4)]


def some_graphs() -> list[Data]:
    graphs = [nx.gnp_random_graph(n, 2.5 / n, seed=n) for n in range(1, 16)]
    found = [from_networkx(graph) for graph in [*graphs, nx.empty_graph(4)]]
    return [
        Data(
            x=torch.arange(2.0 * data.num_nodes).view(-1, 2),
            edge_index=data.edge_index.long() if data.num_nodes > 1 else torch.zeros(2, 0).long(),
            number=i,
        )
        for i, data in enumerate([*found, Data(edge_index=torch.zeros(2, 0), num_nodes=0)])
    ]


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 30)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of graphs of the calls of `EveryKind` in this process."""
    calls: list[int] = []
    monkeypatch.setattr(EveryKind, "before", lambda self, graphs: calls.append(graphs.num_graphs))
    yield calls


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """One whose parents everyone may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def cached(
    cache_dir: Path,
    data: list[Data] | Dataset | None = None,
    transform: object = ALL,
    **arguments: object,
) -> list[Data] | PrecomputedDataset:
    data = some_graphs() if data is None else data
    return precompute(data, transform, cache_dir=cache_dir, progress=False, **arguments)


def assert_equal(got: object, expected: object) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert list(one.keys()) == list(other.keys())
        for key, value in other.to_dict().items():
            if isinstance(value, torch.Tensor):
                assert one[key].dtype == value.dtype
                assert torch.equal(one[key], value), key
            else:
                assert one[key] == value


def materialized() -> list[Data]:
    return precompute(some_graphs(), ALL, progress=False)


def in_another_process(function: Callable[[], object]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join()
    return process.exitcode


def folders(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.glob("encodings-*"))


def leftovers(cache_dir: Path) -> list[Path]:
    return list(cache_dir.rglob(".*"))


def shards(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.glob("encodings-*/[0-9]*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_with_a_cache_and_without(tmp_path: Path, num_workers: int) -> None:
    expected = materialized()
    assert expected[4].kind_edge_index.tolist() == [[0, 2, 4], [0, 2, 4]]
    assert expected[4].kind_mask.dtype == torch.bool and expected[4].kind_pairs.numel() == 25
    assert expected[4].kind_nothing.shape == (0, 2) and expected[4].x.shape == (5, 3)
    for where in ("list", "list", "dataset"):
        data = some_graphs() if where == "list" else ReadAnew(some_graphs())
        got = cached(tmp_path, data, num_workers=num_workers)
        assert isinstance(got, list if where == "list" else PrecomputedDataset)
        assert_equal(got, expected)
    assert len(folders(tmp_path)) == 1 and len(shards(tmp_path)) == 5
    assert not leftovers(tmp_path)
    assert_equal(cached(tmp_path, []), [])


def test_a_second_call_computes_nothing(tmp_path: Path, computed: list[int]) -> None:
    first = cached(tmp_path)
    assert sum(computed) == len(first) and len(computed) == 5
    before = contents(tmp_path)
    computed.clear()
    assert_equal(cached(tmp_path), first)
    assert_equal(cached(tmp_path, num_workers=2), first)
    assert_equal(cached(str(tmp_path)), first)
    assert not computed and contents(tmp_path) == before


def another_edge(end: int) -> list[Data]:
    graphs = some_graphs()
    edge_index = graphs[9].edge_index.clone()
    edge_index[end, 3] = (edge_index[end, 3] + 1) % 10
    graphs[9].edge_index = edge_index
    return graphs


def an_edge_of_no_weight() -> list[Data]:
    """It is left out, but the edges behind it have other numbers."""
    graphs = weighted(1.0)
    graphs[9].edge_index = torch.cat([torch.tensor([[0], [9]]), graphs[9].edge_index], dim=1)
    graphs[9].edge_weight = torch.cat([torch.zeros(1), graphs[9].edge_weight])
    return graphs


def one_node_more() -> list[Data]:
    graphs = some_graphs()
    return [*graphs[:-1], Data(edge_index=torch.zeros(2, 0).long(), num_nodes=1)]


def weighted(weight: float) -> list[Data]:
    graphs = some_graphs()
    graphs[9].edge_weight = torch.ones(graphs[9].num_edges)
    graphs[9].edge_weight[-1] = weight
    return graphs


@pytest.mark.parametrize(
    ("data", "transform"),
    [
        (some_graphs, [EveryKind(4), *ALL[1:]]),
        (some_graphs, [EveryKind(3, "other"), *ALL[1:]]),
        (some_graphs, ALL[::-1]),
        (some_graphs, ALL[:2]),
        (lambda: some_graphs()[::-1], ALL),
        (lambda: some_graphs()[:-1], ALL),
        (lambda: another_edge(0), ALL),
        (lambda: another_edge(1), ALL),
        (lambda: weighted(2.0), ALL),
        (an_edge_of_no_weight, ALL),
        (one_node_more, ALL),
    ],
)
def test_anything_else_lies_in_a_folder_of_its_own(
    tmp_path: Path, data: Callable[[], list[Data]], transform: list[GraphEncoding]
) -> None:
    cached(tmp_path)
    (old,) = folders(tmp_path)
    before = contents(old)
    assert_equal(
        cached(tmp_path, data(), transform), precompute(data(), transform, progress=False)
    )
    assert len(folders(tmp_path)) == 2 and contents(old) == before
    assert_equal(cached(tmp_path), materialized())


def test_another_version_or_limit_is_something_else(
    tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(tmp_path)
    monkeypatch.setattr(manifest, "__version__", "99.0")
    cached(tmp_path)
    assert len(folders(tmp_path)) == 2 and len(computed) == 10
    monkeypatch.setattr(AddRandomWalkPE, "DENSE_LIMIT", 5)
    cached(tmp_path)
    assert len(folders(tmp_path)) == 3 and len(computed) == 15
    monkeypatch.undo()


def test_what_encodings_do_not_read_does_not_matter(tmp_path: Path, computed: list[int]) -> None:
    cached(tmp_path, some_graphs())
    computed.clear()
    changed = some_graphs()
    for data in changed:
        data.x = -data.x
        data.edge_weight = torch.ones(data.num_edges, dtype=torch.float64)
    assert_equal(cached(tmp_path, changed), precompute(changed, ALL, progress=False))
    assert len(computed) == 5  # the second time, in memory


# What happens half-way.


class DiskFullError(OSError):
    pass


def fail_at(count: int, how: Callable[[], None]) -> Callable[..., None]:
    calls: list[int] = []

    def counted(*_: object) -> None:
        calls.append(1)
        if len(calls) == count:
            how()

    return counted


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    raise DiskFullError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["computing", "writing", "naming"])
def test_killed_half_way_goes_on_where_it_was(
    where: str, tmp_path: Path, computed: list[int]
) -> None:
    def killed() -> None:
        if where == "computing":
            EveryKind.before = fail_at(3, die)
        elif where == "writing":
            os.fsync = fail_at(60, die)
        else:  # the first name is that of the whole folder
            hook, rename = fail_at(4, die), Path.rename
            Path.rename = lambda path, target: hook() or rename(path, target)
        cached(tmp_path)

    assert in_another_process(killed) == -signal.SIGKILL
    there = len(shards(tmp_path))
    assert there == 2 and bool(leftovers(tmp_path)) == (where != "computing")
    before = contents(folders(tmp_path)[0] / "000001")
    assert_equal(cached(tmp_path), materialized())
    assert len(computed) == 5 - there + 5  # those missing, and those in memory
    assert not leftovers(tmp_path) and contents(folders(tmp_path)[0] / "000001") == before


def test_killed_before_there_was_a_folder(tmp_path: Path) -> None:
    def killed() -> None:
        os.fsync = fail_at(1, die)
        cached(tmp_path)

    assert in_another_process(killed) == -signal.SIGKILL
    assert not folders(tmp_path) and len(leftovers(tmp_path)) == 1
    kept = [tmp_path / ".git" / "config", tmp_path / f".encodings-{32 * '0'}-{32 * 'a'}" / "file"]
    for path in kept:  # something else, and what a call of something else is at
        path.parent.mkdir()
        path.touch()
    assert_equal(cached(tmp_path), materialized())
    assert sorted(leftovers(tmp_path)) == sorted(path.parent for path in kept)


@pytest.mark.parametrize(
    ("how", "error"), [(die, "killed by signal|exited unexpectedly"), (disk_full, "No space left")]
)
def test_a_worker_that_fails(
    how: Callable[[], None], error: str, tmp_path: Path, computed: list[int]
) -> None:
    def fails() -> None:
        os.setpgrp()
        EveryKind.before = fail_at(2, how)  # each worker at its second
        try:
            cached(tmp_path, num_workers=2)
        except (RuntimeError, OSError) as found:
            assert re.search(error, str(found))
            os.killpg(0, signal.SIGKILL)  # the workers too, which go on for a while

    assert in_another_process(fails) == -signal.SIGKILL
    there = {path.name: contents(path) for path in shards(tmp_path)}
    assert len(there) <= 3
    assert_equal(cached(tmp_path), materialized())
    assert len(computed) == 5 - len(there) + 5 and not leftovers(tmp_path)
    for name, before in there.items():
        assert contents(folders(tmp_path)[0] / name) == before


@pytest.mark.parametrize("what", ["encode", "fsync"])
def test_an_error_half_way_leaves_nothing_wrong_behind(
    what: str, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if what == "encode":
            patch.setattr(EveryKind, "before", fail_at(3, disk_full))
        else:
            patch.setattr(os, "fsync", fail_at(60, disk_full))
        with pytest.raises(DiskFullError):
            cached(tmp_path)
    assert len(shards(tmp_path)) == 2 and not leftovers(tmp_path)
    before = contents(shards(tmp_path)[1])
    computed.clear()
    assert_equal(cached(tmp_path), materialized())
    assert len(computed) == 3 + 5 and contents(shards(tmp_path)[1]) == before
    assert not leftovers(tmp_path)


def test_files_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rename may reach the disk before what it names, and the power fail in between.
    synced: list[int] = []

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        assert len(shards(tmp_path)) == max(0, len(synced) - 2) // 25

    monkeypatch.setattr(os, "fsync", fsync)
    cached(tmp_path)
    assert sorted(synced) == sorted(len(found) for found in contents(tmp_path).values())


def test_no_space_for_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_at(1, disk_full))
        with pytest.raises(DiskFullError):
            cached(tmp_path)
    assert not list(tmp_path.iterdir())
    assert_equal(cached(tmp_path), materialized())


# What is not as it was written.


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(at: int) -> Callable[[bytes], bytes]:
    def change(found: bytes) -> bytes:
        changed = bytearray(found)
        changed[at] ^= 0x80
        return bytes(changed)

    return change


def edited(path: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads(path.read_text())
    changed = change(manifest)
    path.write_text(json.dumps(manifest if changed is None else changed))


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def swap(one: Path, other: Path) -> None:
    one.rename(one.parent / "between")
    other.rename(one)
    (one.parent / "between").rename(other)


def from_another_store(shard: Path) -> None:
    """The shard of the same graphs with other numbers, of a cache beside this one."""
    other = shard.parent.parent / "other"
    cached(other, transform=[*ONE, AddRandomWalkPE(5)])
    replaced(shard, lambda path: (folders(other)[0] / shard.name).rename(path))
    shutil.rmtree(other)


SHARD_DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte of values": lambda shard: edit(shard / "0.npy", flipped(-3)),
    "a byte of a header": lambda shard: edit(shard / "0.npy", flipped(20)),
    "a byte of a ptr": lambda shard: edit(shard / "5.ptr.npy", flipped(-8)),
    "other numbers of the same size": lambda shard: edit(
        shard / "0.npy", lambda found: found.replace(b"<f4", b"<i4")
    ),
    "truncated": lambda shard: edit(shard / "0.npy", lambda found: found[:-4]),
    "longer": lambda shard: edit(shard / "0.npy", lambda found: found + b"\0"),
    "emptied": lambda shard: edit(shard / "3.npy", lambda found: b""),
    "missing": lambda shard: (shard / "4.npy").unlink(),
    "a folder": lambda shard: replaced(shard / "4.npy", Path.mkdir),
    "two arrays swapped": lambda shard: swap(shard / "0.npy", shard / "2.npy"),
    "no manifest": lambda shard: (shard / "manifest.json").unlink(),
    "an empty manifest": lambda shard: edit(shard / "manifest.json", lambda found: b""),
    "no JSON": lambda shard: edit(shard / "manifest.json", lambda found: b"\xff{"),
    "deep JSON": lambda shard: edit(shard / "manifest.json", lambda found: b"[" * 10**6),
    "a list": lambda shard: edited(shard / "manifest.json", lambda found: [found]),
    "nothing in it": lambda shard: edited(shard / "manifest.json", lambda found: {}),
    "no arrays": lambda shard: edited(shard / "manifest.json", lambda found: found.pop("arrays")),
    "arrays of a wrong type": lambda shard: edited(
        shard / "manifest.json", lambda found: found | {"arrays": 7}
    ),
    "one array less": lambda shard: edited(
        shard / "manifest.json", lambda found: found["arrays"].pop() and None
    ),
    "another name": lambda shard: edited(
        shard / "manifest.json", lambda found: found["arrays"][0].update(name="x")
    ),
    "another dim": lambda shard: edited(
        shard / "manifest.json", lambda found: found["arrays"][5].update(dim=0)
    ),
    "other checksums": lambda shard: edited(
        shard / "manifest.json", lambda found: found["arrays"][0].update(checksums="ab")
    ),
    "another digest": lambda shard: edited(
        shard / "manifest.json", lambda found: found.update(digest=None)
    ),
    "a file for a shard": lambda shard: replaced(shard, Path.touch),
    "an empty folder for a shard": lambda shard: replaced(shard, Path.mkdir),
    "a link to nowhere": lambda shard: replaced(shard, lambda path: path.symlink_to("nowhere")),
    "swapped": lambda shard: swap(shard, shard.parent / "000003"),
    "another one's": lambda shard: replaced(
        shard, lambda path: shutil.copytree(shard.parent / "000003", path)
    ),
    "of other transforms": from_another_store,
}
FOLDER_DAMAGE: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no JSON": lambda folder: edit(folder / "manifest.json", lambda found: found[1:]),
    "another format": lambda folder: edited(
        folder / "manifest.json", lambda found: found.update(format=0)
    ),
    "another version": lambda folder: edited(
        folder / "manifest.json", lambda found: found.update(version="99.0")
    ),
    "one graph less": lambda folder: edited(
        folder / "manifest.json", lambda found: found["shards"][-1].pop() and None
    ),
    "a list": lambda folder: edited(folder / "manifest.json", lambda found: [found]),
    "a number": lambda folder: edited(folder / "manifest.json", lambda found: 1),
    "a file": lambda folder: replaced(folder, Path.touch),
    "an empty folder": lambda folder: replaced(folder, Path.mkdir),
    "a link to nowhere": lambda folder: replaced(folder, lambda path: path.symlink_to("nowhere")),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Data]]:
    """A cache, and what is in it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_CHUNK_NODES", 30)
        cached(folder, transform=ONE)
    return folder, precompute(some_graphs(), ONE, progress=False)


def assert_refused(cache_dir: Path, path: Path) -> None:
    """The damage at ``path`` is reported, and nothing is changed."""
    damaged = contents(cache_dir)
    with pytest.raises(ValueError, match=r"is damaged or does not belong") as error:
        cached(cache_dir, transform=ONE)
    assert str(path) in str(error.value) and "rebuild=True" in str(error.value)
    assert contents(cache_dir) == damaged and not leftovers(cache_dir)


def assert_cured_by_rebuilding(cache_dir: Path, expected: list[Data]) -> None:
    assert_equal(cached(cache_dir, transform=ONE, rebuild=True), expected)
    assert_equal(cached(cache_dir, transform=ONE), expected)
    assert len(shards(cache_dir)) == 5 and not leftovers(cache_dir)


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_a_damaged_shard_is_refused(
    damage: str, tmp_path: Path, whole: tuple[Path, list[Data]], computed: list[int]
) -> None:
    cache, expected = tmp_path / "cache", whole[1]
    shutil.copytree(whole[0], cache)
    shard = shards(cache)[1]
    SHARD_DAMAGE[damage](shard)
    assert_refused(cache, shard)
    if damage != "swapped":  # which damages another one too
        shutil.copytree(cache, tmp_path / "aside", symlinks=True)
        broken = shards(tmp_path / "aside")[1]
        shutil.rmtree(broken) if broken.is_dir() else broken.unlink()
        computed.clear()
        assert_equal(cached(tmp_path / "aside", transform=ONE), expected)
        assert len(computed) == 1
    assert_cured_by_rebuilding(cache, expected)


@pytest.mark.parametrize("damage", FOLDER_DAMAGE)
def test_a_damaged_folder_is_refused(
    damage: str, tmp_path: Path, whole: tuple[Path, list[Data]]
) -> None:
    shutil.copytree(whole[0], tmp_path / "cache")
    (folder,) = folders(tmp_path / "cache")
    FOLDER_DAMAGE[damage](folder)
    assert_refused(tmp_path / "cache", folder)
    assert_cured_by_rebuilding(tmp_path / "cache", whole[1])
    assert folders(tmp_path / "cache") == [folder]


def test_no_byte_can_change_unseen(tmp_path: Path, whole: tuple[Path, list[Data]]) -> None:
    shutil.copytree(whole[0], tmp_path / "cache")
    random = np.random.default_rng(0)
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    for path in random.permutation(written)[:25]:
        before = path.read_bytes()
        edit(path, flipped(int(random.integers(len(before)))))
        with pytest.raises(ValueError, match="rebuild=True"):
            cached(tmp_path / "cache", transform=ONE)
        path.write_bytes(before)
    assert_equal(cached(tmp_path / "cache", transform=ONE), whole[1])


class Trap:
    """Makes a file when it is read with pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["npy", "pickle", "torch"])
def test_planted_code_is_not_run(
    kind: str, tmp_path: Path, whole: tuple[Path, list[Data]]
) -> None:
    cache, sprung = tmp_path / "cache", tmp_path / "sprung"
    shutil.copytree(whole[0], cache)
    shard = shards(cache)[1]
    pair = shard / "0.npy", shard / "0.ptr.npy"
    for file in pair:
        if kind == "npy":
            np.save(file, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
        elif kind == "pickle":
            file.write_bytes(pickle.dumps(Trap(sprung)))
        else:
            torch.save(Trap(sprung), file)
    with pytest.raises(ValueError, match="checksum"):
        cached(cache, transform=ONE)
    # Someone who plants files can also make the manifest fit.
    arrays = json.loads((shard / "manifest.json").read_text())["arrays"]
    arrays[0]["checksums"] = [files.checksum(file) for file in pair]
    digest = manifest.digest_of_json([shard.parent.name, 1, arrays])
    (shard / "manifest.json").write_text(json.dumps({"arrays": arrays, "digest": digest}))
    with pytest.raises(ValueError, match="rebuild=True") as error:
        cached(cache, transform=ONE)
    assert "checksum" not in str(error.value) and not sprung.exists()
    if kind == "npy":  # the trap works
        np.load(pair[0], allow_pickle=True)
        assert sprung.exists()


def test_rebuild_deletes_its_own_folder_only(tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    expected = cached(cache)
    cached(cache, some_graphs()[:3])
    (cache / "notes.txt").write_text("mine")
    (cache / "encodings-of-mine").mkdir()
    outside.mkdir()
    (outside / "file").write_text("mine")
    (folder,) = (path.parent.parent for path in cache.glob("encodings-*/000004/manifest.json"))
    (folder / "link").symlink_to(outside)
    (folder / f".000001-{32 * 'a'}").symlink_to(outside)
    kept = {k: v for k, v in contents(tmp_path).items() if folder.name not in k}
    assert len(kept) > 10
    assert_equal(cached(cache, rebuild=True), expected)
    kept_now = {k: v for k, v in contents(tmp_path).items() if folder.name not in k}
    assert kept_now == kept and not leftovers(tmp_path)


def test_a_folder_may_be_a_link(tmp_path: Path, computed: list[int]) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    expected = cached(cache)
    (folder,) = folders(cache)
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    computed.clear()
    assert_equal(cached(cache), expected)
    assert not computed
    before = contents(elsewhere)
    assert_equal(cached(cache, rebuild=True), expected)
    assert contents(elsewhere) == before and len(computed) == 5 and not leftovers(cache)


def test_killed_while_deleting(tmp_path: Path) -> None:
    def killed() -> None:
        hook, unlink = fail_at(40, die), os.unlink
        os.unlink = lambda *path, **where: hook() or unlink(*path, **where)
        cached(tmp_path, rebuild=True)

    cached(tmp_path)
    assert in_another_process(killed) == -signal.SIGKILL
    assert not folders(tmp_path) and leftovers(tmp_path)
    assert_equal(cached(tmp_path), materialized())
    assert not leftovers(tmp_path)


# Several at once.


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    expected = materialized()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)

    def fill() -> None:
        wait = fail_at(1, barrier.wait)
        EveryKind.before = lambda self, graphs: wait()
        assert_equal(cached(tmp_path), expected)

    processes = [context.Process(target=fill) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not leftovers(tmp_path) and len(shards(tmp_path)) == 5
    assert_equal(cached(tmp_path), expected)


@pytest.mark.parametrize("at", [1, 2, 14, 25, 26, 27, 60])
def test_another_process_finishes_first(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes what this one is writing for a leftover.
    expected = materialized()
    fsync = os.fsync
    hook = fail_at(at, lambda: assert_equal(cached(tmp_path), expected))
    monkeypatch.setattr(os, "fsync", lambda file: hook() or fsync(file))
    assert_equal(cached(tmp_path), expected)
    assert not leftovers(tmp_path) and len(shards(tmp_path)) == 5


# What is given back.


def test_writing_to_what_is_given_back_does_not_reach_the_disk(tmp_path: Path) -> None:
    expected = cached(tmp_path)
    before = contents(tmp_path)
    for data in (cached(tmp_path), cached(tmp_path, ReadAnew(some_graphs()))):
        for each in data:
            for key, value in each.to_dict().items():
                if "kind" in key or "pe" in key:
                    value.fill_(1)
    assert contents(tmp_path) == before
    assert_equal(cached(tmp_path), expected)


def test_graphs_that_change_between_reads_are_an_error(tmp_path: Path) -> None:
    def add_noise(data: Data) -> Data:
        # A copy with an edge at random, as transforms that drop edges give.
        if data.num_nodes > 5:
            data.edge_index = torch.randint(data.num_nodes, (2, 8))
        return data

    dataset = ReadAnew(some_graphs())
    dataset.transform = add_noise
    with pytest.raises(ValueError, match="same graphs at every read"):
        cached(tmp_path, dataset)
    assert not leftovers(tmp_path)


class Fresh:
    """A sequence of graphs that gives another graph at every read."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> Data:
        return Data(edge_index=torch.randint(9, (2, 20)), num_nodes=9 + number)


@pytest.mark.parametrize("cache", [True, False])
def test_of_a_sequence_each_graph_is_read_once(cache: bool, tmp_path: Path) -> None:
    where = tmp_path if cache else None
    found = precompute(Fresh(), AddRandomWalkPE(4), cache_dir=where, progress=False)
    for data in found:
        bare = Data(edge_index=data.edge_index, num_nodes=data.num_nodes)
        expected = AddRandomWalkPE(4)(bare).random_walk_pe
        torch.testing.assert_close(data.random_walk_pe, expected, rtol=0, atol=1e-6)


def test_a_graph_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = materialized()
    cached(tmp_path)
    opened: list[str] = []
    mapped = store.mapped
    monkeypatch.setattr(
        store, "mapped", lambda path: (opened.append(path.parent.name), mapped(path))[1]
    )
    dataset = cached(tmp_path, ReadAnew(some_graphs()))
    assert not opened
    assert_equal([dataset[7], dataset[8]], expected[7:9])
    assert len(set(opened)) == 1 and len(opened) == 2 * 12
    assert_equal([dataset[-1]], expected[-1:])
    assert len(set(opened)) == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_files_do_not_stay_open(tmp_path: Path) -> None:
    # A process may have 1024 open, and a large dataset has more shards.
    before = len(os.listdir("/proc/self/fd"))
    for data in (some_graphs(), ReadAnew(some_graphs())):
        kept = list(cached(tmp_path, data))
        assert len(kept) == len(data) and len(os.listdir("/proc/self/fd")) == before


def test_to_another_process_goes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = materialized()
    monkeypatch.chdir(tmp_path)
    dataset = cached(Path("cache"), ReadAnew(some_graphs()))
    list(dataset)
    monkeypatch.chdir("/")
    dataset._shards._opened.clear()
    for copied in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset), dataset):
        assert_equal(copied, expected)
    large = precompute(
        ReadAnew(some_graphs()), EveryKind(10_000), cache_dir=tmp_path, progress=False
    )
    list(large)
    assert len(pickle.dumps(large)) < 2e5 < large[8].kind_floats.numel() * 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_a_data_loader(num_workers: int, tmp_path: Path) -> None:
    graphs = [data for data in some_graphs() if data.num_nodes > 1]
    expected = precompute(graphs, ALL, progress=False)
    dataset = cached(tmp_path, ReadAnew(graphs))
    for _ in range(2):
        seen = 0
        for batch in DataLoader(dataset, batch_size=4, num_workers=num_workers):
            for got, data in zip(batch.to_data_list(), expected[seen:], strict=False):
                assert torch.equal(got.kind_edge_index, data.kind_edge_index)
                assert torch.equal(got.random_walk_pe, data.random_walk_pe)
                assert torch.equal(got.x, data.x)
            seen += batch.num_graphs
        assert seen == len(expected)


def test_a_cache_that_cannot_be_written_is_read(public_folder: Path) -> None:
    expected = cached(public_folder)
    for path in [public_folder, *public_folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def read() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)  # who may write nothing there
        try:
            (public_folder / "file").touch()
        except PermissionError:
            assert_equal(cached(public_folder), expected)
            assert_equal(cached(public_folder, ReadAnew(some_graphs())), expected)
            os._exit(0)
        os._exit(7)

    assert in_another_process(read) == 0
    for path in [public_folder, *public_folder.rglob("*")]:
        path.chmod(0o755)


def test_nothing_is_printed_but_to_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        precompute(some_graphs(), ALL, cache_dir=tmp_path, progress=True)
        assert capfd.readouterr() == ("", "")


class Pairs(GraphEncoding):
    """Sixteen numbers for every pair of nodes; writes down how much memory there is in use."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __repr__(self) -> str:
        return "Pairs()"

    def encode(self, graphs: Graphs) -> list[Attribute]:
        values = np.full((int(graphs.pair_ptr[-1]), 16), 0.5)
        self.seen.append(own_memory())
        return [Attribute("pairs", values, graphs.pair_ptr)]


def own_memory() -> int:
    """Bytes in memory that are not pages of files, which the system takes back when it must."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_CHUNK_NODES", 10**9)
    monkeypatch.setattr(chunks, "_CHUNK_PAIRS", 2**16)
    path = from_networkx(nx.path_graph(128)).edge_index

    def run() -> None:
        data = ReadAnew([Data(edge_index=path, num_nodes=128)] * 200)
        encoding = Pairs()
        dataset = cached(tmp_path, data, encoding)
        assert len(encoding.seen) == 50
        for i in range(len(dataset)):
            assert float(dataset[i].pairs.sum()) == 128 * 128 * 16 / 2
        encoding.seen.append(own_memory())
        assert max(encoding.seen) - encoding.seen[1] < 30e6

    before = own_memory()
    assert in_another_process(run) == 0
    assert own_memory() - before < 30e6
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.npy")) > 200e6
