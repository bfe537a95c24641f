"""What breaks from outside: killed workers, interrupts, forks, garbage, the end of the interpreter; real ones, each."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from itertools import count
from typing import Any

import pytest
from returns.result import Failure, Result, Success

from distgen import LLM, Batch, Completion, Pool, Processes, Prompt, Sequential, Task, Threads
from distgen.backends.echo import echo
from distgen.errors import Raised
from distgen.executors import Executor
from distgen.formats import default
from tests.support.parts import (
    EXECUTORS,
    PLAIN,
    ROOT,
    Row,
    count_threads,
    error_of,
    loky_pool,
    own_pid,
    planned_faults,
    slow_echo,
    texts,
    until,
)


def deadly(prompts: Sequence[str], num_generations: int) -> Batch:
    """A backend that takes its whole worker process with it, at one prompt."""
    if "row 3" in prompts:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return echo(prompts, num_generations)


def reusable_loky() -> AbstractContextManager[FuturesExecutor]:
    """The one pool of loky's own, which stays open; asking for it again after a break waits for its threads."""
    loky = pytest.importorskip("loky")
    return nullcontext(loky.get_reusable_executor(2))


# A small buffer: what a worker answered before it is killed is soon read.
BREAKABLE: dict[str, Executor[Batch]] = {
    "processes": Processes(2, buffer=8),
    "loky": Pool(loky_pool, 4, buffer=8),
    "reusable loky": Pool(reusable_loky, 4, buffer=8),
}


@pytest.fixture(params=BREAKABLE)
def breakable(request: pytest.FixtureRequest) -> Iterator[Executor[Batch]]:
    name: str = request.param
    if "loky" in name:
        pytest.importorskip("loky")
    yield BREAKABLE[name]
    if name == "reusable loky":
        sys.modules["loky"].get_reusable_executor(2).shutdown(wait=True)
        gc.collect()  # loky has one for each thread; that of the thread which opened it again is nobody's now


@pytest.mark.slow
def test_a_worker_killed_from_outside_fails_the_rows_in_the_pool_alone(breakable: Executor[Batch]) -> None:
    inputs = [f"row {n}" for n in range(60)]
    pids: list[int] = []
    failed: list[Row] = []
    with closing(LLM(PLAIN, default, own_pid, breakable).stream(inputs)) as stream:
        for row, text in zip(stream, inputs, strict=True):
            if isinstance(row, Failure):
                failed.append(row)
                continue
            answer, _, pid = texts(row)[0].rpartition(" ")
            assert answer == text
            pids.append(int(pid))
            if len(pids) == 10:
                os.kill(pids[-1], signal.SIGKILL)
    assert len(failed) <= 4  # the calls in flight, of which there may be none at that moment
    assert all("the pool broke while it had this row" in repr(row) for row in failed)
    assert len(pids) + len(failed) == 60
    assert pids[9] not in pids[30:]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_row_that_kills_its_worker_fails_with_those_beside_it(breakable: Executor[Batch], batch_size: int) -> None:
    inputs = [f"row {n}" for n in range(20)]
    rows = LLM(PLAIN, default, deadly, breakable, batch_size=batch_size).generate(inputs)
    errors = {index: error for index, row in enumerate(rows) if (error := error_of(row))}
    assert 3 in errors
    assert len(errors) <= 4 * batch_size
    assert all("terminated" in repr(error) for error in errors.values())
    assert [texts(row) for index, row in enumerate(rows) if index not in errors] == [
        [text] for index, text in enumerate(inputs) if index not in errors
    ]


@pytest.mark.slow
def test_a_submitter_outlives_a_killed_worker(breakable: Executor[Batch]) -> None:
    with LLM(PLAIN, default, deadly, breakable).submitter() as submit:
        assert error_of(submit("row 3").result(timeout=60)) is not None
        assert [texts(submit(f"row {n}").result(timeout=60)) for n in (4, 5)] == [["row 4"], ["row 5"]]


def test_a_pool_that_breaks_three_times_in_a_row_is_not_opened_again() -> None:
    opened = count()

    def open_breaking() -> AbstractContextManager[FuturesExecutor]:
        next(opened)
        return breaking(multiprocessing_broken(), answers=0)

    rows = LLM(PLAIN, default, echo, Pool(open_breaking, 1)).generate(str(n) for n in range(50))
    assert next(opened) == 3
    assert all("broke" in repr(error_of(row)) for row in rows)
    assert "3 times in a row" in repr(rows[-1])


