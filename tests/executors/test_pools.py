"""The engine over real pools: threads, spawned processes, loky, Dask on worker processes; open, broken and shut ones."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import Executor as FuturesExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from returns.result import Failure, Result, Success

from distgen import LLM, Asyncio, Batch, Completion, Pool, Processes, Prompt, Sequential, Task, Threads, fold
from distgen.backends.echo import echo
from distgen.errors import Raised, error_kind
from distgen.executors import Executor
from distgen.executors.call import Call
from distgen.executors.engine import Inbox
from distgen.formats import chatml, default
from tests.support.parts import PLAIN, Awaited, loky_pool

Open = Callable[[], AbstractContextManager[FuturesExecutor]]


def sampled(prompts: Sequence[str], num_generations: int) -> Batch:
    """A double of a sampling model: every call gives another text."""
    return [[Completion(os.urandom(8).hex()) for _ in range(num_generations)] for _ in prompts]


def fragile(prompts: Sequence[str], num_generations: int) -> Batch:
    """A backend whose exception does not unpickle, which on its own kills a whole process pool."""
    if "row 3" in prompts:
        raise TwoArguments("first", "second")
    return echo(prompts, num_generations)


class TwoArguments(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def spawned() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(
    scope="session",  # set up before a test is watched for what it leaves behind: the cluster stays
    params=[
        "threads",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("processes", "loky", "dask")),
    ],
)
def open_pool(request: pytest.FixtureRequest) -> Open:
    match request.param:
        case "threads":
            return partial(ThreadPoolExecutor, 2)
        case "processes":
            return spawned
        case "loky":
            return loky_pool
        case _:
            dask = request.getfixturevalue("dask")
            if dask is None:
                pytest.skip("distributed is not installed")
            opened: Open = dask.get_executor
            return opened


def texts(llm: LLM[str, str, str, Batch], inputs: Sequence[str], n: int = 1) -> list[list[str]]:
    return [
        fold(row, lambda generations: [each.completion.text for each in generations], lambda error: [repr(error)])
        for row in llm.generate(inputs, n)
    ]


def test_a_pool_gives_what_a_loop_gives(open_pool: Open) -> None:
    inputs = [f"row {n}" for n in range(30)]
    one_by_one = LLM(PLAIN, chatml, echo, Sequential(), "m", 4)
    pooled = LLM(PLAIN, chatml, echo, Pool(open_pool, 4), "m", 4)
    assert pooled.generate(inputs, 2) == one_by_one.generate(inputs, 2)
    stream = pooled.stream(inputs)
    assert next(stream) == one_by_one.generate(inputs[:1])[0]
    stream.close()
    with pooled.submitter() as submit:
        assert submit("row 0").result(timeout=60) == one_by_one.generate(["row 0"])[0]


def test_equal_prompts_get_a_sample_each(open_pool: Open) -> None:
    rows = texts(LLM(PLAIN, default, sampled, Pool(open_pool, 4)), ["same"] * 12)
    again = texts(LLM(PLAIN, default, sampled, Pool(open_pool, 4)), ["same"] * 12)
    assert len({text for row in rows + again for text in row}) == 24


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_exception_that_does_not_unpickle_fails_one_row(open_pool: Open, batch_size: int) -> None:
    rows = LLM(PLAIN, default, fragile, Pool(open_pool, 4), batch_size=batch_size).generate(
        [f"row {n}" for n in range(8)]
    )
    failed = {index: row.failure() for index, row in enumerate(rows) if isinstance(row, Failure)}
    assert failed == {3: Raised("tests.executors.test_pools.TwoArguments", "firstsecond")}


@pytest.mark.parametrize("ended", [SystemExit("no"), GeneratorExit("no"), ValueError("no")], ids=repr)
@pytest.mark.parametrize("executor", [Sequential(), Threads(2)], ids=repr)
def test_a_lazy_row_that_raises_fails_alone(executor: Sequential | Threads, ended: BaseException) -> None:
    def lazy(prompt: str) -> Iterator[Completion]:
        if prompt == "b":
            raise ended
        yield Completion(prompt)

    def backend(prompts: Sequence[str], _: int) -> list[Iterator[Completion]]:
        return [lazy(prompt) for prompt in prompts]

    untyped: Any = LLM
    rows = untyped(PLAIN, default, backend, executor, batch_size=3).generate(["a", "b", "c"])
    assert [isinstance(row, Success) for row in rows] == [True, False, True]
    assert rows[1] == Failure(Raised(type(ended).__name__, "no"))


def test_a_lazy_row_that_is_interrupted_ends_the_run() -> None:
    def interrupted(_: int) -> Completion:
        raise KeyboardInterrupt

    def backend(_: Sequence[str], num_generations: int) -> list[Iterator[Completion]]:
        return [map(interrupted, range(num_generations))]

    untyped: Any = LLM
    with pytest.raises(KeyboardInterrupt):
        untyped(PLAIN, default, backend, Sequential()).generate(["a"])


def test_a_pool_that_does_not_open_fails_every_row_of_a_batch() -> None:
    fault = Failure(Raised("ValueError", "max_workers must be at least 1, got 0"))
    assert LLM(PLAIN, default, echo, Threads(0), batch_size=3).generate(["a", "b", "c", "d"]) == [fault] * 4


def test_an_open_pool_stays_open() -> None:
    with ThreadPoolExecutor(2) as pool:
        llm = LLM(PLAIN, default, echo, Pool(lambda: nullcontext(pool), 4))
        assert texts(llm, ["a", "b"]) == [["a"], ["b"]]
        stream = llm.stream(str(n) for n in range(1000))
        next(stream)
        stream.close()
        assert pool.submit(int, "7").result() == 7


class Waiting:
    """Row 0 waits until another row has begun, and the others until their waits are ended, after the pending ones are cancelled."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.finished: list[str] = []

    def __call__(self, prompts: Sequence[str], num_generations: int) -> Batch:
        if prompts[0] == "row 0":
            self.begun.wait(60)
        else:
            self.begun.set()
            self.ended.wait(60)
            time.sleep(0.3)  # closing waits for it
            self.finished.extend(prompts)
        return echo(prompts, num_generations)

    def end_waits(self) -> None:
        self.ended.set()


