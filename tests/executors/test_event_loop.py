"""Async backends: on a loop in a thread of its own, from plain code and from inside a running loop; deadlines that end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, suppress
from itertools import chain, count

import pytest
from returns.result import Failure

from distgen import LLM, Asyncio, Batch, Completion, Processes, Sequential, Threads, each, fold
from distgen.errors import Raised
from distgen.executors import Call, Executor, Pool
from distgen.formats import default
from tests.support.parts import PLAIN, Awaited, Row, count_threads, error_of, texts, until

AsyncBackend = Callable[[Sequence[str], int], Awaitable[Batch]]


def echoed(prompts: Sequence[str], num_generations: int) -> Batch:
    return [[Completion(prompt)] * num_generations for prompt in prompts]


async def after_a_while(prompts: Sequence[str], num_generations: int) -> Batch:
    await asyncio.sleep(0.01)
    return echoed(prompts, num_generations)


async def stubborn(prompts: Sequence[str], num_generations: int) -> Batch:
    """A double of a client that swallows its cancellation, again and again, for the prompt "slow"."""
    while "slow" in prompts:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    return echoed(prompts, num_generations)


async def hanging(prompts: Sequence[str], num_generations: int) -> Batch:
    if "slow" in prompts:
        await asyncio.Event().wait()
    return echoed(prompts, num_generations)


def llm_of(backend: AsyncBackend, executor: Asyncio, batch_size: int = 1) -> LLM[str, str, str, Awaitable[Batch]]:
    return LLM(PLAIN, default, backend, executor, batch_size=batch_size)


def test_as_many_calls_as_the_limit_run_at_once_and_no_more() -> None:
    running, most, seven_run = 0, 0, asyncio.Event()

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if most == 7:
            seven_run.set()
        await seven_run.wait()
        await asyncio.sleep(0.005)
        running -= 1
        return echoed(prompts, num_generations)

    rows = llm_of(backend, Asyncio(7)).generate(str(n) for n in range(50))
    assert [texts(row) for row in rows] == [[str(n)] for n in range(50)]
    assert most == 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the coroutine dies with its loop
def test_closing_leaves_a_backend_behind_that_refuses_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.executors.event_loop._GRACE", 0.05)
    stream = llm_of(stubborn, Asyncio(4)).stream(["a", "slow", "b"])
    assert texts(next(stream)) == ["a"]
    stream.close()
    assert count_threads() == 0
    del stream
    gc.collect()  # here, and not during another test


def test_a_deadline_of_the_backend_fails_its_row() -> None:
    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        async with asyncio.timeout(0.05):
            return await hanging(prompts, num_generations)

    rows = llm_of(backend, Asyncio(4), batch_size=3).generate(["a", "slow", "b", "c"])
    assert [getattr(error_of(row), "kind", None) for row in rows] == [None, "TimeoutError", None, None]


@pytest.mark.parametrize("ended", [asyncio.CancelledError, ConnectionError], ids=lambda error: error.__name__)
def test_closing_ends_calls_that_hang_and_asks_nothing_again(ended: type[BaseException]) -> None:
    asked: list[list[str]] = []

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        asked.append(list(prompts))
        while len(asked) < 3:
            await asyncio.sleep(0)
        try:
            return await hanging(prompts, num_generations)
        except asyncio.CancelledError:
            raise ended from None

    stream = llm_of(backend, Asyncio(8), batch_size=2).stream(["a", "b", "slow", "c", "d", "slow"])
    assert [texts(next(stream)), texts(next(stream))] == [["a"], ["b"]]
    stream.close()
    assert asked == [["a", "b"], ["slow", "c"], ["d", "slow"]]
    assert count_threads() == 0


def test_no_thread_of_a_run_keeps_the_interpreter_alive() -> None:
    found: dict[str, bool] = {}

    async def note_threads(prompts: Sequence[str], num_generations: int) -> Batch:
        found.update({thread.name: thread.daemon for thread in threading.enumerate()})
        return [[Completion(prompt)] for prompt in prompts]

    with llm_of(note_threads, Asyncio(1)).submitter() as submit:
        assert texts(submit("a").result()) == ["a"]
    assert (found["distgen-loop"], found["distgen-futures"]) == (True, True)


def test_a_busy_loop_is_woken_once_for_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """To wake it costs a system call."""
    wakes: list[object] = []

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop()
        wake = loop.call_soon_threadsafe

        def count_wake(callback: Callable[..., object], *args: object) -> asyncio.Handle:
            wakes.append(callback)
            return wake(callback, *args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count_wake)
        return loop

    monkeypatch.setattr(asyncio, "new_event_loop", make_loop)
    begun, release, delivered = threading.Event(), threading.Event(), threading.Semaphore(0)

    async def block_the_loop(prompts: Sequence[str], num_generations: int) -> Batch:
        begun.set()
        assert release.wait(30)
        return echoed(prompts, num_generations)

    with Asyncio(1).session(lambda _: delivered.release()) as submit:
        submit(0, Call(block_the_loop, ["a"], 1))
        assert begun.wait(30)
        wakes.clear()
        for index in range(1, 50):
            submit(index, Call(block_the_loop, ["b"], 1))
        woken = len(wakes)
        release.set()
        for _ in range(50):
            assert delivered.acquire(timeout=30)
    assert woken == 1


def test_the_next_call_is_ready_when_one_ends() -> None:
    executors = (Sequential(), Asyncio(3), Threads(3), Processes(3), Pool(ThreadPoolExecutor, 3))
    assert [executor.in_flight for executor in executors] == [1, 6, 6, 6, 3]
    assert [executor.buffer for executor in executors] == [0, 4096, 4096, 4096, 4096]


@pytest.mark.parametrize(
    "ended", [asyncio.CancelledError("no"), SystemExit("no"), GeneratorExit("no"), MemoryError("no")], ids=repr
)
def test_whatever_a_backend_raises_fails_its_row(ended: BaseException) -> None:
    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        await asyncio.sleep(0)
        if "b" in prompts:
            raise ended
        return echoed(prompts, num_generations)

    rows = llm_of(backend, Asyncio(2), batch_size=3).generate(["a", "b", "c", "d"])
    errors = [error_of(row) for row in rows]
    assert [error is None for error in errors] == [True, False, True, True]
    assert isinstance(errors[1], Raised)
    assert errors[1].kind.endswith(type(ended).__name__)


def test_a_backend_that_gives_no_awaitable_fails_its_row() -> None:
    async def good(prompts: Sequence[str], num_generations: int) -> Batch:
        return echoed(prompts, num_generations)

    def backend(prompts: Sequence[str], num_generations: int) -> Awaitable[Batch]:
        if "b" in prompts:
            raise ConnectionRefusedError("before there was anything to await")
        return good(prompts, num_generations)

    rows = llm_of(backend, Asyncio(2)).generate(["a", "b"])
    assert [error_of(row) for row in rows] == [
        None,
        Raised("ConnectionRefusedError", "before there was anything to await"),
    ]


def test_a_keyboard_interrupt_of_the_backend_ends_the_run() -> None:
    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if "row 20" in prompts:
            raise KeyboardInterrupt
        return echoed(prompts, num_generations)

    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        for row in llm_of(backend, Asyncio(4)).stream(f"row {n}" for n in range(1000)):
            seen.append(*texts(row))
    assert seen == [f"row {n}" for n in range(len(seen))]
    assert count_threads() == 0


def test_a_backend_that_cancels_its_own_task_or_stops_its_loop_fails_its_row_alone() -> None:
    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        task = asyncio.current_task()
        if "cancels" in prompts and task is not None:
            task.cancel()
        if "stops" in prompts:
            asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return echoed(prompts, num_generations)

    rows = llm_of(backend, Asyncio(4)).generate(["a", "cancels", "b", "stops", "c"])
    assert [error_of(row) for row in rows] == [None, Raised("asyncio.exceptions.CancelledError", ""), None, None, None]
    assert count_threads() == 0


@pytest.mark.parametrize("waits", [False, True], ids=["left behind", "swallowed"])
def test_a_cancellation_of_one_row_meets_no_other_row(waits: bool) -> None:
    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        if "cancels" in prompts:
            task.cancel()  # raised where the task next waits, if it does
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0) if waits else None
        else:
            await asyncio.sleep(0.1)
        return echoed(prompts, num_generations)

    inputs = ["a", "cancels", "b", "cancels", "c"]
    with llm_of(backend, Asyncio(1)).submitter() as submit:
        futures = [submit(text) for text in inputs]
    assert [texts(future.result()) for future in futures] == [[text] for text in inputs]


def test_a_backend_that_cancels_tasks_that_have_no_row_yet_fails_none() -> None:
    submitted = threading.Event()

    def inputs() -> Iterator[str]:
        yield from ["holds", "cancels", "a", "b"]
        submitted.set()

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if "holds" in prompts:
            submitted.wait(60)  # keeps the loop from the others until all are there
        if "cancels" in prompts:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        return echoed(prompts, num_generations)

    rows = llm_of(backend, Asyncio(4)).generate(inputs())
    assert [texts(row) for row in rows] == [["holds"], ["cancels"], ["a"], ["b"]]


@pytest.mark.parametrize("left", ["exits", "stops"])
def test_tasks_that_a_backend_left_are_ended_whatever_they_do_to_the_loop(left: str) -> None:
    tasks: list[asyncio.Task[None]] = []
    ended: list[str] = []

    async def waiting(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if name == "exits":
                raise SystemExit("at the end")
            if name == "stops":
                asyncio.get_running_loop().stop()
            await asyncio.sleep(0.01)
            ended.append(name)

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        tasks.extend(asyncio.create_task(waiting(name)) for name in (left, "cleans up"))
        return await after_a_while(prompts, num_generations)

    assert [texts(row) for row in llm_of(backend, Asyncio(1)).generate(["a"])] == [["a"]]
    assert "cleans up" in ended
    assert all(task.done() for task in tasks)
    assert count_threads() == 0


def test_an_async_generator_that_does_not_close_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.executors.event_loop._GRACE", 0.05)
    kept: list[AsyncIterator[int]] = []
    ended: list[str] = []

    async def generating() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("cleans up")

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        kept.append(generating())
        await anext(kept[-1])
        return echoed(prompts, num_generations)

    assert [texts(row) for row in llm_of(backend, Asyncio(1)).generate(["a"])] == [["a"]]
    assert ended == ["cleans up"]


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_if_the_system_has_no_thread_for_the_loop_each_row_fails_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        rows = llm_of(after_a_while, Asyncio(1)).generate(["a"])
    assert rows == [Failure(Raised("RuntimeError", "can't start new thread"))]
    gc.collect()


def test_calls_that_need_not_wait_do_not_keep_another_from_its_end() -> None:
    ended: list[str] = []

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        if "waits" in prompts:
            for _ in range(10):
                await asyncio.sleep(0)
        ended.extend(prompts)
        return echoed(prompts, num_generations)

    assert len(llm_of(backend, Asyncio(2)).generate(["waits", *map(str, range(2000))])) == 2001
    assert len(ended) == 2001
    assert ended.index("waits") < 1000


def test_what_has_not_begun_when_a_run_is_left_never_begins() -> None:
    begun: list[str] = []

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        begun.extend(prompts)
        if "a" not in prompts:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        return echoed(prompts, num_generations)

    stream = llm_of(backend, Asyncio(2)).stream(list("abcdefgh"))
    assert texts(next(stream)) == ["a"]
    stream.close()
    assert len(begun) <= 3
    assert begun == list("abc"[: len(begun)])


def test_within_a_running_loop_all_verbs_work() -> None:
    async def notebook() -> tuple[list[Row], list[Row]]:
        llm = llm_of(after_a_while, Asyncio(4))
        return llm.generate(["a", "b"]), list(llm.stream(["a", "b"]))

    assert [[texts(row) for row in rows] for rows in asyncio.run(notebook())] == [[["a"], ["b"]]] * 2


EVERY = {
    "asyncio": Awaited(Asyncio(4)),
    "threads": Threads(4),
    "sequential": Sequential(),
}
every = pytest.mark.parametrize("executor", EVERY.values(), ids=EVERY.keys())


@every
def test_async_for_gives_what_for_gives(executor: Executor[Batch]) -> None:
    llm = LLM(PLAIN, default, echoed, executor)
    inputs = [f"row {n}" for n in range(100)]

    async def read() -> tuple[list[Row], list[tuple[int, Row]]]:
        return [row async for row in llm.stream(inputs)], [pair async for pair in llm.as_completed(inputs)]

    rows, pairs = asyncio.run(read())
    assert rows == list(llm.stream(inputs))
    assert sorted(pairs, key=lambda pair: pair[0]) == list(enumerate(rows))
    assert count_threads() == 0


@every
def test_other_tasks_run_while_async_for_waits_and_while_it_need_not(executor: Executor[Batch]) -> None:
    async def read() -> int:
        ticks = count()

        async def ticking() -> None:
            while True:
                next(ticks)
                await asyncio.sleep(0)

        ticker = asyncio.create_task(ticking())
        async for _ in LLM(PLAIN, default, echoed, executor).stream(str(n) for n in range(200)):
            pass
        ticker.cancel()
        return next(ticks)

    assert asyncio.run(read()) >= 100


@every
def test_leaving_async_for_early_leaves_nothing_behind(executor: Executor[Batch]) -> None:
    async def read() -> list[Row]:
        rows: list[Row] = []
        async with aclosing(LLM(PLAIN, default, echoed, executor).stream(str(n) for n in count())) as stream:
            async for row in stream:
                rows.append(row)
                if len(rows) == 5:
                    break
        assert count_threads() == 0
        async for row in LLM(PLAIN, default, echoed, executor).stream(str(n) for n in count()):
            rows.append(row)
            break
        return rows

    assert [texts(row) for row in asyncio.run(read())] == [["0"], ["1"], ["2"], ["3"], ["4"], ["0"]]
    assert count_threads() == 0


def test_cancelling_the_task_of_an_async_for_ends_the_calls() -> None:
    seen: list[str] = []
    begun: list[str] = []
    ended: list[str] = []

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        begun.extend(prompts)
        try:
            return await hanging(prompts, num_generations)
        except asyncio.CancelledError:
            ended.extend(prompts)
            raise

    async def read() -> None:
        async for row in llm_of(backend, Asyncio(4)).stream(["a", "b", "slow", "slow"]):
            seen.append(*texts(row))

    async def cancelled() -> None:
        reader = asyncio.create_task(read())
        while len(seen) < 2 or len(begun) < 4:
            await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert count_threads() == 0

    asyncio.run(cancelled())
    assert (seen, ended) == (["a", "b"], ["slow", "slow"])


def test_a_stream_that_is_closed_in_one_thread_is_at_its_end_for_another() -> None:
    stream = llm_of(hanging, Asyncio(2)).stream(["a", "slow"])
    seen: list[list[str]] = []
    reader = threading.Thread(target=lambda: seen.extend(texts(row) for row in stream), daemon=True)
    reader.start()
    assert until(lambda: seen == [["a"]])
    stream.close()
    reader.join(timeout=30)
    assert not reader.is_alive()
    assert seen == [["a"]]


def test_a_stream_that_is_closed_while_another_thread_pulls_inputs_asks_nothing_more() -> None:
    begun, pulled, go_on, release = (threading.Event() for _ in range(4))
    asked: list[str] = []

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        asked.extend(prompts)
        begun.set()
        release.wait(60)
        return echoed(prompts, num_generations)

    def inputs() -> Iterator[str]:
        yield "a"
        pulled.set()
        go_on.wait(60)
        yield "b"
        yield "c"

    stream = LLM(PLAIN, default, backend, Threads(2)).as_completed(inputs())
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(stream), daemon=True)
    reader.start()
    assert begun.wait(60)
    assert pulled.wait(60)
    stream.close()
    go_on.set()
    reader.join(timeout=30)
    assert not reader.is_alive()
    release.set()
    assert until(lambda: count_threads() == 0)
    assert (seen, asked) == ([], ["a"])


def test_a_stream_that_is_closed_in_one_task_is_at_its_end_for_another() -> None:
    async def read() -> list[list[str]]:
        stream = llm_of(hanging, Asyncio(2)).stream(["a", "slow"])

        seen: list[list[str]] = []

        async def reading() -> None:
            async for row in stream:
                seen.append(texts(row))

        reader = asyncio.create_task(reading())
        while not seen:
            await asyncio.sleep(0.01)
        await stream.aclose()
        await reader
        return seen

    assert asyncio.run(read()) == [["a"]]


def test_tasks_that_share_a_stream_get_each_row_once() -> None:
    inputs = [str(n) for n in range(50)]

    async def read() -> list[list[str]]:
        stream = llm_of(after_a_while, Asyncio(4)).stream(inputs)

        async def reading() -> list[str]:
            return [text async for row in stream for text in texts(row)]

        return await asyncio.wait_for(asyncio.gather(*[reading() for _ in range(3)]), 60)

    assert sorted(chain(*asyncio.run(read())), key=int) == inputs


def test_many_async_streams_at_once() -> None:
    async def read(name: str) -> list[str]:
        llm = LLM(PLAIN, default, each(lambda text: f"{name}: {text}"), Threads(2))
        return [fold(row, lambda made: made[0].completion.text, repr) async for row in llm.stream(list("abc"))]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*[read(f"stream {n}") for n in range(30)])

    assert asyncio.run(all_of_them()) == [[f"stream {n}: {letter}" for letter in "abc"] for n in range(30)]
    assert count_threads() == 0


def test_judging_what_was_generated_in_async_code() -> None:
    llm = llm_of(after_a_while, Asyncio(4))

    async def judged() -> AsyncIterator[Row]:
        answers = (fold(row, lambda made: made[0].completion.text, repr) for row in llm.stream(["a", "b"]))
        async for row in llm.stream(f"Is {answer} right?" for answer in answers):
            yield row

    async def read() -> list[Row]:
        return [row async for row in judged()]

    assert [texts(row) for row in asyncio.run(read())] == [["Is a right?"], ["Is b right?"]]


def test_an_exception_of_the_inputs_ends_async_for_after_what_came_before() -> None:
    def inputs() -> Iterator[str]:
        yield from "ab"
        raise OSError("the disk is gone")

    seen: list[str] = []

    async def read() -> None:
        async for row in llm_of(after_a_while, Asyncio(4)).stream(inputs()):
            seen.append(*texts(row))

    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(read())
    assert seen == ["a", "b"]
    assert count_threads() == 0


def test_a_submitter_takes_async_backends() -> None:
    futures: list[Future[Row]] = []
    with pytest.raises(ZeroDivisionError), llm_of(hanging, Asyncio(2)).submitter() as submit:
        futures += [submit(text) for text in ("a", "slow", "b")]
        assert [texts(futures[index].result(timeout=60)) for index in (0, 2)] == [["a"], ["b"]]
        raise ZeroDivisionError
    assert isinstance(error_of(futures[1].result(timeout=0)), Raised)
    assert count_threads() == 0


def test_a_call_begins_beside_one_that_takes_long() -> None:
    release = threading.Event()

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        while "slow" in prompts and not release.is_set():
            await asyncio.sleep(0.01)
        return echoed(prompts, num_generations)

    with llm_of(backend, Asyncio(2)).submitter() as submit:
        slow = submit("slow")
        time.sleep(0.1)
        assert texts(submit("a").result(timeout=60)) == ["a"]
        assert not slow.done()
        release.set()
    assert texts(slow.result(timeout=0)) == ["slow"]


@pytest.mark.parametrize("limit", [1, 3])
def test_whatever_is_submitted_at_once_is_answered(limit: int) -> None:
    with llm_of(after_a_while, Asyncio(limit)).submitter() as submit:
        futures = [submit(str(n)) for n in range(100)]
    assert [texts(future.result(timeout=0)) for future in futures] == [[str(n)] for n in range(100)]


def test_a_call_that_is_cancelled_before_it_begins_is_not_asked() -> None:
    asked: list[str] = []
    hold = threading.Event()

    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        asked.extend(prompts)
        while not hold.is_set():
            await asyncio.sleep(0)
        return echoed(prompts, num_generations)

    with llm_of(backend, Asyncio(1)).submitter() as submit:
        futures = [submit(text) for text in "abcd"]  # the executor takes two of them
        assert futures.pop(2).cancel()
        hold.set()
        assert [texts(future.result(timeout=60)) for future in futures] == [["a"], ["b"], ["d"]]
    assert asked == ["a", "b", "d"]
