"""A `Task`: the function that makes the prompt for an input, and the function that parses an answer.

It knows no model, no format and no server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from returns.result import Failure, Result

from distgen.errors import GenerateError, fold
from distgen.prompt import Prompt

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
_A = TypeVar("_A")
_B = TypeVar("_B")


@final
@dataclass(frozen=True)  # no slots: Task[str, int](...) sets an attribute
class Task(Generic[In, Out]):
    """A pair of functions: `prompt` makes the prompt for an input, `parse` reads the text of one answer.

    If `prompt` raises or returns a Failure, the row is not asked, and that is its result: so a judge can refuse rows without
    an answer. If `parse` raises, only that answer fails. `map` and `bind` change the parsed values, `contramap` the inputs.

    >>> from returns.result import Success, safe
    >>> square = Task(prompt=Prompt, parse=safe(int)).map(lambda n: n * n).contramap(lambda n: f"Say {n}")
    >>> square.prompt(7), square.parse("7")
    (Prompt(user='Say 7', system=None, history=()), <Success: 49>)
    """

    prompt: Callable[[In], Prompt | Result[Prompt, GenerateError]]
    parse: Callable[[str], Result[Out, object]]

    def map(self, fn: Callable[[Out], _B]) -> Task[In, _B]:
        """Return a task that applies `fn` to each parsed value.

        >>> from returns.result import Success
        >>> Task(Prompt, Success).map(len).parse("four")
        <Success: 4>
        """
        return Task(self.prompt, lambda text: self.parse(text).map(fn))

    def bind(self, fn: Callable[[Out], Result[_B, object]]) -> Task[In, _B]:
        """Return a task that applies `fn` to each parsed value; `fn` may return a Failure.

        >>> from returns.result import Success, safe
        >>> Task(Prompt, safe(int)).bind(lambda n: Success(n) if n else Failure("zero")).parse("0")
        <Failure: zero>
        """
        return Task(self.prompt, lambda text: fold(self.parse(text), fn, Failure))

    def contramap(self, fn: Callable[[_A], In]) -> Task[_A, Out]:
        """Return a task that applies `fn` to each input before `prompt`.

        >>> from returns.result import Success
        >>> Task(Prompt, Success).contramap(str.upper).prompt("hi")
        Prompt(user='HI', system=None, history=())
        """
        return Task(lambda value: self.prompt(fn(value)), self.parse)
