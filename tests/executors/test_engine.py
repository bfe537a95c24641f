"""The engine against a model of its laws: random schedules of answers, faults, interrupts, pulls and closes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence, Set
from typing import Final, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distgen import Batch, Completion, Threads
from distgen.errors import Raised, WrongCount
from distgen.executors import CallResult, Stream
from distgen.executors.call import Call
from distgen.executors.engine import Deliver, Inbox, Steps, Submit, Window, run_bounded

P = TypeVar("P")

ANSWERS: Final[Sequence[CallResult]] = [
    ((Completion("ok"),),),
    (Raised("TimeoutError", "no answer in 30 s"),),
    (WrongCount("generations", 1, 0),),
]


def pair(index: int, rows: Sequence[int], result: CallResult) -> list[tuple[int, int, CallResult]]:
    return [(index, rows[0], result)]


def call_of(rows: Sequence[int]) -> Call[int, Batch]:
    return Call(never_asked, rows, 1)


def never_asked(prompts: Sequence[int], num_generations: int) -> Batch:
    raise AssertionError(f"the double answers {prompts} itself, {num_generations} times")


class Scheduled:
    """A double of an executor: keeps what is handed over, until the test answers it; some it answers at once."""

    def __init__(self, in_flight: int, buffer: int, at_once: Set[int] = frozenset()) -> None:
        self.in_flight, self.buffer, self.at_once = in_flight, buffer, at_once
        self.pending: dict[int, Sequence[object]] = {}
        self.deliver: Deliver = Inbox().put
        self.entered = self.left = 0

    def session(self, deliver: Deliver, /) -> Scheduled:
        self.deliver = deliver
        return self

    def __enter__(self) -> Submit[Batch]:
        self.entered += 1
        return self.submit

    def __exit__(self, *_: object) -> None:
        self.left += 1

    def submit(self, index: int, call: Call[P, Batch], /) -> None:
        assert self.entered == 1
        assert self.left == 0
        assert index not in self.pending
        self.pending[index] = call.prompts
        if index in self.at_once:
            self.answer(index, ANSWERS[0])

    def answer(self, index: int, answer: CallResult | KeyboardInterrupt) -> None:
        del self.pending[index]
        self.deliver((index, answer))


def test_out_of_order_an_answer_that_waits_for_its_consumer_keeps_its_place() -> None:
    window = Window(Scheduled(2, 9), iter("abcd"), 1, False)
    assert [window.pull() for _ in range(3)] == [(0, ["a"]), (1, ["b"]), None]
    window.receive([(1, ANSWERS[0])])
    assert window.pull() is None
    assert window.pop_ready() == (1, ["b"], ANSWERS[0])
    assert window.pull() == (2, ["c"])


class Schedules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pulled = 0
        self.yielded: dict[int, CallResult] = {}
        self.answered: dict[int, CallResult] = {}
        self.interrupted = self.over = False

    @initialize(
        limit=st.integers(-1, 5),
        buffer=st.integers(-1, 5),
        in_order=st.booleans(),
        length=st.integers(0, 30),
        raises=st.booleans(),
        empty=st.sets(st.integers(0, 30), max_size=5),
        at_once=st.sets(st.integers(0, 30), max_size=9),
    )
    def begin(
        self, limit: int, buffer: int, in_order: bool, length: int, raises: bool, empty: set[int], at_once: set[int]
    ) -> None:
        self.executor = Scheduled(limit, buffer, at_once)
        self.limit, self.buffer = max(1, limit), max(0, buffer) if in_order else 0
        self.in_order, self.length, self.raises, self.empty = in_order, length, raises, empty
        self.steps: Steps[tuple[int, int, CallResult]] = run_bounded(
            self.executor, Window(self.executor, self.rows(), 1, in_order), self.make_call, pair, Inbox()
        )

    def make_call(self, rows: Sequence[int]) -> Call[int, Batch]:
        return Call(never_asked, [row for row in rows if row not in self.empty], 1)

    def rows(self) -> Iterator[int]:
        for index in range(self.length):
            self.pulled += 1
            if index in self.empty:
                self.answered[index] = ()
            elif index in self.executor.at_once:
                self.answered[index] = ANSWERS[0]
            yield index
        if self.raises:
            raise OSError("the disk is gone")

    @precondition(lambda self: not self.over)
    @rule()
    def pull(self) -> None:
        due = len(self.yielded)
        try:
            step = next(self.steps)
        except StopIteration:
            assert not self.raises
            self.ends_whole()
        except OSError:
            assert self.raises
            self.ends_whole()
        except KeyboardInterrupt:
            assert self.interrupted
            self.over = True
        else:
            assert not self.interrupted
            if step is None:
                assert self.executor.pending
                ready = set(self.answered) - set(self.yielded)
                assert due not in self.answered if self.in_order else not ready
                room = self.limit - max(0, len(ready) - self.buffer)
                assert self.pulled == self.length or len(self.executor.pending) >= room
            else:
                index, value, answer = step
                assert value == index
                assert index not in self.yielded
                assert answer == self.answered[index]
                assert index == due or not self.in_order
                self.yielded[index] = answer

    def ends_whole(self) -> None:
        assert not self.interrupted
        assert sorted(self.yielded) == list(range(self.length))
        self.over = True

    @precondition(lambda self: not self.over and self.executor.pending)
    @rule(which=st.integers(0), answer=st.sampled_from(ANSWERS))
    def answer(self, which: int, answer: CallResult) -> None:
        index = list(self.executor.pending)[which % len(self.executor.pending)]
        self.answered[index] = answer
        self.executor.answer(index, answer)

    @precondition(lambda self: not self.over and not self.interrupted and self.executor.pending)
    @rule(which=st.integers(0))
    def interrupt(self, which: int) -> None:
        self.interrupted = True
        index = list(self.executor.pending)[which % len(self.executor.pending)]
        self.executor.answer(index, KeyboardInterrupt())

    @rule()
    def close(self) -> None:
        self.steps.close()
        self.over = True

    @invariant()
    def the_window_is_bounded(self) -> None:
        if hasattr(self, "executor"):
            assert len(self.executor.pending) <= self.limit
            assert self.pulled - len(self.yielded) <= self.limit + self.buffer

    @invariant()
    def what_is_over_is_left_and_yields_nothing(self) -> None:
        if self.over:
            assert self.executor.left == self.executor.entered <= 1
            assert next(self.steps, "no more") == "no more"


TestSchedules = pytest.mark.no_cover(Schedules.TestCase)
TestSchedules.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_a_session_that_does_not_open_answers_every_call() -> None:
    fault = Raised("ValueError", "max_workers must be at least 1, got 0")
    inbox = Inbox()
    assert list(Stream(inbox, run_bounded(Threads(0), Window(Threads(0), [7, 8], 1, True), call_of, pair, inbox))) == [
        (0, 7, (fault,)),
        (1, 8, (fault,)),
    ]


def test_at_the_end_of_the_interpreter_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Scheduled(1, 0)
    steps = run_bounded(executor, Window(executor, [7], 1, True), call_of, pair, Inbox())
    assert next(steps) is None
    monkeypatch.setattr("sys.is_finalizing", lambda: True)
    steps.close()
    assert (executor.entered, executor.left) == (1, 0)


def test_a_loop_that_is_closed_is_no_longer_woken() -> None:
    inbox = Inbox()
    waiting = inbox.wait_async()

    async def begin() -> None:
        waiting.send(None)

    asyncio.run(begin())
    inbox.put((0, ()))
    assert inbox.drain() == [(0, ())]
    waiting.close()


def test_a_wait_for_nothing_ends_so_that_a_signal_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.executors.engine._LONGEST_WAIT", 0.01)
    inbox = Inbox()
    inbox.wait()
    assert inbox.drain() == []


def test_what_came_before_is_not_waited_for() -> None:
    inbox = Inbox()
    inbox.put((0, ()))
    asyncio.run(inbox.wait_async())
    assert inbox.drain() == [(0, ())]
