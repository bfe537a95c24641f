"""The one engine under every executor: `run_bounded`, a bounded window over lazy calls, and `Stream`, its results.

`run_bounded` never blocks: it yields None if nothing is ready, and `Stream` then waits, blocking in `for`, awaiting in
`async for`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from threading import Thread, get_ident
from time import monotonic
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

from distgen.errors import Raised, explain
from distgen.executors.call import Call, CallResult, warn

_T = TypeVar("_T")
_R = TypeVar("_R")
_R_contra = TypeVar("_R_contra", contravariant=True)
_P = TypeVar("_P")

Delivery: TypeAlias = tuple[int, CallResult | KeyboardInterrupt]
"""The index of a call and its result. A KeyboardInterrupt in a backend is raised again in the consumer."""

Deliver: TypeAlias = Callable[[Delivery], object]
"""Take a delivery, from any thread."""

Steps: TypeAlias = Generator[_T | None, None, None]
"""Values as they get ready; None if none is, and then the Inbox is to be waited on before the next step."""

_PATIENCE: Final = 0.01  # seconds; slow inputs are pulled no longer than this before answered rows go out


class Submit(Protocol[_R_contra]):
    """Submit a call under an index and return a function that cancels it, if it has not begun. Never raises."""

    def __call__(self, index: int, call: Call[_P, _R_contra], /) -> Callable[[], object]: ...  # noqa: D102


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
        """Open a pool for one run. Each call that is not cancelled is delivered once, from any thread.

        Leaving cancels what has not begun, waits for what runs, and leaves no thread or process behind. Do not write a
        session that waits as a generator: the garbage collector may run its `finally` on one of the threads it joins.
        """
        ...


@final
class Inbox:
    """Results that were delivered and are not yet read: many threads put, one reads."""

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        from queue import SimpleQueue  # here, and asyncio where it is used: `import distgen` is to stay fast

        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()  # None only wakes
        self._first: list[Delivery | None] = []
        self._wakers: set[Callable[[], None]] = set()
        self.is_closed: bool = False
        self.reader: int = get_ident()

    def put(self, delivery: Delivery | None) -> None:
        """Add a result, and wake the tasks that await one."""
        self._queue.put(delivery)
        for wake in list(self._wakers):
            wake()

    def close(self) -> None:
        """End the run: wake all waiters, which then find the end."""
        self.is_closed = True
        self.put(None)

    def is_read_here(self) -> bool:
        """Tell whether this is the reader's thread. The garbage collector runs in any thread, a pool's own too."""
        return get_ident() == self.reader

    def drain(self) -> list[Delivery]:
        """Return all results that are there now."""
        taken, self._first = self._first, []
        while not self._queue.empty():
            taken.append(self._queue.get())
        return [delivery for delivery in taken if delivery is not None]

    def wait(self) -> None:
        """Block until there is a result, or the end."""
        self._first.append(self._queue.get())

    async def wait_async(self) -> None:
        """Wait in the running event loop until there is a result, or the end."""
        import asyncio

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(woken.set)

        self._wakers.add(wake)
        try:
            if self._queue.empty():  # else it was put before the waker was there
                await woken.wait()
        finally:
            self._wakers.discard(wake)


@final
class Stream(Generic[_T]):
    """Values as they get ready: an iterator for `for` and, inside async code, for `async for`.

    Closing it, dropping it, and an exception that ends it cancel what is pending and wait for what runs. It may be closed
    from another thread or task: a blocked consumer then sees the end, and one that is taking a step ends after that step.

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
            self._steps.close()
            self._inbox.close()
            raise
        return step

    def close(self) -> None:
        """Cancel what is pending and wait for what runs; nothing more is yielded."""
        self._inbox.reader = get_ident()
        steps, self._steps = self._steps, _no_steps()
        with suppress(ValueError):  # generator already executing in another thread: it sees is_closed and ends
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
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except BaseException as error:
            self._steps.close()
            self._inbox.close()
            if isinstance(error, StopIteration):
                raise StopAsyncIteration from None
            raise
        return step

    async def aclose(self) -> None:
        """Close without blocking the event loop; `contextlib.aclosing` calls it."""
        import asyncio

        await asyncio.to_thread(self.close)


def _no_steps() -> Steps[_T]:
    yield from ()


