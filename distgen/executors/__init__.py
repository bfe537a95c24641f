"""Executors: frozen values that choose where calls run and how many at once. Each opens a pool for a run and closes it.

`Executor` is their protocol. An executor of your own takes each `Call` in its `Submit` and passes a `CallResult` to
`Deliver`; `call_backend` makes the result of a call of a synchronous backend.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

from distgen.backends.generate import Batch
from distgen.executors.call import Call, CallResult, call_backend
from distgen.executors.engine import Deliver, Executor, Stream, Submit

if TYPE_CHECKING:  # concurrent.futures imports logging: a sixth of the import time of distgen
    from concurrent.futures import Executor as FuturesExecutor

__all__ = [
    "Asyncio",
    "Call",
    "CallResult",
    "Deliver",
    "Executor",
    "Pool",
    "Processes",
    "Sequential",
    "Stream",
    "Submit",
    "Threads",
    "call_backend",
]

_P = TypeVar("_P")


@final
@dataclass(frozen=True, slots=True)
class Sequential:
    """One call at a time, in the caller's thread.

    >>> Sequential()
    Sequential()
    """

    @property
    def in_flight(self) -> int:
        """One call."""
        return 1

    @property
    def buffer(self) -> int:
        """No buffer: results come in order."""
        return 0

    @contextmanager
    def session(self, deliver: Deliver, /) -> Generator[Submit[Batch], None, None]:
        """See `Executor`; each call runs when it is submitted."""

        def submit(index: int, call: Call[_P, Batch]) -> None:
            deliver((index, call_backend(call)))

        yield submit


@final
@dataclass(frozen=True, slots=True)
class Threads:
    """At most `max_workers` calls at once, each in a thread: for backends that wait. `buffer` is as in `Pool`.

    >>> Threads(8)
    Threads(max_workers=8, buffer=4096)
    """

    max_workers: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """Twice max_workers, so that a thread that finishes has its next call ready."""
        return 2 * self.max_workers

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        """See `Executor`."""
        from concurrent.futures import ThreadPoolExecutor

        from distgen.executors.pools import PoolSession

        _check_at_least_one("max_workers", self.max_workers)
        return PoolSession(partial(ThreadPoolExecutor, self.max_workers, "distgen"), deliver)


@final
@dataclass(frozen=True, slots=True)
class Pool:
    """Calls on any `concurrent.futures.Executor`: Dask's `client.get_executor`, loky, mpi4py, ipyparallel.

    `open` returns the pool as a context manager, which each run enters and leaves once: `Pool(client.get_executor, 64)`. For a
    pool that stays open, write `Pool(lambda: nullcontext(pool), 64)`. At most `max_in_flight` calls are submitted at once,
    and at most `buffer` answered ones wait for a slower one before them: inputs are pulled at most max_in_flight + buffer
    calls ahead. If `open` raises, every row fails with that exception. If the pool breaks, as when a worker is killed, the
    rows in it fail, and a new pool is opened for the next rows. After three pools that broke without an answer in between,
    all other rows fail.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> Pool(ThreadPoolExecutor, 4).in_flight
    4
    """

    open: Callable[[], AbstractContextManager[FuturesExecutor]]
    max_in_flight: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """The same as max_in_flight: later calls wait in the engine."""
        return self.max_in_flight

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        """See `Executor`."""
        from distgen.executors.pools import PoolSession

        _check_at_least_one("max_in_flight", self.max_in_flight)
        return PoolSession(self.open, deliver)


@final
@dataclass(frozen=True, slots=True)
class Processes:
    """At most `max_workers` calls at once, each in a spawned process: for backends that compute in Python.

    The backend and the rendered prompts are pickled. A script that uses it needs `if __name__ == "__main__":`. `buffer` and the
    effect of a killed process are as in `Pool`.

    >>> Processes(2)
    Processes(max_workers=2, buffer=4096)
    """

    max_workers: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """Twice max_workers, so that a process that finishes has its next call ready."""
        return 2 * self.max_workers

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        """See `Executor`."""
        from distgen.executors.pools import PoolSession, open_processes

        _check_at_least_one("max_workers", self.max_workers)
        return PoolSession(partial(open_processes, self.max_workers), deliver)


@final
@dataclass(frozen=True, slots=True)
class Asyncio:
    """At most `max_in_flight` calls of an async backend at once, on an event loop in a thread of its own.

    It works inside a running loop too. The backend must not use a client that belongs to another loop. A task runs several
    calls, one after the other: a later call may see a context variable that a backend sets. `buffer` is as in `Pool`. There is
    no deadline: put `async with asyncio.timeout(60)` into a backend of your own.

    >>> Asyncio(512)
    Asyncio(max_in_flight=512, buffer=4096)
    """

    max_in_flight: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """Twice max_in_flight, so that the loop has the next call ready when one ends."""
        return 2 * self.max_in_flight

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Awaitable[Batch]]]:
        """See `Executor`."""
        from distgen.executors.event_loop import LoopSession

        _check_at_least_one("max_in_flight", self.max_in_flight)
        return LoopSession(self.max_in_flight, deliver)


def _check_at_least_one(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
