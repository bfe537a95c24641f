"""The figures of a run against plainer ways to get them, and what is shown of them."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen import Batch, Completion, Raised, Usage
from distgen.report import Figures, Meter, percentile, status, summary, table


@given(st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=50), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_that_of_the_sorted_list_to_one_percent(seconds: list[float], percent: int) -> None:
    meter = Meter()
    for each in seconds:
        meter.called(each, [])
    exact = sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1]
    assert percentile(meter.figures(), percent) == pytest.approx(exact, rel=0.01)


def test_without_calls_there_is_no_latency() -> None:
    assert math.isnan(percentile(Figures({}, 1.0), 50))
    assert "latency" not in "".join(table(Figures({"BadLine": 3}, 1.0)))


def test_threads_lose_no_count() -> None:
    meter = Meter()
    paid = Completion("x", usage=Usage(2, 3))
    batch: Batch = [[paid, Completion("y")], Success([paid]), Failure(Raised("K", "m"))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(meter.called, [0.1] * 4000, [batch] * 4000))
    finally:
        sys.setswitchinterval(interval)
    figures = meter.figures()
    assert (figures.calls, figures.prompt_tokens, figures.completion_tokens) == (4000, 16000, 24000)
    assert (meter.tokens, meter.uncounted) == (40000, 0)
    meter.called(0.1, [Failure(Raised("K", "m"))])
    assert meter.uncounted == 0
    meter.called(0.1, [[Completion("free")]])
    assert meter.uncounted == 1


def test_the_line_leaves_out_what_nobody_knows() -> None:
    assert status(Figures({}, 0.0), 10, 79) == "0/10 rows, 0.0 rows/s, 0 failed"
    assert status(Figures({"": 5}, 2.0), None, 79) == "5 rows, 2.5 rows/s, 0 failed"
    assert ", 2:46:40 left," in status(Figures({"": 1}, 1.0), 10_001, 79)
    assert status(Figures({}, 5.0, looked_at=70_000), 100_000, 79) == "70,000 rows looked at, none to ask yet"
    assert "90 rows" in status(Figures({"": 1}, 1.0, kept=80, calls=10), None, 79)  # answered, and not yet written


@given(st.integers(4, 200), st.text("abc", min_size=1, max_size=100))
def test_nothing_is_wider_than_its_terminal(columns: int, name: str) -> None:
    figures = Figures({"": 10**9, name: 10**9}, 1e7, calls=1, latencies={0: 1}, completion_tokens=10**12)
    assert len(status(figures, 10**10, columns)) <= columns
    assert all(len(line) <= 80 for line in table(figures))
    assert name in summary(figures)
