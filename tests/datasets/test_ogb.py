"""OGB's own files, small ones written here and the real ones, through OGB's own classes."""

import builtins
import contextlib
import copy
import gzip
import importlib.util
import os
import pickle
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import AddRandomWalkPE, BaseTransform, Constant, VirtualNode

from pyg_gt.datasets import load_ogb
from pyg_gt.datasets.ogb import _import_ogb

if importlib.util.find_spec("ogb") is None:
    pytest.skip("ogb is not installed", allow_module_level=True)

PROCESSED = "processed/geometric_data_processed.pt"
BACE = "ogbg-molbace"

# Directed once, as OGB stores bonds; a graph of one node has none.
GRAPHS = [
    (3, [(0, 1), (1, 2)]),
    (1, []),
    (2, [(0, 1)]),
    (4, [(0, 1), (1, 2), (2, 3), (0, 3)]),
    (2, [(1, 0)]),
]


@pytest.fixture(autouse=True, scope="module")
def no_update_check() -> None:
    """Before a test imports ogb itself, which starts a thread that looks for updates."""
    _import_ogb("ogbg-")


@pytest.fixture(autouse=True)
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*arguments: object) -> str:
        raise AssertionError(f"asked on standard input: {arguments}")

    monkeypatch.setattr(builtins, "input", ask)


def write_csv(path: Path, rows: Any, fmt: str = "%d", header: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt, delimiter=",", header=header, comments="")


def write_frame(
    folder: Path, split: str, parts: Sequence[Sequence[int]], version: int = 1
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"RELEASE_v{version}.txt").touch()
    for part, index in zip(("train", "valid", "test"), parts, strict=True):
        write_csv(folder / "split" / split / f"{part}.csv.gz", index)


def write_topology(raw: Path, graphs: Sequence[tuple[int, list[tuple[int, int]]]]) -> None:
    write_csv(raw / "edge.csv.gz", [edge for _, edges in graphs for edge in edges])
    write_csv(raw / "num-node-list.csv.gz", [n for n, _ in graphs])
    write_csv(raw / "num-edge-list.csv.gz", [len(edges) for _, edges in graphs])


def write_molecules(root: Path, name: str = BACE) -> Path:
    """Five made-up molecules in the layout of ogbg-mol*; node i's features are i, i, ..."""
    folder = root / name.replace("-", "_")
    write_frame(folder, "scaffold", ([0, 1, 2], [3], [4]))
    raw = folder / "raw"
    write_topology(raw, GRAPHS)
    nodes, edges = sum(n for n, _ in GRAPHS), sum(len(edges) for _, edges in GRAPHS)
    write_csv(raw / "node-feat.csv.gz", np.arange(nodes).repeat(9).reshape(nodes, 9))
    write_csv(raw / "edge-feat.csv.gz", np.arange(edges).repeat(3).reshape(edges, 3))
    write_csv(raw / "graph-label.csv.gz", [0, 1, 0, 1, 1])
    return folder


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_molecules_come_as_written(tmp_path: Path) -> None:
    write_molecules(tmp_path)
    dataset, split, evaluator = load_ogb(BACE, tmp_path)
    first_node = first_edge = 0
    for graph, (n, edges) in zip(dataset, GRAPHS, strict=True):
        both_ways = [pair for a, b in edges for pair in ((a, b), (b, a))]
        assert graph.edge_index.t().tolist() == [list(pair) for pair in both_ways]
        assert graph.num_nodes == n
        assert graph.x.tolist() == [[i] * 9 for i in range(first_node, first_node + n)]
        bonds = range(first_edge, first_edge + len(edges))
        assert graph.edge_attr.tolist() == [[i] * 3 for i in bonds for _ in range(2)]
        first_node, first_edge = first_node + n, first_edge + len(edges)
    assert [graph.y.tolist() for graph in dataset] == [[[y]] for y in (0, 1, 0, 1, 1)]
    assert {part: index.tolist() for part, index in split.items()} == {
        "train": [0, 1, 2],
        "valid": [3],
        "test": [4],
    }
    labels = dataset.y
    assert evaluator.eval({"y_true": labels, "y_pred": labels.float()}) == {"rocauc": 1.0}


def test_second_load_reads_the_processed_file(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path)
    first = load_ogb(BACE, tmp_path)
    written = files_under(folder)
    assert sorted(os.listdir(folder)) == ["RELEASE_v1.txt", "processed", "raw", "split"]
    second = load_ogb(BACE, str(tmp_path))
    assert files_under(folder) == written
    assert torch.equal(first.dataset.x, second.dataset.x)


def test_dataset_is_ogbs_and_can_be_pickled_and_copied(tmp_path: Path) -> None:
    from ogb.graphproppred import Evaluator, PygGraphPropPredDataset

    write_molecules(tmp_path)
    task = load_ogb(BACE, tmp_path)
    assert type(task.dataset) is PygGraphPropPredDataset
    assert type(task.evaluator) is Evaluator
    for copied in (pickle.loads(pickle.dumps(task.dataset)), copy.deepcopy(task.dataset)):
        assert torch.equal(copied.x, task.dataset.x)
    (batch,) = DataLoader(task.dataset[task.split_idx["train"]], batch_size=3)
    assert batch.num_graphs == 3 and batch.num_nodes == 6


