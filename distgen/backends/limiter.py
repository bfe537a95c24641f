"""A bound on the requests that are under way at once, which adapts to the server, and a pause that all of them share."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Final, final

_WINDOW: Final = 1  # answers for each place before one more place is tried
_LONGEST_WINDOW: Final = 64


# A server that rejects a request while it works on others has told its bound: as many as are still under way. To take
# that, and not the half, keeps a server of few places busy. More are tried in steps that double, since a bound that was
# learnt in a bad minute must not stay.
@final
class Limiter:
    """Gives out places for requests, first come, first served; belongs to one event loop."""

    def __init__(self, most: int, stop: threading.Event | None = None) -> None:  # noqa: D107  (the class says it)
        self.limit: int = most
        self.under_way: int = 0
        self.run: int = 0
        self._most = most
        self._stop = stop
        self._step = 1
        self._answers = 0
        self._window = _WINDOW
        self._paused_until = 0.0
        self._waiting: deque[asyncio.Future[bool]] = deque()  # for a place
        self._sleeping: set[asyncio.Future[bool]] = set()

    async def enter(self, run: int) -> bool:
        """Wait for a place; False if there will be none, because the run was ended."""
        if self._is_over(run):
            return False
        if not self._waiting and self._has_room():
            self.under_way += 1
            return True
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.under_way -= 1
        self._hand_out()

    def rejected(self) -> None:
        """Take the other requests under way as the bound; called before the rejected one leaves."""
        self.limit = max(1, min(self.limit, self.under_way - 1))
        if self._step == 2:  # a single place more was too much: wait longer before the next try
            self._window = min(2 * self._window, _LONGEST_WINDOW)
        self._step = 1
        self._answers = 0

    def answered(self) -> None:
        """Try more places after a while of answers."""
        self._answers += 1
        window = self._window if self._step == 1 else 1
        if self.limit < self._most and self._answers >= window * self.limit:
            self.limit = min(self._most, self.limit + self._step)
            if self._step > 1:
                self._window = _WINDOW
            self._step *= 2
            self._answers = 0

    def pause(self, seconds: float, run: int) -> None:
        """Hand out no place for some seconds, unless the run that met the limit is ended."""
        if self._is_over(run):
            return
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        loop.call_at(self._paused_until, self._hand_out)

    async def sleep(self, seconds: float, run: int) -> bool:
        """Wait; False as soon as the run is ended."""
        if self._is_over(run):
            return False
        loop = asyncio.get_running_loop()
        wake: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _resolve, wake, True)
        self._sleeping.add(wake)
        try:
            return await wake
        finally:
            timer.cancel()
            self._sleeping.discard(wake)

    def end_run(self) -> None:
        """End all waits and the pause, and the waits that rows of this run would begin."""
        self.run += 1
        self._paused_until = 0.0
        for wait in [*self._waiting, *self._sleeping]:
            _resolve(wait, False)
        self._waiting.clear()

    def _is_over(self, run: int) -> bool:
        return run != self.run or (self._stop is not None and self._stop.is_set())

    def _has_room(self) -> bool:
        return self.under_way < self.limit and asyncio.get_running_loop().time() >= self._paused_until

    def _hand_out(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.done():  # else it was cancelled
                self.under_way += 1
                place.set_result(True)


def _resolve(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
