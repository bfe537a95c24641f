"""Completions are plain values; `split_reasoning` takes a thinking block off a text."""

from __future__ import annotations

import pickle

import pytest

from distgen.completion import Completion, TokenLogprob, ToolCall, Usage, split_reasoning


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>2 and 2</think>\n4", "2 and 2", "4"),
        ("<think>\n2 and 2\n</think>\n\n4", "2 and 2", "4"),
        ("\n<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think></think>4", "", "4"),
        ("<think>2 and", "2 and", ""),
        ("4", None, "4"),
        ("", None, ""),
        ("Say <think>4</think>", None, "Say <think>4</think>"),
    ],
)
def test_reasoning_is_split_off_the_start_of_a_text(text: str, reasoning: str | None, answer: str) -> None:
    assert split_reasoning(text) == (reasoning, answer)


def test_a_completion_is_hashed_without_its_extra() -> None:
    completion = Completion(
        "4", "stop", Usage(9, 12), tool_calls=(ToolCall("1", "add", "{}"),), extra={"id": "chatcmpl-7", "list": []}
    )
    copy = pickle.loads(pickle.dumps(completion))
    assert copy == completion
    assert hash(copy) == hash(completion)
    assert "chatcmpl-7" not in repr(completion)
    assert Completion("4", extra={"id": "a"}) != Completion("4")


def test_log_probabilities_are_not_shown() -> None:
    assert "logprobs" not in repr(Completion("4", logprobs=(TokenLogprob("4", -0.5),)))
