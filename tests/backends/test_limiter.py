"""The bound on requests under way: what it learns from rejections, how it grows, and how waits end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from distgen.backends.limiter import Limiter


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene()

    asyncio.run(main())


async def fill(limiter: Limiter, count: int) -> list[int]:
    """The periods of so many requests."""
    return [await limiter.enter(limiter.run) for _ in range(count)]


def reject(limiter: Limiter, period: int, pause: float = 0.0) -> None:
    limiter.reject(period, pause, 0.0)
    limiter.leave()


async def is_given(place: asyncio.Future[int]) -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return place.done()


def test_the_requests_that_a_server_did_not_reject_are_its_bound() -> None:
    async def scene() -> None:
        limiter = Limiter(100)
        periods = await fill(limiter, 12)
        for period in periods[:4]:
            reject(limiter, period)
        limiter.answered()
        limiter.leave()  # a place is free on the server, too: the bound stays
        for period in periods[4:7]:
            reject(limiter, period)
        assert limiter.limit == 5
        (period,) = await fill(limiter, 1)
        limiter.answered()
        limiter.leave()
        reject(limiter, period)  # by a server that has fewer places than before
        assert limiter.limit == 3

    run(scene)


def test_an_answer_for_each_place_opens_one_more_then_twice_as_many() -> None:
    async def scene() -> None:
        limiter, limits = Limiter(100), list[int]()
        first = limiter.limit
        for _ in range(first + first + 1):
            limiter.answered()
            limits.append(limiter.limit)
        assert limits == [*[first] * (first - 1), *[first + 1] * (first + 1), first + 3]

    run(scene)


def test_after_a_rejection_each_place_needs_an_answer_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.backends.limiter._LEAST_CAUTION", 0.0)

    async def scene() -> None:
        limiter = Limiter(100)
        first, *_ = await fill(limiter, 4)
        limiter.answered()
        reject(limiter, first)
        limits = [limiter.limit]
        for _ in range(3):
            limiter.answered()
            limits.append(limiter.limit)
        assert limits == [3, 3, 3, 4]

    run(scene)


def test_no_more_are_tried_soon_after_a_rejection_and_twice_as_many_each_time_later() -> None:
    async def scene() -> None:
        limiter, limits = Limiter(10), list[int]()
        first, _ = await fill(limiter, 2)
        reject(limiter, first, pause=1000.0)
        for _ in range(9):
            limiter.answered()
        assert limiter.limit == 1
        limiter.leave()
        limiter.end_run()
        (only,) = await fill(limiter, 1)
        reject(limiter, only)  # every request was rejected, so this is no bound of the server
        for _ in range(19):
            limiter.answered()
            limits.append(limiter.limit)
        assert limits == [2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 10, 10, 10, 10, 10]

    run(scene)


@pytest.mark.timeout(30)
def test_all_places_are_open_soon_where_nothing_is_rejected() -> None:
    async def scene() -> None:
        limiter = Limiter(100)
        await fill(limiter, limiter.limit)
        assert limiter.limit < 100
        await asyncio.gather(*(limiter.enter(limiter.run) for _ in range(100 - limiter.limit)))
        assert limiter.limit == 100

    run(scene)


def test_a_rejection_ends_the_opening() -> None:
    async def scene() -> None:
        limiter = Limiter(100)
        first, *_ = await fill(limiter, 12)
        reject(limiter, first)
        await asyncio.sleep(0.25)
        assert limiter.limit == 11

    run(scene)


@pytest.mark.timeout(30)
def test_a_delayed_request_waits_and_lets_others_go_first() -> None:
    async def scene() -> None:
        limiter = Limiter(3)
        late = asyncio.ensure_future(limiter.enter(limiter.run, 1000.0))
        soon = asyncio.ensure_future(limiter.enter(limiter.run, 0.01))
        assert not await is_given(late)
        assert await limiter.enter(limiter.run)
        assert await soon
        assert not late.done()
        limiter.end_run()

    run(scene)


def test_a_pause_is_for_all_and_for_a_server_that_rejects_all_it_is_the_back_off() -> None:
    async def scene() -> None:
        for pause, backoff, is_alone in ((1000.0, 0.0, False), (0.0, 1000.0, True), (0.0, 1000.0, False)):
            limiter = Limiter(10)
            periods = await fill(limiter, 1 if is_alone else 3)
            limiter.reject(periods[0], pause, backoff)
            limiter.leave()
            limiter.leave() if not is_alone else None
            place = asyncio.ensure_future(limiter.enter(limiter.run))
            assert await is_given(place) == (not pause and not is_alone)
            place.cancel()

    run(scene)


def test_a_pause_of_no_time_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        now = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        limiter = Limiter(10)
        first, *_ = await fill(limiter, 3)
        reject(limiter, first)
        limiter.leave()
        place = asyncio.ensure_future(limiter.enter(limiter.run))
        assert await is_given(place)

    run(scene)


def test_a_wait_ends_at_its_very_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        now = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        limiter = Limiter(10)
        place = asyncio.ensure_future(limiter.enter(limiter.run, 1.0))
        assert not await is_given(place)
        now += 1.0
        assert await is_given(place)

    run(scene)


@pytest.mark.parametrize("is_given_first", [False, True])
def test_a_request_that_is_cancelled_keeps_no_place(is_given_first: bool) -> None:
    async def scene() -> None:
        limiter = Limiter(1)
        await fill(limiter, 1)
        first, second = (asyncio.ensure_future(limiter.enter(limiter.run)) for _ in range(2))
        await asyncio.sleep(0)
        if is_given_first:
            limiter.leave()
            first.cancel()
        else:
            first.cancel()
            await asyncio.sleep(0)
            limiter.leave()
        assert await is_given(second)

    run(scene)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("is_stop", [False, True])
def test_the_waits_of_a_run_end_and_it_begins_no_more(is_stop: bool) -> None:
    async def scene() -> None:
        stop = threading.Event()
        limiter = Limiter(1, stop)
        number = limiter.run
        await fill(limiter, 1)
        waits = [asyncio.ensure_future(limiter.enter(number, delay)) for delay in (0.0, 1000.0)]
        cancelled = asyncio.ensure_future(limiter.enter(number, 1000.0))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        stop.set() if is_stop else limiter.end_run()
        assert [await wait for wait in waits] == [0, 0]
        limiter.leave()
        assert await limiter.enter(number) == 0
        assert bool(await limiter.enter(limiter.run)) != is_stop

    run(scene)


def test_places_are_doubled_until_all_are_open_and_then_nothing_is_timed() -> None:
    async def scene() -> None:
        timers: list[Callable[[], None]] = []

        def add_timer(_: float, callback: Callable[[], None]) -> None:
            timers.append(callback)

        loop = asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_later", add_timer)
            for most, due in ((100, [16, 32, 64, 100]), (16, [16]), (3, [3])):
                limiter = Limiter(most)
                limits = [limiter.limit]
                while timers:
                    timers.pop()()
                    limits.append(limiter.limit)
                assert limits == [*due, most]  # the last timer finds that all are open

    run(scene)