def test_a_call_that_a_broken_pool_refuses_is_asked_in_a_fresh_one() -> None:
    opened = count()

    class Refusing(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if next(opened) == 0:
                raise multiprocessing_broken()
            return super().submit(fn, *args, **kwargs)

    rows = LLM(PLAIN, default, echo, Pool(partial(Refusing, 1), 1)).generate(["a", "b"])
    assert [texts(row) for row in rows] == [["a"], ["b"]]


def test_an_answer_between_breaks_starts_the_count_anew() -> None:
    def open_breaking() -> AbstractContextManager[FuturesExecutor]:
        return breaking(multiprocessing_broken())

    rows = LLM(PLAIN, default, echo, Pool(open_breaking, 1)).generate(str(n) for n in range(20))
    assert [error_of(row) is None for row in rows] == [True, False] * 10


@pytest.mark.slow
def test_an_open_pool_that_breaks_fails_its_rows_typed() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        # All three are in the pool before its worker has started, and so before it breaks.
        rows = LLM(PLAIN, default, deadly, Pool(lambda: nullcontext(pool), 3)).generate(["row 2", "row 3", "row 4"])
    assert [error is None or "BrokenProcessPool" in repr(error) for error in map(error_of, rows)] == [True] * 3
    assert None not in (error_of(rows[1]), error_of(rows[2]))


class Breaking(ThreadPoolExecutor):
    """A double of a pool that breaks, by default at its second call: what a killed worker does, at a place that can be chosen."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if next(self.calls) < self.answers:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_exception(self.broken)
        return future

    calls: Iterator[int]
    answers: int
    broken: Exception


def breaking(broken: Exception, answers: int = 1) -> Breaking:
    pool = Breaking(1)
    pool.calls, pool.broken, pool.answers = count(), broken, answers
    return pool


def test_a_pool_that_cannot_be_opened_again_fails_its_rows_typed() -> None:
    opened = count()

    def open_once() -> AbstractContextManager[FuturesExecutor]:
        if next(opened):
            raise ConnectionRefusedError("the scheduler is gone")
        return breaking(multiprocessing_broken())

    rows = LLM(PLAIN, default, echo, Pool(open_once, 1)).generate(["a", "b", "c"])
    assert rows[2] == Failure(Raised("ConnectionRefusedError", "the scheduler is gone"))


def multiprocessing_broken() -> Exception:
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool("a double")


def test_a_pool_that_raises_on_closing_costs_a_warning_and_no_row() -> None:
    class Sore(ThreadPoolExecutor):
        def __exit__(self, *error: object) -> None:
            super().__exit__(None, None, None)
            raise ConnectionResetError("goodbye was not heard")

    with pytest.warns(RuntimeWarning, match="goodbye was not heard"):
        rows = LLM(PLAIN, default, echo, Pool(partial(Sore, 2), 4)).generate(["a", "b"])
    assert [texts(row) for row in rows] == [["a"], ["b"]]


class Stuck:
    """A backend, a formatter's prompt or a parser, that does not pickle."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.name = ""

    def __call__(self, prompts: Sequence[object], num_generations: int) -> Batch:
        return [[Completion("answered")] * num_generations for _ in prompts]


@pytest.mark.slow
def test_what_does_not_pickle_fails_typed_and_a_parser_need_not() -> None:
    stuck = Stuck()

    def parse(text: str) -> Success[str]:
        return Success(text + stuck.name)

    def render(_: Prompt) -> Result[Stuck, Raised]:
        return Success(stuck)

    def first(*llm: Any) -> Any:
        made: Any = LLM
        (row,) = made(*llm, Processes(1)).generate(["a"])
        return row

    for llm in [(PLAIN, default, stuck), (PLAIN, render, echo)]:
        error = error_of(first(*llm))
        assert isinstance(error, Raised)
        assert error.message.startswith("the backend and the rendered prompts must pickle: cannot pickle '_thread.")
    assert texts(first(Task(Prompt, parse), default, echo)) == ["a"]


@pytest.mark.parametrize("ended", [SystemExit("no"), GeneratorExit("no"), MemoryError("no")], ids=repr)
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS.keys())
def test_what_would_end_an_interpreter_fails_one_row(ended: BaseException, executor: Executor[Batch]) -> None:
    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if "b" in prompts:
            raise ended
        return echo(prompts, num_generations)

    rows = LLM(PLAIN, default, backend, executor, batch_size=2).generate(["a", "b", "c"])
    assert [error_of(row) for row in rows] == [None, Raised(type(ended).__name__, "no"), None]


