"""The one engine under every executor: `run_bounded`, a bounded window over lazy rows, and `Stream`, its results.

`run_bounded` never blocks: it yields None if nothing is ready, and `Stream` then waits, blocking in `for`, awaiting in
`async for`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Thread, get_ident
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

from distgen.errors import Raised, explain
from distgen.executors.call import Call, CallResult, warn

_T = TypeVar("_T")
_Row = TypeVar("_Row")
_R = TypeVar("_R")
_R_contra = TypeVar("_R_contra", contravariant=True)
_P = TypeVar("_P")

_LONGEST_WAIT: Final = 1.0  # seconds until a signal is heard

Delivery: TypeAlias = tuple[int, CallResult | KeyboardInterrupt]
"""The index of a call and its result. A KeyboardInterrupt in a backend is raised again in the consumer."""

Deliver: TypeAlias = Callable[[Delivery], object]
"""A function that takes a delivery, from any thread."""

Steps: TypeAlias = Generator[_T | None, None, None]
"""Values as they get ready. None says that no value is ready: wait on the Inbox before the next step."""


class Submit(Protocol[_R_contra]):
    """Submit a call under an index. It raises no Exception: an error is the result of the call."""

    def __call__(self, index: int, call: Call[_P, _R_contra], /) -> object: ...  # noqa: D102


class Executor(Protocol[_R_contra]):
    """Runs calls of backends that give R: a Batch for synchronous executors, an Awaitable[Batch] for async ones.

    At most `in_flight` calls are submitted and unanswered, and at most `buffer` answered ones wait for a slower one
    before them.
    """

    @property
    def in_flight(self) -> int: ...  # noqa: D102

    @property
    def buffer(self) -> int: ...  # noqa: D102

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[_R_contra]]:
        """Open a pool for one run. Each call is delivered once, from any thread.

        Calls are submitted by one thread at a time. Leaving the session cancels calls that have not begun, waits for calls
        that run or cancels them, and ends all its threads and processes. Do not write a session that waits as a generator:
        the garbage collector may run its `finally` on one of the threads it joins.
        """
        ...


@final
class Inbox:
    """Results that were delivered and are not yet read: many threads put, one reads."""

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        from queue import SimpleQueue  # imported here, as asyncio below, to keep `import distgen` fast

        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()  # None only wakes
        self._wakers: set[Callable[[], None]] = set()
        self._is_closed = False
        self.reader: int = get_ident()

    def put(self, delivery: Delivery | None) -> None:
        """Add a result, or None, and wake the reader."""
        self._queue.put(delivery)
        for wake in list(self._wakers):
            wake()

    def close(self) -> None:
        """End the run: wake all waiters, which then find the end."""
        self._is_closed = True
        self.put(None)

    def is_closed(self) -> bool:
        """Return True if the run has ended."""
        return self._is_closed

    def drain(self) -> list[Delivery | None]:
        """Return all results that are there now."""
        return [self._queue.get() for _ in range(self._queue.qsize())]

    def wait(self) -> None:
        """Block until there is a result, a None, or the end, but not for long: the caller looks again."""
        from queue import Empty

        # Ctrl-C just before Python waits for a lock does not end that wait; on Windows, it never does.
        with suppress(Empty):
            self._queue.put(self._queue.get(timeout=_LONGEST_WAIT))

    async def wait_async(self) -> None:
        """Wait as `wait` does, without blocking the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed, so no task of it waits
                loop.call_soon_threadsafe(woken.set)

        self._wakers.add(wake)
        try:
            if self._queue.empty():  # else a result came before the waker was added
                await woken.wait()
        finally:
            self._wakers.discard(wake)


@final
class Stream(Generic[_T]):
    """Values as they get ready: an iterator for `for` and, inside async code, for `async for`.

    Closing it, dropping it, and an exception that ends it cancel calls that have not begun and wait for calls that run;
    `Asyncio` cancels those too. It may be closed from another thread or task: a blocked consumer then sees the end, and
    one that takes a value ends after it.

    >>> list(Stream(Inbox(), (value for value in "ab")))
    ['a', 'b']
    """

    def __init__(self, inbox: Inbox, steps: Steps[_T]) -> None:  # noqa: D107  (the class says it)
        self._inbox = inbox
        self._steps: Steps[_T] = steps

    def __iter__(self) -> Stream[_T]:
        return self

    def __next__(self) -> _T:
        self._inbox.reader = get_ident()
        try:
            while (step := next(self._steps)) is None:
                self._inbox.wait()
        except BaseException:  # the end, an exception of the inputs, or KeyboardInterrupt while it waits
            self.close()
            raise
        return step

    def close(self) -> None:
        """End the run, as the class says; no more values are yielded."""
        self._inbox.reader = get_ident()
        nothing: Sequence[_T] = ()
        steps, self._steps = self._steps, (value for value in nothing)
        with suppress(ValueError):  # generator already executing in another thread: it sees that the inbox is closed
            steps.close()
        self._inbox.close()

    def __aiter__(self) -> Stream[_T]:
        return self

    async def __anext__(self) -> _T:
        import asyncio

        self._inbox.reader = get_ident()
        try:
            await asyncio.sleep(0)  # rows that are all ready must not starve the other tasks of the loop
            while (step := next(self._steps)) is None:
                await self._inbox.wait_async()
        except BaseException as error:
            await self.aclose()
            if isinstance(error, StopIteration):
                raise StopAsyncIteration from None
            raise
        return step

    async def aclose(self) -> None:
        """Close without blocking the event loop; `contextlib.aclosing` calls it."""
        import asyncio

        await asyncio.to_thread(self.close)


