"""A bound on the requests under way at once, which adapts to the server, and a pause that all requests share."""

from __future__ import annotations

import asyncio
import threading
from heapq import heappop, heappush
from itertools import count
from typing import Final, final

_START: Final = 16  # places; doubled with each tick until the server rejects a request
_TICK: Final = 0.1  # seconds
_CAUTION: Final = 10.0  # times the pause that a rejection costs, or a tick, until more places are tried


# A server that rejects some of many requests shows its bound: the number of requests that it accepted. Half of this bound
# would leave a small server idle. A bound from a bad minute must not stay, so more places are tried later, one with each
# answer. A failed try may cost a pause, so after a long pause the next try comes later.
@final
class Limiter:
    """Gives out places for requests, first come, first served; belongs to one event loop."""

    def __init__(self, most: int, stop: threading.Event | None = None) -> None:  # noqa: D107  (the class says it)
        self.limit: int = min(_START, most)
        self.run: int = 0
        self._most, self._stop = most, stop
        self._under_way = 0
        self._period = 1  # ends with the first rejection of a request that was sent in it
        self._accepted = 0  # requests that were under way at the end of the last period, without those rejected since
        self._grow_at = 0.0
        self._paused_until = 0.0
        self._order = count()
        self._waiting: list[tuple[float, int, asyncio.Future[int]]] = []  # a heap, by the time from which each may go
        asyncio.get_running_loop().call_later(_TICK, self._tick)

    async def enter(self, run: int, delay: float = 0.0) -> int:
        """Wait `delay` seconds, then for a place. Return the period for `reject`, or 0 if the run was ended."""
        if run != self.run or (self._stop and self._stop.is_set()):
            return 0
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if delay:
            loop.call_at(due, self._hand_out, due)
        elif self._is_open(due) and not (self._waiting and self._waiting[0][0] <= due):
            self._under_way += 1
            return self._period
        place: asyncio.Future[int] = loop.create_future()
        heappush(self._waiting, (due, next(self._order), place))
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self._under_way -= 1
        self._hand_out()

    def answered(self) -> None:
        """Try one more place; call it for each answer, before `leave`."""
        if asyncio.get_running_loop().time() >= self._grow_at:
            self.limit = min(self._most, self.limit + 1)

    def reject(self, period: int, pause: float, backoff: float) -> None:
        """Allow as many requests as the server accepted; call it before `leave`.

        No place is given out for `pause` seconds. If every request was rejected, it is the longer of `pause` and `backoff`.
        """
        loop = asyncio.get_running_loop()
        if period == self._period:
            self._period += 1
            self._accepted = self._under_way
        self._accepted -= 1
        self.limit = max(1, min(self.limit, self._accepted))
        self._grow_at = loop.time() + _CAUTION * max(_TICK, pause)
        if self._accepted < 1:  # the server accepted none, so 1 is not its bound
            self._grow_at = 0.0
            pause = max(pause, backoff)
        self._paused_until = max(self._paused_until, loop.time() + pause)
        loop.call_at(self._paused_until, self._hand_out, self._paused_until)

    def end_run(self) -> None:
        """End all waits and the pause; a row of this run that would wait later ends at once."""
        self.run += 1
        self._paused_until = 0.0
        for _, _, place in self._waiting:
            if not place.done():
                place.set_result(0)
        self._waiting.clear()

    def _tick(self) -> None:
        """Begin with few requests: a server of few places rejects them before all are sent. End the run on `stop`."""
        is_opening = self._period == 1 and self.limit < self._most
        if is_opening:
            self.limit = min(self._most, 2 * self.limit)
            self._hand_out()
        if self._stop and self._stop.is_set():
            self.end_run()
        elif self._stop or is_opening:
            asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _is_open(self, now: float) -> bool:
        return self._under_way < self.limit and now >= self._paused_until

    def _hand_out(self, due: float = 0.0) -> None:
        now = max(due, asyncio.get_running_loop().time())  # a loop may call a little too early
        while self._waiting and self._waiting[0][0] <= now and self._is_open(now):
            place = heappop(self._waiting)[2]
            if not place.done():  # else it was cancelled
                self._under_way += 1
                place.set_result(self._period)
