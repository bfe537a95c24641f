"""What writes a prompt: `Formatter`, all that an LLM needs, and `Format`, which can also be read back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from returns.result import Failure, Result, Success

from distgen.errors import Raised, FormatError
from distgen.prompt import Prompt

P = TypeVar("P")

Formatter: TypeAlias = Callable[[Prompt], Result[P, FormatError]]
"""What an LLM needs: a pure, total function that writes a prompt as P, what the backend takes."""


class Format(Protocol[P]):
    """A Formatter with its inverse: `f(p).bind(f.parse) == Success(f.canonical(p))` whenever f(p) is a Success."""

    @property
    def name(self) -> str:
        """The name that errors carry."""
        ...

    def __call__(self, prompt: Prompt, /) -> Result[P, FormatError]:
        """The prompt as the model is to see it."""
        ...

    def parse(self, rendered: P, /) -> Result[Prompt, FormatError]:
        """The canonical prompt of a rendering; a Failure for what this format cannot have rendered."""
        ...

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """The one prompt that stands for all those which render alike; a prompt that is refused stands for itself."""
        ...


def total(fn: Callable[[Prompt], P]) -> Formatter[P]:
    """Lifts a plain function of a prompt to a Formatter: what fn raises becomes a `Raised`.

    >>> shout = total(lambda prompt: prompt.user.upper() + "!")
    >>> shout(Prompt("hi"))
    <Success: HI!>
    >>> total(lambda prompt: prompt.history[0].user)(Prompt("hi"))
    <Failure: Raised(kind='IndexError', message='tuple index out of range', stage='format', completions=())>
    """
    return partial(_total, fn)


def _total(fn: Callable[[Prompt], P], prompt: Prompt) -> Result[P, FormatError]:
    try:
        return Success(fn(prompt))
    except Exception as error:
        return Failure(Raised.of(error, "format"))