def test_transforms(tmp_path: Path) -> None:
    write_molecules(tmp_path)
    walks = AddRandomWalkPE(2)
    dataset = load_ogb(BACE, tmp_path, pre_transform=walks, transform=Constant()).dataset
    assert dataset[0].random_walk_pe.shape == (3, 2)
    assert dataset[0].x.shape == (3, 10)
    again = load_ogb(BACE, tmp_path, pre_transform=walks).dataset
    assert torch.equal(again.random_walk_pe, dataset.random_walk_pe)


def test_another_pre_transform_is_refused(tmp_path: Path) -> None:
    write_molecules(tmp_path)
    load_ogb(BACE, tmp_path, pre_transform=AddRandomWalkPE(2))
    with pytest.raises(ValueError, match="was made with pre_transform=AddRandomWalkPE"):
        load_ogb(BACE, tmp_path)


class PutObject(BaseTransform):
    def forward(self, data: Data) -> Data:
        data.thing = Path("made of code")
        return data


class Fail(BaseTransform):
    def forward(self, data: Data) -> Data:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("transform", "error"), [(PutObject(), ValueError), (Fail(), None)])
def test_failed_processing_leaves_nothing(
    tmp_path: Path, transform: BaseTransform, error: type[Exception] | None
) -> None:
    folder = write_molecules(tmp_path)
    before = files_under(folder)
    with pytest.raises(error or KeyboardInterrupt):
        load_ogb(BACE, tmp_path, pre_transform=transform)
    assert files_under(folder) == before
    assert not [name for name in os.listdir(folder) if "processed" in name]
    assert len(load_ogb(BACE, tmp_path).dataset) == len(GRAPHS)


KILLED = """
import os, signal, torch
from torch_geometric.transforms import BaseTransform
from pyg_gt.datasets import load_ogb
save = torch.save
def cut_short(content, file, *rest):
    save(content, file, *rest)
    if "geometric_data" in str(file):
        os.truncate(file, 100)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = cut_short
load_ogb("ogbg-molbace", {root!r})
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_killed_while_writing(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path)
    done = run(KILLED.format(root=str(tmp_path)))
    assert done.returncode == -9, done.stderr
    assert not (folder / PROCESSED).exists()
    assert len(list(folder.glob(".processed-*"))) == 1
    assert len(load_ogb(BACE, tmp_path).dataset) == len(GRAPHS)
    assert sorted(os.listdir(folder)) == ["RELEASE_v1.txt", "processed", "raw", "split"]


ALONE = """
import socket, sys, threading
import torch_geometric  # urllib3, which it imports, binds a socket to see if there is IPv6.
class Refuse(socket.socket):
    def __init__(self, *arguments, **options):
        raise SystemExit("opened a socket")
socket.socket = Refuse
socket.create_connection = socket.getaddrinfo = Refuse
started = []
start = threading.Thread.start
def noted(thread):
    started.append(type(thread).__name__)
    start(thread)
threading.Thread.start = noted