COLLECTING = {"threads": Threads(2), "pool": Pool(lambda: ThreadPoolExecutor(2), 4), "asyncio": EXECUTORS["asyncio"]}


def run(script: str, *arguments: str, timeout: float = 100) -> tuple[str, str, int]:
    """A script in an interpreter of its own, in a process group of its own."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, start_new_session=True
    )
    return done.stdout, done.stderr, done.returncode


PREAMBLE = """
import asyncio, itertools, json, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from distgen import Asyncio, LLM, Pool, Processes, Sequential, Threads
from distgen.formats import default
from tests.support.parts import PLAIN, left_behind, slow_echo, slow_echo_async

EXECUTORS = {
    "sequential": Sequential(), "threads": Threads(8), "processes": Processes(2), "asyncio": Asyncio(8),
    "pool": Pool(lambda: ThreadPoolExecutor(4), 8),
}
name = sys.argv[1]
if name == "loky":
    import loky
    EXECUTORS["loky"] = Pool(lambda: loky.ProcessPoolExecutor(2), 4)
calls = itertools.count()
def counted(prompts, n):
    next(calls)
    return slow_echo(prompts, n)
async def counted_async(prompts, n):
    next(calls)
    return await slow_echo_async(prompts, n)
backend = {"asyncio": counted_async, "processes": slow_echo, "loky": slow_echo}.get(name, counted)
llm = LLM(PLAIN, default, backend, EXECUTORS[name])
inputs = (str(n) for n in itertools.count())
"""

INTERRUPTED = """
def interrupt():  # as the terminal does: every process of the group
    os.killpg(os.getpgrp(), signal.SIGINT)

def start_at_row_30(timer):
    rows = itertools.count()
    def progress(_):
        if next(rows) == 30:
            timer.start()
    return progress

async def read(stream):
    async for row in stream:
        seen.append(row)

def ask(verb, progress):
    if verb == "generate":
        llm.generate(inputs, on_progress=progress)
    elif verb == "async for":
        asyncio.run(read(llm.stream(inputs, on_progress=progress)))
    elif verb == "generate in a loop":
        async def cell():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook's kernel
            return llm.generate(inputs, on_progress=progress)
        asyncio.run(cell())
    else:
        for row in getattr(llm, verb)(inputs, on_progress=progress):
            seen.append(row)

for verb in sys.argv[2:]:
    seen, timer = [], threading.Timer(0.05, interrupt)
    try:
        ask(verb, start_at_row_30(timer))
    except KeyboardInterrupt:
        timer.join()
        left, asked = left_behind(), next(calls)
        time.sleep(0.1)
        print(json.dumps({"verb": verb, "left": left, "later": next(calls) - asked - 1, "seen": len(seen)}))
"""

VERBS = ("generate", "stream", "as_completed", "async for", "generate in a loop")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequential", "threads", "processes", "asyncio", "pool", "loky"])
def test_an_interrupt_from_the_keyboard_leaves_nothing_behind(name: str) -> None:
    if name == "loky":
        pytest.importorskip("loky")
    printed, said, status = run(PREAMBLE + INTERRUPTED, name, *VERBS)
    assert status == 0
    assert "distgen" not in said if name in ("processes", "loky") else said == ""  # a worker that starts may speak
    told = [json.loads(line) for line in printed.splitlines()]
    assert [(each["verb"], each["left"], each["later"]) for each in told] == [(verb, [], 0) for verb in VERBS]
    for each in told:  # what was yielded is the caller's
        assert each["verb"].startswith("generate") or each["seen"] > 5


@pytest.mark.parametrize("executor", COLLECTING.values(), ids=COLLECTING.keys())
@pytest.mark.parametrize("verb", ["generate", "stream", "as_completed"])
def test_an_interrupt_while_a_thread_is_started_leaves_none(
    verb: str, executor: Executor[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of the moment: starting a thread is waiting for it, so that Ctrl-C may come when it runs already."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(getattr(LLM(PLAIN, default, slow_echo, executor), verb)(list("abc")))
    assert until(lambda: count_threads() == 0)


LEFT_RUNNING = """
def hang(prompts, n):
    if "3" in prompts and name == "sequential":
        time.sleep(1000)
    return slow_echo(prompts, n)
async def hang_async(prompts, n):
    await asyncio.sleep(1000 if "3" in prompts else 0)
    return await slow_echo_async(prompts, n)
from dataclasses import replace
if name == "asyncio":
    llm = replace(llm, backend=hang_async)
