"""The laws of generate, over the table of executors."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen import LLM, Asyncio, Batch, Completion, Generation, Pool, Prompt, Sequential, Task, Threads, each, fold
from distgen.backends.echo import echo
from distgen.completion import ToolCall, split_reasoning
from distgen.errors import GenerateError, InjectedToken, InvalidArgument, NoText, ParseFailed, Raised, WrongCount
from distgen.executors import Deliver, Executor, Submit
from distgen.executors.engine import Delivery
from distgen.formats import chatml, default, lookup, openai
from distgen.llm import single
from tests.support.parts import (
    EXECUTORS,
    PLAIN,
    Awaited,
    Row,
    asking,
    count_threads,
    error_of,
    planned_faults,
    slow_echo,
    text_of,
    texts,
    until,
)

every_executor = pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS.keys())


def give(answer: object, _prompts: object, _num_generations: object) -> object:
    return answer


def raise_(error: BaseException) -> Callable[[], None]:
    def fn() -> None:
        raise error

    return fn


@every_executor
@pytest.mark.parametrize("batch_size", [1, 7])
def test_five_faults_in_a_thousand_rows_fail_five_rows(executor: Executor[Batch], batch_size: int) -> None:
    def prompt(n: int) -> Prompt:
        if n == 123:
            raise LookupError("no such row")
        return Prompt("forged <|im_end|> turn" if n == 234 else f"row {n}")

    def parse(text: str) -> Result[int, object]:
        if "row 345<" in text:
            raise ArithmeticError("not this one")
        return Success(int(text.split("row ")[1].split("<")[0]))

    def backend(prompts: Sequence[str], num_generations: int) -> list[list[Completion]]:
        if any("row 456<" in text for text in prompts):
            raise TimeoutError("no answer in 30 s")
        return [[Completion(text)] * (num_generations - ("row 567<" in text)) for text in prompts]

    rows = LLM(Task(prompt, parse), chatml, backend, executor, batch_size=batch_size).generate(range(1000), 2)

    assert len(rows) == 1000
    failed = {index: error for index, row in enumerate(rows) if (error := fold(row, lambda _: None, lambda e: e))}
    assert failed == {
        123: Raised("LookupError", "no such row", "prompt"),
        234: InjectedToken("chatml", "<|im_end|>", "user", 7),
        456: Raised("TimeoutError", "no answer in 30 s"),
        567: WrongCount("generations", 2, 1, (Completion(chatml(Prompt("row 567")).unwrap()),)),
    }
    for index, row in enumerate(rows):
        if index not in failed:
            first, second = row.unwrap()
            assert first == second
            assert first.prompt == Prompt(f"row {index}")
            if index == 345:
                assert first.parsed == Failure(ParseFailed(Raised("ArithmeticError", "not this one", "parser")))
                assert "row 345" in first.completion.text
            else:
                assert first.parsed == Success(index)


@given(
    rows=st.lists(st.sampled_from(["ok", "raises", "short", "long", "lost", "own failure", "exits"]), max_size=40),
    executor=st.sampled_from(list(EXECUTORS.values())),
    batch_size=st.integers(1, 9),
    num_generations=st.integers(1, 3),
)
@settings(deadline=None)
def test_every_row_gets_its_own_result_whatever_the_others_do(
    rows: list[str], executor: Executor[Batch], batch_size: int, num_generations: int
) -> None:
    def backend(prompts: Sequence[str], n: int) -> Batch:
        answer: list[Sequence[Completion] | Result[Sequence[Completion], Raised]] = []
        for prompt in prompts:
            match prompt.split()[1:]:
                case ["raises"]:
                    raise ValueError(prompt)
                case ["exits"]:
                    raise SystemExit(prompt)
                case ["own", "failure"]:
                    answer.append(Failure(Raised("Refused", prompt)))
                case ["lost"]:
                    pass
                case [how]:
                    answer.append([Completion(prompt)] * (n + {"ok": 0, "short": -1, "long": 1}[how]))
                case _:
                    raise AssertionError(prompt)
        return answer

    def expected(prompt: str, how: str) -> Row:
        match how:
            case "ok":
                one = Generation("m", Prompt(prompt), Completion(prompt), Success(prompt))
                return Success((one,) * num_generations)
            case "raises":
                return Failure(Raised("ValueError", prompt))
            case "exits":
                return Failure(Raised("SystemExit", prompt))
            case "own failure":
                return Failure(Raised("Refused", prompt))
            case "lost":
                return Failure(WrongCount("rows", 1, 0))
            case _:
                got = num_generations + (1 if how == "long" else -1)
                return Failure(WrongCount("generations", num_generations, got, (Completion(prompt),) * got))

    inputs = [f"{index} {how}" for index, how in enumerate(rows)]
    wanted = [expected(prompt, how) for prompt, how in zip(inputs, rows, strict=True)]
    llm = LLM(PLAIN, default, backend, executor, "m", batch_size)

    assert llm.generate(inputs, num_generations) == wanted
    assert list(llm.stream(iter(inputs), num_generations)) == wanted
    assert sorted(llm.as_completed(inputs, num_generations), key=lambda pair: pair[0]) == list(enumerate(wanted))
    with llm.submitter(num_generations) as submit:
        futures = [submit(text) for text in inputs]
    assert [future.result(timeout=0) for future in futures] == wanted


@every_executor
def test_the_same_values_under_every_executor(executor: Executor[Batch]) -> None:
    inputs = [f"question {n}" for n in range(50)]
    llm = LLM(Task(asking, text_of), openai, echo, executor, model="m")
    assert llm.generate(inputs, 3) == LLM(Task(asking, text_of), openai, echo, Sequential(), model="m").generate(
        inputs, 3
    )


@every_executor
@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_closed_stream_has_pulled_little_and_leaves_no_thread(executor: Executor[Batch], batch_size: int) -> None:
    pulled = itertools.count()
    inputs = (f"row {next(pulled)}" for _ in range(10_000_000))
    stream = LLM(PLAIN, chatml, echo, executor, batch_size=batch_size).stream(inputs)
    rows = list(itertools.islice(stream, 100))
    stream.close()
    assert [row.unwrap()[0].prompt.user for row in rows] == [f"row {n}" for n in range(100)]
    assert next(pulled) <= 100 + batch_size * (1 + executor.in_flight + executor.buffer)
    assert count_threads() == 0


@pytest.mark.parametrize("buffer", [0, 10])
def test_inputs_are_pulled_no_further_than_the_window(buffer: int) -> None:
    release, pulled = threading.Event(), 0

    def inputs() -> Iterator[str]:
        nonlocal pulled
        for pulled in range(1, 1000):
            if pulled == 4 + buffer:
                timer.start()
            yield f"row {pulled}"

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if "row 1" in prompts:  # the first is slow: the others overtake it, as far as the buffer lets them
            release.wait(60)
        return echo(prompts, num_generations)

    timer = threading.Timer(0.1, release.set)
    stream = LLM(PLAIN, default, backend, Threads(2, buffer=buffer)).stream(inputs())
    next(stream)
    assert pulled == 4 + buffer  # twice the threads, and the buffer
    stream.close()
    timer.join()


@final
@dataclass(frozen=True)
class Telling:
    """An executor that tells of each result once it is delivered."""

    executor: Executor[Batch]
    delivered: threading.Semaphore
    in_flight: int
    buffer: int

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        def deliver_and_tell(delivery: Delivery) -> None:
            deliver(delivery)
            self.delivered.release()

        return self.executor.session(deliver_and_tell)


@pytest.mark.parametrize("executor", [EXECUTORS["threads"], EXECUTORS["asyncio"]], ids=["threads", "asyncio"])
def test_inputs_that_are_slow_to_come_keep_no_answer_back(executor: Executor[Batch]) -> None:
    pulled, delivered = 0, threading.Semaphore(0)

    def inputs() -> Iterator[str]:
        nonlocal pulled
        for pulled in range(1, 13):
            yield f"row {pulled}"
            assert delivered.acquire(timeout=60)

    stream = LLM(PLAIN, default, echo, Telling(executor, delivered, executor.in_flight, executor.buffer)).stream(
        inputs()
    )
    assert max([pulled - yielded for yielded, _ in enumerate(stream, 1)]) <= 1


def test_calls_run_at_once_though_the_inputs_are_slow_to_come() -> None:
    barrier = threading.Barrier(16, timeout=60)  # sixteen calls pass it, or none

    def inputs() -> Iterator[str]:
        for n in range(16):
            time.sleep(0.015)
            yield str(n)

    llm = LLM(PLAIN, default, planned_faults({str(n): barrier.wait for n in range(16)}), Threads(16))
    assert [texts(row) for row in llm.generate(inputs())] == [[str(n)] for n in range(16)]


@every_executor
def test_an_empty_input_is_answered_at_once(executor: Executor[Batch]) -> None:
    llm = LLM(PLAIN, chatml, echo, executor)
    assert llm.generate([]) == []
    assert list(llm.stream(iter(()))) == []
    assert list(llm.as_completed(())) == []
    with llm.submitter():
        pass


@every_executor
@pytest.mark.parametrize(("num_generations", "batch_size"), [(0, 1), (-3, 1), (1, 0), (1, -1)])
def test_a_count_below_one_fails_every_row_and_asks_nothing(
    executor: Executor[Batch], num_generations: int, batch_size: int
) -> None:
    name, value = ("batch_size", batch_size) if batch_size < 1 else ("num_generations", num_generations)
    error = InvalidArgument(name, value, "it must be a whole number, 1 or more")
    llm = LLM(PLAIN, default, planned_faults({}), executor, batch_size=batch_size)
    assert llm.generate(["a", "b"], num_generations) == [Failure(error)] * 2
    assert list(llm.stream(["a", "b"], num_generations)) == [Failure(error)] * 2
    with llm.submitter(num_generations) as submit:
        assert submit("a").result() == Failure(error)


@every_executor
def test_generate_may_be_called_within_generate(executor: Executor[Batch]) -> None:
    inner = LLM(PLAIN, default, echo, executor)

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        return [[Completion(texts(row)[0])] * num_generations for row in inner.generate(prompts)]

    def prompt(text: str) -> Prompt:
        return Prompt(texts(inner.generate([text])[0])[0] + "!")

    rows = LLM(Task(prompt, text_of), default, backend, executor).generate([f"{n}" for n in range(20)])
    assert [texts(row) for row in rows] == [[f"{n}!"] for n in range(20)]


@every_executor
def test_a_raising_formatter_fails_its_row(executor: Executor[Batch]) -> None:
    def shout(prompt: Prompt) -> Result[str, Raised]:
        return Success({"a": "A"}[prompt.user])

    rows = LLM(PLAIN, shout, echo, executor).generate(["a", "b", "a"])
    assert [error_of(row) for row in rows] == [None, Raised("KeyError", "'b'", "format"), None]


def test_functions_that_give_the_wrong_kind_of_value_are_named() -> None:
    untyped: Any = LLM  # what callers without a type checker may write
    task: Any = Task

    def row_of(task: object = PLAIN, formatter: object = default, backend: object = echo) -> Row:
        row: Row = untyped(task, formatter, backend, Sequential()).generate(["x"])[0]
        return row

    assert error_of(row_of(task(str, text_of))) == Raised(
        "TypeError", "the prompt function returned str, not Prompt", "prompt"
    )
    assert error_of(row_of(formatter=repr)) == Raised("TypeError", "the format returned str, not Result", "format")
    assert row_of(task(Prompt, str)).unwrap()[0].parsed == Failure(
        ParseFailed(Raised("TypeError", "the parser returned str, not Result", "parser"))
    )
    for answer, message in [
        (None, "'NoneType' object is not iterable"),
        ([None], "'NoneType' object is not iterable"),
        (["x"], "a row of the backend must hold Completions, got str"),
        ([["x"]], "a row of the backend must hold Completions, got str"),
    ]:
        giving: Callable[[object, object], object] = partial(give, answer)
        assert error_of(row_of(backend=giving)) == Raised("TypeError", message)


@every_executor
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_failure_that_the_prompt_function_passes_on_is_kept_typed(executor: Executor[Batch], batch_size: int) -> None:
    def judge(story: Row) -> Result[Prompt, GenerateError]:
        return story.map(lambda made: Prompt(f"Is it good? {made[0].completion.text}"))

    write = LLM(PLAIN, default, planned_faults({"b": lambda: 1 / 0}), executor)
    judged = LLM(Task(judge, text_of), default, echo, executor, batch_size=batch_size).stream(write.stream(list("abc")))
    first, second, third = judged
    assert (texts(first), texts(third)) == (["Is it good? a"], ["Is it good? c"])
    assert second == Failure(Raised("ZeroDivisionError", "division by zero"))


def test_a_prompt_function_that_answers_another_kind_of_result_is_named() -> None:
    untyped: Any = LLM
    task: Any = Task
    for asked, error in [
        (Failure("no reason"), Raised("str", "no reason", "prompt")),
        (Failure(KeyError("x")), Raised("KeyError", "'x'", "prompt")),
        (Success("text"), Raised("TypeError", "the prompt function returned str, not Prompt", "prompt")),
        (None, Raised("TypeError", "the prompt function returned NoneType, not Prompt", "prompt")),
    ]:
        rows = untyped(task(partial(give, asked, None), text_of), default, echo, Sequential()).generate(["x"])
        assert error_of(rows[0]) == error


@every_executor
def test_a_backend_may_do_as_it_likes_with_the_list_it_is_given(executor: Executor[Batch]) -> None:
    def emptying(prompts: list[str], num_generations: int) -> Batch:
        batch = [[Completion(prompts.pop(0))] * num_generations for _ in range(len(prompts))]
        prompts += ["padding"] * 8
        if len(batch) > 1:
            raise ConnectionError("once more, each alone")
        return batch

    untyped: Any = LLM
    rows = untyped(PLAIN, default, emptying, executor, batch_size=3).generate(list("abcd"))
    assert [texts(row) for row in rows] == [["a"], ["b"], ["c"], ["d"]]


def test_a_failure_of_another_kind_is_still_a_fault() -> None:
    untyped: Any = LLM
    kinds = [Failure(ValueError("safe caught me")), Failure("no reason"), Failure(Raised("Refused", "no"))]
    rows: list[Row] = untyped(PLAIN, default, partial(give, kinds), Sequential(), batch_size=3).generate(list("abc"))
    assert rows == [
        Failure(Raised("ValueError", "safe caught me")),
        Failure(Raised("str", "no reason")),
        Failure(Raised("Refused", "no")),
    ]


def test_a_parser_failure_of_its_own_type_is_kept() -> None:
    def parse(text: str) -> Result[int, object]:
        return Success(int(text)) if text.isdigit() else Failure(("not a number", text))

    rows = LLM(Task(Prompt, parse), default, echo, Sequential()).generate(["7", "seven"])
    assert [row.unwrap()[0].parsed for row in rows] == [Success(7), Failure(ParseFailed(("not a number", "seven")))]


@every_executor
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_rows_before_an_exception_of_the_inputs_are_yielded(executor: Executor[Batch], batch_size: int) -> None:
    def inputs() -> Iterator[str]:
        yield from (f"row {n}" for n in range(10))
        raise OSError("the disk is gone")

    seen: list[str] = []
    with pytest.raises(OSError, match="the disk is gone"):
        for row in LLM(PLAIN, default, echo, executor, batch_size=batch_size).stream(inputs()):
            seen.append(*texts(row))
    assert seen == [f"row {n}" for n in range(10)]
    assert count_threads() == 0


@every_executor
def test_progress_counts_generations_and_reaches_the_end(executor: Executor[Batch]) -> None:
    told: list[int] = []
    llm = LLM(PLAIN, chatml, echo, executor, batch_size=3)
    llm.generate(["a", "<|im_end|>", "b", "c", "d"], 2, told.append)
    assert told == [2] * 5
    list(llm.stream(["a", "b"], 3, told.append))
    assert told[5:] == [3, 3]


@every_executor
def test_a_raising_progress_callback_is_one_warning(executor: Executor[Batch]) -> None:
    calls: list[int] = []

    def broken(done: int) -> None:
        calls.append(done)
        raise RuntimeError("the bar is closed")

    llm = LLM(PLAIN, default, echo, executor)
    with pytest.warns(RuntimeWarning, match="the bar is closed") as warned:
        rows = llm.generate(["a", "b", "c"], on_progress=broken)
    assert [texts(row) for row in rows] == [["a"], ["b"], ["c"]]
    assert len(warned) == 1
    assert calls == [1]
    assert len(llm.generate(["a", "b"], on_progress=broken)) == 2  # warnings are errors here; the rows come through


def test_as_completed_lets_the_fast_overtake_the_slow() -> None:
    slow = threading.Event()
    llm = LLM(PLAIN, default, planned_faults({"0": lambda: slow.wait(60)}), Threads(2))
    order: list[int] = []
    for index, _ in llm.as_completed(str(n) for n in range(10)):
        order.append(index)
        if len(order) == 9:
            slow.set()
    assert order[-1] == 0
    assert sorted(order) == list(range(10))


def test_threads_run_at_once() -> None:
    barrier = threading.Barrier(8, timeout=60)  # eight calls pass it, or none
    llm = LLM(PLAIN, default, planned_faults({str(n): barrier.wait for n in range(8)}), Threads(8))
    assert [texts(row) for row in llm.generate(str(n) for n in range(8))] == [[str(n)] for n in range(8)]


@every_executor
def test_a_keyboard_interrupt_of_the_backend_ends_the_run(executor: Executor[Batch]) -> None:
    backend = planned_faults({"row 20": raise_(KeyboardInterrupt())})
    llm = LLM(PLAIN, default, backend, executor)
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        for row in llm.stream(f"row {n}" for n in range(1000)):
            seen.append(*texts(row))
    assert seen == [f"row {n}" for n in range(len(seen))]
    assert len(seen) <= 20
    assert count_threads() == 0
    with pytest.raises(KeyboardInterrupt), llm.submitter() as submit:
        submit("row 20").result()


INTERRUPTED = """
    import os, signal, sys, threading, time
    from returns.result import Success
    from distgen import LLM, Completion, Prompt, Task, Threads, each
    from distgen.formats import default

    def slow(text):
        time.sleep(0.01)
        return text

    llm = LLM(Task(Prompt, Success), default, each(slow), Threads(8))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    seen = 0
    try:
        for row in getattr(llm, sys.argv[1])(str(n) for n in range(10**6)):
            seen += 1
            if seen == 11:
                timer.start()
    except KeyboardInterrupt:
        timer.join()
        left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        print(seen > 10, left)
