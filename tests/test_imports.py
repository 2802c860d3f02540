"""Imports point one way, optional packages stay inside functions, importing is quiet."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]

# group -> the groups it may import, beside its own where it stands in its own row
ALLOWED = {
    "native": {"native"},
    "layout": {"layout", "layout.comparison"},
    "layout.comparison": {"layout", "native"},  # large edge sets are compared by compiled code
    # what is below kernels: pairs, dropout, memory
    "ops.mathematics": {"layout", "ops.mathematics"},
    "ops.bias": {"layout", "ops.mathematics"},
    # the terms in which an attention is put and checked, for all backends
    "ops.terms": {"layout", "layout.comparison", "ops.mathematics", "ops.bias", "ops.terms"},
    "ops.problem": {"layout"},
    "ops.kernels": {
        *("layout", "layout.comparison", "native", "ops.mathematics", "ops.problem"),
        "ops.kernels",
    },
    "ops.fused": {
        *("layout", "ops.mathematics", "ops.bias", "ops.terms", "ops.problem", "ops.kernels"),
        "ops.fused",
    },
    "ops.backend": {
        *("layout", "layout.comparison", "ops.mathematics", "ops.bias", "ops.terms"),
        *("ops.problem", "ops.kernels", "ops.fused", "ops.backend"),
    },
    "ops.dispatch": {"layout", "ops.bias", "ops.terms", "ops.mathematics", "ops.backend"},
    "ops.local": {"layout", "ops.mathematics", "ops.terms", "ops.local"},
    "ops": {"ops.bias", "ops.dispatch"},
    # messages of pairs are checked, and refused, as attention is
    "nn": {
        *("layout", "layout.comparison", "ops.mathematics", "ops.bias", "ops.terms"),
        *("ops.dispatch", "ops.local", "ops", "nn"),
    },
    "swap": {"layout", "ops", "ops.dispatch", "nn"},
    "testing": {"testing", "layout", "ops"},
    "_version": set(),
    "transforms": {"transforms", "transforms.encoding", "transforms.precomputing", "native"},
    "datasets": {"datasets"},
    "top": {"_version", "layout", "ops", "nn", "swap", "transforms", "datasets"},
    "models": {"top", "layout", "ops", "nn", "transforms", "models"},
}
# The rooms of the transforms: each imports those before it.
ROOMS = ("graphs", "compiled", "spectra", "walks", "paths", "expanders", "ordering")
for i, room in enumerate(ROOMS):
    ALLOWED[f"transforms.{room}"] = {f"transforms.{each}" for each in ROOMS[: i + 1]}
    ALLOWED["transforms"].add(f"transforms.{room}")
ALLOWED["transforms.compiled"] = {"transforms.compiled", "native"}
ALLOWED["transforms.encoding"] = {f"transforms.{room}" for room in ROOMS[:3]}
ALLOWED["transforms.precomputing"] = {
    *("transforms.precomputing", "transforms.encoding", "_version"),
    *(f"transforms.{room}" for room in ROOMS[:3]),
}
ALLOWED["example"] = {"top", "layout", "ops", "nn", "testing", "transforms", "datasets", "models"}
ALLOWED["benchmark"] = set(ALLOWED)  # it may time the parts of a backend
SCRIPTS = {"examples": "example", "benchmarks": "benchmark"}

REQUIRED = {"torch", "torch_geometric", "numpy", "scipy", "threadpoolctl", "tqdm"}
FORBIDDEN_NAMES = {"utils", "common", "config", "registry"}


class Import(NamedTuple):
    """One imported module: its dotted name, its line, and whether only a function imports it."""

    name: str
    line: int
    inside: bool


def group(module: str) -> str:
    """The row of `ALLOWED` that `module` belongs to."""
    parts = module.split(".")
    if parts[0] in SCRIPTS:
        return SCRIPTS[parts[0]]
    if len(parts) == 1:
        return "top"
    if parts[1] in ("layout", "edge_layout"):
        return "layout.comparison" if parts[-1] == "comparison" else "layout"
    if parts[1] == "_swap":
        return "swap"
    if parts[1] == "transforms" and len(parts) > 2:
        room = parts[2].removeprefix("graph_")
        return f"transforms.{room}" if f"transforms.{room}" in ALLOWED else "transforms"
    if parts[1] != "ops" or len(parts) == 2:
        return parts[1]
    return f"ops.{OPS.get('.'.join(parts[2:]), OPS.get(parts[2], 'terms'))}"


# modules and rooms of ops -> their groups; all others hold terms
OPS = {
    **dict.fromkeys(("pairs", "dropout", "memory"), "mathematics"),
    **{"bias": "bias", "dispatch": "dispatch", "local": "local", "_kernels.problem": "problem"},
    **{"_kernels": "kernels", "_fused": "fused", "_backends": "backend"},
}


def backend_of(module: str) -> str | None:
    """The backend, a module or a folder, that `module` belongs to."""
    parts = module.split(".")
    return parts[3] if parts[1:3] == ["ops", "_backends"] and len(parts) > 3 else None


def imports(module: str, tree: ast.Module, is_package: bool, known: set[str]) -> Iterator[Import]:
    """Every import of a module, with relative names resolved and submodules told from names."""

    def base(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        return ".".join(parts + ([node.module] if node.module else []))

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, inside)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{base(node)}.{alias.name}"
                yield Import(submodule if submodule in known else base(node), node.lineno, inside)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "import_module",
            "importlib.import_module",
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield Import(str(node.args[0].value), node.lineno, inside)
        # Only types are read under TYPE_CHECKING, so nothing is imported there at run time.
        quiet = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside or quiet or function)

    yield from visit(tree, False)


def is_of_kernels(module: str) -> bool:
    """Whether it holds Triton kernels: it imports triton, so only functions may import it."""
    return module.startswith("pyg_gt.ops._kernels.triton.") and ".kernels." in module


def violations(sources: Mapping[str, str], packages: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with the imports of `sources` (dotted name -> text), one line each.

    `packages` are the names in `sources` that are packages (`__init__.py`).
    """
    trees = {module: ast.parse(text) for module, text in sources.items()}
    groups = {module: group(module) for module in sources}
    found = []
    for module, tree in trees.items():
        mine = groups[module]
        for name, line, inside in imports(module, tree, module in packages, set(sources)):
            where = f"{module}:{line}"
            top = name.split(".")[0]
            if top == "pyg_gt":
                theirs = groups.get(name)
                if theirs is None:
                    found.append(f"{where} imports {name}, which does not exist")
                elif mine == "example" and name.split(".")[-1].startswith("_"):
                    found.append(f"{where} imports the private {name}")
                elif mine not in ALLOWED:
                    found.append(f"{where} belongs to no layer of the design ({mine})")
                elif theirs not in ALLOWED[mine]:
                    found.append(f"{where} ({mine}) imports {name} ({theirs})")
                elif backend_of(name) and backend_of(module) not in (None, backend_of(name)):
                    found.append(f"{where} imports {name} of another backend")
                elif (mine, theirs, inside) == ("ops.fused", "ops.kernels", False):
                    found.append(f"{where} imports {name}, kernels, outside a function")
                elif is_of_kernels(name) and not (inside or is_of_kernels(module)):
                    found.append(f"{where} imports {name}, and so triton, outside a function")
            elif mine in SCRIPTS.values() or top in sys.stdlib_module_names | REQUIRED:
                continue
            elif not inside and not (top == "triton" and is_of_kernels(module)):
                found.append(f"{where} imports {top} outside a function")
    return found


