"""Prompts cannot hold an ill-formed conversation, and messages that are one are refused by name."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen import Exchange, NotParsed, Prompt

texts = st.text(st.characters(exclude_categories=()))
prompts = st.builds(
    Prompt, texts, st.none() | texts, st.lists(st.builds(Exchange, texts, texts), max_size=4).map(tuple)
)


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """The messages of a prompt, written out here by hand: the other side of `from_messages`."""
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    turns = [
        {"role": role, "content": content}
        for exchange in prompt.history
        for role, content in (("user", exchange.user), ("assistant", exchange.assistant))
    ]
    return [*system, *turns, {"role": "user", "content": prompt.user}]


@given(prompts)
def test_messages_are_read_back(prompt: Prompt) -> None:
    assert Prompt.from_messages(messages_of(prompt)) == Success(prompt)
    assert Prompt.from_messages(iter(messages_of(prompt))) == Success(prompt)
    assert pickle.loads(pickle.dumps(prompt)) == prompt
    assert hash(prompt) == hash(pickle.loads(pickle.dumps(prompt)))


def said(*roles: str) -> list[dict[str, object]]:
    return [{"role": role, "content": f"{role} {index}"} for index, role in enumerate(roles)]


@pytest.mark.parametrize(
    ("messages", "index", "reason"),
    [
        ([], None, "there is no user message"),
        (said("system"), None, "there is no user message"),
        (said("user", "user"), 1, "role 'user' where 'assistant' is due"),
        (said("assistant", "user"), 0, "role 'assistant' where 'user' is due"),
        (said("user", "assistant"), 1, "role 'assistant' is last, where the question to answer is due"),
        (said("user", "assistant", "system", "user"), 2, "role 'system' where 'user' is due"),
        (said("system", "system", "user"), 1, "role 'system' where 'user' is due"),
        (said("developer", "user"), 0, "role 'developer' where 'user' is due"),
        ([{"content": "hi"}], 0, "role None where 'user' is due"),
        ([{"role": "user"}], 0, "'content' is NoneType, not text"),
        ([{"role": "user", "content": None}], 0, "'content' is NoneType, not text"),
        ([{"role": "user", "content": 7}], 0, "'content' is int, not text"),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], 0, "'content' is list, not text"),
        ([{"role": ["user"], "content": "hi"}], 0, "role ['user'] where 'user' is due"),
        ([{"role": "user", "content": "hi", "name": "Ann"}], 0, "'name' says more than a Prompt can hold"),
        (
            [*said("user"), {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, *said("user")],
            1,
            "'tool_calls' says more than a Prompt can hold",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(
    messages: list[dict[str, object]], index: int | None, reason: str
) -> None:
    assert Prompt.from_messages(messages) == Failure(NotParsed("openai", reason, index))


def test_keys_that_say_nothing_are_no_hindrance() -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "hi", "name": None, "tool_calls": [], "id": 7}]
    assert Prompt.from_messages(messages) == Success(Prompt("hi"))


def test_a_prompt_does_not_change() -> None:
    prompt = Prompt("hi")
    with pytest.raises(AttributeError):
        prompt.user = "bye"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
