"""Any number of lazy inputs in bounded memory: 20,000 of them here, a million in tests/benchmarks/engine.py."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from itertools import chain

import pytest
from returns.result import Result

from distgen import LLM, Batch, Processes, Prompt, Task, Threads
from distgen.backends.echo import echo
from distgen.errors import GenerateError
from distgen.executors import Executor
from distgen.formats import default
from tests.support.parts import EXECUTORS, PLAIN, Row, text_of

psutil = pytest.importorskip("psutil")
ROWS = 20_000
pytestmark = [pytest.mark.no_cover, pytest.mark.slow]

TABLE: dict[str, tuple[Executor[Batch], int]] = {
    **{name: (executor, 1) for name, executor in EXECUTORS.items()},
    "processes": (Processes(2), 50),
}


def grown(rows: Iterable[object]) -> int:
    """Bytes between the 5,000th row and the last."""
    before = seen = 0
    for seen, _ in enumerate(rows, 1):
        if seen == 5_000:
            gc.collect()
            before = psutil.Process().memory_info().rss
    assert seen == ROWS
    gc.collect()
    return int(psutil.Process().memory_info().rss) - before


@pytest.mark.parametrize(("executor", "batch_size"), TABLE.values(), ids=TABLE.keys())
def test_memory_does_not_grow_with_the_inputs(executor: Executor[Batch], batch_size: int) -> None:
    llm = LLM(PLAIN, default, echo, executor, batch_size=batch_size)
    assert grown(llm.stream(str(n) for n in range(ROWS))) < 6 * 2**20


def test_memory_does_not_grow_with_failures() -> None:
    llm = LLM(PLAIN, default, each_fails, Threads(4))
    assert grown(llm.stream(str(n) for n in range(ROWS))) < 6 * 2**20


def each_fails(prompts: object, num_generations: int) -> Batch:
    raise TimeoutError(f"no answer to {prompts}, {num_generations} times")


def judged(story: Row) -> Result[Prompt, GenerateError]:
    return story.map(lambda made: Prompt(f"is it: {made[0].completion.text}"))


def test_judging_what_is_generated_streams_from_end_to_end() -> None:
    pulled = 0

    def questions() -> Iterable[str]:
        nonlocal pulled
        for pulled in range(ROWS):
            yield f"question {pulled}"

    writer = LLM(PLAIN, default, echo, Threads(4, buffer=16))
    judge = LLM(Task(judged, text_of), default, echo, Threads(2, buffer=16))
    stream = judge.stream(writer.stream(questions()))
    first = next(stream)
    assert first.unwrap()[0].completion.text == "is it: question 0"
    assert pulled <= 8 + 16 + 4 + 16
    assert grown(chain([first], stream)) < 6 * 2**20
