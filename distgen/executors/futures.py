"""The futures that a submitter hands out. Imported when one is opened, since concurrent.futures imports logging."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Final, Generic, NamedTuple, TypeVar, final

from distgen.errors import Raised
from distgen.executors.call import Call, CallResult
from distgen.executors.engine import Delivery, Submit

_T = TypeVar("_T")
_P = TypeVar("_P")
_R = TypeVar("_R")

_CANCELLED: Final = Raised("CancelledError", "the submitter was left by an exception before this was asked")
_ENDED: Final = Raised("RuntimeError", "submitted after the end of the submitter's block")


class _Waiting(NamedTuple, Generic[_T]):
    """A future, the function that reads its result, and, once its call is submitted, the function that cancels it."""

    future: Future[_T]
    read: Callable[[CallResult], _T]
    cancels: list[Callable[[], object]]


@final
class PendingFutures(Generic[_T]):
    """Futures that are not resolved. Each is resolved by the thread that pops it from `_waiting`, so exactly once.

    The caller's thread never takes the lock of a Future that another thread may resolve: KeyboardInterrupt there could
    leave it locked, and the other thread would wait without end.
    """

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        self._indices = count()
        self._waiting: dict[int, _Waiting[_T]] = {}
        self._unfinished: set[int] = set()
        self._all_finished: SimpleQueue[None] = SimpleQueue()
        self._is_awaited: bool = False
        self.is_closed: bool = False

    def submit(self, call: Call[_P, _R], submit: Submit[_R], read: Callable[[CallResult], _T]) -> Future[_T]:
        """Submit a call, unless it has no prompt or the block has ended, and return the future of what `read` returns."""
        index, future = next(self._indices), Future[_T]()
        future.add_done_callback(partial(self._cancel, index))
        self._waiting[index] = _Waiting(future, read, [])
        self._unfinished.add(index)
        try:
            if self.is_closed:
                self.deliver((index, call.failed(_ENDED)))
            elif call.prompts:
                cancel = submit(index, call)
                if (waiting := self._waiting.get(index)) is not None:
                    waiting.cancels.append(cancel)
            else:
                self.deliver((index, ()))
        except BaseException as error:  # KeyboardInterrupt; leaving the block would wait for a future that nobody has
            self.deliver((index, call.failed(Raised.of(error))))
            raise
        return future

    def _cancel(self, index: int, done: Future[_T]) -> None:
        waiting = self._waiting.pop(index, None)
        if waiting is not None:  # the user cancelled it; else it was resolved
            for cancel in waiting.cancels:
                cancel()
            done.set_running_or_notify_cancel()
            self._finish(index)

    def deliver(self, delivery: Delivery) -> None:
        """Resolve a future, if it is not resolved yet."""
        index, result = delivery
        waiting = self._waiting.pop(index, None)
        try:
            if waiting is not None and waiting.future.set_running_or_notify_cancel():
                _resolve(waiting, result)
        finally:
            self._finish(index)

    def _finish(self, index: int) -> None:
        self._unfinished.discard(index)
        if self._is_awaited and not self._unfinished:
            self._all_finished.put(None)

    def wait(self) -> None:
        """Block until all futures are resolved."""
        self._is_awaited = True
        while self._unfinished:
            self._all_finished.get()

    def drop(self) -> None:
        """Resolve those that are left: they were not asked."""
        for index in list(self._waiting):
            self.deliver((index, (_CANCELLED,)))


def _resolve(waiting: _Waiting[_T], result: CallResult | KeyboardInterrupt) -> None:
    try:
        if isinstance(result, KeyboardInterrupt):
            raise result
        row = waiting.read(result)
    except BaseException as error:  # a future that is never done would hang its reader
        waiting.future.set_exception(error)
        return
    try:
        waiting.future.set_result(row)
    except SystemExit:  # of a user's callback; it would end the worker thread, which other rows need
        return
