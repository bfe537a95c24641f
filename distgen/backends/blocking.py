"""`blocking` makes a synchronous backend of an async one, for Threads, Processes and Pool."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, final

from distgen.backends.generate import Batch, Generate, SupportsEndWaits

P = TypeVar("P")

# By process id: a forked child has a copy of its parent's entry, but not the thread. There is no lock: a fork could copy it
# while it is held.
_LOOPS: Final[dict[int, asyncio.AbstractEventLoop]] = {}
_SHUTDOWN: Final = 2.0  # seconds at the end of the process


def blocking(backend: Generate[P, Awaitable[Batch]]) -> Blocking[P]:
    """Return a synchronous backend of an async one.

    All backends of a process share one event loop, in a thread that stays until the process ends. An interrupted call
    is cancelled. When a run on threads is closed, its rows that wait become RequestFailed("stopped") at once, and its
    requests under way are finished. Waiting rows of another run with the same backend end too. Retries in other processes
    are not interrupted; lower `patience` to bound the wait.

    >>> async def shout(prompts, num_generations):
    ...     return [[Completion(prompt.upper())] for prompt in prompts]
    >>> from distgen.completion import Completion
    >>> blocking(shout)(["hi"], 1)[0][0].text
    'HI'
    """
    return Blocking(backend)


@final
@dataclass(frozen=True, slots=True)
class Blocking(Generic[P]):
    """A synchronous backend that runs an async one on the background event loop of the process."""

    backend: Generate[P, Awaitable[Batch]]

    def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """Wait for the answer of the async backend."""
        future = asyncio.run_coroutine_threadsafe(self._ask(prompts, num_generations), _background_loop())
        try:
            return future.result()
        finally:
            future.cancel()  # after KeyboardInterrupt

    def end_waits(self) -> None:
        """End the waits of the calls under way in this process, if the async backend supports it."""
        backend: object = self.backend
        loop = _LOOPS.get(os.getpid())
        if loop is not None and isinstance(backend, SupportsEndWaits):
            loop.call_soon_threadsafe(backend.end_waits)

    async def _ask(self, prompts: Sequence[P], num_generations: int) -> Batch:
        return await self.backend(prompts, num_generations)


def _background_loop() -> asyncio.AbstractEventLoop:
    pid = os.getpid()
    if pid not in _LOOPS:
        loop = asyncio.new_event_loop()
        if _LOOPS.setdefault(pid, loop) is loop:
            thread = threading.Thread(target=loop.run_forever, name="blocking backends", daemon=True)
            thread.start()
            atexit.register(_shut_down, pid, loop, thread)
        else:  # another thread was faster  # pragma: no cover
            loop.close()
    return _LOOPS[pid]


def _shut_down(
    pid: int, loop: asyncio.AbstractEventLoop, thread: threading.Thread
) -> None:  # pragma: no cover  (at exit)
    """Close the connections; Python would warn of open ones."""
    if pid == os.getpid():
        closing = asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop)
        closing.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        thread.join(_SHUTDOWN)
