"""The session behind `Asyncio`: calls of an async backend, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar, final
from weakref import finalize

from distgen.backends.generate import Batch
from distgen.errors import BackendError, Raised, WrongCount
from distgen.executors.call import Call, CallResult, check_batch, completions_of
from distgen.executors.engine import Deliver, Submit

_P = TypeVar("_P")

_GRACE: Final = 1.0  # seconds to wait for a cancelled backend; one that takes longer is abandoned with its loop
_NOT_ASYNC: Final = Raised("TypeError", "the backend is not async: use Threads(...), or write it with async def")


@final
class LoopSession:
    """At most `max_in_flight` tasks, each of which takes call after call; leaving cancels them all."""

    def __init__(self, max_in_flight: int, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        self._max_in_flight, self._deliver = max_in_flight, deliver
        self._waiting: deque[tuple[int, Call[Any, Awaitable[Batch]]]] = deque()
        self._is_start_due = False
        self._runners: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._leaving: asyncio.Future[None] = self._loop.create_future()
        # A finalizer: if Ctrl-C comes while the thread starts, no caller has this session, and so none leaves it.
        self._leave = finalize(self, self._loop.call_soon_threadsafe, self._leaving.set_result, None)
        self._leave.atexit = False
        self._thread = threading.Thread(
            target=_serve, args=(self._loop, self._leaving), name="distgen-loop", daemon=True
        )

    def __enter__(self) -> Submit[Awaitable[Batch]]:
        self._thread.start()
        return self._submit

    def __exit__(self, *_: object) -> None:
        self._leave()
        self._thread.join()

    def _submit(self, index: int, call: Call[_P, Awaitable[Batch]]) -> None:
        self._waiting.append((index, call))
        if not self._is_start_due:  # waking the loop costs a system call
            self._is_start_due = True
            self._loop.call_soon_threadsafe(self._start_runners)

    def _start_runners(self) -> None:
        self._is_start_due = False  # before the calls are read: one that comes later wakes the loop again
        for _ in range(min(len(self._waiting), self._max_in_flight - len(self._runners))):
            runner = self._loop.create_task(self._run_calls())
            self._runners.add(runner)
            runner.add_done_callback(self._replace)

    def _replace(self, runner: asyncio.Task[None]) -> None:
        self._runners.discard(runner)
        if not self._leaving.done():
            self._start_runners()

    async def _run_calls(self) -> None:
        """Run calls until none waits, or until a backend cancels this task: the cancellation must not reach another row."""
        runner = asyncio.current_task()
        while self._waiting and runner is not None and not runner.cancelling():
            index, call = self._waiting.popleft()
            result: CallResult | KeyboardInterrupt
            try:
                result = await _call_backend(call, self._leaving.done)
            except KeyboardInterrupt as interrupt:
                result = interrupt
            self._deliver((index, result))
            await asyncio.sleep(0)  # a backend that never waits must not starve the others


def _serve(loop: asyncio.AbstractEventLoop, leaving: asyncio.Future[None]) -> None:
    try:
        _run_until(loop, leaving)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        _run_until(loop, loop.create_task(_shut_down(loop, tasks)))
    finally:
        loop.close()


def _run_until(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    while not future.done():
        with suppress(BaseException):  # a backend's own tasks may do anything to their loop, even stop it
            loop.run_until_complete(future)


async def _shut_down(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=_GRACE)
    closing = asyncio.create_task(loop.shutdown_asyncgens())
    await asyncio.wait({closing}, timeout=_GRACE)
    if closing.cancel():  # an async generator may wait in its `finally`
        await asyncio.wait({closing}, timeout=_GRACE)
    await loop.shutdown_default_executor()


async def _call_backend(call: Call[_P, Awaitable[Batch]], is_over: Callable[[], bool]) -> CallResult:
    """Call an async backend, as `call_backend` calls a synchronous one."""
    result: CallResult | BackendError
    try:
        batch = call.backend([*call.prompts], call.num_generations)
        refused = _refuse_synchronous(call, batch)
        result = check_batch(call, await batch) if refused is None else refused
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_over():
            raise
        result = Raised.of(error)  # a CancelledError too, which a client may raise by itself
    if isinstance(result, tuple):
        return result
    if len(call.prompts) == 1 or is_over():  # a client may turn its cancellation into an error; do not ask again
        return call.failed(result)
    return tuple([(await _call_backend(row, is_over))[0] for row in call.rows()])


def _refuse_synchronous(call: Call[_P, object], batch: Awaitable[Batch] | Batch) -> CallResult | None:
    """Return a failure of each row if the backend is synchronous; its completions are kept, since they may be paid for."""
    if isinstance(batch, Awaitable):
        return None
    answers = check_batch(call, batch)
    if isinstance(answers, WrongCount):  # the row of each completion is not known
        return call.failed(_NOT_ASYNC)
    return tuple([replace(_NOT_ASYNC, completions=completions_of(answer)) for answer in answers])
