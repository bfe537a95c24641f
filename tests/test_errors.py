"""Errors are plain data: equal, picklable, small, and each explains itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeAlias, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen.errors import (
    GenerateError,
    InjectedToken,
    InvalidArgument,
    NoText,
    NotParsed,
    ParseFailed,
    Raised,
    RequestFailed,
    RequestReason,
    UnknownFormat,
    Unsupported,
    WrongCount,
    error_kind,
    explain,
    fold,
)

RAISED = Raised("TimeoutError", "no answer in 30 s")
AnyError: TypeAlias = GenerateError | ParseFailed | NoText

# Each error, what its explanation must name, and its short name.
ERRORS: list[tuple[AnyError, list[str], str]] = [
    (RAISED, ["TimeoutError", "no answer in 30 s"], "TimeoutError"),
    (Raised("KeyboardInterrupt", ""), ["KeyboardInterrupt"], "KeyboardInterrupt"),
    (
        InjectedToken("chatml", "<|im_end|>", "history[1].user", 7),
        ["chatml", "<|im_end|>", "history[1].user", "character 7", "remove it"],
        "injected_token",
    ),
    (Unsupported("gemma", "system"), ["gemma", "user text"], "unsupported"),
    (Unsupported("mistral-v7-tekken", "no system"), ["mistral-v7-tekken", "needs a system text"], "unsupported"),
    (Unsupported("qwen3-nothink", "thinking"), ["qwen3-nothink", "leave it out"], "unsupported"),
    (Unsupported("glm4.7", "no thinking"), ["glm4.7", "its reasoning"], "unsupported"),
    (Unsupported("codellama-70b", "training"), ["codellama-70b", "generation prompt"], "unsupported"),
    (Unsupported("alpaca", "history"), ["alpaca", "without history"], "unsupported"),
    (NotParsed("llama3", "it does not begin with its BOS"), ["llama3", "BOS"], "not_parsed"),
    (
        NotParsed("openai", "role is 'user' where 'assistant' must follow", 2),
        ["message 2", "'assistant'"],
        "not_parsed",
    ),
    (UnknownFormat("lama", ("llama2", "llama3")), ["'lama'", "'llama2' or 'llama3'", "FORMATS"], "unknown_format"),
    (UnknownFormat("?", ()), ["'?'", "FORMATS"], "unknown_format"),
    (Raised("TimeoutError", "no answer in 30 s", "format"), ["the format", "no answer in 30 s"], "TimeoutError"),
    (Raised("TimeoutError", "no answer", "prompt"), ["the prompt function", "no answer"], "TimeoutError"),
    (Raised("TimeoutError", "no answer in 30 s", "backend"), ["the backend", "no answer in 30 s"], "TimeoutError"),
    (Raised("ValueError", "no bar", "progress"), ["the progress callback", "no bar"], "ValueError"),
    (Raised("TimedOut", "No answer; wait."), ["TimedOut: No answer; wait."], "TimedOut"),
    (WrongCount("generations", 3, 1), ["1 generations", "3 were asked", "num_generations completions"], "wrong_count"),
    (WrongCount("rows", 2, 1), ["1 rows", "2 were asked", "one row a prompt"], "wrong_count"),
    (
        InvalidArgument("num_generations", 0, "it must be at least 1"),
        ["num_generations=0", "at least 1"],
        "invalid_argument",
    ),
    (ParseFailed(RAISED), ["does not parse: TimeoutError: no answer in 30 s."], "parse_failed"),
    (ParseFailed(Raised("KeyError", "")), ["does not parse: KeyError."], "parse_failed"),
    (ParseFailed("no JSON"), ["no JSON"], "parse_failed"),
    (NoText("max_tokens", "max_tokens was used up by reasoning"), ["max_tokens was used up"], "no_text"),
    (RequestFailed("status", "No key.", status=401), ["status 401: No key;", "OPENAI_API_KEY"], "status 401"),
    (RequestFailed("status", "", status=500), ["status 500", "(no message)"], "status 500"),
    (RequestFailed("status", "slow down", status=429), ["status 429", "concurrency"], "status 429"),
    (RequestFailed("error_object", "upstream", code="502"), ["error_object: upstream."], "error_object"),
    (RequestFailed("timeout", "no answer within 600 s"), ["600 s", "raise timeout"], "timeout"),
    (RequestFailed("connection", "refused"), ["refused", "base_url"], "connection"),
    (RequestFailed("redirect", "status 302 to http://b"), ["http://b", "trust that address"], "redirect"),
    (RequestFailed("too_long", "longer than 64 MiB"), ["64 MiB", "fewer tokens"], "too_long"),
    (RequestFailed("not_json", "it begins <html>"), ["<html>", "base_url"], "not_json"),
    (RequestFailed("no_choices", "'choices' is empty"), ["'choices' is empty"], "no_choices"),
    (RequestFailed("bad_choice", "'message' is null"), ["'message' is null"], "bad_choice"),
    (RequestFailed("not_sent", "no such proxy"), ["no such proxy"], "not_sent"),
    (RequestFailed("prompt_too_long", "9,000 of 8,192 tokens"), ["prompt_too_long: 9,000"], "prompt_too_long"),
    (RequestFailed("stopped", "it waited for a retry"), ["stopped", "retry"], "stopped"),
    (RequestFailed("no_line", "no file has it"), ["no file has it; put this row into the next batch"], "no_line"),
    (RequestFailed("cut_line", "the line ends early"), ["ends early; download"], "cut_line"),
    (RequestFailed("doubled_line", "two lines have it"), ["two lines have it; give each"], "doubled_line"),
    (RequestFailed("other_batch", "no such row"), ["no such row; the files are for other inputs"], "other_batch"),
    (RequestFailed("other", "the queue is full"), ["the queue is full"], "other"),
]


def test_each_reason_has_its_explanation_tested() -> None:
    shown = {error.reason for error, _, _ in ERRORS if isinstance(error, RequestFailed)}
    assert shown == set(get_args(RequestReason))


@pytest.mark.parametrize(("error", "named", "counted"), ERRORS)
def test_every_error_explains_itself(error: AnyError, named: list[str], counted: str) -> None:
    sentence = explain(error)
    assert [name for name in named if name not in sentence] == []
    assert "\n" not in sentence
    assert ".." not in sentence
    assert ".;" not in sentence
    assert sentence.endswith(".")
    assert error_kind(error) == counted


@pytest.mark.parametrize("error", [error for error, _, _ in ERRORS])
def test_every_error_pickles_and_compares(error: AnyError) -> None:
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


def test_an_exception_names_the_frames_it_came_through() -> None:
    def inner() -> None:
        raise KeyError("k")

    raised = Raised.of(raised_by(inner))
    assert raised == Raised("KeyError", "'k'")
    assert raised.trace.splitlines()[-1].endswith("in inner")
    assert __file__ in raised.trace


def test_an_exception_is_small_whatever_was_raised() -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        raise ValueError("x" * 10_000_000)

    raised = Raised.of(raised_by(lambda: dive(500)))
    assert raised.message.endswith("... (9998000 more characters)")
    assert len(raised.message) < 2_100
    assert len(raised.trace.splitlines()) == 12


def test_an_exception_of_an_exception_that_cannot_speak() -> None:
    assert Raised.of(Mute(ValueError("no words"))) == Raised(
        "tests.test_errors.Mute", "<its __str__ raised ValueError>"
    )
    with pytest.raises(KeyboardInterrupt):
        Raised.of(Mute(KeyboardInterrupt()))


def test_a_value_that_is_no_exception_is_kept_by_its_type_and_text() -> None:
    assert Raised.of("no reason", "prompt") == Raised("str", "no reason", "prompt")


def test_an_exception_names_its_causes_and_ends_in_a_circle_of_them() -> None:
    outer, inner = RuntimeError("connection error"), OSError("refused")
    outer.__cause__, inner.__cause__ = inner, outer
    assert Raised.of(outer).message == (
        "connection error (caused by OSError: refused) (caused by RuntimeError: connection error) "
        "(caused by OSError: refused)"
    )


@given(st.text(), st.sampled_from([ValueError, OSError, SystemExit, StopIteration, GeneratorExit]))
@settings(deadline=None)
def test_any_text_of_any_exception_is_kept(text: str, made: type[BaseException]) -> None:
    raised = Raised.of(made(text))
    assert raised.kind == made.__name__
    assert raised.message == str(made(text))
    assert pickle.loads(pickle.dumps(raised)) == raised


def test_fold_takes_the_one_way_that_is_open() -> None:
    assert fold(Success(3), lambda n: n + 1, len) == 4
    assert fold(Failure("abc"), lambda n: n + 1, len) == 3


def test_a_message_of_two_thousand_characters_is_whole() -> None:
    assert Raised.of("x" * 2_000).message == "x" * 2_000
    assert Raised.of("x" * 2_001).message == f"{'x' * 2_000} ... (1 more characters)"