def test_closing_waits_for_the_running_calls_of_an_open_pool() -> None:
    backend = Waiting()
    with ThreadPoolExecutor(3) as pool:
        stream = LLM(PLAIN, default, backend, Pool(lambda: nullcontext(pool), 6)).stream(f"row {n}" for n in range(99))
        next(stream)
        stream.close()
        # Three ran at most, the pending ones were cancelled; nothing runs on behind the caller's back.
        finished = len(backend.finished)
        assert 0 < finished <= 3
        assert pool.submit(len, backend.finished).result() == finished


def test_leaving_an_open_pool_waits_until_each_result_is_delivered() -> None:
    submitted, delivering, release = threading.Event(), threading.Event(), threading.Event()

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        submitted.wait(60)
        return echo(prompts, num_generations)

    def deliver(_: object) -> None:
        delivering.set()
        release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        session = Pool(lambda: nullcontext(pool), 1).session(deliver)
        with session as submit:
            submit(0, Call(backend, ["a"], 1))
            submitted.set()
            assert delivering.wait(60)
            closer = threading.Thread(target=session.__exit__, args=(None, None, None))
            closer.start()
            closer.join(timeout=0.2)
            is_waiting = closer.is_alive()
            release.set()
            closer.join(timeout=60)
    assert is_waiting


