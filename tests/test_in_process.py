"""What models in process have in common, without any model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distgen.backends.in_process import Answer, Reader, Sampling, encoded, sampling
from distgen.backends.params import Params
from distgen.completion import Completion, Usage
from distgen.errors import Raised
from distgen.prompt import Rendered, Segment


def code_points(text: str, is_control: bool) -> list[int]:
    text.encode()
    return [ord(character) + (0 if is_control else 1000) for character in text]


def spelled(tokens: list[int]) -> str:
    return "".join(map(chr, tokens))


def never(_: int) -> bool:
    return False


def test_parameters_are_read() -> None:
    assert sampling(None) == sampling({}) == Sampling()
    params: Params = {"temperature": 0.5, "top_p": 1, "max_tokens": 3, "stop": ["a", "b"], "seed": 0}
    assert sampling(params) == Sampling(0.5, 1, 3, ("a", "b"), 0)
    assert sampling({"presence_penalty": 1}, also=("presence_penalty",)) == Sampling()


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"stop": ["END", ""]}, "stop"),
        ({"stop": ["END", 1]}, "stop"),
        ({"stop": 5}, "stop"),
    ],
)
def test_what_cannot_be_heeded_is_named(params: Params, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        sampling(params)


def test_segments_are_encoded_apart() -> None:
    assert encoded("ab", code_points, 9) == [97, 98]
    assert encoded((Segment("a", True), Segment("b", False)), code_points, 9) == [97, 1098]


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("", "EmptyPrompt"),
        ((), "EmptyPrompt"),
        ("abcd", "PromptTooLong"),
        ((Segment("ab", True), Segment("cd", False)), "PromptTooLong"),
        ("\ud800", "UnicodeEncodeError"),
        ((Segment("a", True), Segment("\udfff", False)), "UnicodeEncodeError"),
    ],
)
def test_a_prompt_that_cannot_be_answered_says_why(prompt: Rendered, kind: str) -> None:
    refused = encoded(prompt, code_points, 4)
    assert isinstance(refused, Raised)
    assert refused.kind == kind
    assert encoded("abc", code_points, 4) == [97, 98, 99]


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_an_answer_ends_where_a_stop_first_stands(text: str, stops: list[str]) -> None:
    reader, answer = Reader(spelled, never, tuple(stops)), Answer([0], room=1000)
    for character in text:
        reader.take(answer, ord(character))
    ends = [end for end in range(1, len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    [completion] = reader.row([answer])
    if not ends:
        assert completion == Completion(text, None, Usage(1, len(text)))
        return
    whole = text[: ends[0]]
    assert completion.finish_reason == "stop"
    assert completion.usage == Usage(1, len(whole))
    assert completion.text == whole[: min(whole.index(stop) for stop in stops if stop in whole)]


def test_an_end_is_no_text_and_lack_of_room_is_said() -> None:
    reader = Reader(spelled, (0).__eq__, ())
    ended, cut_off = Answer([1, 2, 3], room=9), Answer([1, 2, 3], room=2)
    for token in (97, 98, 0, 99):
        reader.take(ended, token)
        reader.take(cut_off, token)
    assert reader.row([ended, cut_off]) == [
        Completion("ab", "stop", Usage(3, 3)),
        Completion("ab", "length", Usage(0, 2)),
    ]
