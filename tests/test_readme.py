"""Every Python block of the README runs, and prints what the text block after it says."""

from __future__ import annotations

import contextlib
import io

import pytest

from tests.support.readme import README, Block, blocks

BLOCKS = blocks()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {n}" for n in range(len(BLOCKS))])
@pytest.mark.no_cover
def test_a_block_prints_what_it_says(block: Block) -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(block.code, "README.md", "exec"), {"__name__": "readme"})
    assert output.getvalue() == block.printed


def test_no_block_is_overlooked() -> None:
    text = README.read_text("utf-8")
    assert len(BLOCKS) == text.count("```python")
    assert sum(1 for block in BLOCKS if block.printed) == text.count("```text")