def package_sources() -> tuple[dict[str, str], frozenset[str]]:
    """The library, its examples and its benchmarks: dotted name -> text, and the packages."""
    sources, packages = {}, set()
    for folder in ("pyg_gt", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
                packages.add(".".join(parts))
            sources[".".join(parts)] = path.read_text(encoding="utf-8")
    return sources, frozenset(packages)


def test_imports_point_one_way() -> None:
    sources, packages = package_sources()
    assert {"pyg_gt", "pyg_gt.layout", "pyg_gt.ops.dispatch"} <= set(sources)
    assert violations(sources, packages) == []


def test_only_the_dispatcher_knows_the_backends() -> None:
    sources, packages = package_sources()
    backends = {f"pyg_gt.ops._backends.{backend_of(name)}" for name in sources if backend_of(name)}
    assert len(backends) == 7
    for module, text in sources.items():
        tree = ast.parse(text)
        known = {name for name, _, _ in imports(module, tree, module in packages, set(sources))}
        if module == "pyg_gt.ops.dispatch":
            assert known >= backends
        elif group(module) != "benchmark" and backend_of(module) is None:
            assert not known & backends, module


def room(module: str) -> str:
    """A folder of ops, or a module outside of them."""
    return module.split(".")[2]


def test_ops_has_few_floors() -> None:
    """From the verb down to the kernels, with no more imports between rooms than now."""
    sources, packages = package_sources()
    graph = nx.DiGraph()
    for module, text in sources.items():
        if module.startswith("pyg_gt.ops."):
            each = imports(module, ast.parse(text), module in packages, set(sources))
            names = {name for name, _, _ in each if name.startswith("pyg_gt.ops.")}
            graph.add_edges_from((room(module), room(name)) for name in names)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    assert nx.dag_longest_path_length(graph) + 1 <= 7
    assert graph.number_of_edges() <= 45


def circles(sources: Mapping[str, str], packages: frozenset[str]) -> list[list[str]]:
    """Modules that import one another in a circle as they are imported."""
    graph = nx.DiGraph()
    for module, text in sources.items():
        for name, _, inside in imports(module, ast.parse(text), module in packages, set(sources)):
            if name in sources and not inside:
                graph.add_edge(module, name)
    return sorted(sorted(each) for each in nx.simple_cycles(graph))


def test_no_circle() -> None:
    sources, packages = package_sources()
    assert circles(sources, packages) == []


def test_circles_are_found() -> None:
    assert circles(LIBRARY, PACKAGES) == []
    back = {**LIBRARY, "pyg_gt.ops.bias": "from . import inputs\n"}
    assert circles(back, PACKAGES) == [["pyg_gt.ops.bias", "pyg_gt.ops.inputs"]]
    late = {**LIBRARY, "pyg_gt.ops.bias": "def late():\n    from . import inputs\n"}
    assert circles(late, PACKAGES) == []


def test_folders_are_small() -> None:
    """No folder of the package has more than 18 modules."""
    sources, packages = package_sources()
    modules = [name for name in set(sources) - packages if name.startswith("pyg_gt.")]
    folders = Counter(name.rpartition(".")[0] for name in modules)
    assert len(folders) > 8
    assert {folder: count for folder, count in folders.items() if count > 18} == {}


def test_module_names() -> None:
    sources, packages = package_sources()
    for module, text in sources.items():
        assert module.split(".")[-1] not in FORBIDDEN_NAMES, module
        if module not in packages:
            continue
        submodules = {
            name.rpartition(".")[2] for name in sources if name.rpartition(".")[0] == module
        }
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = alias.asname or alias.name
                    hides = name in submodules and node.module is not None
                    assert not hides, f"{module} has a module and a public name {name!r}"


LIBRARY = {
    "pyg_gt": "from pyg_gt.layout import GraphLayout\nfrom pyg_gt.ops import attention\n",
    "pyg_gt.layout": "import torch\n",
    "pyg_gt.layout.comparison": "from ..native import Library\n",
    "pyg_gt.native": "import ctypes\n",
    "pyg_gt.ops": "from pyg_gt.ops.dispatch import attention\n",
    "pyg_gt.ops.pairs": "from ..layout import GraphLayout\n",
    "pyg_gt.ops.bias": "from pyg_gt.layout import GraphLayout\nfrom . import pairs\n",
    "pyg_gt.ops.inputs": "from pyg_gt.ops.bias import EdgeMask\n",
    "pyg_gt.ops._kernels": "",
    "pyg_gt.ops._kernels.problem": "from ...layout import GraphLayout\n",
    "pyg_gt.ops._kernels.cpu": "from ...native import Library\nfrom . import problem\n",
    "pyg_gt.ops._fused": "from ._kernels import problem\n",
    "pyg_gt.ops._backends": "",
    "pyg_gt.ops._backends.one": "from ..inputs import Inputs\nfrom .._fused import attend\n",
    "pyg_gt.ops._backends.two": "from . import op\n",
    "pyg_gt.ops._backends.two.op": "from ... import pairs\n",
    "pyg_gt.ops.dispatch": "from ._backends import one, two\n",
    "pyg_gt.nn": "from pyg_gt.nn.block import TransformerBlock\n",
    "pyg_gt.nn.block": "from pyg_gt.ops import attention\n",
    "pyg_gt.models": "from pyg_gt.nn import TransformerBlock\n",
    "pyg_gt.transforms": "from .add_degree import AddDegree\nimport torch_geometric.transforms\n",
    "pyg_gt.transforms.add_degree": "from .graph_encoding import GraphEncoding\n",
    "pyg_gt.transforms.graph_encoding": "from .graphs import Graphs\n",
    "pyg_gt.transforms.graphs": "from scipy import sparse\n",
    "pyg_gt.transforms.compiled": "from ..native import Library\n",
    "pyg_gt.transforms.spectra": "from .compiled import call\nfrom .graphs import Graphs\n",
    "pyg_gt.transforms.precomputing": "from .graph_encoding import GraphEncoding\n",
    "pyg_gt.datasets": "def load():\n    import ogb\n",
    "examples.train": "import matplotlib\nimport pyg_gt\nfrom pyg_gt import models\n",
}
PACKAGES = frozenset(
    f"pyg_gt{name}"
    for name in (
        *("", ".ops", ".ops._kernels", ".ops._backends", ".ops._backends.two"),
        *(".nn", ".models", ".transforms"),
    )
)


def test_checker_accepts_the_design() -> None:
    assert violations(LIBRARY, PACKAGES) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pyg_gt.layout", "from pyg_gt.ops.bias import EdgeMask"),
        ("pyg_gt.layout", "from .ops import bias"),
        ("pyg_gt.layout", "def late():\n    import pyg_gt.ops.bias"),
        ("pyg_gt.native", "from pyg_gt.layout import GraphLayout"),
        ("pyg_gt.layout", "from pyg_gt.native import Library"),
        ("pyg_gt.ops.bias", "from pyg_gt.native import Library"),
        ("pyg_gt.ops.dispatch", "from pyg_gt.native import Library"),
        ("pyg_gt.nn.block", "from ..native import Library"),
        ("pyg_gt.ops.pairs", "from .bias import PairBias"),
        ("pyg_gt.ops.bias", "from pyg_gt.ops.inputs import Inputs"),
        ("pyg_gt.ops.inputs", "from pyg_gt.ops._backends.one import forward"),
        ("pyg_gt.ops.inputs", "from . import _fused"),
        ("pyg_gt.ops.inputs", "from ._kernels import cpu"),
        ("pyg_gt.ops._kernels.cpu", "from ..bias import PairBias"),
        ("pyg_gt.ops._kernels.cpu", "from ..inputs import Inputs"),
        ("pyg_gt.ops._kernels.cpu", "def late():\n    from pyg_gt.ops import _fused"),
        ("pyg_gt.ops._kernels.problem", "from pyg_gt.ops._kernels import cpu"),
        ("pyg_gt.ops._fused", "from ._kernels import cpu"),
        ("pyg_gt.ops._fused", "from ._backends import one"),
        ("pyg_gt.ops._backends.one", "from pyg_gt.ops._backends import two"),
        ("pyg_gt.ops._backends.one", "from . import two"),
        ("pyg_gt.ops._backends.one", "from .two import forward"),
        ("pyg_gt.ops._backends.one", "from .two.op import forward"),
        ("pyg_gt.ops._backends.two.op", "from ..one import forward"),
        ("pyg_gt.ops._backends.one", "def late():\n    from .two import forward"),
        ("pyg_gt.ops._backends.one", "import_module('pyg_gt.ops.dispatch')"),
        ("pyg_gt.ops._backends.one", "if TYPE_CHECKING:\n    from ..dispatch import attention"),
        ("pyg_gt.ops.dispatch", "from pyg_gt.nn import block"),
        ("pyg_gt.ops.dispatch", "from ._kernels import cpu"),
        ("pyg_gt.ops.local", "from .dispatch import attention"),
        ("pyg_gt.ops.local", "from ._backends import one"),
        ("pyg_gt.ops", "from pyg_gt.ops._backends.one import forward"),
        ("pyg_gt.nn.block", "from pyg_gt.ops._backends.one import forward"),
        ("pyg_gt.nn.block", "from ..ops._fused import attend"),
        ("pyg_gt.nn", "from .. import models"),
        ("pyg_gt.nn.block", "from pyg_gt.models import GPS"),
        ("pyg_gt.nn.block", "import pyg_gt"),
        ("pyg_gt", "from pyg_gt import models"),
        ("pyg_gt.transforms", "from pyg_gt.layout import GraphLayout"),
        ("pyg_gt.transforms.graphs", "from pyg_gt.layout import GraphLayout"),
        ("pyg_gt.transforms.graphs", "from .spectra import full_spectrum"),
        ("pyg_gt.transforms.graphs", "from .graph_encoding import GraphEncoding"),
        ("pyg_gt.transforms.compiled", "from .graphs import Graphs"),
        ("pyg_gt.transforms.spectra", "from ..native import Library"),
        ("pyg_gt.transforms.graph_encoding", "from .add_degree import AddDegree"),
        ("pyg_gt.transforms.precomputing", "from .add_degree import AddDegree"),
        ("pyg_gt.transforms.spectra", "from .precomputing import precompute"),
        ("pyg_gt.datasets", "from pyg_gt.transforms import AddRandomWalkPE"),
        ("pyg_gt.datasets", "import ogb"),
        ("pyg_gt.datasets", "try:\n    import ogb\nexcept ImportError:\n    ogb = None"),
        ("pyg_gt.ops._backends.one", "from triton import language as tl"),
        ("pyg_gt.ops._backends.one", "class Kernel:\n    import triton"),
        ("pyg_gt.nn.block", "import pyg_gt.nowhere"),
        ("pyg_gt.extra", "from pyg_gt.layout import GraphLayout"),
        ("examples.train", "from pyg_gt.ops._backends.one import forward"),
    ],
)
def test_checker_finds(module: str, line: str) -> None:
    (found,) = violations({**LIBRARY, module: f"{LIBRARY.get(module, '')}{line}\n"}, PACKAGES)
    assert found.startswith(f"{module}:")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pyg_gt.ops._backends.one", "def forward():\n    import triton"),
        ("pyg_gt.ops._kernels.triton.full.kernels.small", "import triton"),
        ("pyg_gt.ops._backends.one", "if TYPE_CHECKING:\n    import triton"),
        ("pyg_gt.datasets", "from __future__ import annotations\nimport os.path"),
        ("pyg_gt.models", "from pyg_gt.transforms import AddRandomWalkPE"),
        ("pyg_gt.ops._kernels.cpu", "from pyg_gt.native import Library"),
        ("pyg_gt.ops._fused", "def late():\n    from ._kernels import cpu"),
        ("pyg_gt.ops._backends.two", "from .op import forward"),
        ("pyg_gt.transforms.compiled", "from pyg_gt.native import Library"),
        ("benchmarks.cpu.attention", "from pyg_gt.ops._backends import one"),
    ],
)
def test_checker_lets_pass(module: str, line: str) -> None:
    assert violations({**LIBRARY, module: f"{line}\n{LIBRARY.get(module, '')}"}, PACKAGES) == []


