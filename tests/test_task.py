"""A Task is a profunctor: identity and composition hold on both sides, and `bind` is lawful on the one it reads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success, safe

from distgen import Prompt, Task, fold

number: Task[str, int] = Task(Prompt, safe(int))


def same(value: int) -> int:
    return value


def plus(value: int) -> int:
    return value + 1


def double(value: int) -> int:
    return value * 2


def sentence(value: int) -> str:
    return f"Say {value}"


def positive(value: int) -> Result[int, object]:
    return Success(value) if value > 0 else Failure(f"{value} is not positive")


def even(value: int) -> Result[int, object]:
    return Failure("odd") if value % 2 else Success(value)


def alike(one: Task[str, int], other: Task[str, int], text: str) -> bool:
    """Both ask and read alike; exceptions compare by their words."""

    def read(task: Task[str, int]) -> str:
        return repr(task.parse(text))

    return one.prompt(text) == other.prompt(text) and read(one) == read(other)


@given(st.integers().map(str) | st.text())
@settings(deadline=None)
def test_laws_of_map_bind_and_contramap(text: str) -> None:
    assert alike(number.map(same), number, text)
    assert alike(number.map(plus).map(double), number.map(lambda n: double(plus(n))), text)
    assert alike(number.contramap(str.strip).contramap(str.lower), number.contramap(lambda s: s.lower().strip()), text)
    assert alike(number.bind(Success), number, text)
    assert alike(number.bind(positive).bind(even), number.bind(lambda n: fold(positive(n), even, Failure)), text)
    assert alike(number.map(plus).contramap(str.strip), number.contramap(str.strip).map(plus), text)


def test_each_side_is_changed_alone() -> None:
    task = number.map(double).bind(positive).contramap(sentence)
    assert task.prompt(7) == Prompt("Say 7")
    assert task.parse("21") == Success(42)
    assert task.parse("-1") == Failure("-2 is not positive")
    assert isinstance(task.parse("x").failure(), ValueError)


def test_a_task_can_be_made_with_explicit_types() -> None:
    task = Task[str, str](Prompt, Success)
    assert task.parse("a") == Success("a")


def test_a_task_does_not_change() -> None:
    task = Task(Prompt, Success)
    with pytest.raises(AttributeError):
        task.parse = Success  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
