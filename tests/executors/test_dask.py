"""Dask on a real cluster of worker processes on loopback: killed workers, interrupts, an executor that stays open."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import count
from typing import Any

import pytest

from distgen import LLM, Batch, Pool
from distgen.backends.echo import echo
from distgen.formats import default
from tests.support.parts import PLAIN, dask_cluster, own_pid, slow_echo, texts, until

pytestmark = pytest.mark.slow


@pytest.fixture
def client(dask: Any) -> Any:
    if dask is None:
        pytest.skip("distributed is not installed")
    return dask


@pytest.fixture
def mortal_client(client: Any) -> Iterator[Any]:
    """Of a cluster of its own."""
    logging.disable(logging.ERROR)
    with dask_cluster() as mortal:
        yield mortal
    logging.disable(logging.NOTSET)


def test_a_killed_worker_costs_no_row(mortal_client: Any) -> None:
    inputs = [f"row {n}" for n in range(60)]
    pids: list[int] = []
    with closing(LLM(PLAIN, default, own_pid, Pool(mortal_client.get_executor, 4, buffer=8)).stream(inputs)) as stream:
        for row, text in zip(stream, inputs, strict=True):
            answer, _, pid = texts(row)[0].rpartition(" ")
            assert answer == text
            pids.append(int(pid))
            if len(pids) == 10:
                os.kill(pids[-1], signal.SIGKILL)
    assert len(pids) == 60
    assert pids[9] not in pids[30:]


def slow_from_row_20(prompts: Sequence[str], num_generations: int) -> Batch:
    time.sleep(0.3 if int(prompts[0]) >= 20 else 0.01)
    return echo(prompts, num_generations)


def unfinished(dask_scheduler: Any) -> int:
    return sum(task.state != "memory" for task in dask_scheduler.tasks.values())


@pytest.mark.parametrize("verb", ["generate", "stream", "as_completed"])
def test_an_interrupt_leaves_no_call_on_the_cluster(client: Any, verb: str) -> None:
    rows, seen = count(), list[object]()

    def progress(_: int) -> None:
        if next(rows) == 19:
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()

    llm = LLM(PLAIN, default, slow_from_row_20, Pool(client.get_executor, 8))
    with pytest.raises(KeyboardInterrupt):
        for row in getattr(llm, verb)((str(n) for n in count()), on_progress=progress):
            seen.append(row)
    assert until(lambda: client.run_on_scheduler(unfinished) == 0)
    assert verb == "generate" or len(seen) >= 19
    assert [texts(row) for row in llm.generate(["1", "2"])] == [["1"], ["2"]]


def test_an_executor_that_is_open_stays_open(client: Any) -> None:
    with client.get_executor() as pool:
        llm = LLM(PLAIN, default, slow_echo, Pool(lambda: nullcontext(pool), 4))
        assert [texts(row) for row in llm.generate(["a", "b"])] == [["a"], ["b"]]
        stream = llm.stream(str(n) for n in range(1000))
        assert texts(next(stream)) == ["0"]
        stream.close()
        assert pool.submit(int, "7").result(timeout=60) == 7
