"""Every Python block of the README runs, and prints what the text block after it says.

A block that asks a server asks a real one, in a process of its own: its address is put in place of the README's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.readme import README, Block, blocks
from tests.support.servers import Act, Server, chat_body, response, serving

BLOCKS: Final = blocks()
URL: Final = "http://127.0.0.1:8000/v1"
ANSWERS: Final = {"2+2?": "4", "3+3?": "It is six."}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as started:
        started.script(to={question: [Act(response(200, chat_body(answer)))] for question, answer in ANSWERS.items()})
        yield started


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {n}" for n in range(len(BLOCKS))])
@pytest.mark.no_cover
def test_a_block_prints_what_it_says(block: Block, server: Server) -> None:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(block.code.replace(URL, server.url), "README.md", "exec"), {"__name__": "readme"})
    assert output.getvalue() == block.printed


def test_no_block_is_overlooked() -> None:
    text = README.read_text("utf-8")
    assert len(BLOCKS) == text.count("```python")
    assert sum(1 for block in BLOCKS if block.printed) == text.count("```text")
