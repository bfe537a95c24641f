"""Prompts cannot hold an ill-formed conversation, and messages that are one are refused by name."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen.errors import NotParsed
from distgen.prompt import Exchange, Prompt

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
@settings(deadline=None)
def test_messages_are_read_back(prompt: Prompt) -> None:
    assert Prompt.from_messages(messages_of(prompt)) == Success(prompt)
    assert Prompt.from_messages(iter(messages_of(prompt))) == Success(prompt)
    assert pickle.loads(pickle.dumps(prompt)) == prompt
    assert hash(prompt) == hash(pickle.loads(pickle.dumps(prompt)))


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
REFUSAL = {"type": "refusal", "text": "no"}


def said(*roles: str) -> list[dict[str, object]]:
    return [{"role": role, "content": f"{role} {index}"} for index, role in enumerate(roles)]


@pytest.mark.parametrize(
    ("messages", "index", "reason"),
    [
        ([], None, "there is no user message"),
        (said("system"), None, "there is no user message"),
        (said("user", "user"), 1, "role is 'user' where 'assistant' must follow"),
        (said("assistant", "user"), 0, "role is 'assistant' where 'user' must follow"),
        (said("user", "assistant"), 1, "the last message must be the user's"),
        (said("user", "assistant", "system", "user"), 2, "role is 'system' where 'user' must follow"),
        (said("system", "system", "user"), 1, "role is 'system' where 'user' must follow"),
        (said("user", "assistant", "developer", "user"), 2, "role is 'developer' where 'user' must follow"),
        ([*said("user"), "hi"], 1, "the message is str, not an object with 'role' and 'content'"),
        ([{"content": "hi"}], 0, "role is None where 'user' must follow"),
        ([{"role": "user"}], 0, "'content' is null, not text"),
        ([{"role": "user", "content": None}], 0, "'content' is null, not text"),
        ([{"role": "user", "content": 7}], 0, "'content' is int, not text"),
        ([{"role": "user", "content": [IMAGE]}], 0, "a Prompt cannot hold a content part of type 'image_url'"),
        ([{"role": "user", "content": ["hi"]}], 0, "a Prompt cannot hold a content part of type 'str'"),
        ([{"role": "user", "content": [REFUSAL]}], 0, "a Prompt cannot hold a content part of type 'refusal'"),
        ([{"role": "user", "content": [{"type": "text"}]}], 0, "a Prompt cannot hold a content part of type 'text'"),
        ([{"role": ["user"], "content": "hi"}], 0, "role is ['user'] where 'user' must follow"),
        ([{"role": "user", "content": "hi", "name": "Ann"}], 0, "a Prompt cannot hold 'name'"),
        (
            [*said("user"), {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, *said("user")],
            1,
            "a Prompt cannot hold 'tool_calls'",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(
    messages: list[Mapping[str, object]], index: int | None, reason: str
) -> None:
    assert Prompt.from_messages(messages) == Failure(NotParsed("openai", reason, index))


def test_keys_that_say_nothing_are_no_hindrance() -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "hi", "name": None, "tool_calls": [], "id": 7}]
    assert Prompt.from_messages(messages) == Success(Prompt("hi"))


def test_a_prompt_does_not_change() -> None:
    prompt = Prompt("hi")
    with pytest.raises(AttributeError):
        prompt.user = "bye"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_developer_message_is_a_system_message() -> None:
    assert Prompt.from_messages(said("developer", "user")) == Success(Prompt("user 1", system="developer 0"))


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    assert Prompt.from_messages([{"role": "user", "content": parts}]) == Success(Prompt("Hi there"))


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "reasoning_details", "thinking", "images"])
def test_reasoning_and_images_of_a_message_are_never_dropped(key: str) -> None:
    answer = {"role": "assistant", "content": "a", key: ["because"]}
    failure = Prompt.from_messages([*said("user"), answer, *said("user")])
    assert failure == Failure(NotParsed("openai", f"a Prompt cannot hold {key!r}", 1))


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "thinking"])
def test_the_reasoning_of_an_answer_is_read(key: str) -> None:
    answer = {"role": "assistant", "content": "a", "reasoning": "", "reasoning_content": None, key: "because"}
    read = Prompt.from_messages([*said("user"), answer, *said("user", "assistant", "user")]).unwrap()
    assert [exchange.reasoning for exchange in read.history] == ["because", None]
    assert list(read.texts())[1:3] == [("history[0].reasoning", "because"), ("history[0].assistant", "a")]
    without = Prompt.from_messages([*said("user"), {**answer, key: ""}, *said("user")]).unwrap()
    assert without.history[0].reasoning is None
    user = {"role": "user", "content": "a", key: "because"}
    assert Prompt.from_messages([user]) == Failure(NotParsed("openai", f"a Prompt cannot hold {key!r}", 0))


NOT_TEXT: list[tuple[Callable[..., object], tuple[object, ...], str]] = [
    (Prompt, (["part"],), "Prompt.user must be str, got list"),
    (Prompt, (None,), "Prompt.user must be str, got NoneType"),
    (Prompt, ("hi", 7), "Prompt.system must be str, got int"),
    (Prompt, ("hi", None, []), "Prompt.history must be tuple, got list"),
    (Prompt, ("hi", None, (("q", "a"),)), "Prompt.history[0] must be Exchange, got tuple"),
    (Exchange, (b"q", "a"), "Exchange.user must be str, got bytes"),
    (Exchange, ("q", None), "Exchange.assistant must be str, got NoneType"),
    (Exchange, ("q", "a", 1), "Exchange.reasoning must be str, got int"),
]


@pytest.mark.parametrize(("made", "arguments", "message"), NOT_TEXT)
def test_what_is_not_text_is_a_type_error(
    made: Callable[..., object], arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        made(*arguments)