@final
class Window(Generic[_Row]):
    """The rows of a run between the inputs and the consumer, in calls of at most `size` rows.

    A call is identified by the index of its first row. It runs, or it is answered and waits for its turn. A None among the
    rows says that no row is there yet.
    """

    def __init__(self, executor: Executor[_R], rows: Iterable[_Row | None], size: int, in_order: bool) -> None:  # noqa: D107  (the class says it)
        self._limit: int = max(1, executor.in_flight)
        # Out of order, no answer waits for another one, but only for the consumer.
        self._buffer: int = max(0, executor.buffer) if in_order else 0
        self._rows, self._size, self._in_order = iter(rows), size, in_order
        self._calls: dict[int, Sequence[_Row]] = {}
        self._answered: dict[int, CallResult] = {}  # of some of the calls
        self._next_index = self._next_due = 0
        self._is_exhausted = False
        self.error: Exception | None = None
        """The exception that the iterator of the rows raised."""

    def pull(self) -> tuple[int, Sequence[_Row]] | None:
        """Take and return the rows of one more call; return None if there is no room for it, or no row."""
        # Answered calls beyond the buffer take the place of running ones.
        if self._is_exhausted or len(self._calls) - min(self._buffer, len(self._answered)) >= self._limit:
            return None
        rows: list[_Row] = []
        try:
            while len(rows) < self._size and (row := next(self._rows)) is not None:
                rows.append(row)
        except StopIteration:
            self._is_exhausted = True
        except Exception as error:
            self._is_exhausted, self.error = True, error
        if not rows:
            return None
        index = self._next_index
        self._next_index += len(rows)
        self._calls[index] = rows
        return index, rows

    def receive(self, deliveries: Iterable[Delivery | None]) -> None:
        """Store results; raise a KeyboardInterrupt among them."""
        for delivery in deliveries:
            if delivery is not None:
                index, result = delivery
                if isinstance(result, KeyboardInterrupt):
                    raise result
                self._answered[index] = result

    def pop_ready(self) -> tuple[int, Sequence[_Row], CallResult] | None:
        """Return the next call that may be yielded, as its index, rows and result; None if there is none."""
        index = self._next_due if self._in_order else next(iter(self._answered), self._next_due)
        if index not in self._answered:
            return None
        rows = self._calls.pop(index)
        self._next_due += len(rows)
        return index, rows, self._answered.pop(index)

    def is_over(self) -> bool:
        """Return True if no row is left."""
        return self._is_exhausted and not self._calls


def run_bounded(
    executor: Executor[_R],
    window: Window[_Row],
    make_call: Callable[[Sequence[_Row]], Call[_P, _R]],
    read: Callable[[int, Sequence[_Row], CallResult], Iterable[_T]],
    inbox: Inbox,
) -> Steps[_T]:
    """Run the calls of a window, and yield what `read` makes of the index of the first row, the rows and the result.

    If there is no row yet, `inbox.put(None)` makes it look again. An Exception of the iterator of the rows is raised after the
    results of the rows before it.
    """
    with _open_session(executor, inbox) as submit:
        while not inbox.is_closed():
            pulled = window.pull()
            if inbox.is_closed():  # by another thread, while the row was made
                break
            if pulled is not None:
                call = make_call(pulled[1])
                if call.prompts:
                    submit(pulled[0], call)
                else:  # no row of it could be rendered
                    inbox.put((pulled[0], ()))
            deliveries = inbox.drain()
            window.receive(deliveries)
            if (ready := window.pop_ready()) is not None:
                yield from read(*ready)
            elif window.is_over():
                break
            elif pulled is None and not deliveries:
                yield None
    window.receive(inbox.drain())  # results of calls that ended while the session was closed
    while (ready := window.pop_ready()) is not None:
        yield from read(*ready)
    if window.error is not None:
        raise window.error


@contextmanager
def _open_session(executor: Executor[_R], inbox: Inbox) -> Generator[Submit[_R], None, None]:
    """Open a session. If opening raises, every call fails with that exception; if closing raises, a warning says so."""
    try:
        session = executor.session(inbox.put)
        submit = session.__enter__()
    except Exception as error:
        raised = Raised.of(error)
        yield lambda index, call: inbox.put((index, call.failed(raised)))
        return
    try:
        yield submit
    finally:
        if get_ident() == inbox.reader:
            _leave(session)
        else:  # the garbage collector may run this in a thread of the pool, which must not wait for itself
            Thread(target=_leave, args=(session,), name="distgen-closing", daemon=True).start()


def _leave(session: AbstractContextManager[object]) -> None:
    if sys.is_finalizing():  # daemon threads no longer run at shutdown; joining them would hang
        return
    try:
        session.__exit__(None, None, None)
    except Exception as error:  # all rows have their answers
        warn(f"{explain(Raised.of(error))} This happened when the pool was closed; every row has its answer.")
