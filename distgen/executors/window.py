"""The one engine under every executor: a bounded window over lazy calls, in order or as they finish.

It blocks nowhere: where nothing is ready it yields None, and `Stream` waits, blocking in `for`, awaiting in `async for`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from threading import get_ident
from time import monotonic
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

from distgen.errors import Raised, explain
from distgen.executors.calls import Answer, Call, warn

_T = TypeVar("_T")
_R = TypeVar("_R")
_R_contra = TypeVar("_R_contra", contravariant=True)
_P = TypeVar("_P")

Delivery: TypeAlias = tuple[int, Answer | KeyboardInterrupt | GeneratorExit]
"""The index of a call, and its answer; a KeyboardInterrupt in a backend is the caller's; GeneratorExit is the end of all."""

Deliver: TypeAlias = Callable[[Delivery], bool]
"""Takes a delivery, and says whether calls may still come."""

Indexed: TypeAlias = tuple[int, Answer]

_PATIENCE: Final = 0.01  # seconds of pulling inputs, after which what is answered goes first


class Submit(Protocol[_R_contra]):
    """Hands over a call, of one prompt or more, under an index; gives what cancels it until it begins. Never raises."""

    def __call__(self, index: int, call: Call[_P, _R_contra], /) -> Callable[[], object]: ...  # noqa: D102


class Executor(Protocol[_R_contra]):
    """Runs calls whose backend gives R: a Batch for the synchronous executors, an awaitable one for the async.

    At most `in_flight` calls are handed over and not yet answered, and at most `buffer` answered ones wait for a slower one
    before them.
    """

    @property
    def in_flight(self) -> int: ...  # noqa: D102

    @property
    def buffer(self) -> int: ...  # noqa: D102

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[_R_contra]]:
        """Opens the pool, and gives its submit. Each call not cancelled is delivered once, from whatever thread.

        Leaving cancels what has not begun, waits for what runs, and leaves no thread or process behind. No generator where
        it waits: at its end the garbage collector would run its `finally` in any thread, also in one that it waits for.
        """
        ...


@final
class Inbox:
    """What was delivered and is not yet read: many threads put, one reads."""

    __slots__ = ("_bells", "_first", "_queue", "is_open", "reader")

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        from queue import SimpleQueue

        self._queue: SimpleQueue[Delivery] = SimpleQueue()
        self._first: list[Delivery] = []
        self._bells: set[Callable[[], None]] = set()
        self.is_open: bool = True
        self.reader: int = get_ident()

    def put(self, delivery: Delivery) -> bool:
        """Adds one, and wakes the tasks that await it; gives whether calls may still come."""
        self._queue.put(delivery)
        if self._bells:
            for ring in list(self._bells):
                ring()
        return self.is_open

    def end(self) -> None:
        """Wakes who waits, of whom nobody else would think any more."""
        self.put((-1, GeneratorExit()))

    def is_read_here(self) -> bool:
        """Whether this is its reader's thread. Garbage is collected in any, also in one that a pool's end waits for."""
        return get_ident() == self.reader

    def take(self) -> list[Delivery]:
        """All there is now."""
        taken, self._first = self._first, []
        while not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def wait(self) -> None:
        """Blocks until there is something."""
        self._first.append(self._queue.get())

    async def ready(self) -> None:
        """Waits in the running event loop until there is something."""
        import asyncio

        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        def ring() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(wake)

        self._bells.add(ring)
        try:
            if self._queue.empty():  # what was put before the bell hung there
                await woken
        finally:
            self._bells.discard(ring)


Steps: TypeAlias = Generator[_T | None, None, None]
"""Values as they get ready; None where nothing is, and the Inbox is to be waited on before the next step."""