import pyg_gt.datasets
assert "ogb" not in sys.modules and not started, started
from pyg_gt.datasets import load_ogb
assert len(load_ogb("ogbg-molbace", {root!r}).dataset) == 5
assert set(started) <= {{"TMonitor"}}, started  # tqdm's, for the progress bar
assert "outdated" not in sys.modules
"""


def test_no_network_no_thread_no_question(tmp_path: Path) -> None:
    write_molecules(tmp_path)
    done = run(ALONE.format(root=str(tmp_path)))
    assert done.returncode == 0, done.stderr


def test_import_leaves_outdated_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_molecules(tmp_path)
    mine = object()
    monkeypatch.setitem(sys.modules, "outdated", mine)
    load_ogb(BACE, tmp_path)
    assert sys.modules["outdated"] is mine


def test_ogb_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "ogb"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ogb", None)
    with pytest.raises(ImportError, match=r'pip install "pyg_gt\[ogb\]"'):
        load_ogb(BACE, tmp_path)


@pytest.mark.parametrize("name", ["ogbl-ddi", "molhiv", "ogbg-molnone", "ogbn-none"])
def test_unknown_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"got {name!r}|no dataset {name!r}; it knows"):
        load_ogb(name, tmp_path)


@pytest.mark.parametrize("exists", [False, True])
def test_missing_folder(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "ogbg_molbace"
    if exists:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match="ogbg_molbace.*download=True"):
        load_ogb(BACE, tmp_path)


@pytest.mark.parametrize(
    "missing",
    ["RELEASE_v1.txt", "split", "raw", "raw/edge.csv.gz", "raw/node-feat.csv.gz"],
)
@pytest.mark.parametrize("download", [False, True])
def test_missing_file(tmp_path: Path, missing: str, download: bool) -> None:
    folder = write_molecules(tmp_path)
    (folder / missing).rename(tmp_path / "elsewhere")
    before = files_under(folder)
    with pytest.raises(FileNotFoundError, match=Path(missing).name) as caught:
        load_ogb(BACE, tmp_path, download=download)
    assert str(folder) in str(caught.value) and "download=True" in str(caught.value)
    assert files_under(folder) == before  # A user's files are never deleted.


@pytest.mark.parametrize(
    "missing", ["raw/graph-label.csv.gz", "raw/num-node-list.csv.gz", "split/scaffold/test.csv.gz"]
)
def test_missing_file_that_ogb_does_not_list(tmp_path: Path, missing: str) -> None:
    folder = write_molecules(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        load_ogb(BACE, tmp_path)
    assert not list(folder.glob(".processed*"))


def test_older_folder_name(tmp_path: Path) -> None:
    write_molecules(tmp_path).rename(tmp_path / "ogbg_molbace_pyg")
    assert len(load_ogb(BACE, tmp_path).dataset) == len(GRAPHS)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def store(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


class MakesFolder:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


DAMAGE = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>not found</html>"),
    "state dict": store({"weight": torch.zeros(2)}),
    "pair": store((torch.zeros(2), {})),
    "triple": store((1, 2, 3)),
    "none": store(None),
    "other dataset": store((Data(x=torch.zeros(2, 9)), {"x": torch.tensor([0, 1, 2])})),
    "code": lambda path: torch.save((MakesFolder(path.with_name("ran")), {}), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", [PROCESSED, "processed/pre_transform.pt"])
@pytest.mark.parametrize("forced", [False, True])
def test_damaged_processed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, file: str, forced: bool
) -> None:
    if forced:  # What many set to get around ogb's failure to read its own file.
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder = write_molecules(tmp_path)
    load_ogb(BACE, tmp_path)
    DAMAGE[damage](folder / file)
    with pytest.raises(ValueError, match="delete th(e|at) folder") as caught:
        load_ogb(BACE, tmp_path)
    assert str(folder / "processed") in str(caught.value)
    assert not (folder / "processed/ran").exists()
    assert forced == ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in os.environ)
    shutil.rmtree(folder / "processed")
    assert len(load_ogb(BACE, tmp_path).dataset) == len(GRAPHS)


def test_missing_note_beside_the_processed_file(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path)
    load_ogb(BACE, tmp_path)
    (folder / "processed/pre_transform.pt").unlink()
    with pytest.raises(ValueError, match=r"No such file.*pre_transform\.pt"):
        load_ogb(BACE, tmp_path)


def test_file_processed_by_ogb_itself_is_read(tmp_path: Path) -> None:
    from ogb.graphproppred import PygGraphPropPredDataset

    folder = write_molecules(tmp_path)
    with warnings.catch_warnings(), contextlib.suppress(pickle.UnpicklingError):
        warnings.simplefilter("ignore")
        PygGraphPropPredDataset(BACE, root=str(tmp_path))
    assert (folder / PROCESSED).exists()
    assert len(load_ogb(BACE, tmp_path).dataset) == len(GRAPHS)


@pytest.mark.parametrize("file", ["edge", "node-feat", "graph-label"])
def test_damaged_raw_file(tmp_path: Path, file: str) -> None:
    folder = write_molecules(tmp_path)
    truncate(folder / "raw" / f"{file}.csv.gz")
    with pytest.raises(ValueError, match="raw is damaged"):
        load_ogb(BACE, tmp_path)


def test_damaged_split(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path)
    (folder / "split/scaffold/split_dict.pt").write_bytes(b"no split")
    with pytest.raises(ValueError, match="scaffold cannot be read"):
        load_ogb(BACE, tmp_path)


def test_split_dict(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path)
    parts = {"train": torch.tensor([4, 3, 2]), "valid": torch.tensor([1]), "test": [0]}
    torch.save(parts, folder / "split/scaffold/split_dict.pt")
    split = load_ogb(BACE, tmp_path).split_idx
    assert [index.tolist() for index in split.values()] == [[4, 3, 2], [1], [0]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    folder = write_molecules(tmp_path)
    folder.chmod(0o500)
    with pytest.raises(PermissionError, match="copy"):
        load_ogb(BACE, tmp_path)


def write_ppa(root: Path) -> Path:
    """The layout of ogbg-ppa: float bond features, no node features, many classes."""
    folder = root / "ogbg_ppa"
    write_frame(folder, "species", ([0, 1, 2], [3], [4]))
    write_topology(folder / "raw", GRAPHS)
    edges = sum(len(edges) for _, edges in GRAPHS)
    write_csv(folder / "raw/edge-feat.csv.gz", np.full((edges, 7), 0.5), fmt="%.2f")
    write_csv(folder / "raw/graph-label.csv.gz", [0, 36, 2, 3, 4])
    return folder


def test_graphs_without_node_features(tmp_path: Path) -> None:
    write_ppa(tmp_path)
    dataset = load_ogb("ogbg-ppa", tmp_path).dataset
    assert [graph.num_nodes for graph in dataset] == [n for n, _ in GRAPHS]
    assert dataset[3].edge_attr.dtype == torch.float32 and "x" not in dataset[3]


WORDS = ["get item", "run", "to string", "add edge index", "close"]


def write_code(root: Path) -> Path:
    """The layout of ogbg-code2: directed, further node files, labels of several words."""
    folder = root / "ogbg_code2"
    write_frame(folder, "project", ([0, 1, 2], [3], [4]))
    write_topology(folder / "raw", GRAPHS)
    nodes = np.arange(sum(n for n, _ in GRAPHS))
    write_csv(folder / "raw/node-feat.csv.gz", np.stack([nodes, nodes], 1))
    for file in ("node_is_attributed", "node_dfs_order", "node_depth"):
        write_csv(folder / f"raw/{file}.csv.gz", nodes)
    write_csv(folder / "raw/graph-label.csv.gz", np.array(WORDS), fmt="%s")
    return folder


def test_graphs_labelled_with_words(tmp_path: Path) -> None:
    write_code(tmp_path)
    dataset = load_ogb("ogbg-code2", tmp_path).dataset
    assert [graph.y for graph in dataset] == [label.split() for label in WORDS]
    assert dataset[3].edge_index.t().tolist() == [list(edge) for edge in GRAPHS[3][1]]
    assert dataset[3].node_depth.flatten().tolist() == [6, 7, 8, 9]


PATH = [(4, [(0, 1), (1, 2), (2, 3)])]


def write_arxiv(root: Path) -> Path:
    """The layout of ogbn-arxiv: one directed graph, a year per node."""
    folder = root / "ogbn_arxiv"
    write_frame(folder, "time", ([0, 1], [2], [3]))
    write_topology(folder / "raw", PATH)
    write_csv(folder / "raw/node-feat.csv.gz", np.eye(4), fmt="%.1f")
    write_csv(folder / "raw/node_year.csv.gz", [2015, 2016, 2017, 2018])
    write_csv(folder / "raw/node-label.csv.gz", [3, 1, 0, 39])
    return folder


def test_one_graph_of_papers(tmp_path: Path) -> None:
    folder = write_arxiv(tmp_path)
    dataset, split, evaluator = load_ogb("ogbn-arxiv", tmp_path)
    (graph,) = dataset
    assert torch.equal(graph.x, torch.eye(4))
    assert graph.y.tolist() == [[3], [1], [0], [39]]
    assert graph.node_year.flatten().tolist() == [2015, 2016, 2017, 2018]
    assert [index.tolist() for index in split.values()] == [[0, 1], [2], [3]]
    assert evaluator.eval({"y_true": graph.y, "y_pred": graph.y}) == {"acc": 1.0}
    write_csv(folder / "split/time/test.csv.gz", [4])
    with pytest.raises(ValueError, match="has 4 nodes, and 'test' names 4"):
        load_ogb("ogbn-arxiv", tmp_path)


def write_proteins(root: Path) -> Path:
    """The layout of ogbn-proteins: 112 labels, features on edges, a species per node."""
    folder = root / "ogbn_proteins"
    write_frame(folder, "species", ([0, 1], [2], [3]))
    write_topology(folder / "raw", PATH)
    write_csv(folder / "raw/edge-feat.csv.gz", np.full((3, 8), 0.25), fmt="%.2f")
    write_csv(folder / "raw/species.csv.gz", [3702, 3702, 4932, 9606])
    write_csv(folder / "raw/node-label.csv.gz", np.ones((4, 112)))
    return folder


def test_one_graph_of_proteins(tmp_path: Path) -> None:
    write_proteins(tmp_path)
    (graph,) = load_ogb("ogbn-proteins", tmp_path).dataset
    assert graph.num_nodes == 4 and graph.num_edges == 6
    assert graph.y.shape == (4, 112) and graph.edge_attr.shape == (6, 8)
    assert graph.node_species.flatten().tolist() == [3702, 3702, 4932, 9606]


def write_papers(root: Path) -> Path:
    """The layout of ogbn-papers100M: npz files, labels missing for most nodes."""
    folder = root / "ogbn_papers100M"
    write_frame(folder, "time", ([0], [1], [2]))
    (folder / "raw").mkdir()
    np.savez(
        folder / "raw/data.npz",
        edge_index=np.array([[0, 1, 2], [1, 2, 3]]),
        num_nodes_list=np.array([4]),
        num_edges_list=np.array([3]),
        node_feat=np.eye(4, dtype=np.float32),
        node_year=np.array([[2015], [2016], [2017], [2018]]),
    )
    labels = np.array([[3.0], [1.0], [0.0], [np.nan]], dtype=np.float32)
    np.savez(folder / "raw/node-label.npz", node_label=labels)
    return folder


def test_one_graph_in_binary_form(tmp_path: Path) -> None:
    write_papers(tmp_path)
    (graph,) = load_ogb("ogbn-papers100M", tmp_path).dataset
    assert torch.equal(graph.x, torch.eye(4)) and graph.num_edges == 3
    assert graph.y[:3].flatten().tolist() == [3, 1, 0] and graph.y[3].isnan()


def write_mag(root: Path) -> Path:
    """The layout of ogbn-mag: node and edge types; ogb's release file has version 2."""
    folder = root / "ogbn_mag"
    (folder / "raw").mkdir(parents=True)
    (folder / "RELEASE_v2.txt").touch()
    raw, split = folder / "raw", folder / "split/time"
    types = "author,paper"
    write_csv(raw / "num-node-dict.csv.gz", [[3, 4]], header=types)
    write_csv(raw / "triplet-type-list.csv.gz", [["author", "writes", "paper"]], fmt="%s")
    relation = raw / "relations/author___writes___paper"
    write_csv(relation / "edge.csv.gz", [[0, 0], [1, 3]])
    write_csv(relation / "num-edge-list.csv.gz", [2])
    write_csv(relation / "edge_reltype.csv.gz", [0, 0])
    write_csv(raw / "node-feat/paper/node-feat.csv.gz", np.eye(4), fmt="%.1f")
    write_csv(raw / "node-feat/paper/node_year.csv.gz", [2015, 2016, 2017, 2018])
    write_csv(raw / "nodetype-has-label.csv.gz", [["True", "True"]], fmt="%s", header=types)
    write_csv(raw / "node-label/paper/node-label.csv.gz", [3, 1, 0, 348])
    write_csv(raw / "node-label/author/node-label.csv.gz", [1, 2, 0])
    write_csv(split / "nodetype-has-split.csv.gz", [["True", "True"]], fmt="%s", header=types)
    for node_type, parts in {"author": ([0], [1], [2]), "paper": ([0, 1], [2], [3])}.items():
        for part, index in zip(("train", "valid", "test"), parts, strict=True):
            write_csv(split / node_type / f"{part}.csv.gz", index)
    return folder


