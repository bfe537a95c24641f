"""Dask on a real cluster of worker processes on loopback: a killed worker, and an executor that stays open."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest

from distgen import LLM, Pool
from distgen.formats import default
from tests.parts import PLAIN, slow_echo
from tests.test_faults import own_pid
from tests.test_llm import texts


@pytest.fixture
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    logging.disable(logging.ERROR)  # of workers that are killed on purpose
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
    logging.disable(logging.NOTSET)


def test_a_killed_worker_costs_no_row(client: Any) -> None:
    inputs = [f"row {n}" for n in range(60)]
    pids: list[int] = []
    with closing(LLM(PLAIN, default, own_pid, Pool(client.get_executor, 4)).stream(inputs)) as stream:
        for row, text in zip(stream, inputs, strict=True):
            answer, _, pid = texts(row)[0].rpartition(" ")
            assert answer == text
            pids.append(int(pid))
            if len(pids) == 10:
                os.kill(pids[-1], signal.SIGKILL)
    assert len(pids) == 60
    assert pids[9] not in pids[30:]


def test_an_executor_that_is_open_stays_open(client: Any) -> None:
    with client.get_executor() as pool:
        llm = LLM(PLAIN, default, slow_echo, Pool(lambda: nullcontext(pool), 4))
        assert [texts(row) for row in llm.generate(["a", "b"])] == [["a"], ["b"]]
        stream = llm.stream(str(n) for n in range(1000))
        assert texts(next(stream)) == ["0"]
        stream.close()
        assert pool.submit(int, "7").result(timeout=30) == 7
