"""The raw files of an OGB dataset, checked by themselves and against each other.

ogb takes as many rows as the lists of sizes name, however many there are, cuts numbers off to
integers and accepts any index. Here:

- lists of sizes hold one whole number per graph (of nodes, at least 1), and their sum is the
  number of rows of each file of nodes or of edges;
- edges are two whole numbers below the number of nodes of their graph; between atoms, none is a
  loop and none occurs twice, by which edges are found that went to another graph;
- features are finite in float32; those of molecules are nine and three whole numbers;
- labels are one row per graph or node and one column per task, classes are below the number of
  classes, and only where there are several tasks may one be missing.

A number that was changed to another possible one cannot be told from the right one.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_WHOLE = b"0123456789,\r\n"
_DECIMAL = _WHOLE + b"+-.eE NAan"  # NA, NaN, nan: missing.
_LARGEST = float(np.finfo(np.float32).max)
_MOLECULE_COLUMNS = {"node-feat": 9, "edge-feat": 3}
_NODE_COUNTS, _EDGE_COUNTS = "num-node-list.csv.gz", "num-edge-list.csv.gz"
_EDGES = "edge.csv.gz"


class Items(NamedTuple):
    """What a split divides: graphs, or the nodes of a type."""

    what: str
    number: int
    all_labelled: bool


def check_raw(raw: Path, meta: Mapping[str, str], cure: str) -> dict[str | None, Items]:
    """Check the raw files of a dataset by themselves and against each other.

    Args:
        raw: Their folder.
        meta: The column of ogb's table that describes the dataset.
        cure: Ends each message.

    Returns:
        What the split divides: graphs, or the nodes of a type (None if there is one type only).

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or two contradict each other; the message names them.
    """
    files = Files(raw, f"{raw} is damaged", cure)
    if meta.get("is hetero") == "True":
        return _check_types(files, meta)
    if meta["binary"] == "True":
        return _check_binary(files, meta)
    features = _feature_files(files, meta)
    label_file = "graph-label.csv.gz" if _of_graphs(meta) else "node-label.csv.gz"
    files.require(_NODE_COUNTS, _EDGE_COUNTS, _EDGES, *features.values(), label_file)

    nodes = files.whole(_NODE_COUNTS, columns=1)[:, 0]
    edges = files.whole(_EDGE_COUNTS, columns=1)[:, 0]
    sizes = _Sizes(files, _NODE_COUNTS, nodes, _EDGE_COUNTS, edges)
    _check_graphs(sizes, meta)
    molecules = meta.get("data type") == "mol"
    for name, file in features.items():
        check = sizes.check_node_rows if name.startswith("node") else sizes.check_edge_rows
        if molecules:
            check(file, files.whole(file, columns=_MOLECULE_COLUMNS[name]))
        else:
            check(file, files.decimal(file))
    index = files.whole(_EDGES, columns=2)
    sizes.check_edges(_EDGES, index)
    if molecules:
        sizes.check_bonds(_EDGES, index)
    if _of_graphs(meta):
        return {None: _check_graph_labels(sizes, label_file, meta)}
    labels = _read_labels(files, label_file, meta)
    sizes.check_node_rows(label_file, labels)
    return {None: Items("nodes", len(labels), not np.isnan(labels).any())}


class Files:
    """The files of one folder, read strictly: each error names the file and the line.

    Args:
        folder: Where they are.
        problem: Begins the message of each ``ValueError``.
        cure: Ends each message.
    """

    def __init__(self, folder: Path, problem: str, cure: str) -> None:
        self.folder, self.problem, self.cure = folder, problem, cure

    def damaged(self, reason: str) -> ValueError:
        """The error for files that are not what they should be."""
        return ValueError(f"{self.problem}: {reason}. {self.cure}")

    def exists(self, file: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / file).exists()

    def require(self, *files: str) -> None:
        """Raise ``FileNotFoundError`` with all those of ``files`` that are not there."""
        missing = [str(self.folder / file) for file in files if not self.exists(file)]
        if missing:
            raise FileNotFoundError(f"no {', '.join(missing)}. {self.cure}")

    def text(self, file: str) -> bytes:
        """Unpack a file, whose checksum gzip compares."""
        self.require(file)
        try:
            text = gzip.decompress((self.folder / file).read_bytes())
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.damaged(f"{file} cannot be unpacked ({error})") from error
        if not text:
            raise self.damaged(f"{file} is empty")
        return text

    def words(self, file: str, columns: int | None = None) -> list[list[str]]:
        """Read lines of words between commas."""
        try:
            lines = self.text(file).decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise self.damaged(f"{file} is no text ({error})") from error
        rows = [line.split(",") for line in lines]
        columns = columns or len(rows[0])
        for number, row in enumerate(rows, 1):
            if len(row) != columns or "" in row:
                raise self.damaged(
                    f"line {number} of {file} is {lines[number - 1]!r}; expected {columns} words"
                )
        return rows

    def whole(self, file: str, *, columns: int | None = None) -> Array:
        """Read rows of whole numbers of at least 0, as int64."""
        expected = "whole numbers of at least 0 and below 2**63"
        return self.parsed(file, self.text(file), _WHOLE, expected, columns)

    def decimal(self, file: str, *, columns: int | None = None, missing: bool = False) -> Array:
        """Read rows of numbers that are finite in float32, as int64 or float64.

        With ``missing``, fields may be empty or NaN.
        """
        expected = "numbers that are finite in float32" + (", or missing" if missing else "")
        text = self.text(file)
        values = self.parsed(file, text, _DECIMAL, expected, columns)
        wrong = ~(np.abs(values) <= _LARGEST)
        if missing:
            wrong &= ~np.isnan(values)
        if wrong.any():
            raise self.wrong_line(file, text, int(wrong.any(1).argmax()), expected)
        return values

    def parsed(
        self, file: str, text: bytes, characters: bytes, expected: str, columns: int | None
    ) -> Array:
        """Parse rows of numbers as ogb does, and refuse what pandas would make of other text."""
        if text.translate(None, characters):
            other = re.search(b"[^" + re.escape(characters) + b"]", text)
            assert other is not None
            raise self.wrong_line(file, text, text.count(b"\n", 0, other.start()), expected)
        pandas = import_module("pandas")
        try:
            frame = pandas.read_csv(
                io.BytesIO(text), header=None, skip_blank_lines=False, low_memory=False
            )
        except ValueError as error:  # pandas' own errors are ValueErrors too.
            raise self.damaged(f"{file} is no table of numbers ({str(error).strip()})") from error
        rows, found = frame.shape
        if columns not in (None, found):
            raise self.damaged(f"{file} has {found} columns; expected {columns}")
        # pandas takes a lone carriage return for the end of a line, and fills up short lines.
        lines = text.count(b"\n") + (not text.endswith(b"\n"))
        if rows != lines:
            raise self.damaged(f"{file} has {lines} lines and {rows} rows of numbers")
        if text.count(b",") != rows * (found - 1):
            short = (line.count(b",") != found - 1 for line in text.split(b"\n"))
            line = next(number for number, is_short in enumerate(short) if is_short)
            raise self.wrong_line(file, text, line, f"{found} numbers")
        allowed = "i" if characters is _WHOLE else "if"
        for _, column in frame.items():
            if column.dtype.kind not in allowed or column.dtype.itemsize != 8:
                line = _first_wrong(column, whole=characters is _WHOLE)
                raise self.wrong_line(file, text, line, expected)
        values: Array = frame.to_numpy()
        return values

    def wrong_line(self, file: str, text: bytes, line: int, expected: str) -> ValueError:
        """The error for a line, counted from 0."""
        content = text.split(b"\n", line + 1)[line].decode("latin1")
        shown = content if len(content) <= 60 else f"{content[:60]}..."
        return self.damaged(f"line {line + 1} of {file} is {shown!r}; expected {expected}")

    def arrays(self, file: str) -> dict[str, Array]:
        """Read an npz file, whose checksums zipfile compares."""
        self.require(file)
        try:
            with (self.folder / file).open("rb") as opened, np.load(opened) as content:
                return dict(content)
        except Exception as error:  # Whatever numpy and zipfile make of bytes that are wrong.
            raise self.damaged(f"{file} cannot be unpacked ({error})") from error


class _Sizes:
    """The numbers of nodes and of edges of each graph, and what has to agree with them."""

    def __init__(
        self, files: Files, node_file: str, nodes: Array, edge_file: str, edges: Array
    ) -> None:
        self.files = files
        self.node_file, self.nodes = node_file, nodes
        self.edge_file, self.edges = edge_file, edges

    def check_node_rows(self, file: str, rows: Array) -> None:
        self._check_rows(file, rows, self.node_file, self.nodes, "nodes")

    def check_edge_rows(self, file: str, rows: Array) -> None:
        self._check_rows(file, rows, self.edge_file, self.edges, "edges")

    def _check_rows(self, file: str, rows: Array, size_file: str, sizes: Array, what: str) -> None:
        total = sum(sizes.tolist())  # Of Python's integers, which do not overflow.
        if len(rows) != total:
            raise self.files.damaged(
                f"{file} has {len(rows)} rows, and {size_file} counts {total} {what}"
            )

    def check_edges(self, file: str, index: Array, tails: Array | None = None) -> None:
        """Check ``index [E, 2]``; with ``tails``, its second column is of other nodes."""
        self.check_edge_rows(file, index)
        for end, nodes in enumerate((self.nodes, self.nodes if tails is None else tails)):
            limit = nodes if len(nodes) == 1 else np.repeat(nodes, self.edges)
            wrong = (index[:, end] < 0) | (index[:, end] >= limit)
            if wrong.any():
                edge = int(wrong.argmax())
                graph = int(np.searchsorted(np.cumsum(self.edges), edge, side="right"))
                raise self.files.damaged(
                    f"line {edge + 1} of {file} is edge {index[edge, 0]},{index[edge, 1]} of "
                    f"graph {graph}, which has {nodes[graph]} nodes by {self.node_file} (which "
                    f"edges are its own says {self.edge_file})"
                )

    def check_bonds(self, file: str, index: Array) -> None:
        """Check that no edge is a loop or occurs twice in its graph."""
        low, high = index.min(1), index.max(1)
        first = np.repeat(np.cumsum(self.nodes) - self.nodes, self.edges)
        key = (first + low) * (self.nodes.max() + 1) + high
        wrong = low == high
        if not wrong.any():
            order = np.argsort(key, kind="stable")
            wrong[order[1:]] = key[order[1:]] == key[order[:-1]]
        if wrong.any():
            bond = int(wrong.argmax())
            graph = int(np.searchsorted(np.cumsum(self.edges), bond, side="right"))
            what = "joins an atom to itself" if low[bond] == high[bond] else "occurs twice"
            raise self.files.damaged(
                f"line {bond + 1} of {file}, bond {index[bond, 0]},{index[bond, 1]}, {what} in "
                f"graph {graph} (which bonds are its own says {self.edge_file})"
            )


def _of_graphs(meta: Mapping[str, str]) -> bool:
    return "is hetero" not in meta  # A column of the table of node sets.


def _further(meta: Mapping[str, str], kind: str) -> list[str]:
    names = meta[f"additional {kind} files"]
    return [] if names == "None" else names.split(",")


def _feature_files(files: Files, meta: Mapping[str, str]) -> dict[str, str]:
    """The file of each kind of features that ogb reads."""
    names = []
    for kind in ("node", "edge"):
        if meta[f"has_{kind}_attr"] == "True" or files.exists(f"{kind}-feat.csv.gz"):
            names.append(f"{kind}-feat")
        names += _further(meta, kind)
    found = {name: f"{name}.csv.gz" for name in names}
    if "node_species" in found and files.exists("species.csv.gz"):
        found["node_species"] = "species.csv.gz"  # Which ogb renames.
    return found


def _check_graphs(sizes: _Sizes, meta: Mapping[str, str]) -> None:
    nodes, edges = len(sizes.nodes), len(sizes.edges)
    if nodes != edges:
        raise sizes.files.damaged(
            f"{sizes.node_file} has {nodes} rows and {sizes.edge_file} {edges}; expected one per "
            f"graph in both"
        )
    if (sizes.nodes < 1).any():
        empty = int((sizes.nodes < 1).argmax())
        raise sizes.files.damaged(f"graph {empty} has no nodes by {sizes.node_file}")
    if not _of_graphs(meta) and nodes != 1:
        raise sizes.files.damaged(
            f"{sizes.node_file} and {sizes.edge_file} have {nodes} rows; expected one graph"
        )


def _check_graph_labels(sizes: _Sizes, file: str, meta: Mapping[str, str]) -> Items:
    files = sizes.files
    if meta["task type"] == "subtoken prediction":
        labels: Any = files.words(file, columns=1)
        complete = True
    else:
        labels = _read_labels(files, file, meta)
        complete = not np.isnan(labels).any()
    if len(labels) != len(sizes.nodes):
        raise files.damaged(
            f"{file} has {len(labels)} rows, and {sizes.node_file} {len(sizes.nodes)} graphs"
        )
    return Items("graphs", len(labels), complete)


def _read_labels(files: Files, file: str, meta: Mapping[str, str]) -> Array:
    tasks = int(meta["num tasks"])
    labels = files.decimal(file, columns=tasks, missing=tasks > 1)
    _check_classes(files, file, labels, meta)
    return labels


def _check_classes(files: Files, file: str, labels: Array, meta: Mapping[str, str]) -> None:
    if "classification" not in meta["task type"]:
        return
    classes = int(meta["num classes"])
    right = (labels >= 0) & (labels < classes) & (labels == np.floor(labels)) | np.isnan(labels)
    if not right.all():
        row = int((~right.all(1)).argmax())
        wrong = labels[row][~right[row]][0]
        raise files.damaged(
            f"line {row + 1} of {file} has label {wrong}; expected a class of 0 to {classes - 1}"
        )


def _check_types(files: Files, meta: Mapping[str, str]) -> dict[str | None, Items]:
    """Check the files of a graph with node and edge types (ogbn-mag)."""
    node_file = "num-node-dict.csv.gz"
    types, *counts = files.words(node_file)
    if len(counts) != 1 or not all(count.isdecimal() for count in counts[0]):
        raise files.damaged(
            f"{node_file} is {[types, *counts]}; expected node types and the numbers of nodes"
        )
    nodes = {of: np.array([int(count)]) for of, count in zip(types, counts[0], strict=True)}
    if len(nodes) != len(types):
        raise files.damaged(f"{node_file} names a node type twice: {', '.join(types)}")

    found = {name: 0 for kind in ("node", "edge") for name in _further(meta, kind)}
    triplet_file = "triplet-type-list.csv.gz"
    triplets = files.words(triplet_file, columns=3)
    for head, relation, tail in triplets:
        if head not in nodes or tail not in nodes or triplets.count([head, relation, tail]) > 1:
            raise files.damaged(
                f"{triplet_file} has {head},{relation},{tail} twice, or {node_file} lacks one of "
                f"its node types: it has {', '.join(types)}"
            )
        folder = f"relations/{head}___{relation}___{tail}"
        edge_file = f"{folder}/num-edge-list.csv.gz"
        edges = files.whole(edge_file, columns=1)[:, 0]
        sizes = _Sizes(files, node_file, nodes[head], edge_file, edges)
        _check_graphs(sizes, meta)
        sizes.check_edges(
            f"{folder}/edge.csv.gz", files.whole(f"{folder}/edge.csv.gz", columns=2), nodes[tail]
        )
        _check_optional(files, folder, "edge", meta, sizes.check_edge_rows, found)
    for of, count in nodes.items():
        sizes = _Sizes(files, node_file, count, "", count)
        _check_optional(files, f"node-feat/{of}", "node", meta, sizes.check_node_rows, found)
    missing = [name for name, times in found.items() if times == 0]
    if missing:
        raise FileNotFoundError(
            f"no {missing[0]}.csv.gz under {files.folder} for any type. {files.cure}"
        )

    items: dict[str | None, Items] = {}
    for of in marked_types(files, "nodetype-has-label.csv.gz"):
        file = f"node-label/{of}/node-label.csv.gz"
        if of not in nodes:
            raise files.damaged(
                f"nodetype-has-label.csv.gz names {of!r}, and {node_file} {', '.join(types)}"
            )
        labels = _read_labels(files, file, meta)
        _Sizes(files, node_file, nodes[of], "", nodes[of]).check_node_rows(file, labels)
        items[of] = Items("nodes", len(labels), not np.isnan(labels).any())
    return items


def marked_types(files: Files, file: str) -> list[str]:
    """Read the node types that a file of types and of True or False below them marks."""
    types, *marks = files.words(file)
    if (
        len(marks) != 1
        or not {"True", "False"}.issuperset(marks[0])
        or len(set(types)) != len(types)
        or "True" not in marks[0]
    ):
        raise files.damaged(
            f"{file} is {[types, *marks]}; expected node types and True or False for each"
        )
    return [of for of, mark in zip(types, marks[0], strict=True) if mark == "True"]


def _check_optional(
    files: Files,
    folder: str,
    kind: str,
    meta: Mapping[str, str],
    check: Callable[[str, Array], None],
    found: dict[str, int],
) -> None:
    """Check those files of features that this type has, and count them."""
    if meta[f"has_{kind}_attr"] == "True":
        found.setdefault(f"{kind}-feat", 0)
    for name in (f"{kind}-feat", *_further(meta, kind)):
        file = f"{folder}/{name}.csv.gz"
        if files.exists(file):
            check(file, files.decimal(file))
            found[name] = found.get(name, 0) + 1


def _check_binary(files: Files, meta: Mapping[str, str]) -> dict[str | None, Items]:
    """Check npz files (ogbn-papers100M)."""
    file, label_file = "data.npz", "node-label.npz"
    files.require(file, label_file)
    data = files.arrays(file)
    for name, dim in (("edge_index", 2), ("num_nodes_list", 1), ("num_edges_list", 1)):
        array = data.get(name)
        if array is None or array.dtype.kind not in "iu" or array.ndim != dim:
            what = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise files.damaged(
                f"{name} in {file} is {what}; expected integers in {dim} dimension(s)"
            )
        if array.size and array.min() < 0:
            raise files.damaged(f"{name} in {file} has {array.min()}; expected at least 0")
    index = data.pop("edge_index")
    if len(index) != 2:
        raise files.damaged(f"edge_index in {file} has shape {index.shape}; expected [2, E]")
    nodes, edges = data.pop("num_nodes_list"), data.pop("num_edges_list")
    sizes = _Sizes(files, f"{file} (num_nodes_list)", nodes, f"{file} (num_edges_list)", edges)
    _check_graphs(sizes, meta)
    sizes.check_edges(f"{file} (edge_index)", index.T)
    del index
    required = [name for kind in ("node", "edge") for name in _further(meta, kind)]
    required += [f"{kind}_feat" for kind in ("node", "edge") if meta[f"has_{kind}_attr"] == "True"]
    for name in [*required, *data]:
        if name not in data:
            raise files.damaged(f"{file} lacks {name}")
        check = sizes.check_node_rows if name.startswith("node_") else sizes.check_edge_rows
        check(f"{file} ({name})", data[name])
        # Least and greatest, which are NaN where a number is: nothing as large is made of these.
        array = data[name]
        if array.dtype.kind not in "iuf" or not np.isfinite([array.min(), array.max()]).all():
            raise files.damaged(f"{name} in {file} is not of finite numbers")

    labels = files.arrays(label_file).get("node_label")
    if labels is None or labels.dtype.kind not in "iuf" or labels.ndim != 2:
        raise files.damaged(f"{label_file} holds no node_label of numbers, [N, tasks]")
    sizes.check_node_rows(label_file, labels)
    if labels.shape[1] != int(meta["num tasks"]):
        raise files.damaged(
            f"{label_file} has {labels.shape[1]} columns; expected {meta['num tasks']}"
        )
    _check_classes(files, label_file, labels, meta)
    return {None: Items("nodes", len(labels), not np.isnan(labels).any())}


def _first_wrong(column: Any, *, whole: bool) -> int:
    """The first row of a column of pandas whose text is no such number."""
    missing = column.isna().to_numpy()
    if missing.any() and whole:
        return int(missing.argmax())
    for row, value in enumerate(column):
        try:
            number = int(str(value)) if whole else float(str(value))
        except ValueError:
            return row
        if whole and number >= 2**63:
            return row
    return 0
