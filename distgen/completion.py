"""The answers of a model, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, final


@final
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them; a count that the server did not give is None.

    `cached_tokens` are part of `prompt_tokens`, and `reasoning_tokens` are part of `completion_tokens`.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@final
@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model asked for. `arguments` is the text that the model wrote; it may not be valid JSON."""

    id: str
    name: str
    arguments: str


class TokenLogprob(NamedTuple):
    """A token and its natural log probability: -inf if it is impossible, None if the server gives none.

    `top_logprobs` are the most likely tokens at its position, as many as were asked for; their own `top_logprobs` are
    empty.
    """

    token: str
    logprob: float | None
    top_logprobs: tuple[TokenLogprob, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model.

    >>> Completion("4", finish_reason="stop", reasoning="2 and 2").text
    '4'
    """

    text: str
    """The answer; "" if the model gave none."""
    finish_reason: str | None = None
    """Why the model stopped, in the server's word: "stop", "length", "tool_calls" ...; None if it does not say."""
    usage: Usage | None = None
    """Tokens of the whole HTTP answer, on its first completion only, so that a sum over completions is the bill."""
    reasoning: str | None = None
    """The reasoning of the model before its answer."""
    refusal: str | None = None
    """The text with which the model refused, if the server sends it apart from `text`."""
    tool_calls: tuple[ToolCall, ...] = ()
    served_model: str | None = None
    """The model that answered, as the server names it."""
    error: str | None = None
    """Why the service broke this answer off; `text` is then incomplete."""
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)
    extra: Mapping[str, object] = field(default_factory=dict[str, object], repr=False, hash=False)
    """Everything else that the server sent about this answer, as JSON values: id, request_id, system_fingerprint ..."""


def split_reasoning(text: str) -> tuple[str | None, str]:
    r"""Split `<think>...</think>` off the start of a text: (reasoning, answer), both without blank lines around the tags.

    A text that does not start with `<think>` has no reasoning. Without a `</think>` all of it is reasoning.

    >>> split_reasoning("<think>\n2 and 2\n</think>\n\n4")
    ('2 and 2', '4')
    >>> split_reasoning("4")
    (None, '4')
    """
    opened = text.lstrip()
    if not opened.startswith("<think>"):
        return None, text
    reasoning, _, answer = opened.removeprefix("<think>").partition("</think>")
    return reasoning.strip(), answer.lstrip("\r\n")