elif name != "processes":
    llm = replace(llm, backend=hang)
stream = llm.stream(inputs)
print(next(stream).unwrap()[0].completion.text)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequential", "threads", "processes", "asyncio", "pool"])
def test_the_interpreter_ends_with_a_stream_that_runs(name: str) -> None:
    assert run(PREAMBLE + LEFT_RUNNING, name) == ("0\n", "", 0)  # its calls sleep for longer than a test may take


FORKED = """
stream = llm.stream(inputs)
next(stream)
child = os.fork()
if child == 0:
    fresh = LLM(PLAIN, default, backend, EXECUTORS[name])
    rows = fresh.generate(str(n) for n in range(50))
    os._exit(0 if [row.unwrap()[0].completion.text for row in rows] == [str(n) for n in range(50)] else 1)
_, status = os.waitpid(child, 0)
print(status, next(stream).unwrap()[0].completion.text)
stream.close()
print(left_behind())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["threads", "processes", "asyncio", "pool"])
def test_a_process_forked_beside_running_threads_generates_too(name: str) -> None:
    printed, _, status = run("import warnings; warnings.simplefilter('ignore')\n" + PREAMBLE + FORKED, name)
    assert (printed, status) == ("0 1\n[]\n", 0)


@pytest.mark.parametrize("executor", COLLECTING.values(), ids=COLLECTING.keys())
def test_a_stream_that_is_collected_in_a_call_of_its_own_ends(executor: Executor[Batch]) -> None:
    class Knot:
        """Refers to itself, so that only the collector finds it."""

    submitted, dropped, collected = threading.Event(), threading.Event(), threading.Event()

    def inputs() -> Iterator[str]:
        yield from "01"
        submitted.set()  # the engine asks for a third input, so that it has submitted the second
        yield from map(str, count(2))

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if prompts == ["0"]:
            submitted.wait(60)
        elif dropped.wait(60):
            gc.collect()
            collected.set()
        return echo(prompts, num_generations)

    def drop() -> None:
        knot: Any = Knot()
        knot.self, knot.stream = knot, LLM(PLAIN, default, backend, executor).stream(inputs())
        assert texts(next(knot.stream)) == ["0"]

    gc.collect()
    gc.disable()
    try:
        drop()
        dropped.set()
        assert collected.wait(60)
        assert until(lambda: count_threads() == 0)
    finally:
        gc.enable()


def test_a_stream_may_be_closed_in_another_thread_and_waits_there() -> None:
    stream = LLM(PLAIN, default, slow_echo, Threads(4)).stream(str(n) for n in count())
    next(stream)
    left: list[int] = []

    def close() -> None:
        stream.close()
        left.append(count_threads())

    closer = threading.Thread(target=close)
    closer.start()
    closer.join(timeout=60)
    assert left == [0]
    assert list(stream) == []


def test_inputs_that_read_the_stream_they_feed_get_an_exception_and_no_hang() -> None:
    streams: list[Iterator[Row]] = []

    def inputs() -> Iterator[str]:
        yield "a"
        yield texts(next(streams[0]))[0]

    streams.append(LLM(PLAIN, default, echo, Sequential()).stream(inputs()))  # "a" is answered before "b" is pulled
    assert texts(next(streams[0])) == ["a"]
    with pytest.raises(ValueError, match="already executing"):
        next(streams[0])
    assert count_threads() == 0


def test_fifty_llms_share_a_backend_from_many_threads() -> None:
    shared = planned_faults({"7": lambda: 1 / 0})
    executors: list[Executor[Batch]] = [
        Threads(2),
        Sequential(),
        Pool(lambda: ThreadPoolExecutor(2), 4),
        EXECUTORS["asyncio"],
    ]
    answers: queue.SimpleQueue[tuple[int, list[Row]]] = queue.SimpleQueue()

    def ask(n: int) -> None:
        llm = LLM(PLAIN, default, shared, executors[n % 4], model=f"m{n}", batch_size=1 + n % 3)
        answers.put((n, llm.generate(str(k) for k in range(20))))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    told = dict(answers.get(timeout=1) for _ in range(50))
    assert sorted(told) == list(range(50))
    for n, rows in told.items():
        assert error_of(rows.pop(7)) == Raised("ZeroDivisionError", "division by zero")
        assert [(row.unwrap()[0].model, *texts(row)) for row in rows] == [
            (f"m{n}", str(k)) for k in range(20) if k != 7
        ]
    assert count_threads() == 0
