"""What a model answers, and the generate callable that brings it: plain functions over prompts, no class to inherit.

Nothing here calls a model; backends do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar, final

from returns.result import Failure, Result

from distgen.errors import Fault

P = TypeVar("P")
R = TypeVar("R")


@final
@dataclass(frozen=True, slots=True)
class Usage:
    """What a completion cost, in tokens, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


class TokenLogprob(NamedTuple):
    """A token that a model said or could have said there: its natural log probability, -inf for one that it never says.

    None stands for one that has no probability, as the first token of a prompt that is echoed. `top_logprobs` are the
    likeliest tokens in its place, as many as were asked for, and have none of their own.
    """

    token: str
    logprob: float | None
    top_logprobs: tuple[TokenLogprob, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said, why it stopped ("stop", "length", ...; None where the server does not tell), and its usage.

    `logprobs`, one a token of the text, are None where they were not asked for or not given.
    """

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)  # thousands of tokens are no repr


Row: TypeAlias = Sequence[Completion] | Result[Sequence[Completion], Fault]
"""The answer to one prompt: its completions, or a backend's own Failure for this row alone."""

Batch: TypeAlias = Sequence[Row]
"""The answer to a call: one row a prompt, in the order of the prompts."""

Generate: TypeAlias = Callable[[Sequence[P], int], R]
"""The generate callable: (prompts, num_generations) -> R. R is a Batch, or an Awaitable[Batch] for an async client."""


def each(fn: Callable[[P], str | Completion]) -> Generate[P, Batch]:
    """Lifts a function of one prompt, called once a generation, to a Generate. A prompt on which it raises fails alone.

    >>> generate = each(str.upper)
    >>> generate(["hi"], 2)
    [[Completion(text='HI', finish_reason=None, usage=None), Completion(text='HI', finish_reason=None, usage=None)]]
    """
    return partial(_each, fn)


def _each(fn: Callable[[P], str | Completion], prompts: Sequence[P], num_generations: int) -> Batch:
    return [_row(fn, prompt, num_generations) for prompt in prompts]


def _row(fn: Callable[[P], str | Completion], prompt: P, num_generations: int) -> Row:
    try:
        answers = [fn(prompt) for _ in range(num_generations)]
    except Exception as error:
        return Failure(Fault.of(error))
    return [Completion(answer) if isinstance(answer, str) else answer for answer in answers]
