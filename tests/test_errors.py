"""Errors are plain data: equal, picklable, small, and each explains itself."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen import (
    InjectedToken,
    Raised,
    FormatError,
    GenerateError,
    InvalidArgument,
    NotParsed,
    Unsupported,
    ParseFailed,
    UnknownFormat,
    WrongCount,
    explain,
    fold,
    error_kind,
)

FAULT = Raised("TimeoutError", "no answer in 30 s")
# Each error, what its explanation must name, and what it is counted as.
ERRORS: list[tuple[FormatError | GenerateError | ParseFailed | Raised, list[str], str]] = [
    (FAULT, ["TimeoutError", "no answer in 30 s"], "TimeoutError"),
    (Raised("KeyboardInterrupt", ""), ["KeyboardInterrupt"], "KeyboardInterrupt"),
    (
        InjectedToken("chatml", "<|im_end|>", "history[1].user", 7),
        ["chatml", "<|im_end|>", "history[1].user", "character 7", "take it out"],
        "InjectedToken",
    ),
    (Unsupported("gemma", "system"), ["gemma", "user text"], "Unsupported"),
    (Unsupported("mistral-v7-tekken", "no system"), ["mistral-v7-tekken", "give one"], "Unsupported"),
    (Unsupported("qwen3-nothink", "thinking"), ["qwen3-nothink", "take the thinking out"], "Unsupported"),
    (Unsupported("qwq", "no thinking"), ["qwq", "</think>"], "Unsupported"),
    (Unsupported("alpaca", "history"), ["alpaca", "without history"], "Unsupported"),
    (NotParsed("llama3", "it does not begin with its BOS"), ["llama3", "BOS"], "NotParsed"),
    (NotParsed("openai", "role 'user' where 'assistant' is due", 2), ["at 2", "'assistant'"], "NotParsed"),
    (NotParsed("openai", "there is no user message"), ["openai", "no user message"], "NotParsed"),
    (UnknownFormat("lama", ("llama2", "llama3")), ["'lama'", "'llama2' or 'llama3'", "FORMATS"], "UnknownFormat"),
    (UnknownFormat("?", ()), ["'?'", "FORMATS"], "UnknownFormat"),
    (Raised("TimeoutError", "no answer in 30 s", "format"), ["The format", "no answer in 30 s"], "TimeoutError"),
    (
        Raised("TimeoutError", "no answer in 30 s", "prompt"),
        ["The prompt function", "no answer in 30 s"],
        "TimeoutError",
    ),
    (Raised("TimeoutError", "no answer in 30 s", "backend"), ["The backend", "no answer in 30 s"], "TimeoutError"),
    (Raised("ValueError", "no bar", "progress"), ["The progress callback", "no bar"], "ValueError"),
    (Raised("TimedOut", "No answer; wait."), ["TimedOut: No answer; wait."], "TimedOut"),
    (ParseFailed(Raised("ValueError", "No number.")), ["ValueError: No number; its text"], "ParseFailed"),
    (WrongCount("generations", 3, 1), ["1 generations", "3 were asked"], "WrongCount"),
    (
        InvalidArgument("num_generations", 0, "it must be 1 or more"),
        ["num_generations=0", "1 or more"],
        "InvalidArgument",
    ),
    (ParseFailed(FAULT), ["TimeoutError", "completion.text"], "ParseFailed"),
    (ParseFailed(Raised("KeyError", "")), ["parse: KeyError; its text"], "ParseFailed"),
    (ParseFailed("no JSON"), ["no JSON", "completion.text"], "ParseFailed"),
]


@pytest.mark.parametrize(("error", "named", "counted"), ERRORS)
def test_every_error_explains_itself(
    error: FormatError | GenerateError | ParseFailed | Raised, named: list[str], counted: str
) -> None:
    sentence = explain(error)
    assert [name for name in named if name not in sentence] == []
    assert "\n" not in sentence
    assert ".." not in sentence
    assert ".;" not in sentence
    assert error_kind(error) == counted


@pytest.mark.parametrize("error", [error for error, _, _ in ERRORS])
def test_every_error_pickles_and_compares(error: FormatError | GenerateError | ParseFailed | Raised) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert copy == error
    assert hash(copy) == hash(error)
    with pytest.raises((AttributeError, TypeError)):
        error.extra = 1  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


class Mute(Exception):
    def __init__(self, why: BaseException) -> None:
        self.why = why

    def __str__(self) -> str:
        raise self.why


def raised_by(fn: Callable[[], object]) -> BaseException:
    try:
        fn()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def test_a_fault_names_the_frames_it_came_through() -> None:
    def inner() -> None:
        raise KeyError("k")

    fault = Raised.of(raised_by(inner))
    assert fault == Raised("KeyError", "'k'")
    assert fault.trace.splitlines()[-1].endswith("in inner")
    assert __file__ in fault.trace


def test_a_fault_is_small_whatever_was_raised() -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        raise ValueError("x" * 10_000_000)

    fault = Raised.of(raised_by(lambda: dive(500)))
    assert fault.message.endswith("... (9998000 more characters)")
    assert len(fault.message) < 2_100
    assert len(fault.trace.splitlines()) == 12


@pytest.mark.parametrize("why", [ValueError("no words"), SystemExit(), asyncio.CancelledError()], ids=repr)
def test_a_fault_of_an_exception_that_cannot_speak(why: BaseException) -> None:
    assert Raised.of(Mute(why)) == Raised("tests.test_errors.Mute", f"<its __str__ raised {type(why).__name__}>")
    with pytest.raises(KeyboardInterrupt):
        Raised.of(Mute(KeyboardInterrupt()))


def test_a_fault_of_code_that_is_in_no_module() -> None:
    fault = Raised.of(raised_by(lambda: exec("1 / 0", {"__name__": None})))
    assert fault.trace.endswith("<string>:1 in <module>")


def test_a_fault_names_its_causes_and_ends_in_a_circle_of_them() -> None:
    outer, inner = RuntimeError("connection error"), OSError("refused")
    outer.__cause__, inner.__cause__ = inner, outer
    assert Raised.of(outer).message == (
        "connection error (caused by OSError: refused) (caused by RuntimeError: connection error) "
        "(caused by OSError: refused)"
    )


@given(st.text(), st.sampled_from([ValueError, OSError, SystemExit, StopIteration, GeneratorExit]))
def test_any_text_of_any_exception_is_kept(text: str, made: type[BaseException]) -> None:
    fault = Raised.of(made(text))
    assert fault.kind == made.__name__
    assert fault.message == str(made(text))
    assert pickle.loads(pickle.dumps(fault)) == fault


def test_fold_takes_the_one_way_that_is_open() -> None:
    assert fold(Success(3), lambda n: n + 1, len) == 4
    assert fold(Failure("abc"), lambda n: n + 1, len) == 3
