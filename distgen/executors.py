"""Where and how many calls run at once: frozen values that open a pool for one run and close it after.

An executor knows nothing of tasks or formats. It takes calls and gives an `Answer` for each, whatever breaks: the two
laws of the backend's shape (a wrong count never shifts a row; a failed batch is asked again row by row) live in
`attempt`, the bounded window over any `concurrent.futures.Executor` in `_windowed`. Distribution over machines is
another library's work, through `Pool`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, final

from returns.result import Failure, Result, Success

from distgen.completion import Batch, Completion, Row
from distgen.errors import Fault, WrongShape

if TYPE_CHECKING:  # concurrent.futures imports logging: a sixth of the import time of distgen
    from concurrent.futures import Executor as FuturesExecutor
    from concurrent.futures import Future

_A = TypeVar("_A")
_R_co = TypeVar("_R_co", covariant=True)
_R_contra = TypeVar("_R_contra", contravariant=True)

Answer: TypeAlias = tuple[Result[tuple[Completion, ...], Fault | WrongShape], ...]
"""What became of a call: one Result a row asked, each holding as many completions as were asked for."""


class Call(NamedTuple, Generic[_R_co]):
    """One call of a backend: `ask` asks all rows at once, `rows` each alone, every row for `num_generations`."""

    ask: Callable[[], _R_co]
    rows: tuple[Callable[[], _R_co], ...]
    num_generations: int

    def failed(self, fault: Fault) -> Answer:
        """The answer when there is none: the same fault for each row."""
        return (Failure(fault),) * len(self.rows)


class Executor(Protocol[_R_contra]):
    """Runs calls whose backend gives R: a Batch for the synchronous executors.

    Calls are pulled lazily. Closing a generator cancels what is pending, waits for what is running and leaves no
    thread behind. An exception of `calls` itself is raised after all that came before it has been yielded.
    """

    def run(self, calls: Iterable[Call[_R_contra]], /) -> Generator[Answer, None, None]:
        """The answers, in the order of the calls."""
        ...

    def as_completed(self, calls: Iterable[Call[_R_contra]], /) -> Generator[tuple[int, Answer], None, None]:
        """The answers as they come, each with the index of its call."""
        ...

    def submitter(self) -> AbstractContextManager[Callable[[Call[_R_contra]], Future[Answer]]]:
        """Opens a function that submits one call; leaving waits for all, or, with an exception, cancels the pending."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Sequential:
    """One call at a time, in the caller's thread.

    >>> answer_42 = lambda: [[Completion("42")]]
    >>> list(Sequential().run([Call(answer_42, (answer_42,), 1)]))
    [(<Success: (Completion(text='42', finish_reason=None, usage=None),)>,)]
    """

    def run(self, calls: Iterable[Call[Batch]], /) -> Generator[Answer, None, None]:
        """See `Executor`."""
        for call in calls:
            yield attempt(call)

    def as_completed(self, calls: Iterable[Call[Batch]], /) -> Generator[tuple[int, Answer], None, None]:
        """See `Executor`."""
        yield from enumerate(self.run(calls))

    @contextmanager
    def submitter(self) -> Generator[Callable[[Call[Batch]], Future[Answer]], None, None]:
        """See `Executor`; each future is done when it is returned."""
        yield lambda call: _done(attempt(call))


@final
@dataclass(frozen=True, slots=True)
class Pool:
    """Calls on any `concurrent.futures.Executor`: Dask's `client.get_executor`, loky, mpi4py, ipyparallel.

    `open` gives a context manager over it, entered and left once a run: `Pool(client.get_executor, 64)`; for a pool
    that is to stay open, `Pool(lambda: nullcontext(pool), 64)`. At most `limit` calls are handed over at once, and at most
    `buffer` answered ones wait for a slower one before them: inputs are pulled at most limit + buffer calls ahead.
    Where `open` raises, that is the Failure of every row.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> answer_42 = lambda: [[Completion("42")]]
    >>> list(Pool(ThreadPoolExecutor, 4).as_completed([Call(answer_42, (answer_42,), 1)]))
    [(0, (<Success: (Completion(text='42', finish_reason=None, usage=None),)>,))]
    """

    open: Callable[[], AbstractContextManager[FuturesExecutor]]
    limit: int
    buffer: int = 512

    def run(self, calls: Iterable[Call[Batch]], /) -> Generator[Answer, None, None]:
        """See `Executor`."""
        for _, answer in _windowed(self, calls, in_order=True):
            yield answer

    def as_completed(self, calls: Iterable[Call[Batch]], /) -> Generator[tuple[int, Answer], None, None]:
        """See `Executor`."""
        return _windowed(self, calls, in_order=False)

    def submitter(self) -> AbstractContextManager[Callable[[Call[Batch]], Future[Answer]]]:
        """See `Executor`; `limit` does not hold back what is submitted by hand."""
        return _opened(self)


@final
@dataclass(frozen=True, slots=True)
class Threads:
    """`n` calls at once, each in a thread: the executor for servers. `buffer` as in `Pool`.

    >>> Threads(8)
    Threads(n=8, buffer=512)
    """

    n: int
    buffer: int = 512

    def run(self, calls: Iterable[Call[Batch]], /) -> Generator[Answer, None, None]:
        """See `Executor`."""
        return self._pool().run(calls)

    def as_completed(self, calls: Iterable[Call[Batch]], /) -> Generator[tuple[int, Answer], None, None]:
        """See `Executor`."""
        return self._pool().as_completed(calls)

    def submitter(self) -> AbstractContextManager[Callable[[Call[Batch]], Future[Answer]]]:
        """See `Executor`."""
        return self._pool().submitter()

    def _pool(self) -> Pool:
        from concurrent.futures import ThreadPoolExecutor

        # Twice n, so that a thread that finishes has its next call at hand.
        return Pool(lambda: ThreadPoolExecutor(self.n, thread_name_prefix="distgen"), 2 * self.n, self.buffer)


