"""`each` makes a backend of a function of one prompt, and its rows fail alone."""

from __future__ import annotations

import pickle

import pytest
from returns.result import Failure

from distgen.backends import each
from distgen.completion import Completion, Usage
from distgen.errors import Raised


def answer(prompt: str) -> str:
    return {"one": "1", "two": "2"}[prompt]


def test_each_asks_once_a_generation() -> None:
    asked: list[str] = []

    def fn(prompt: str) -> Completion:
        asked.append(prompt)
        return Completion(str(len(asked)), "stop", Usage(1, 2))

    assert each(fn)(["a", "b"], 2) == [
        [Completion("1", "stop", Usage(1, 2)), Completion("2", "stop", Usage(1, 2))],
        [Completion("3", "stop", Usage(1, 2)), Completion("4", "stop", Usage(1, 2))],
    ]
    assert asked == ["a", "a", "b", "b"]
    assert each(fn)([], 3) == []


def test_a_prompt_on_which_it_raises_fails_alone() -> None:
    assert each(answer)(["one", "three", "two"], 1) == [
        [Completion("1")],
        Failure(Raised("KeyError", "'three'")),
        [Completion("2")],
    ]


def test_completions_that_came_before_it_raised_are_kept() -> None:
    answers = iter(["1", "2"])
    row = each(lambda _: next(answers))(["a"], 3)[0]
    assert row == Failure(Raised("StopIteration", "", completions=(Completion("1"), Completion("2"))))


def test_an_interrupt_is_no_answer() -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        each(interrupted)(["a"], 1)


def test_what_it_gives_can_go_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(each(answer)))(["one"], 1) == [[Completion("1")]]
