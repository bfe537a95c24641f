"""Prompts: a `Prompt`, which cannot hold an ill-formed conversation, and OpenAI-style `Messages`.

The formats in `distgen.formats` render a Prompt for a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Final, Literal, NamedTuple, TypeAlias, TypedDict, TypeGuard, TypeVar, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, NotParsed

P = TypeVar("P")

# Keys of a message with content that a Prompt cannot hold. Other keys ("id", "timestamp") are about the message and say
# nothing to a model. Source: OpenAI API reference, "Create chat completion", messages.
_OPENAI_KEYS: Final = ("name", "tool_calls", "tool_call_id", "function_call", "audio", "refusal")
# Sources: the documents of OpenRouter ("reasoning_details") and Ollama ("images").
_OTHER_KEYS: Final = ("reasoning_details", "images")
# Sources: the documents of vLLM and OpenRouter ("reasoning"), DeepSeek ("reasoning_content") and Ollama ("thinking").
_REASONING_KEYS: Final = ("reasoning", "reasoning_content", "thinking")


class Message(TypedDict):
    """One message of a chat completions request, {"role": ..., "content": ...}."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages: TypeAlias = list[Message]
"""A conversation in the form of the OpenAI API."""


class Segment(NamedTuple):
    """A piece of a rendered prompt: a literal of the format (`is_control`), or a text that must not be parsed for special tokens."""

    text: str
    is_control: bool


Rendered: TypeAlias = str | tuple[Segment, ...]
"""A rendered prompt: one string, or segments whose texts must not be parsed for special tokens."""


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """A past exchange: a text of the user, the assistant's answer, and the reasoning before that answer, if it was kept.

    A format writes past reasoning or drops it, as its model's template does, or refuses the prompt.
    """

    user: str
    assistant: str
    reasoning: str | None = None

    def __post_init__(self) -> None:
        _check_type("Exchange.user", self.user, str)
        _check_type("Exchange.assistant", self.assistant, str)
        _check_type("Exchange.reasoning", self.reasoning, str, NoneType)


@final
@dataclass(frozen=True, slots=True)
class Prompt:
    """The user's text, after an optional system text and past exchanges, oldest first.

    `system=None` is no system text; `system=""` is an empty one, and most formats render the two differently. A value of
    another type raises a TypeError that names the field: a None in a data set must not be rendered as "None".

    >>> Prompt("And of Chile?", system="Be brief.", history=(Exchange("Capital of Peru?", "Lima."),)).user
    'And of Chile?'
    """

    user: str
    system: str | None = None
    history: tuple[Exchange, ...] = ()

    def __post_init__(self) -> None:
        _check_type("Prompt.user", self.user, str)
        _check_type("Prompt.system", self.system, str, NoneType)
        _check_type("Prompt.history", self.history, tuple)
        for index, exchange in enumerate(self.history):
            _check_type(f"Prompt.history[{index}]", exchange, Exchange)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each text and the text, in reading order.

        >>> list(Prompt("And of Chile?", history=(Exchange("Capital of Peru?", "Lima."),)).texts())
        [('history[0].user', 'Capital of Peru?'), ('history[0].assistant', 'Lima.'), ('user', 'And of Chile?')]
        """
        if self.system is not None:
            yield "system", self.system
        for index, exchange in enumerate(self.history):
            yield f"history[{index}].user", exchange.user
            if exchange.reasoning is not None:
                yield f"history[{index}].reasoning", exchange.reasoning
            yield f"history[{index}].assistant", exchange.assistant
        yield "user", self.user

    @staticmethod
    def from_messages(messages: Iterable[Mapping[str, object]]) -> Result[Prompt, NotParsed]:
        """Read OpenAI-style messages: at most one system message, first; then user and assistant in turn, user last.

        Role "developer" is "system", and a list of text parts is their concatenation. The reasoning of an answer is its
        "reasoning", "reasoning_content" or "thinking". Anything else is `NotParsed`, naming the message: no message or part is
        dropped, merged or moved.

        >>> Prompt.from_messages([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
        <Success: Prompt(user='Hi', system='Be brief.', history=())>
        >>> Prompt.from_messages([{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hello?"}])
        <Failure: NotParsed(format='openai', reason="role is 'user' where 'assistant' must follow", index=1)>
        """
        system: str | None = None
        turns: list[str] = []
        thoughts: list[str | None] = []
        index: int | None = None
        for index, message in enumerate(messages):
            content = _read_content(message)
            if isinstance(content, Failure):
                return Failure(NotParsed("openai", content.failure(), index))
            role, text = message.get("role"), content.unwrap()
            expected = "assistant" if len(turns) % 2 else "user"
            if index == 0 and role in ("system", "developer"):
                system = text
            elif role == expected:
                turns.append(text)
                thoughts.append(_read_reasoning(message))
            else:
                return Failure(NotParsed("openai", f"role is {role!r} where {expected!r} must follow", index))
        if not turns:
            return Failure(NotParsed("openai", "there is no user message"))
        if len(turns) % 2 == 0:
            return Failure(NotParsed("openai", "the last message must be the user's", index))
        history = tuple(map(Exchange, turns[::2], turns[1::2], thoughts[1::2]))
        return Success(Prompt(turns[-1], system, history))


Formatter: TypeAlias = Callable[[Prompt], Result[P, FormatError]]
"""A pure function that renders a prompt as P, the type that the backend takes. It never raises."""


def _read_content(message: object) -> Result[str, str]:
    """Return the text of a message, or why there is none."""
    if not is_object(message):
        return Failure(f"the message is {_type_name(message)}, not an object with 'role' and 'content'")
    for key in (*_OPENAI_KEYS, *_OTHER_KEYS, *_REASONING_KEYS):
        is_past = key in _REASONING_KEYS and message.get("role") == "assistant" and isinstance(message.get(key), str)
        if message.get(key) and not is_past:
            return Failure(f"a Prompt cannot hold {key!r}")
    content = message.get("content")
    if isinstance(content, str):
        return Success(content)
    if not is_array(content):
        return Failure(f"'content' is {_type_name(content)}, not text")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if is_object(part) else _type_name(part)
        text = part.get("text") if is_object(part) and kind == "text" else None
        if not isinstance(text, str):
            return Failure(f"a Prompt cannot hold a content part of type {kind!r}")
        texts.append(text)
    return Success("".join(texts))


def _read_reasoning(message: Mapping[str, object]) -> str | None:
    """Return the reasoning of a message; None if it has none. A server may give the same under several keys."""
    found = (message.get(key) for key in _REASONING_KEYS)
    return next((value for value in found if isinstance(value, str) and value), None)


def is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    """Return True for a JSON object."""
    return isinstance(value, Mapping)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Return True for a JSON array."""
    return isinstance(value, list)


def _type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _check_type(name: str, value: object, *expected: type) -> None:
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be {expected[0].__name__}, got {type(value).__name__}")