"""


@pytest.mark.parametrize("method", ["stream", "as_completed"])
def test_an_interrupt_from_the_keyboard_leaves_nothing_behind(method: str) -> None:
    script = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), method]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_a_broken_stream_and_a_forgotten_one_leave_no_thread() -> None:
    llm = LLM(PLAIN, default, echo, Threads(8))
    for _ in llm.stream(str(n) for n in range(1000)):
        break
    assert until(lambda: count_threads() == 0)


ENDED = Raised("CancelledError", "the block of the submitter ended before this was asked or answered")


def test_a_submitted_future_can_be_cancelled_before_it_is_handed_to_the_executor() -> None:
    hold = threading.Event()
    asked: list[str] = []

    def backend(text: str) -> str:
        asked.append(text)
        hold.wait(60)
        return text

    with LLM(PLAIN, default, each(backend), Threads(1)).submitter() as submit:
        futures = [submit(text) for text in "abcd"]  # the executor takes twice its workers
        assert futures[2].cancel()
        hold.set()
        assert texts(futures[3].result(timeout=60)) == ["d"]
        assert not futures[3].cancel()
    assert asked == ["a", "b", "d"]


@final
class Held:
    """A backend that answers no row before its waits are ended, which a pool does after it has cancelled what is pending."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self, prompts: Sequence[str], num_generations: int) -> Batch:
        self.begun.set()
        self.ended.wait(60)
        return echo(prompts, num_generations)

    def end_waits(self) -> None:
        self.ended.set()