def test_one_graph_of_several_types(tmp_path: Path) -> None:
    write_mag(tmp_path)
    dataset, split_idx, _ = load_ogb("ogbn-mag", tmp_path)
    (graph,) = dataset
    assert graph.num_nodes_dict == {"author": 3, "paper": 4}
    triple = ("author", "writes", "paper")
    assert graph.edge_index_dict[triple].tolist() == [[0, 1], [0, 3]]
    assert torch.equal(graph.x_dict["paper"], torch.eye(4))
    assert graph.y_dict["paper"].flatten().tolist() == [3, 1, 0, 348]
    assert {
        part: {node_type: index.tolist() for node_type, index in per_type.items()}
        for part, per_type in split_idx.items()
    } == {
        "train": {"author": [0], "paper": [0, 1]},
        "valid": {"author": [1], "paper": [2]},
        "test": {"author": [2], "paper": [3]},
    }


EDGES = ["0,1", "1,2", "0,1", "0,1", "1,2", "2,3", "0,3", "1,0"]  # Of GRAPHS.
MAG = "relations/author___writes___paper"
# Writer, file, its lines then, what the message says beside the file's name.
CONTRADICTIONS: list[tuple[Callable[[Path], Path], str, list[str], str]] = [
    (write_ppa, "raw/edge.csv.gz", ["0,3", *EDGES[1:]], "0,3 of graph 0, which has 3 nodes"),
    (write_ppa, "raw/edge.csv.gz", ["3,0", *EDGES[1:]], "3,0 of graph 0, which has 3 nodes"),
    (write_ppa, "raw/edge.csv.gz", [*EDGES[:-1], "1,2"], "line 8.* graph 4, which has 2 nodes"),
    (write_ppa, "raw/edge.csv.gz", EDGES[1:], "has 7 rows, and num-edge-list.* counts 8 edges"),
    (write_ppa, "raw/edge.csv.gz", ["0,1,1", *EDGES[1:]], "3 columns; expected 2"),
    (write_ppa, "raw/edge.csv.gz", [*EDGES[:-1], "1,0,1"], "no table of numbers.*line 8"),
    (write_ppa, "raw/edge.csv.gz", [edge + ",0" for edge in EDGES], "3 columns; expected 2"),
    (write_ppa, "raw/num-node-list.csv.gz", list("21242"), "graph 0, which has 2 nodes"),
    (write_ppa, "raw/num-node-list.csv.gz", list("3124"), "4 rows and num-edge-list.csv.gz 5"),
    (write_ppa, "raw/num-node-list.csv.gz", list("40242"), "graph 1 has no nodes"),
    (write_ppa, "raw/num-edge-list.csv.gz", list("20142"), "counts 9 edges"),
    (write_ppa, "raw/num-edge-list.csv.gz", ["2.0", *"0141"], "line 1 of .* is '2.0'"),
    (write_ppa, "raw/num-edge-list.csv.gz", [*"201", "-4", "1"], "line 4 of .* is '-4'"),
    (write_ppa, "raw/edge-feat.csv.gz", ["1,2"] * 7, "7 rows.*counts 8 edges"),
    (write_ppa, "raw/edge-feat.csv.gz", ["1,2"] * 7 + ["1"], "line 8 of .* is '1'.*2 numbers"),
    (write_ppa, "raw/edge-feat.csv.gz", ["1,2"] * 7 + ["1,inf"], "line 8 of .* is '1,inf'"),
    (write_ppa, "raw/edge-feat.csv.gz", ["1,2"] * 7 + ["1,1e39"], "finite in float32"),
    (write_ppa, "raw/edge-feat.csv.gz", ["1,2"] * 7 + ["1,nan"], "finite in float32"),
    (write_ppa, "raw/graph-label.csv.gz", ["0", "37", *"234"], "label 37; .* 0 to 36"),
    (write_ppa, "raw/graph-label.csv.gz", ["0", "-1", *"234"], "label -1; .* 0 to 36"),
    (write_ppa, "raw/graph-label.csv.gz", ["0", "1.5", *"234"], r"label 1\.5; .* 0 to 36"),
    (write_ppa, "raw/graph-label.csv.gz", ["0", "nan", *"234"], "line 2 of .* is 'nan'"),
    (write_ppa, "raw/graph-label.csv.gz", list("0234"), "4 rows, and num-node-list.* 5 graphs"),
    (write_ppa, "split/species/test.csv.gz", ["5"], "has 5 graphs, and 'test' names 5"),
    (write_ppa, "split/species/test.csv.gz", ["3"], "number 3 is 2 times in 'valid'.* and 'test'"),
    (write_ppa, "split/species/test.csv.gz", ["4", "4"], "number 4 is 2 times in 'test'"),
    (write_ppa, "split/species/train.csv.gz", ["0", "2"], "number 1 is in none of"),
    (write_code, "raw/graph-label.csv.gz", WORDS[1:], "4 rows, and num-node-list.* 5 graphs"),
    (write_code, "raw/graph-label.csv.gz", [*WORDS[:4], ""], "line 5 of .* is ''"),
    (write_code, "raw/node_depth.csv.gz", list("01234567890"), "11 rows.*counts 12 nodes"),
    (write_code, "raw/node_depth.csv.gz", ["x"] * 12, "line 1 of .* is 'x'"),
    (write_arxiv, "raw/edge.csv.gz", ["0,1", "1,2", "2,4"], "graph 0, which has 4 nodes"),
    (write_arxiv, "raw/num-node-list.csv.gz", ["4", "1"], "2 rows and num-edge-list.csv.gz 1"),
    (write_arxiv, "raw/num-node-list.csv.gz", ["5"], "counts 5 nodes"),
    (write_arxiv, "raw/node_year.csv.gz", ["2015"] * 3, "3 rows.*counts 4 nodes"),
    (write_arxiv, "raw/node-label.csv.gz", list("310"), "3 rows.*counts 4 nodes"),
    (write_arxiv, "raw/node-label.csv.gz", [*"310", "40"], "label 40; .* 0 to 39"),
    (write_arxiv, "split/time/valid.csv.gz", ["1"], "number 1 is 2 times"),
    (write_arxiv, "split/time/train.csv.gz", ["0"], "has 4 nodes, and number 1 is in none"),
    (write_proteins, "raw/node-label.csv.gz", [",".join("1" * 111)] * 4, "111 columns; .* 112"),
    (write_proteins, "raw/species.csv.gz", ["3702"] * 3, "3 rows.*counts 4 nodes"),
    (write_mag, f"raw/{MAG}/edge.csv.gz", ["0,1", "3,3"], "3,3 of graph 0, which has 3 nodes"),
    (write_mag, f"raw/{MAG}/edge.csv.gz", ["0,1", "0,4"], "0,4 of graph 0, which has 4 nodes"),
    (write_mag, f"raw/{MAG}/num-edge-list.csv.gz", ["3"], "counts 3 edges"),
    (write_mag, f"raw/{MAG}/edge_reltype.csv.gz", ["0"], "1 rows.*counts 2 edges"),
    (write_mag, "raw/triplet-type-list.csv.gz", ["author,writes,book"], "author,writes,book"),
    (write_mag, "raw/triplet-type-list.csv.gz", ["author,writes"], "expected 3 words"),
    (write_mag, "raw/num-node-dict.csv.gz", ["author,paper", "3,5"], "counts 5 nodes"),
    (write_mag, "raw/num-node-dict.csv.gz", ["author,paper", "3,x"], "numbers of nodes"),
    (write_mag, "raw/num-node-dict.csv.gz", ["paper,paper", "3,4"], "a node type twice"),
    (write_mag, "raw/node-feat/paper/node_year.csv.gz", ["2015"], "1 rows.*counts 4 nodes"),
    (write_mag, "raw/node-label/author/node-label.csv.gz", ["1", "2"], "2 rows.*counts 3 nodes"),
    (write_mag, "raw/nodetype-has-label.csv.gz", ["author,paper", "True,?"], "True or False"),
    (write_mag, "raw/nodetype-has-label.csv.gz", ["author,paper", "True,False"], "no labelled"),
    (write_mag, "split/time/paper/test.csv.gz", ["2"], "number 2 is 2 times in 'valid'"),
    (write_mag, "split/time/paper/train.csv.gz", ["0"], "has 4 nodes, and number 1 is in none"),
    (write_mag, "split/time/nodetype-has-split.csv.gz", ["author"], "True or False"),
]


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def name_of(folder: Path) -> str:
    return folder.name.replace("_", "-")