@final
class Stream(Generic[_T]):
    """Values as they get ready: a Generator for `for` and, inside async code, for `async for`.

    Closing it, dropping it, and an exception that ends it cancel what is pending and wait for what runs. It is closed
    from another thread or task too, and is then at its end for who waits there; one that is in a step ends with it.

    >>> list(Stream(Inbox(), (value for value in "ab")))
    ['a', 'b']
    """

    __slots__ = ("_inbox", "_steps")

    def __init__(self, inbox: Inbox, steps: Steps[_T]) -> None:  # noqa: D107  (the class says it)
        self._inbox = inbox
        self._steps: Steps[_T] = steps

    def __iter__(self) -> Stream[_T]:
        return self

    def __next__(self) -> _T:
        inbox = self._inbox
        inbox.reader = get_ident()
        try:
            while (step := next(self._steps)) is None:
                inbox.wait()
        except BaseException:  # the end, what it runs, or KeyboardInterrupt while it waits
            self._steps.close()
            inbox.end()
            raise
        return step

    def send(self, _: None, /) -> _T:
        """As `next`: it takes nothing."""
        return next(self)

    def throw(self, error: type[BaseException] | BaseException, /, *_: object) -> _T:
        """Closes it, and raises the exception."""
        self.close()
        raise error

    def close(self) -> None:
        """Cancels what is pending and waits for what runs; nothing more is yielded."""
        self._inbox.reader = get_ident()
        steps, self._steps = self._steps, _no_steps()
        with suppress(ValueError):  # another thread is in a step, the last; nobody holds them after it
            steps.close()
        self._inbox.end()

    def __aiter__(self) -> Stream[_T]:
        return self

    async def __anext__(self) -> _T:
        import asyncio

        self._inbox.reader = get_ident()
        try:
            await asyncio.sleep(0)  # answers that are all ready must not starve the other tasks of the loop
            while (step := next(self._steps)) is None:
                await self._inbox.ready()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except BaseException as ended:
            self._steps.close()
            self._inbox.end()
            if isinstance(ended, StopIteration):
                raise StopAsyncIteration from None
            raise
        return step

    async def aclose(self) -> None:
        """`close` that does not block the event loop; `contextlib.aclosing` calls it."""
        import asyncio

        await asyncio.to_thread(self.close)


def _no_steps() -> Steps[_T]:
    yield from ()


def windowed(executor: Executor[_R], calls: Iterable[Call[_P, _R]], in_order: bool, inbox: Inbox) -> Steps[Indexed]:
    """The answers, each with the index of its call; an Exception of `calls` is raised after all that came before it."""
    limit, buffer = max(1, executor.in_flight), max(0, executor.buffer)
    raised: list[Exception] = []
    source = _until_raised(calls, raised)
    answered: dict[int, Answer] = {}
    handed = received = due = 0
    with opened(executor, inbox.put, inbox.is_read_here) as submit:
        while True:
            ahead, before = len(answered) - buffer, handed
            room = limit - (handed - received) - (ahead if ahead > 0 else 0)
            if room > 0:
                handed = _hand_over(source, submit, inbox, handed, room)
            taken = inbox.take()
            for index, answer in taken:
                received += 1
                if isinstance(answer, GeneratorExit):
                    return
                if isinstance(answer, KeyboardInterrupt):
                    raise answer
                answered[index] = answer
            ready = due if in_order else next(iter(answered), due)
            if ready in answered:
                yield ready, answered.pop(ready)
                due += 1
            elif handed == received:  # no call is left, or it would have been handed over
                break
            elif handed == before and not taken:  # else there may be more of either by now
                yield None
    for error in raised:
        raise error


def _hand_over(source: Iterator[Call[_P, _R]], submit: Submit[_R], inbox: Inbox, index: int, room: int) -> int:
    """Hands calls over from `index` on, as many as there is room for while patience lasts; gives the index of the next."""
    begun, end = monotonic(), index + room
    while index < end:
        call = next(source, None)
        if call is None:
            inbox.is_open = False
            break
        if call.prompts:
            submit(index, call)
        else:  # nothing of it could be rendered
            inbox.put((index, ()))
        index += 1
        if monotonic() - begun > _PATIENCE:
            break
    return index


def _until_raised(values: Iterable[_T], raised: list[Exception]) -> Iterator[_T]:
    """The values up to an exception, which is left in `raised`, to be raised when all that came before it is answered."""
    try:
        yield from values
    except Exception as error:
        raised.append(error)


@contextmanager
def opened(executor: Executor[_R], deliver: Deliver, may_wait: Callable[[], bool]) -> Generator[Submit[_R], None, None]:
    """A session; where it does not open, that is the answer to every call, where it does not close, a warning."""
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
            _leave_in_a_thread(session)


def _refuse(fault: Raised, deliver: Deliver, index: int, call: Call[_P, _R]) -> Callable[[], None]:
    deliver((index, call.failed(fault)))
    return nothing


def nothing() -> None:
    """What cancels a call that is over."""


def _leave(session: AbstractContextManager[object]) -> None:
    if sys.is_finalizing():  # the interpreter ends: daemons run no more, and would be waited for without end
        return
    try:
        session.__exit__(None, None, None)
    except Exception as error:  # all rows have their answers
        warn(f"{explain(Raised.of(error))} That was on closing its pool; every row has its answer.")


def _leave_in_a_thread(session: AbstractContextManager[object]) -> None:
    from threading import Thread

    Thread(target=_leave, args=(session,), name="distgen-closing", daemon=True).start()
