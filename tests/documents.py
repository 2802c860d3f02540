"""The code in a document: what its sections run, and what they say that is printed."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# a block marked 'python' runs; one marked 'text' right under it is what it prints
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n?```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code, the line of the document before it, and what it prints, if that is said."""

    code: str
    line: int
    printed: str | None


def sections(document: Path) -> dict[str, list[Block]]:
    """The runnable blocks under each heading, in their order; what has none is left out."""
    text = document.read_text(encoding="utf-8")
    headings = [(0, ""), *((m.start(), m.group(1)) for m in HEADING.finditer(text))]
    found: dict[str, list[Block]] = {}
    for match in BLOCK.finditer(text):
        heading = [title for start, title in headings if start <= match.start()][-1]
        line = text.count("\n", 0, match.start(1))
        found.setdefault(heading, []).append(Block(match.group(1), line, match.group(2)))
    return found
