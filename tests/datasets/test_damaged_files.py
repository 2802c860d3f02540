"""Seeded damage to real OGB files: refused with the file's name, or without any effect."""

import gzip
import importlib.util
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_gt.datasets import OGBTask, load_ogb

if importlib.util.find_spec("ogb") is None:
    pytest.skip("ogb is not installed", allow_module_level=True)

GRAPHS = 40
SETS = ("ogbg-molbace", "ogbg-molesol")
RAW = ("edge", "edge-feat", "graph-label", "node-feat", "num-edge-list", "num-node-list")
FILES = [
    *(f"raw/{name}.csv.gz" for name in RAW),
    *(f"split/scaffold/{part}.csv.gz" for part in ("train", "valid", "test")),
]


def lines_of(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines()


def write_lines(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n", mtime=0))


@pytest.fixture(scope="module", params=SETS)
def small(
    request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, OGBTask]:
    """The first graphs of a real set, in files of their own."""
    name = request.param
    source = data_root / "ogb" / name.replace("-", "_")
    if not source.is_dir():
        pytest.skip(f"no {name} at {source}")
    root = tmp_path_factory.mktemp("small")
    folder = root / source.name
    nodes, edges = (
        sum(int(line) for line in lines_of(source / f"raw/num-{kind}-list.csv.gz")[:GRAPHS])
        for kind in ("node", "edge")
    )
    for file in RAW:
        rows = {"edge": edges, "edge-feat": edges, "node-feat": nodes}.get(file, GRAPHS)
        write_lines(folder / f"raw/{file}.csv.gz", lines_of(source / f"raw/{file}.csv.gz")[:rows])
    order = list(range(GRAPHS))
    random.Random(0).shuffle(order)
    for part, index in (("train", order[:30]), ("valid", order[30:35]), ("test", order[35:])):
        write_lines(folder / f"split/scaffold/{part}.csv.gz", [b"%d" % i for i in sorted(index)])
    (folder / "RELEASE_v1.txt").touch()
    task = load_ogb(name, root)
    shutil.rmtree(folder / "processed")
    return name, folder, task


def contents(task: OGBTask) -> dict[str, Any]:
    data = task.dataset._data
    return {
        **{key: data[key] for key in data.keys()},
        **{f"slices of {key}": bounds for key, bounds in task.dataset.slices.items()},
        **task.split_idx,
    }


def same(first: OGBTask, second: OGBTask) -> bool:
    one, two = contents(first), contents(second)
    return one.keys() == two.keys() and all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(two[key]))
        and torch.as_tensor(value).dtype == torch.as_tensor(two[key]).dtype
        for key, value in one.items()
    )


Damage = Callable[[random.Random, bytes], bytes]


def flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def zero(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice([1, 16, 64]))
    return content[:start] + bytes(stop - start) + content[stop:]


def in_lines(change: Callable[[random.Random, list[bytes], int], None]) -> Damage:
    def damage(rng: random.Random, text: bytes) -> bytes:
        lines = text.splitlines()
        change(rng, lines, rng.randrange(len(lines)))
        return b"\n".join(lines) + b"\n"

    return damage


def in_field(value: bytes) -> Damage:
    def change(rng: random.Random, lines: list[bytes], i: int) -> None:
        fields = lines[i].split(b",")
        fields[rng.randrange(len(fields))] = value
        lines[i] = b",".join(fields)

    return in_lines(change)


def swap(rng: random.Random, lines: list[bytes], i: int) -> None:
    j = rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


PACKED: dict[str, Damage] = {
    "bit": flip,
    "cut": cut,
    "zeros": zero,
    "empty": lambda rng, content: b"",
    "tail": lambda rng, content: content + b"tail",
    "text": lambda rng, content: b"<html>not found</html>",
}
UNPACKED: dict[str, Damage] = {
    "bit": flip,
    "cut": cut,
    "zeros": zero,
    "nothing": lambda rng, text: b"",
    "one line removed": in_lines(lambda rng, lines, i: lines.pop(i) and None),
    "one line twice": in_lines(lambda rng, lines, i: lines.insert(i, lines[i])),
    "blank line": in_lines(lambda rng, lines, i: lines.insert(i, b"")),
    "spaces": in_lines(lambda rng, lines, i: lines.insert(i, b"  ")),
    "two lines swapped": in_lines(swap),
    "column more": in_lines(lambda rng, lines, i: lines.__setitem__(i, lines[i] + b",0")),
    "column more everywhere": lambda rng, text: text.replace(b"\n", b",0\n"),
    "field less": in_lines(
        lambda rng, lines, i: lines.__setitem__(i, lines[i].rpartition(b",")[0])
    ),
    **{
        repr(value): in_field(value)
        for value in (
            *(b"-7", b"-1", b"999999", b"1e30", b"1e300", b"nan", b"inf", b"", b"0.5", b"1.0"),
            *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616"),
            *(b"1" * 40, b"0x1", b"one", b"True", b'"1"', b"1\r2", b"1 2", b"\xff", b"1\x002"),
        )
    },
}


