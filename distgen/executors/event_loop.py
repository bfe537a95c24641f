"""A session for async backends, on an event loop in a thread of its own: imported when a run begins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

from distgen.completion import Batch
from distgen.errors import Fault, WrongShape
from distgen.executors.calls import Answer, Call, shaped
from distgen.executors.window import Deliver, Submit

_P = TypeVar("_P")

_Job: TypeAlias = list[tuple[int, Call[Any, Awaitable[Batch]]]]
"""A call in a list of its own: whoever pops it owns it."""

_GRACE: Final = 1.0  # seconds that a cancelled backend may take to end before it is left behind with its loop


@contextmanager
def on_event_loop(timeout: float | None, deliver: Deliver) -> Generator[Submit[Awaitable[Batch]], None, None]:
    """Each call a task of the loop; leaving cancels them all."""
    loop = asyncio.new_event_loop()
    leaving: asyncio.Future[None] = loop.create_future()
    tasks: set[asyncio.Task[None]] = set()
    thread = threading.Thread(target=_serve, args=(loop, leaving), name="distgen-loop", daemon=True)

    def begin(job: _Job) -> None:
        for index, call in job:
            task = loop.create_task(_answer(index, call, timeout, deliver))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def submit(index: int, call: Call[_P, Awaitable[Batch]]) -> Callable[[], object]:
        job: _Job = [(index, call)]
        loop.call_soon_threadsafe(begin, job)
        return job.clear

    thread.start()
    try:
        yield submit
    finally:
        loop.call_soon_threadsafe(leaving.set_result, None)
        thread.join()


def _serve(loop: asyncio.AbstractEventLoop, leaving: asyncio.Future[None]) -> None:
    try:
        loop.run_until_complete(leaving)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_GRACE))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _answer(index: int, call: Call[Any, Awaitable[Batch]], timeout: float | None, deliver: Deliver) -> None:
    try:
        answer = await _attempt(call, timeout)
    except KeyboardInterrupt as interrupt:
        deliver((index, interrupt))
    else:
        deliver((index, answer))


async def _attempt(call: Call[_P, Awaitable[Batch]], timeout: float | None) -> Answer:
    """`attempt`, awaited; each request to the backend has `timeout` seconds in all."""
    backend, prompts, num_generations = call
    if not prompts:
        return ()
    answer: Answer | Fault | WrongShape
    try:
        batch = await _within(timeout, backend(prompts, num_generations))
        answer = shaped(batch, len(prompts), num_generations)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise  # the run is over; a client that raises it of its own accord fails its row
        answer = Fault.of(error)
    if isinstance(answer, tuple):
        return answer
    if len(prompts) == 1:
        return (answer,)
    return tuple([(await _attempt(row, timeout))[0] for row in call.rows()])


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _within(timeout: float | None, answer: Awaitable[Batch]) -> Batch:
    """The answer, or TimeoutError: then, not when the backend agrees to end, since it may refuse to be cancelled."""
    if timeout is None:
        return await answer
    task = asyncio.ensure_future(answer)
    done, _ = await asyncio.wait({task}, timeout=timeout)
    if not done:
        task.cancel()
        raise TimeoutError(f"no answer in {timeout} s")
    return task.result()
