"""The laws of a backend's shape: a wrong count shifts no row, and a batch that fails is asked again row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from returns.result import Success

from distgen import Batch, Completion
from distgen.errors import Raised, WrongCount
from distgen.executors.call import Call, call_backend


def answering(asked: list[list[str]], together: Callable[[], Batch]) -> Call[str, Batch]:
    """A call of two rows, "a" and "b", answered alone with themselves, together as told; each asking is noted."""

    def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        asked.append(list(prompts))
        return together() if len(prompts) > 1 else [[Completion(prompts[0])] * num_generations]

    return Call(backend, ["a", "b"], 1)


@pytest.mark.parametrize("whole", [(), [[Completion("a")]], [[Completion("x")]] * 3], ids=["none", "short", "long"])
def test_a_batch_of_another_length_is_asked_again_row_by_row(whole: Batch) -> None:
    asked: list[list[str]] = []
    assert call_backend(answering(asked, lambda: whole)) == ((Completion("a"),), (Completion("b"),))
    assert asked == [["a", "b"], ["a"], ["b"]]


def test_a_good_batch_is_asked_once() -> None:
    asked: list[list[str]] = []
    both: Batch = [[Completion("a")], Success([Completion("b")])]
    assert call_backend(answering(asked, lambda: both)) == ((Completion("a"),), (Completion("b"),))
    assert asked == [["a", "b"]]


def test_a_row_of_another_length_is_not_asked_again() -> None:
    asked: list[list[str]] = []
    both: Batch = [[Completion("a")] * 2, Success([Completion("b")])]
    assert call_backend(answering(asked, lambda: both)) == (
        WrongCount("generations", 1, 2, (Completion("a"),) * 2),
        (Completion("b"),),
    )
    assert asked == [["a", "b"]]


def test_a_failed_call_has_a_failure_for_each_row() -> None:
    fault = Raised("Refused", "no")
    assert answering([], list).failed(fault) == (fault, fault)