def test_an_interrupt_while_a_call_is_submitted_ends_the_run() -> None:
    class Interrupted(Future[Any]):
        def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
            raise KeyboardInterrupt

    class Submitting(ThreadPoolExecutor):
        """A double of the moment: Ctrl-C comes when the pool has the call."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = Interrupted()
            super().submit(lambda: future.set_result(fn(*args, **kwargs)))
            return future

    with pytest.raises(KeyboardInterrupt):
        LLM(PLAIN, default, echo, Pool(partial(Submitting, 1), 1)).generate(["a", "b"])


def test_a_buffer_below_none_is_none() -> None:
    llm = LLM(PLAIN, default, echo, Pool(partial(ThreadPoolExecutor, 1), 1, buffer=-1))
    assert texts(llm, ["a", "b"]) == [["a"], ["b"]]


def test_a_pool_that_does_not_open_fails_every_row() -> None:
    def refused() -> AbstractContextManager[FuturesExecutor]:
        raise ConnectionRefusedError("no scheduler at that address")

    fault = Failure(Raised("ConnectionRefusedError", "no scheduler at that address"))
    llm = LLM(PLAIN, default, echo, Pool(refused, 4))
    assert llm.generate(["a", "b"]) == [fault, fault]
    with llm.submitter() as submit:
        assert submit("a").result() == fault


@pytest.mark.parametrize(
    ("executor", "reason"),
    [
        (Threads(0), "max_workers must be at least 1, got 0"),
        (Processes(0), "max_workers must be at least 1, got 0"),
        (Pool(ThreadPoolExecutor, -1), "max_in_flight must be at least 1, got -1"),
        (Awaited(Asyncio(0)), "max_in_flight must be at least 1, got 0"),
    ],
    ids=repr,
)
def test_a_number_that_no_row_can_be_answered_with_is_named(executor: Executor[Batch], reason: str) -> None:
    llm = LLM(PLAIN, default, echo, executor)
    fault = Failure(Raised("ValueError", reason))
    assert llm.generate(["a", "b"]) == [fault, fault]
    with llm.submitter() as submit:
        assert submit("a").result(timeout=60) == fault


def test_a_pool_that_is_shut_fails_every_row() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    fault = Failure(Raised("RuntimeError", "cannot schedule new futures after shutdown"))
    assert LLM(PLAIN, default, echo, Pool(lambda: nullcontext(pool), 4)).generate(["a", "b"]) == [fault, fault]


def test_a_pool_that_is_shut_by_another_meanwhile_fails_what_it_dropped() -> None:
    pool = ThreadPoolExecutor(1)

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if prompts == ["row 0"]:
            pool.shutdown(wait=False, cancel_futures=True)
        return echo(prompts, num_generations)

    rows = LLM(PLAIN, default, backend, Pool(lambda: nullcontext(pool), 4)).generate([f"row {n}" for n in range(8)])
    assert rows[0] == LLM(PLAIN, default, echo, Sequential()).generate(["row 0"])[0]
    assert len(rows) == 8
    for row in rows[1:]:
        assert "CancelledError" in repr(row) or "after shutdown" in repr(row) or row == Success(row.value_or(()))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionResetError("scheduler lost"), "scheduler lost"),
        (TypeError("cannot pickle 'x'"), "the backend and the rendered prompts must pickle: cannot pickle 'x'"),
        (
            BrokenExecutor("a double"),
            "the pool broke while it had this row, as when a worker process is killed or runs out of memory: a double",
        ),
    ],
    ids=repr,
)
def test_a_future_that_fails_in_the_pool_is_a_typed_answer(error: Exception, message: str) -> None:
    class Dropping(ThreadPoolExecutor):
        """A double of an engine whose own machinery fails, as a lost connection to a scheduler does."""

        def submit(self, fn: object, /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            future: Future[object] = Future()
            future.set_exception(error)
            return future

    (row,) = LLM(PLAIN, default, echo, Pool(partial(Dropping, 1), 2)).generate(["a"])
    assert row.failure() == replace(Raised.of(error), message=message)


def test_a_pool_that_breaks_three_times_without_an_answer_is_not_opened_again() -> None:
    opened: list[FuturesExecutor] = []

    class Breaking(ThreadPoolExecutor):
        """A double of a pool whose workers die of some prompts."""

        def submit(self, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if args[0].prompts == ["dies"]:
                future: Future[object] = Future()
                future.set_exception(BrokenExecutor("a double"))
                return future
            return super().submit(fn, *args, **kwargs)

    def open_pool() -> FuturesExecutor:
        opened.append(Breaking(1))
        return opened[-1]

    def ask(*prompts: str) -> list[str]:
        rows = LLM(PLAIN, default, echo, Pool(open_pool, 1)).generate(prompts)
        return [fold(row, lambda found: found[0].completion.text, error_kind) for row in rows]

    died = error_kind(Raised.of(BrokenExecutor()))
    assert ask(*["dies", "dies", "a"] * 3) == [died, died, "a"] * 3
    assert len(opened) == 7
    assert ask("a", "dies", "dies", "dies", "a", "a") == ["a", died, died, died, "RuntimeError", "RuntimeError"]
    assert len(opened) == 7 + 3


def test_a_pool_of_processes_opens_and_closes_without_a_process() -> None:
    assert Processes(2).in_flight == 4
    with Processes(2).session(Inbox().put):
        pass


class Exhausted:
    """A double of a system that has no more than so many threads to give."""

    def __init__(self, threads: int) -> None:
        self.left = threads
        self.start = threading.Thread.start

    def __call__(self, thread: threading.Thread) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("can't start new thread")
        self.start(thread)


@pytest.mark.parametrize("threads", [0, 3, 14])
def test_if_the_system_has_no_more_threads_each_row_is_answered_or_fails_typed(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted = Exhausted(threads)

    def start(thread: threading.Thread) -> None:
        exhausted(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    rows = texts(LLM(PLAIN, default, echo, Threads(40)), [str(n) for n in range(100)])
    refused = [repr(Raised("RuntimeError", "can't start new thread"))]
    assert all(row in ([str(n)], refused) for n, row in enumerate(rows))
    assert any(row != refused for row in rows) == (threads > 0)


def test_as_many_threads_as_asked_for_run_at_once_and_no_more() -> None:
    barrier, lock, running, most = threading.Barrier(40, timeout=60), threading.Lock(), 0, 0

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if int(prompts[0]) < 40:
            barrier.wait()
        with lock:
            running -= 1
        return echo(prompts, num_generations)

    assert texts(LLM(PLAIN, default, backend, Threads(40)), [str(n) for n in range(200)]) == [
        [str(n)] for n in range(200)
    ]
    assert most == 40


def test_leaving_the_submitter_of_an_open_pool_waits_for_the_parsers_too() -> None:
    def parse(text: str) -> Result[str, object]:
        time.sleep(0.1)
        return Success(text)

    with ThreadPoolExecutor(2) as pool:
        with LLM(Task(Prompt, parse), default, echo, Pool(lambda: nullcontext(pool), 2)).submitter() as submit:
            futures = [submit(str(n)) for n in range(4)]
        assert all(future.done() for future in futures)
