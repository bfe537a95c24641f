"""`each` lifts a function of one prompt, and isolates its rows by itself."""

from __future__ import annotations

import pickle

import pytest
from returns.result import Failure

from distgen import Completion, Raised, Usage, each


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


def test_an_interrupt_is_no_answer() -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        each(interrupted)(["a"], 1)


def test_what_it_gives_can_go_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(each(answer)))(["one"], 1) == [[Completion("1")]]