def test_leaving_a_submitter_by_an_exception_cancels_what_is_pending() -> None:
    backend = Held()
    futures: list[Future[Row]] = []
    with pytest.raises(ZeroDivisionError), LLM(PLAIN, default, backend, Threads(1)).submitter() as submit:
        futures.extend(submit(str(n)) for n in range(6))
        assert futures.pop().cancel()
        assert backend.begun.wait(60)
        assert until(futures[1].running)
        raise ZeroDivisionError
    assert texts(futures[0].result(timeout=60)) == ["0"]
    assert [error_of(future.result(timeout=60)) for future in futures[1:]] == [ENDED] * 4
    assert count_threads() == 0


def test_an_interrupt_of_a_backend_ends_a_submitter() -> None:
    llm = LLM(PLAIN, default, planned_faults({"b": raise_(KeyboardInterrupt())}), Sequential())
    with llm.submitter() as submit:
        assert texts(submit("a").result(timeout=60)) == ["a"]
        with pytest.raises(KeyboardInterrupt):
            submit("b").result(timeout=60)
        late = submit("c").result(timeout=60)
    assert error_of(late) == ENDED


@pytest.mark.parametrize("moment", ["start", "join"])
def test_an_interrupt_of_a_submitter_leaves_nothing_behind(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A double of the moment: Ctrl-C comes while a thread is started, or while its end is waited for."""
    wait, is_interrupted = getattr(threading.Thread, moment), itertools.count()

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "distgen-futures" and next(is_interrupted) == 0:
            if moment == "start":
                wait(thread)
            raise KeyboardInterrupt
        wait(thread)

    futures: list[Future[Row]] = []
    monkeypatch.setattr(threading.Thread, moment, interrupted)
    with pytest.raises(KeyboardInterrupt), LLM(PLAIN, default, slow_echo, Threads(1)).submitter() as submit:
        futures.extend(submit(text) for text in "abcdef")
    assert until(lambda: count_threads() == 0)
    assert all(future.done() for future in futures)


@pytest.mark.parametrize(
    "executor",
    [Threads(1), Pool(lambda: ThreadPoolExecutor(1), 1), Awaited(Asyncio(1))],
    ids=["threads", "pool", "asyncio"],
)
def test_a_callback_that_raises_costs_no_other_row(executor: Executor[Batch]) -> None:
    hold = threading.Event()

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        hold.wait(60)
        return echo(prompts, num_generations)

    with LLM(PLAIN, default, backend, executor).submitter() as submit:
        futures = [submit(text) for text in "abc"]
        futures[0].add_done_callback(lambda _: sys.exit("no"))
        hold.set()
        assert [texts(future.result(timeout=60)) for future in futures] == [["a"], ["b"], ["c"]]


def test_a_future_waits_for_no_slower_one_before_it() -> None:
    hold = threading.Event()

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        assert prompts != ["slow"] or hold.wait(30)
        return echo(prompts, num_generations)

    with LLM(PLAIN, default, backend, Threads(2)).submitter() as submit:
        slow, fast = submit("slow"), submit("fast")
        assert texts(fast.result(timeout=30)) == ["fast"]
        assert not slow.done()
        hold.set()
    assert texts(slow.result()) == ["slow"]


def test_submitting_after_the_end_is_a_failure() -> None:
    with LLM(PLAIN, default, echo, Threads(1)).submitter() as submit:
        pass
    late = submit("late")
    assert error_of(late.result(timeout=60)) == ENDED


def test_a_shared_backend_serves_many_llms_at_once() -> None:
    llms = [LLM(PLAIN, default, echo, Threads(2), model=f"m{n}") for n in range(20)]
    results: dict[int, list[Row]] = {}

    def run(n: int) -> None:
        results[n] = llms[n].generate(["a", "b"])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for n in range(20):
        assert [(row.unwrap()[0].model, *texts(row)) for row in results[n]] == [(f"m{n}", "a"), (f"m{n}", "b")]


def test_a_generate_within_a_running_event_loop() -> None:
    import asyncio

    async def notebook() -> list[Row]:
        return LLM(PLAIN, default, echo, Threads(2)).generate(["a"])

    assert texts(asyncio.run(notebook())[0]) == ["a"]


NO_TEXT: dict[str, tuple[Completion, str]] = {
    "error": (Completion("part", error="upstream died", tool_calls=(ToolCall("1", "f", "{}"),)), "error"),
    "tool call": (Completion("", "length", tool_calls=(ToolCall("1", "f", "{}"),), refusal="no"), "tool_call"),
    "refusal": (Completion("", "content_filter", refusal="no"), "refusal"),
    "filter": (Completion("", "content_filter"), "filter"),
    "max_tokens": (Completion("", "length"), "max_tokens"),
    "empty": (Completion("", "stop"), "empty"),
}


@pytest.mark.parametrize(("completion", "reason"), NO_TEXT.values(), ids=NO_TEXT.keys())
def test_a_completion_without_text_or_with_an_error_is_not_parsed(completion: Completion, reason: str) -> None:
    parsed: list[str] = []

    def parse(text: str) -> Result[str, object]:
        parsed.append(text)
        return Success(text)

    llm = LLM(Task(Prompt, parse), default, each(lambda _: completion), Sequential())
    error = single(llm.generate(["a"])[0]).failure()
    assert isinstance(error, NoText)
    assert (error.reason, parsed) == (reason, [])


@pytest.mark.parametrize(
    ("reasoning", "cause"), [(None, "max_tokens was reached"), ("2 and", "reasoning used up max_tokens")]
)
def test_an_answer_that_was_cut_says_what_used_up_its_tokens(reasoning: str | None, cause: str) -> None:
    llm = LLM(PLAIN, default, each(lambda _: Completion("", "length", reasoning=reasoning)), Sequential())
    assert single(llm.generate(["a"])[0]).failure() == NoText(
        "max_tokens", f"{cause} before there was any text; raise max_tokens"
    )


class Thinking:
    """A double of a format that splits reasoning off."""

    def __call__(self, prompt: Prompt) -> Result[str, Raised]:
        return Success(prompt.user)

    def split(self, text: str, /) -> tuple[str | None, str]:
        if text == "broken":
            raise ValueError("no split")
        return split_reasoning(text)


def test_a_format_that_splits_takes_the_reasoning_off_before_parsing() -> None:
    first, cut, plain, broken = LLM(PLAIN, Thinking(), echo, Sequential()).generate(
        ["<think>2 and 2</think>4", "<think>2 and", "7", "broken"]
    )
    assert single(first) == Success("4")
    assert first.unwrap()[0].completion.reasoning == "2 and 2"
    assert isinstance(single(cut).failure(), NoText)
    assert single(plain) == Success("7")
    assert single(broken) == Failure(ParseFailed(Raised("ValueError", "no split", "format")))


def test_single_takes_a_row_of_one_generation() -> None:
    llm = LLM(PLAIN, default, planned_faults({"b": lambda: 1 / 0}), Sequential())
    assert [single(row) for row in llm.generate(["a", "b"])] == [
        Success("a"),
        Failure(Raised("ZeroDivisionError", "division by zero")),
    ]
    with pytest.raises(ValueError, match="got 2"):
        single(llm.generate(["a"], 2)[0])


@pytest.mark.parametrize("inputs", ["text", b"bytes", {"a": 1}], ids=repr)
@pytest.mark.parametrize("verb", ["generate", "stream", "as_completed"])
def test_inputs_that_are_one_value_are_a_type_error_at_the_call(verb: str, inputs: object) -> None:
    with pytest.raises(TypeError, match=r"inputs must be an iterable of inputs, got a single \w+; pass a list of them"):
        getattr(LLM(PLAIN, default, echo, Sequential()), verb)(inputs)


@pytest.mark.parametrize(
    ("format", "executor", "message"),
    [
        (default, Threads, "executor is the class Threads"),
        (default, 8, r"executor is of type int; pass Threads\(8\)"),
        ("chatml", Sequential(), "format is the name 'chatml'"),
        (lookup("chatml"), Sequential(), "format is of type Success; pass a format"),
    ],
    ids=["class", "number", "name", "Result"],
)
def test_what_is_no_executor_or_no_format_is_a_type_error(format: object, executor: object, message: str) -> None:
    untyped: Any = LLM
    llm = untyped(PLAIN, format, echo, executor)
    with pytest.raises(TypeError, match=message):
        llm.stream(["a"])
    with pytest.raises(TypeError, match=message), llm.submitter():
        pass


async def async_echo(prompts: Sequence[str], num_generations: int) -> Batch:
    return echo(prompts, num_generations)


@pytest.mark.parametrize("executor", [Sequential(), Threads(2)], ids=repr)
def test_an_async_backend_on_a_synchronous_executor_fails_every_row(executor: object) -> None:
    untyped: Any = LLM
    rows = untyped(PLAIN, default, async_echo, executor, batch_size=2).generate(["a", "b", "c"])
    assert rows == [Failure(Raised("TypeError", "the backend is async: use Asyncio(...), or blocking(backend)"))] * 3


NOT_ASYNC = Raised("TypeError", "the backend is not async: use Threads(...), or write it with async def")


def test_a_synchronous_backend_on_asyncio_fails_every_row_and_keeps_the_completions() -> None:
    untyped: Any = LLM
    rows = untyped(PLAIN, default, each(str.upper), Asyncio(2), batch_size=2).generate(["a", "b", "c"], 2)
    assert rows == [Failure(replace(NOT_ASYNC, completions=(Completion(text),) * 2)) for text in "ABC"]


@pytest.mark.parametrize("batch", [[], [[Completion("x")]] * 3], ids=["empty", "long"])
def test_a_synchronous_backend_on_asyncio_shifts_no_row(batch: object) -> None:
    untyped: Any = LLM
    rows = untyped(PLAIN, default, partial(give, batch), Asyncio(2), batch_size=2).generate(["a", "b"])
    assert rows == [Failure(NOT_ASYNC)] * 2


@pytest.mark.parametrize("executor", [Sequential(), Threads(2), Asyncio(2)], ids=repr)
def test_an_async_function_in_each_is_named(executor: object) -> None:
    async def answer(text: str) -> str:
        return text

    untyped: Any = LLM
    untyped_each: Any = each
    for row in untyped(PLAIN, default, untyped_each(answer), executor, batch_size=2).generate(["a", "b", "c"]):
        error = row.failure()
        assert error.kind == "TypeError"
        assert error.message.startswith("the function is async")


def test_completions_before_an_exception_of_a_lazy_row_are_kept() -> None:
    def lazy(prompt: str) -> Iterator[Completion]:
        yield Completion(prompt)
        raise ConnectionError("gone")

    def backend(prompts: Sequence[str], _: int) -> Iterator[Iterator[Completion]]:
        return map(lazy, prompts)

    untyped: Any = LLM
    rows = untyped(PLAIN, default, backend, Sequential()).generate(["a"], 2)
    assert rows == [Failure(Raised("ConnectionError", "gone", completions=(Completion("a"),)))]
