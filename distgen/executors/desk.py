"""The futures of a submitter: what an Inbox is to a stream. Imported when a submitter is opened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Generic, TypeVar, final

from distgen.errors import Fault
from distgen.executors.calls import Answer
from distgen.executors.window import Delivery

_T = TypeVar("_T")


@final
class Desk(Generic[_T]):
    """The futures of a submitter. Whoever takes one out of `_waiting` settles it, so that it is settled once.

    The caller's thread touches no future that another may settle, and waits for none: Ctrl-C in the midst of a future's
    own code leaves its lock held, and who settles it would wait for that without end.
    """

    __slots__ = ("_bell", "_is_awaited", "_numbers", "_unfinished", "_waiting", "is_closed")

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        self._numbers = count()
        self._waiting: dict[int, tuple[Future[_T], Callable[[Answer], _T], list[Callable[[], object]]]] = {}
        self._unfinished: set[int] = set()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._is_awaited: bool = False
        self.is_closed: bool = False

    def open(self, read: Callable[[Answer], _T]) -> tuple[int, Future[_T]]:
        """A future that is to be settled with what `read` makes of its answer, and the index of its call."""
        index, future = next(self._numbers), Future[_T]()
        future.add_done_callback(partial(self._hear, index))
        self._waiting[index] = future, read, []
        self._unfinished.add(index)
        return index, future

    def cancel_by(self, index: int, cancel: Callable[[], object]) -> None:
        """Cancelling the future cancels its call, if that has not begun."""
        waiting = self._waiting.get(index)
        if waiting is not None:
            waiting[2].append(cancel)

    def _hear(self, index: int, done: Future[_T]) -> None:
        waiting = self._waiting.pop(index, None)
        if waiting is not None:  # it was cancelled
            for cancel in waiting[2]:
                cancel()
            done.set_running_or_notify_cancel()
            self._finish(index)

    def deliver(self, delivery: Delivery) -> bool:
        """Settles a future, if that was not done; gives whether calls may still come."""
        index, answer = delivery
        waiting = self._waiting.pop(index, None)
        try:
            if waiting is not None and waiting[0].set_running_or_notify_cancel():
                self._settle(waiting[0], waiting[1], answer)
        finally:
            self._finish(index)
        return not self.is_closed

    def _settle(self, future: Future[_T], read: Callable[[Answer], _T], answer: Answer | BaseException) -> None:
        try:
            if isinstance(answer, BaseException):
                raise answer
            row = read(answer)
        except BaseException as error:  # a future that is never done would hang its reader
            future.set_exception(error)
        else:
            future.set_result(row)

    def _finish(self, index: int) -> None:
        self._unfinished.discard(index)
        if self._is_awaited and not self._unfinished:
            self._bell.put(None)

    def wait(self) -> None:
        """Blocks until all futures are settled."""
        self._is_awaited = True
        while self._unfinished:
            self._bell.get()

    def drop(self, fault: Fault) -> None:
        """Settles with this what is not settled."""
        for index in list(self._waiting):
            self.deliver((index, (fault,)))
