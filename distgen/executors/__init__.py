"""Where and how many calls run at once: frozen values that open a pool for one run and close it after.

An executor knows nothing of tasks or formats. It takes calls and delivers an `Answer` for each, whatever breaks:
`calls` holds what is asked and the laws of a backend's shape, `window` the one engine under every executor, `sessions`
and `event_loop` the pools behind them. Distribution over machines is another library's work, through `Pool`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, final

from distgen.backends.generate import Batch
from distgen.executors.calls import Answer as Answer
from distgen.executors.calls import Call as Call
from distgen.executors.calls import RowAnswer as RowAnswer
from distgen.executors.calls import attempt as attempt
from distgen.executors.calls import warn as warn
from distgen.executors.window import Deliver as Deliver
from distgen.executors.window import Delivery as Delivery
from distgen.executors.window import Executor as Executor
from distgen.executors.window import Inbox as Inbox
from distgen.executors.window import Steps as Steps
from distgen.executors.window import Stream as Stream
from distgen.executors.window import Submit as Submit
from distgen.executors.window import nothing as nothing
from distgen.executors.window import opened as opened
from distgen.executors.window import windowed as windowed

if TYPE_CHECKING:  # concurrent.futures imports logging: a sixth of the import time of distgen
    from concurrent.futures import Executor as FuturesExecutor

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
        """None: answers come in order."""
        return 0

    @contextmanager
    def session(self, deliver: Deliver, /) -> Generator[Submit[Batch], None, None]:
        """See `Executor`; each call is answered when it is submitted."""

        def submit(index: int, call: Call[_P, Batch]) -> Callable[[], object]:
            deliver((index, attempt(call)))
            return nothing

        yield submit


@final
@dataclass(frozen=True, slots=True)
class Threads:
    """`n` calls at once, each in a thread: the executor for servers. `buffer` as in `Pool`.

    >>> Threads(8)
    Threads(n=8, buffer=4096)
    """

    n: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """Twice n, so that a thread that finishes has its next call at hand."""
        return 2 * self.n

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        """See `Executor`."""
        from distgen.executors.sessions import ThreadsSession

        return ThreadsSession(self.n, deliver)


@final
@dataclass(frozen=True, slots=True)
class Pool:
    """Calls on any `concurrent.futures.Executor`: Dask's `client.get_executor`, loky, mpi4py, ipyparallel.

    `open` gives a context manager over it, entered and left once a run: `Pool(client.get_executor, 64)`; for a pool
    that is to stay open, `Pool(lambda: nullcontext(pool), 64)`. At most `limit` calls are handed over at once, and at most
    `buffer` answered ones wait for a slower one before them: inputs are pulled at most limit + buffer calls ahead.
    Where `open` raises, that is the Failure of every row. A pool that breaks, as when a worker is killed, is opened
    anew: what was pending is then asked, and paid for, up to three times, the last time each row alone.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> Pool(ThreadPoolExecutor, 4).in_flight
    4
    """

    open: Callable[[], AbstractContextManager[FuturesExecutor]]
    limit: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """The limit: what is beyond it waits here, where it can be cancelled."""
        return self.limit

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        """See `Executor`."""
        from distgen.executors.sessions import PoolSession

        if self.limit < 1:
            raise ValueError(f"{self.limit} calls at once answer nothing; give 1 or more")
        return PoolSession(self.open, deliver)


@final
@dataclass(frozen=True, slots=True)
class Processes:
    """`n` calls at once, each in a process, spawned: for backends that compute in Python. `buffer` as in `Pool`.

    Backend and rendered prompts are pickled, and a script that runs it needs its `if __name__ == "__main__":`. What a
    killed process costs is said of `Pool`.

    >>> Processes(2)
    Processes(n=2, buffer=4096)
    """

    n: int
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """Twice n, so that a process that finishes has its next call at hand."""
        return 2 * self.n

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        """See `Executor`."""
        from distgen.executors.sessions import PoolSession, spawned

        return PoolSession(lambda: spawned(self.n), deliver)


@final
@dataclass(frozen=True, slots=True)
class Asyncio:
    """At most `limit` calls of an async backend at once, on an event loop in a thread of its own. `buffer` as in `Pool`.

    So it runs inside a running loop too, and a client that belongs to another loop is no backend for it. `timeout`
    (seconds, in all) ends a call that takes longer, a slow drip too, with TimeoutError as its row's Failure.

    >>> Asyncio(512, timeout=60)
    Asyncio(limit=512, timeout=60, buffer=4096)
    """

    limit: int
    timeout: float | None = None
    buffer: int = 4096

    @property
    def in_flight(self) -> int:
        """Twice the limit, so that the loop has the next call at hand when one ends."""
        return 2 * self.limit

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Awaitable[Batch]]]:
        """See `Executor`."""
        from distgen.executors.event_loop import LoopSession

        return LoopSession(self.limit, self.timeout, deliver)
