"""What is said to a model: a `Prompt`, which cannot hold an ill-formed conversation, and OpenAI-style `Messages`.

Nothing here knows how a model wants to be spoken to; that is `distgen.formats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, TypedDict, final

from returns.result import Failure, Result, Success

from distgen.errors import NotRendered

# The keys of a message that say something a Prompt cannot hold.
# Source: OpenAI API reference, "Create chat completion", messages.
_MORE_THAN_TEXT = ("name", "tool_calls", "tool_call_id", "function_call", "audio", "refusal")


class Message(TypedDict):
    """One message of a chat completions request, {"role": ..., "content": ...}."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages: TypeAlias = list[Message]


class Segment(NamedTuple):
    """A piece of a rendering: a literal of the format (`is_control`), or a text of the prompt, in which nothing is markup."""

    text: str
    is_control: bool


Rendered: TypeAlias = str | tuple[Segment, ...]
"""What a tokenizer is given: a text, in which it reads markup, or segments, in whose contents it reads none."""


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """One past turn: what the user said and what the assistant answered."""

    user: str
    assistant: str


@final
@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: the user's text, after an optional system text and past exchanges, oldest first.

    `system=None` is no system text; `system=""` is an empty one, and most formats render the two differently.

    >>> Prompt("And of Chile?", system="Be brief.", history=(Exchange("Capital of Peru?", "Lima."),)).user
    'And of Chile?'
    """

    user: str
    system: str | None = None
    history: tuple[Exchange, ...] = ()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Where each text stands, and the text, in reading order.

        >>> list(Prompt("And of Chile?", history=(Exchange("Capital of Peru?", "Lima."),)).texts())
        [('history[0].user', 'Capital of Peru?'), ('history[0].assistant', 'Lima.'), ('user', 'And of Chile?')]
        """
        if self.system is not None:
            yield "system", self.system
        for index, exchange in enumerate(self.history):
            yield f"history[{index}].user", exchange.user
            yield f"history[{index}].assistant", exchange.assistant
        yield "user", self.user

    @staticmethod
    def from_messages(messages: Iterable[Mapping[str, object]]) -> Result[Prompt, NotRendered]:
        """Reads OpenAI-style messages: at most one system message, first; then user and assistant in turn, user last.

        Anything else is `NotRendered`, naming the message: a message is never dropped, merged or moved.

        >>> Prompt.from_messages([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
        <Success: Prompt(user='Hi', system='Be brief.', history=())>
        >>> Prompt.from_messages([{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hello?"}])
        <Failure: NotRendered(format='openai', reason="role 'user' where 'assistant' is due", index=1)>
        """
        system: str | None = None
        turns: list[str] = []
        index = -1
        for index, message in enumerate(messages):
            problem, content = _content(message)
            if problem is not None:
                return Failure(NotRendered("openai", problem, index))
            role = message.get("role")
            due = "assistant" if len(turns) % 2 else "user"
            if role == "system" and index == 0:
                system = content
            elif role == due:
                turns.append(content)
            else:
                return Failure(NotRendered("openai", f"role {role!r} where {due!r} is due", index))
        if not turns:
            return Failure(NotRendered("openai", "there is no user message"))
        if len(turns) % 2 == 0:
            return Failure(
                NotRendered("openai", "role 'assistant' is last, where the question to answer is due", index)
            )
        history = tuple(Exchange(user, assistant) for user, assistant in zip(turns[:-1:2], turns[1::2], strict=True))
        return Success(Prompt(turns[-1], system, history))


def _content(message: Mapping[str, object]) -> tuple[str | None, str]:
    """What is wrong with a message, or None, and its text."""
    more = [key for key in _MORE_THAN_TEXT if message.get(key)]
    content = message.get("content")
    if more:
        return f"{more[0]!r} says more than a Prompt can hold", ""
    if not isinstance(content, str):
        return f"'content' is {type(content).__name__}, not text", ""
    return None, content
