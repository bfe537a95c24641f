"""The futures that a submitter returns. Imported only when a submitter is opened: concurrent.futures imports logging."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, Generic, TypeAlias, TypeVar, final

from returns.result import Failure, Result

from distgen.errors import GenerateError, Raised
from distgen.executors.engine import Inbox, Stream

_In = TypeVar("_In")
_Row = TypeVar("_Row")
_T = TypeVar("_T")
_RowFuture: TypeAlias = Future[Result[_T, GenerateError]]

_ENDED: Final = Raised("CancelledError", "the block of the submitter ended before this was asked or answered")


@final
class FutureQueue(Generic[_In, _Row, _T]):
    """Submitted inputs as the rows of a run, and the futures of their results.

    One thread reads the run and resolves the futures. The caller's thread never takes the lock of a future that this thread
    may resolve: KeyboardInterrupt there could leave it locked, and the run would wait without end.
    """

    def __init__(self, ask: Callable[[_In], _Row], inbox: Inbox) -> None:  # noqa: D107  (the class says it)
        self._ask, self._inbox = ask, inbox
        self._waiting: SimpleQueue[tuple[_In, _RowFuture[_T]]] = SimpleQueue()
        self._asked: dict[int, _RowFuture[_T]] = {}
        self._is_ended = self._is_over = False  # no more is submitted; no more is resolved

    def submit(self, value: _In) -> _RowFuture[_T]:
        """Return the future of the result of one input."""
        future = _RowFuture[_T]()
        self._waiting.put((value, future))
        self._inbox.put(None)
        if self._is_over:
            self._drop_waiting()
        return future

    def rows(self) -> Iterator[_Row | None]:
        """Yield a row for each input that is not cancelled; None if none is there yet."""
        indices = count()
        while not (self._is_ended and self._waiting.empty()):
            if self._waiting.empty():
                yield None
                continue
            value, future = self._waiting.get()
            if future.set_running_or_notify_cancel():
                self._asked[next(indices)] = future
                yield self._ask(value)

    @contextmanager
    def resolve(self, stream: Stream[tuple[int, Result[_T, GenerateError]]]) -> Generator[None, None, None]:
        """Resolve the futures with the results of a run over `rows`. Leaving waits for all; an exception ends the run."""
        thread = Thread(target=self._resolve_all, args=(stream,), name="distgen-futures", daemon=True)
        try:
            thread.start()
            yield
            self._is_ended = True
            self._inbox.put(None)
            thread.join()
        finally:
            self._inbox.close()
            if thread.is_alive():
                thread.join()

    def _resolve_all(self, stream: Stream[tuple[int, Result[_T, GenerateError]]]) -> None:
        try:
            for index, row in stream:
                _set_result(self._asked.pop(index), row)
        except BaseException as error:  # KeyboardInterrupt of a backend
            while self._asked:
                self._asked.popitem()[1].set_exception(error)
        while self._asked:
            _set_result(self._asked.popitem()[1], Failure(_ENDED))
        self._is_over = True
        self._drop_waiting()

    def _drop_waiting(self) -> None:
        with suppress(Empty):
            while True:
                _, future = self._waiting.get_nowait()
                if future.set_running_or_notify_cancel():
                    _set_result(future, Failure(_ENDED))


def _set_result(future: Future[_T], result: _T) -> None:
    with suppress(BaseException):  # SystemExit of a user's callback would end this thread, and other futures need it
        future.set_result(result)
