"""The code in the documents runs as it stands, section by section, and prints what they say."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.documents import DOCUMENTS, ROOT, sections

# of a file, in a document
PATH = re.compile(r"`([\w.]+(?:/[\w.]+)*/[\w.]+\.(?:py|cpp|h|sh|md))`")
# what a section needs, or takes
NEIGHBOR_LOADER = pytest.mark.skipif(
    find_spec("pyg_lib") is None and find_spec("torch_sparse") is None,
    reason="NeighborLoader needs pyg-lib or torch_sparse",
)
MARKS = {
    "torch.compile": [pytest.mark.compiled, pytest.mark.slow],
    "Node classification with NeighborLoader and expander edges": [NEIGHBOR_LOADER],
    "Inference layer by layer": [NEIGHBOR_LOADER],
}
SECTIONS = [
    pytest.param(
        document,
        heading,
        id=f"{document.relative_to(ROOT)}: {heading or 'beginning'}",
        marks=MARKS.get(heading, []),
    )
    for document in DOCUMENTS
    for heading in sections(document)
]


# Dynamo of torch 2.13, when it traces an autograd.Function
@pytest.mark.filterwarnings(
    "ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning"
)
@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without a 'pyg-lib':UserWarning")
@pytest.mark.parametrize(("document", "heading"), SECTIONS)
def test_code_runs(
    document: Path,
    heading: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # a call that raised while it was compiled, in another test, leaves its frames uncompiled
    torch.compiler.reset()
    # a section stands alone, as it is copied
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in sections(document)[heading]:
        code = compile("\n" * block.line + block.code, str(document), "exec")
        exec(code, namespace)
        printed = capsys.readouterr().out
        if block.printed is not None:
            assert printed == block.printed


def test_blocks_are_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "```python\na\n```\n\n```text\nb\n```\n\n```\nc\n```\n## One\n"
        "```python\nd\n```\nwords\n\n```text\ne\n```\n## Two\n```bash\nf\n```\n"
    )
    assert sections(document) == {"": [("a\n", 1, "b\n")], "One": [("d\n", 13, None)]}
    assert len(SECTIONS) > 10
    assert MARKS.keys() <= sections(ROOT / "docs" / "guide.md").keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    there = "\n".join(line for line in text.splitlines() if "*planned*" not in line)
    files = [
        path
        for folder in ("pyg_gt", "benchmarks", "tests", "docs", "examples")
        for path in (ROOT / folder).rglob("*")
    ]
    missing = [x for x in PATH.findall(there) if not any(path.match(x) for path in files)]
    assert missing == []
