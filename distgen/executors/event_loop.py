"""A session for async backends, on an event loop in a thread of its own: imported when a run begins."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar, final
from weakref import finalize

from distgen.backends.generate import Batch
from distgen.errors import Raised, WrongCount
from distgen.executors.calls import Answer, Call, shaped
from distgen.executors.window import Deliver, Submit

_P = TypeVar("_P")

_Job: TypeAlias = list[tuple[int, Call[Any, Awaitable[Batch]]]]
"""A call in a list of its own: whoever pops it owns it."""

_CALLS_A_TASK: Final = 16  # to make one costs as much as all else about a call; at its end others get their turn
_GRACE: Final = 1.0  # seconds that a cancelled backend may take to end before it is left behind with its loop


@final
class LoopSession:
    """At most `limit` tasks of the loop, each at one call after the other; leaving cancels them all."""

    def __init__(self, limit: int, timeout: float | None, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        if limit < 1:
            raise ValueError(f"{limit} calls at once answer nothing; give 1 or more")
        if timeout is not None and not timeout > 0:  # NaN is neither more nor less
            raise ValueError(f"in {timeout} s nothing is answered; give more than 0, or None for no deadline")
        self._limit, self._timeout, self._deliver = limit, timeout, deliver
        self._loop = asyncio.new_event_loop()
        self._leaving: asyncio.Future[None] = self._loop.create_future()
        # Also where nobody holds this: Ctrl-C may come while the thread is started.
        self._leave = finalize(self, self._loop.call_soon_threadsafe, self._leaving.set_result, None)
        self._leave.atexit = False
        self._tasks: set[asyncio.Task[None]] = set()  # a loop itself holds its tasks weakly
        self._jobs: deque[_Job] = deque()
        self._is_woken = False
        self._thread = threading.Thread(
            target=_serve, args=(self._loop, self._leaving), name="distgen-loop", daemon=True
        )

    def __enter__(self) -> Submit[Awaitable[Batch]]:
        try:
            self._thread.start()
        except RuntimeError:  # the system has no more threads
            self._leave.detach()
            self._loop.close()
            raise
        return self._submit

    def __exit__(self, *_: object) -> None:
        self._leave()
        self._thread.join()

    def _submit(self, index: int, call: Call[_P, Awaitable[Batch]]) -> Callable[[], object]:
        job: _Job = [(index, call)]
        self._jobs.append(job)
        # Waking a loop is a system call: once for all that it finds, and not where the tasks that run come to it anyway.
        if len(self._tasks) < self._limit and not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed: the run was left meanwhile
                self._loop.call_soon_threadsafe(self._hear)
        return job.clear

    def _hear(self) -> None:
        self._is_woken = False
        self._begin()

    def _begin(self) -> None:
        if not self._leaving.done():
            for _ in range(min(len(self._jobs), self._limit - len(self._tasks))):
                task = self._loop.create_task(self._work())
                self._tasks.add(task)
                task.add_done_callback(self._end)  # it has no last line to run where it is cancelled before its first

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._begin()  # after that, so that either it sees a call or who hands it over sees the room

    async def _work(self) -> None:
        task, jobs, deliver, is_over = asyncio.current_task(), self._jobs, self._deliver, self._leaving.done
        for _ in range(_CALLS_A_TASK):
            if not jobs or (task and task.cancelling()):
                break
            for index, call in jobs.popleft():  # none, where it was cancelled
                try:
                    deliver((index, await _attempt(call, self._timeout, is_over)))
                except KeyboardInterrupt as interrupt:
                    deliver((index, interrupt))


def _serve(loop: asyncio.AbstractEventLoop, leaving: asyncio.Future[None]) -> None:
    try:
        _run(loop, leaving)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        _run(loop, loop.create_task(_shut_down(loop, tasks)))
    finally:
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    while not future.done():
        with suppress(BaseException):  # whatever a backend's own tasks do to their loop, even stopping it
            loop.run_until_complete(future)


async def _shut_down(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=_GRACE)
    closing = asyncio.create_task(loop.shutdown_asyncgens())
    await asyncio.wait({closing}, timeout=_GRACE)
    if closing.cancel():  # an async generator may wait in its `finally`
        await asyncio.wait({closing}, timeout=_GRACE)
    await loop.shutdown_default_executor()


async def _attempt(call: Call[_P, Awaitable[Batch]], timeout: float | None, is_over: Callable[[], bool]) -> Answer:
    """`attempt`, awaited; each request to the backend has `timeout` seconds in all."""
    backend, prompts, num_generations = call
    answer: Answer | Raised | WrongCount
    try:
        batch = await (backend([*prompts], num_generations) if timeout is None else _within(timeout, call))
        answer = shaped(batch, len(prompts), num_generations)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_over():
            raise
        answer = Raised.of(error)  # a CancelledError too, which a client may raise of its own accord
    if isinstance(answer, tuple):
        return answer
    if len(prompts) == 1 or is_over():  # what a client made of its cancellation is no reason to ask again
        return (answer,) * len(prompts)
    return tuple([(await _attempt(row, timeout, is_over))[0] for row in call.rows()])


async def _within(timeout: float, call: Call[_P, Awaitable[Batch]]) -> Batch:
    """The answer, or TimeoutError: then, not when the backend agrees to end, since it may refuse to be cancelled."""
    task = asyncio.create_task(_caught(call))
    done, _ = await asyncio.wait({task}, timeout=timeout)
    if not done:
        task.cancel()
        raise TimeoutError(f"no answer in {timeout} s")
    got = task.result()
    if isinstance(got, BaseException):
        raise got
    return got


async def _caught(call: Call[_P, Awaitable[Batch]]) -> Batch | BaseException:
    try:
        return await call.backend([*call.prompts], call.num_generations)
    except BaseException as error:  # a task that raises SystemExit or KeyboardInterrupt takes the whole loop with it
        return error
