"""The futures of a submitter: what an Inbox is to a stream. Imported when a submitter is opened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Final, Generic, NamedTuple, TypeVar, final

from distgen.errors import Raised
from distgen.executors.calls import Answer, Call
from distgen.executors.window import Delivery, Submit

_T = TypeVar("_T")
_P = TypeVar("_P")
_R = TypeVar("_R")

_CANCELLED: Final = Raised("CancelledError", "the submitter was left by an exception before this was asked")
_ENDED: Final = Raised("RuntimeError", "submitted after the end of the submitter's block")


class _Waiting(NamedTuple, Generic[_T]):
    """A future, what reads its answer, and, once its call is handed over, what cancels that."""

    future: Future[_T]
    read: Callable[[Answer], _T]
    cancels: list[Callable[[], object]]


@final
class Desk(Generic[_T]):
    """The futures of a submitter. Whoever takes one out of `_waiting` settles it, so that it is settled once.

    The caller's thread touches no future that another may settle, and waits for none: Ctrl-C in the midst of a future's
    own code leaves its lock held, and who settles it would wait for that without end.
    """

    __slots__ = ("_bell", "_is_awaited", "_numbers", "_unfinished", "_waiting", "is_closed")

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        self._numbers = count()
        self._waiting: dict[int, _Waiting[_T]] = {}
        self._unfinished: set[int] = set()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._is_awaited: bool = False
        self.is_closed: bool = False

    def open(self, read: Callable[[Answer], _T]) -> tuple[int, Future[_T]]:
        """A future that is to be settled with what `read` makes of its answer, and the index of its call."""
        index, future = next(self._numbers), Future[_T]()
        future.add_done_callback(partial(self._hear, index))
        self._waiting[index] = _Waiting(future, read, [])
        self._unfinished.add(index)
        return index, future

    def hand_over(self, index: int, call: Call[_P, _R], submit: Submit[_R]) -> None:
        """Has the call made, unless there is nothing to ask or the block has ended. Cancelling its future cancels it."""
        try:
            if self.is_closed:
                self.deliver((index, call.failed(_ENDED)))
            elif call.prompts:
                cancel = submit(index, call)
                waiting = self._waiting.get(index)
                if waiting is not None:
                    waiting.cancels.append(cancel)
            else:
                self.deliver((index, ()))
        except BaseException as error:  # KeyboardInterrupt; leaving would wait for a future that nobody has
            self.deliver((index, call.failed(Raised.of(error))))
            raise

    def _hear(self, index: int, done: Future[_T]) -> None:
        waiting = self._waiting.pop(index, None)
        if waiting is not None:  # it was cancelled
            for cancel in waiting.cancels:
                cancel()
            done.set_running_or_notify_cancel()
            self._finish(index)

    def deliver(self, delivery: Delivery) -> bool:
        """Settles a future, if that was not done; gives whether calls may still come."""
        index, answer = delivery
        waiting = self._waiting.pop(index, None)
        try:
            if waiting is not None and waiting.future.set_running_or_notify_cancel():
                self._settle(waiting, answer)
        finally:
            self._finish(index)
        return not self.is_closed

    def _settle(self, waiting: _Waiting[_T], answer: Answer | BaseException) -> None:
        try:
            if isinstance(answer, BaseException):
                raise answer
            row = waiting.read(answer)
        except BaseException as error:  # a future that is never done would hang its reader
            waiting.future.set_exception(error)
        else:
            waiting.future.set_result(row)

    def _finish(self, index: int) -> None:
        self._unfinished.discard(index)
        if self._is_awaited and not self._unfinished:
            self._bell.put(None)

    def wait(self) -> None:
        """Blocks until all futures are settled."""
        self._is_awaited = True
        while self._unfinished:
            self._bell.get()

    def drop(self) -> None:
        """Settles what is not settled: it was not asked."""
        for index in list(self._waiting):
            self.deliver((index, (_CANCELLED,)))