def is_possible(name: str, file: str, folder: Path, before: bytes, after: bytes) -> bool:
    """Whether only numbers changed, to others that are possible there: nobody can tell."""
    rows, changed = before.splitlines(), after.splitlines()
    if len(rows) != len(changed) or after.count(b"\n") != before.count(b"\n"):
        return False
    fields = [line.split(b",") for line in changed]
    if [len(row) for row in fields] != [row.count(b",") + 1 for row in rows]:
        return False
    if file == "raw/graph-label.csv.gz" and name == "ogbg-molesol":
        decimal = rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
        return all(
            re.fullmatch(decimal, label) is not None and abs(float(label)) < 3.5e38
            for (label,) in fields
        )
    if file == "raw/graph-label.csv.gz":
        return all(float(label) in (0, 1) for (label,) in fields)
    if not all(field.isdigit() for row in fields for field in row):
        return False
    if "-feat" in file:
        return all(int(field) < 2**63 for row in fields for field in row)
    if file == "raw/edge.csv.gz":
        sizes = [int(line) for line in lines_of(folder / "raw/num-node-list.csv.gz")]
        counts = [int(line) for line in lines_of(folder / "raw/num-edge-list.csv.gz")]
        graph = [i for i, count in enumerate(counts) for _ in range(count)]
        bonds = [(i, frozenset(map(int, row))) for i, row in zip(graph, fields, strict=True)]
        return len(set(bonds)) == len(bonds) and all(
            len(bond) == 2 and max(bond) < sizes[i] for i, bond in bonds
        )
    # Counts and splits are only possible in the order of lines: that of a split means nothing
    # else, and edges would have to fit their new graphs.
    return sorted(rows) == sorted(changed)


def outcome(name: str, folder: Path, reference: OGBTask, file: str) -> str:
    try:
        task = load_ogb(name, folder.parent)
    except ValueError as error:
        assert Path(file).name in str(error), f"{file} is not in: {error}"
        assert str(folder) in str(error)
        return "refused"
    finally:
        shutil.rmtree(folder / "processed", ignore_errors=True)
    return "same" if same(task, reference) else "changed"


@pytest.mark.parametrize("file", FILES)
def test_damaged_raw_and_split_files(small: tuple[str, Path, OGBTask], file: str) -> None:
    name, folder, reference = small
    path, rng = folder / file, random.Random(file)
    packed = path.read_bytes()
    text = gzip.decompress(packed)
    try:
        for kind, damage in PACKED.items():
            path.write_bytes(damage(rng, packed))
            assert outcome(name, folder, reference, file) != "changed", kind
        for kind, damage in UNPACKED.items():
            damaged = damage(rng, text)
            path.write_bytes(gzip.compress(damaged, mtime=0))
            if outcome(name, folder, reference, file) == "changed":
                assert is_possible(name, file, folder, text, damaged), kind
        for other in FILES:
            if other != file:
                path.write_bytes((folder / other).read_bytes())
                # Parts of a split by another's ids are disjoint no more; labels may be numbers.
                if outcome(name, folder, reference, file) == "changed":
                    swapped = gzip.decompress(path.read_bytes())
                    assert is_possible(name, file, folder, text, swapped), other
    finally:
        path.write_bytes(packed)
    assert outcome(name, folder, reference, file) == "same"


@pytest.mark.parametrize("file", ["geometric_data_processed.pt", "pre_transform.pt", "split"])
def test_damaged_tensor_files(small: tuple[str, Path, OGBTask], file: str) -> None:
    """Each is refused unless the bytes mean nothing (padding, times), and then nothing changes."""
    name, folder, reference = small
    load_ogb(name, folder.parent)
    path, rng = folder / "processed" / file, random.Random(file)
    if file == "split":
        path = folder / "split/scaffold/split_dict.pt"
        torch.save(reference.split_idx, path)
    content = path.read_bytes()
    refused = 0
    try:
        for damage in (*[flip] * 60, *[zero] * 20, *[cut] * 20):
            path.write_bytes(damage(rng, content))
            try:
                task = load_ogb(name, folder.parent)
            except ValueError as error:
                assert path.name in str(error) and str(folder) in str(error)
                refused += 1
            else:
                assert same(task, reference)
    finally:
        shutil.rmtree(folder / "processed")
        if file == "split":
            path.unlink()
    assert refused > 60


def test_every_bit_of_a_tensor_counts(small: tuple[str, Path, OGBTask]) -> None:
    name, folder, reference = small
    load_ogb(name, folder.parent)
    path = folder / "processed/geometric_data_processed.pt"
    content = path.read_bytes()
    for tensor in (reference.dataset._data.x, reference.dataset._data.edge_index):
        start = content.index(tensor.numpy().tobytes())
        for bit in (0, 7, 63, 8 * tensor.nbytes - 1):
            changed = bytearray(content)
            changed[start + bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"processed\.pt.*delete the folder.*checksum"):
                load_ogb(name, folder.parent)
    shutil.rmtree(folder / "processed")