QUIET = """
import sys

calls = []
sys.addaudithook(lambda event, args: calls.append((event, args)) if event in {events} else None)
{baseline}
before, threads = set(sys.modules), sys._current_frames().keys()
calls.clear()
{imports}
extras = {extras} & {{name.split(".")[0] for name in set(sys.modules) - before}}
assert not extras, f"imported {{sorted(extras)}}"
assert not calls, f"network: {{calls}}"
assert len(sys._current_frames()) <= len(threads), "a thread was started"
"""
EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
EXTRAS = {"captum", "matplotlib", "ogb", "outdated", "pandas", "rdkit", "tqdm", "triton"}
# What these import themselves is not our doing.
BASELINE = """
import torch, torch.nn.attention.flex_attention
import torch_geometric.datasets, torch_geometric.nn, torch_geometric.transforms
"""


def run_quietly(baseline: str, statements: str) -> subprocess.CompletedProcess[str]:
    """Run imports in a fresh process that fails on extras, network calls and threads."""
    code = QUIET.format(events=EVENTS, extras=EXTRAS, baseline=baseline, imports=statements)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_import_is_quiet() -> None:
    own = [name for name in package_sources()[0] if name.split(".")[0] == "pyg_gt"]
    modules = [name for name in own if not is_of_kernels(name)]
    for statements in ("import pyg_gt", "\n".join(f"import {name}" for name in modules)):
        done = run_quietly(BASELINE, statements)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ("sys.modules['ogb'] = sys", "imported ['ogb']"),
        ("import socket; socket.getaddrinfo('127.0.0.1', 80)", "network"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True)"
            ".start()",
            "a thread was started",
        ),
    ],
)
def test_import_check_can_fail(statements: str, message: str) -> None:
    done = run_quietly("", statements)
    assert done.returncode != 0
    assert message in done.stderr
