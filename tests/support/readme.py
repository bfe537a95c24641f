"""Code blocks of the README. As a program, it writes each to a file of its own, for the type checkers.

python -m tests.support.readme FOLDER
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

README: Final = Path(__file__).parents[2] / "README.md"
_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A Python block, and the text block after it: what it prints."""

    code: str
    printed: str


def blocks() -> list[Block]:
    """Return the Python blocks of the README, in order."""
    return [Block(code, printed) for code, printed in _BLOCK.findall(README.read_text("utf-8"))]


if __name__ == "__main__":
    for number, block in enumerate(blocks()):
        Path(sys.argv[1], f"readme_block_{number}.py").write_text(block.code, "utf-8")
