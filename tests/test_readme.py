"""Every Python block of the README runs, and prints what the text block after it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=[f"block {n}" for n in range(len(BLOCKS))])
def test_a_block_prints_what_it_says(code: str, printed: str) -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert output.getvalue() == printed


def test_every_block_says_what_it_prints() -> None:
    assert len(BLOCKS) == README.count("```python\n")
    assert all(printed for _, printed in BLOCKS)


def test_the_tour_names_every_file() -> None:
    package = Path(__file__).parent.parent / "distgen"
    files = {path.name for path in package.iterdir() if path.suffix == ".py" and path.name != "__init__.py"}
    assert set(re.findall(r"^\| `distgen/(\w+\.py)`", README, re.MULTILINE)) == files