@pytest.mark.parametrize(("write", "file", "lines", "words"), CONTRADICTIONS)
def test_files_that_contradict_each_other(
    tmp_path: Path, write: Callable[[Path], Path], file: str, lines: list[str], words: str
) -> None:
    folder = write(tmp_path)
    before = (folder / file).read_bytes()
    write_lines(folder / file, lines)
    with pytest.raises(ValueError, match=words) as caught:
        load_ogb(name_of(folder), tmp_path)
    named = Path(file).name if words != "no labelled" else "paper/train.csv.gz"
    assert named in str(caught.value) and str(folder) in str(caught.value)
    assert "download=True" in str(caught.value)
    assert not (folder / "processed").exists()
    (folder / file).write_bytes(before)
    load_ogb(name_of(folder), tmp_path)


@pytest.mark.parametrize(
    ("write", "file", "lines"),
    [case[:3] for case in CONTRADICTIONS if case[1].startswith("split")],
)
def test_split_changed_after_processing(
    tmp_path: Path, write: Callable[[Path], Path], file: str, lines: list[str]
) -> None:
    folder = write(tmp_path)
    load_ogb(name_of(folder), tmp_path)
    write_lines(folder / file, lines)
    with pytest.raises(ValueError, match=Path(file).name):
        load_ogb(name_of(folder), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("edge_index", [[0, 1, 2], [1, 2, 4]], "2,4 of graph 0, which has 4 nodes"),
        ("edge_index", [[0, 1, 2], [1, 2, -1]], "has -1; expected at least 0"),
        ("edge_index", [[0.0, 1, 2], [1, 2, 3]], "float64 of shape .* expected integers"),
        ("edge_index", [[0, 1], [1, 2]], "has 2 rows.*counts 3 edges"),
        ("num_nodes_list", [5], "counts 5 nodes"),
        ("num_nodes_list", [4, 0], "2 rows and"),
        ("node_feat", [[1.0]] * 3, "3 rows.*counts 4 nodes"),
        ("node_feat", [[1.0]] * 3 + [[np.nan]], "not of finite numbers"),
        ("node_year", None, "lacks node_year"),
        ("node_label", [[3.0]] * 3, "3 rows.*counts 4 nodes"),
        ("node_label", [[172.0]] * 4, "label 172.0; expected a class of 0 to 171"),
    ],
)
def test_arrays_that_contradict_each_other(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    folder = write_papers(tmp_path)
    path = folder / "raw" / ("node-label.npz" if key == "node_label" else "data.npz")
    with np.load(path) as content:
        arrays = dict(content)
    del arrays[key]
    np.savez(path, **arrays, **({} if value is None else {key: np.array(value)}))
    with pytest.raises(ValueError, match=words) as caught:
        load_ogb("ogbn-papers100M", tmp_path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("file", ["data.npz", "node-label.npz"])
@pytest.mark.parametrize("seed", range(5))
def test_flipped_bits_in_arrays(tmp_path: Path, file: str, seed: int) -> None:
    folder = write_papers(tmp_path)
    path = folder / "raw" / file
    for part in (b"\x93NUMPY", b"PK\x01\x02"):
        content = bytearray(path.read_bytes())
        content[content.index(part) + random.Random(seed).randrange(6)] ^= 4
        damaged = path.with_name("damaged")
        damaged.write_bytes(content)
        whole = path.read_bytes()
        damaged.replace(path)
        with pytest.raises(ValueError, match=f"{file} cannot be unpacked|{file} lacks|in {file}"):
            load_ogb("ogbn-papers100M", tmp_path)
        path.write_bytes(whole)


def test_features_of_no_type(tmp_path: Path) -> None:
    folder = write_mag(tmp_path)
    (folder / "raw/node-feat/paper/node-feat.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no node-feat\.csv\.gz under .*for any type"):
        load_ogb("ogbn-mag", tmp_path)


@pytest.mark.parametrize("bond", ["1,1", "1,0"])
def test_bonds_that_no_molecule_has(tmp_path: Path, bond: str) -> None:
    folder = write_molecules(tmp_path)
    write_lines(folder / "raw/edge.csv.gz", [EDGES[0], bond, *EDGES[2:]])
    with pytest.raises(ValueError, match=r"line 2 of edge\.csv\.gz, bond .* in graph 0"):
        load_ogb(BACE, tmp_path)


def test_raw_files_are_checked_where_ogb_has_processed(tmp_path: Path) -> None:
    """An edge that leaves its graph is in ogb's processed file too."""
    from ogb.graphproppred import PygGraphPropPredDataset

    folder = write_molecules(tmp_path)
    write_lines(folder / "raw/edge.csv.gz", ["0,9", *EDGES[1:]])
    with warnings.catch_warnings(), contextlib.suppress(pickle.UnpicklingError):
        warnings.simplefilter("ignore")
        PygGraphPropPredDataset(BACE, root=str(tmp_path))
    assert (folder / PROCESSED).exists()
    with pytest.raises(ValueError, match="0,9 of graph 0, which has 3 nodes"):
        load_ogb(BACE, tmp_path)


def test_nodes_added_by_a_pre_transform_are_in_no_part(tmp_path: Path) -> None:
    write_arxiv(tmp_path)
    for _ in range(2):
        task = load_ogb("ogbn-arxiv", tmp_path, pre_transform=VirtualNode())
        assert task.dataset[0].num_nodes == 5
        assert torch.cat(list(task.split_idx.values())).tolist() == [0, 1, 2, 3]


WRONG = {
    "name": [None, 5, b"ogbg-molbace", ["ogbg-molbace"], ""],
    "root": ["", None, 5, b"data", True, "a\0b", "~no-such-user-here/x", __file__],
    "download": ["yes", 1, None, 0.0],
    "transform": [5, "Constant", Constant],
    "pre_transform": [5, "Constant", Constant],
}


@pytest.mark.parametrize(
    ("argument", "value"), [(argument, value) for argument in WRONG for value in WRONG[argument]]
)
def test_wrong_arguments(tmp_path: Path, argument: str, value: Any) -> None:
    write_molecules(tmp_path)
    arguments = {"name": BACE, "root": tmp_path, argument: value}
    with pytest.raises(ValueError, match=f"{argument}=|an OGB name starts with") as caught:
        load_ogb(**arguments)
    assert repr(value) in str(caught.value)
    assert not (tmp_path / "ogbg_molbace/processed").exists()


@pytest.mark.parametrize("graphs", [True, False])
def test_default_device_changes_nothing(tmp_path: Path, graphs: bool) -> None:
    folder = (write_molecules if graphs else write_arxiv)(tmp_path)
    name = name_of(folder)
    expected = load_ogb(name, tmp_path)
    shutil.rmtree(folder / "processed")
    for _ in range(2):  # Processed, then read.
        with torch.device("meta"):
            task = load_ogb(name, tmp_path)
        for part, index in expected.split_idx.items():
            assert torch.equal(task.split_idx[part], index)
        for got, graph in zip(task.dataset, expected.dataset, strict=True):
            assert got.keys() == graph.keys()
            assert all(torch.equal(got[key], graph[key]) for key in ("x", "edge_index", "y"))


def test_parts_and_copies_are_as_pyg_says(tmp_path: Path) -> None:
    write_molecules(tmp_path)
    dataset = load_ogb(BACE, tmp_path).dataset
    part = dataset[[3, 0]]
    for some in (part, part.copy(), dataset.copy([3, 0]), pickle.loads(pickle.dumps(part))):
        assert type(some) is type(dataset) and len(some) == 2
        assert some.y.flatten().tolist() == [1, 0] and some.x[0].tolist() == [6] * 9
        assert torch.equal(some[1].edge_index, dataset[0].edge_index)
        assert [graph.num_nodes for graph in some] == [4, 3]
    assert dataset[:2].y.shape == (2, 1) and dataset[torch.tensor([True] * 4 + [False])].y[3] == 1
    copied = dataset.copy()
    copied._data.x.zero_()
    assert int(dataset.x.max()) == 11


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_molecules(tmp_path)

    def no_space(*arguments: object) -> None:
        raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match=r"geometric_data_processed\.pt cannot be written"):
        load_ogb(BACE, tmp_path)
    assert not list(folder.glob(".processed*"))


def test_checksums_are_written_whatever_the_options(tmp_path: Path) -> None:
    write_molecules(tmp_path)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        for _ in range(2):
            assert len(load_ogb(BACE, tmp_path).dataset) == len(GRAPHS)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(before)


@pytest.fixture
def real(data_root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a real dataset, which is read-only, to a fresh root."""

    def to_scratch(name: str) -> Path:
        source = data_root / "ogb" / name.replace("-", "_")
        if not source.is_dir():
            pytest.skip(f"no {name} at {source}")
        copied = shutil.copytree(source, tmp_path / source.name)
        for path in (copied, *copied.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        return tmp_path

    return to_scratch


@pytest.mark.parametrize(
    ("name", "sizes", "nodes", "bonds", "labels"),
    [
        ("ogbg-molesol", [902, 113, 113], None, None, None),
        ("ogbg-molbace", [1210, 151, 152], None, None, None),
        ("ogbg-molhiv", [32901, 4113, 4113], 1_049_163, 1_129_688, 1443),
    ],
)
def test_real_dataset(
    real: Callable[[str], Path],
    name: str,
    sizes: list[int],
    nodes: int | None,
    bonds: int | None,
    labels: int | None,
) -> None:
    dataset, split, evaluator = load_ogb(name, real(name))
    assert [index.numel() for index in split.values()] == sizes
    assert len(dataset) == sum(sizes)
    assert torch.equal(torch.cat(list(split.values())).sort().values, torch.arange(len(dataset)))
    if nodes is not None and bonds is not None:
        assert dataset.x.size(0) == nodes
        assert dataset.edge_attr.size(0) == 2 * bonds
        assert int(dataset.y.sum()) == labels
    graph = dataset[0]
    assert graph.is_undirected() and not graph.has_self_loops()
    truth = dataset.y[split["valid"]]
    best = 0.0 if evaluator.eval_metric == "rmse" else 1.0
    score = evaluator.eval({"y_true": truth, "y_pred": truth.float()})
    assert score[evaluator.eval_metric] == pytest.approx(best)