def attempt(call: Call[Batch]) -> Answer:
    """Calls the backend where this runs; what it raises becomes a Failure, KeyboardInterrupt alone excepted.

    Where the call as a whole fails, or its rows are not as many as its prompts, each row is asked again alone, so that
    only the guilty one fails.
    """
    if not call.rows:
        return ()
    batch = _batch(call)
    if isinstance(batch, Success):
        return tuple(_completions(row, call.num_generations) for row in batch.unwrap())
    if len(call.rows) == 1:
        return (Failure(batch.failure()),)
    return tuple(attempt(Call(ask, (ask,), call.num_generations))[0] for ask in call.rows)


def settled(future: Future[Answer], call: Call[object]) -> Answer:
    """The answer that a finished future of `call` holds; a pool that broke or cancelled it is a Failure of its rows."""
    try:
        return future.result()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return call.failed(Fault.of(error))


def _batch(call: Call[Batch]) -> Result[list[Row], Fault | WrongShape]:
    try:
        batch = list(call.ask())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and GeneratorExit too: a backend must not end a run of a million rows
        return Failure(Fault.of(error))
    expected = len(call.rows)
    return Success(batch) if len(batch) == expected else Failure(WrongShape("rows", expected, len(batch)))


def _completions(row: Row, expected: int) -> Result[tuple[Completion, ...], Fault | WrongShape]:
    try:
        if isinstance(row, Failure):
            return Failure(_fault(row.failure()))
        completions = tuple(row.unwrap() if isinstance(row, Result) else row)
        for completion in completions:
            _check(completion)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a row may be lazy, and the backend's code run only here
        return Failure(Fault.of(error))
    got = len(completions)
    return Success(completions) if got == expected else Failure(WrongShape("generations", expected, got))


def _fault(error: object) -> Fault:
    """Untyped code may answer the Failure of another kind, such as an exception that `safe` caught."""
    if isinstance(error, Fault):
        return error
    return Fault.of(error) if isinstance(error, BaseException) else Fault(type(error).__name__, str(error))


def _check(completion: object) -> None:
    if not isinstance(completion, Completion):
        raise TypeError(f"a row of the backend holds {type(completion).__name__} where a Completion is due")


def _windowed(pool: Pool, calls: Iterable[Call[Batch]], in_order: bool) -> Generator[tuple[int, Answer], None, None]:
    """The one engine: at most `limit` calls handed over, at most `buffer` more answered and not yet yielded."""
    from queue import SimpleQueue

    limit, buffer = max(1, pool.limit), max(0, pool.buffer)
    raised: list[Exception] = []
    source = _until_raised(enumerate(calls), raised)
    finished: SimpleQueue[Future[Answer]] = SimpleQueue()
    running: dict[Future[Answer], tuple[int, Call[Batch]]] = {}
    answered: dict[int, Answer] = {}

    def collect() -> None:
        future = finished.get()
        index, call = running.pop(future)
        answered[index] = settled(future, call)

    with _opened(pool) as submit:
        due = 0
        while True:
            while not finished.empty():
                collect()
            room = min(limit - len(running), limit + buffer - len(running) - len(answered))
            for index, call in islice(source, max(0, room)):
                future = submit(call)
                running[future] = index, call
                future.add_done_callback(finished.put)
            ready = due if in_order else next(iter(answered), due)
            if ready in answered:
                yield ready, answered.pop(ready)
                due += 1
            elif running:
                collect()
            else:
                break
    for error in raised:
        raise error


@contextmanager
def _opened(pool: Pool) -> Generator[Callable[[Call[Batch]], Future[Answer]], None, None]:
    """Opens the pool and gives its submit, which never raises. Left by an exception, it cancels what is pending.

    submit, Future.cancel and closing are all it uses, since no more is kept by every pool: `map` drains its iterable in
    the stdlib and in loky and is refused by Dask, whose `shutdown` knows no `cancel_futures`; none has back-pressure.
    """
    from concurrent.futures import wait

    pending: set[Future[Answer]] = set()
    with ExitStack() as stack:
        submit = _submit_to(pool, stack)

        def tracked(call: Call[Batch]) -> Future[Answer]:
            future = submit(call)
            pending.add(future)
            future.add_done_callback(pending.discard)
            return future

        try:
            yield tracked
        except BaseException:
            for future in list(pending):
                future.cancel()
            raise
        finally:
            wait(list(pending))  # a pool that stays open would else keep running calls that nobody reads


def _submit_to(pool: Pool, stack: ExitStack) -> Callable[[Call[Batch]], Future[Answer]]:
    try:
        executor = stack.enter_context(pool.open())
    except Exception as error:
        fault = Fault.of(error)
        return lambda call: _done(call.failed(fault))
    run, calls = os.urandom(8), count()

    def submit(call: Call[Batch]) -> Future[Answer]:
        try:
            return executor.submit(_attempt_as, call, (run, next(calls)))
        except Exception as error:
            return _done(call.failed(Fault.of(error)))

    return submit


def _attempt_as(call: Call[Batch], _identity: tuple[bytes, int]) -> Answer:
    # Dask's executor is pure by default: calls with equal arguments share one result, and equal prompts one sample.
    return attempt(call)


def _until_raised(items: Iterator[_A], raised: list[Exception]) -> Iterator[_A]:
    """The items up to an exception of their iterator, which is kept in `raised` and not lost."""
    try:
        yield from items
    except Exception as error:
        raised.append(error)


def _done(answer: Answer) -> Future[Answer]:
    from concurrent.futures import Future

    future: Future[Answer] = Future()
    future.set_result(answer)
    return future
