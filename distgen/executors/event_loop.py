"""The session behind `Asyncio`: calls of an async backend, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, final
from weakref import finalize

from distgen.backends.generate import Batch
from distgen.errors import BackendError, Raised
from distgen.executors.call import Call, CallResult, check_batch
from distgen.executors.engine import Deliver, Submit

_P = TypeVar("_P")

_GRACE: Final = 1.0  # seconds that a cancelled backend may take to end before it is left behind with its loop
_NOT_ASYNC: Final = Raised("TypeError", "the backend is not async: use Threads(...), or write it with async def")


@final
class LoopSession:
    """A task for each call, at most `max_in_flight` of them past the gate; leaving cancels them all."""

    def __init__(self, max_in_flight: int, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        self._deliver = deliver
        self._gate = asyncio.Semaphore(max_in_flight)
        self._loop = asyncio.new_event_loop()
        self._leaving: asyncio.Future[None] = self._loop.create_future()
        # A finalizer, since Ctrl-C may come while the thread starts, and then nobody has this session to leave it.
        self._leave = finalize(self, self._loop.call_soon_threadsafe, self._leaving.set_result, None)
        self._leave.atexit = False
        self._tasks: set[asyncio.Task[None]] = set()  # a loop itself holds its tasks weakly
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
        cancelled = threading.Event()
        with suppress(RuntimeError):  # the loop is closed: the run was left meanwhile
            self._loop.call_soon_threadsafe(self._start, index, call, cancelled)
        return cancelled.set

    def _start(self, index: int, call: Call[Any, Awaitable[Batch]], cancelled: threading.Event) -> None:
        if not self._leaving.done():
            task = self._loop.create_task(self._run(index, call, cancelled))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, index: int, call: Call[Any, Awaitable[Batch]], cancelled: threading.Event) -> None:
        async with self._gate:
            if cancelled.is_set() or self._leaving.done():
                return
            try:
                self._deliver((index, await _call_backend(call, self._leaving.done)))
            except KeyboardInterrupt as interrupt:
                self._deliver((index, interrupt))


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
    """Do as `call_backend`, for an async backend."""
    result: CallResult | BackendError
    try:
        batch: object = call.backend([*call.prompts], call.num_generations)
        if not isinstance(batch, Awaitable):
            return call.failed(_NOT_ASYNC)
        result = check_batch(call, await batch)
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