def run_bounded(
    executor: Executor[_R], requests: Iterable[tuple[_T, Call[_P, _R]]], in_order: bool, inbox: Inbox
) -> Steps[tuple[int, _T, CallResult]]:
    """Run the calls, each given with a value of the caller's, and yield index, value and result of each.

    An Exception of `requests` is raised after all that came before it.
    """
    window = _Window(executor, requests, in_order, inbox)
    with open_session(executor, inbox.put, inbox.is_read_here) as submit:
        while True:
            is_new = window.submit_calls(submit)
            is_new |= window.receive()
            if inbox.is_closed:
                return
            if (ready := window.pop_ready()) is not None:
                yield ready
            elif window.is_empty():
                break
            elif not is_new:  # if something is new, there may be more of it by now
                yield None
    if window.error is not None:
        raise window.error


@final
class _Window(Generic[_T, _P, _R]):
    """The calls between the inputs and the consumer: submitted ones, then answered ones that wait for their turn."""

    def __init__(
        self, executor: Executor[_R], requests: Iterable[tuple[_T, Call[_P, _R]]], in_order: bool, inbox: Inbox
    ) -> None:
        self._limit = max(1, executor.in_flight)
        # Out of order, no answer waits for another one: what waits, waits for the consumer.
        self._buffer = max(0, executor.buffer) if in_order else 0
        self._requests, self._in_order, self._inbox = iter(requests), in_order, inbox
        self._running: dict[int, _T] = {}
        self._answered: dict[int, tuple[_T, CallResult]] = {}
        self._next_index = self._next_due = 0
        self._is_exhausted = False
        self.error: Exception | None = None
        """The exception that the iterator of the requests raised."""

    def submit_calls(self, submit: Submit[_R]) -> bool:
        """Submit as many calls as there is room for, for a moment at most; return whether there were any."""
        first, begun = self._next_index, monotonic()
        while self._has_room() and (request := self._pull()) is not None:
            value, call = request
            index = self._next_index
            self._next_index += 1
            self._running[index] = value
            if call.prompts:
                submit(index, call)
            else:  # no input of it could be rendered
                self._inbox.put((index, ()))
            if monotonic() - begun > _PATIENCE:
                break
        return self._next_index > first

    def _has_room(self) -> bool:
        # Answered calls beyond the buffer take the place of running ones.
        beyond_buffer = max(0, len(self._answered) - self._buffer)
        return not self._is_exhausted and len(self._running) + beyond_buffer < self._limit

    def _pull(self) -> tuple[_T, Call[_P, _R]] | None:
        try:
            request = next(self._requests, None)
        except Exception as error:
            self.error = error
            request = None
        self._is_exhausted = request is None
        return request

    def receive(self) -> bool:
        """Take in all results that were delivered; return whether there were any."""
        deliveries = self._inbox.drain()
        for index, result in deliveries:
            if isinstance(result, KeyboardInterrupt):
                raise result
            self._answered[index] = self._running.pop(index), result
        return bool(deliveries)

    def pop_ready(self) -> tuple[int, _T, CallResult] | None:
        """Return the next result that may be yielded, if there is one."""
        index = self._next_due if self._in_order else next(iter(self._answered), -1)
        if index not in self._answered:
            return None
        self._next_due += 1
        return index, *self._answered.pop(index)

    def is_empty(self) -> bool:
        """Tell whether no call is left; `submit_calls` has then found no more."""
        return not self._running and not self._answered


@contextmanager
def open_session(
    executor: Executor[_R], deliver: Deliver, may_wait: Callable[[], bool]
) -> Generator[Submit[_R], None, None]:
    """Open a session. If it does not open, that is the result of every call; if it does not close, that is a warning."""
    try:
        session = executor.session(deliver)
        submit = session.__enter__()
    except Exception as error:
        yield partial(_refuse, Raised.of(error), deliver)
        return
    try:
        yield submit
    finally:
        if may_wait():
            _leave(session)
        else:
            Thread(target=_leave, args=(session,), name="distgen-closing", daemon=True).start()


def _refuse(error: Raised, deliver: Deliver, index: int, call: Call[_P, _R]) -> Callable[[], object]:
    deliver((index, call.failed(error)))
    return do_nothing


def do_nothing() -> None:
    """Cancel a call that is already over."""


def _leave(session: AbstractContextManager[object]) -> None:
    if sys.is_finalizing():  # daemon threads no longer run at shutdown; joining them would hang
        return
    try:
        session.__exit__(None, None, None)
    except Exception as error:  # all rows have their answers
        warn(f"{explain(Raised.of(error))} This happened when the pool was closed; every row has its answer.")
