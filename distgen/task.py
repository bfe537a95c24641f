"""A `Task` is what is asked of a model and how its answer is read: two functions, composed like any others.

It knows no model, no format and no server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
@dataclass(frozen=True, slots=True, repr=False)
class Task(Generic[In, Out]):
    """`prompt` asks about an input, `parse` reads the text of one answer; where one of them raises, one row fails.

    A prompt function that is given a Result, as a judge is, may answer its Failure: the row is not asked and keeps it.
    A Task maps over what it reads and contramaps over what it is asked about, by the laws of a profunctor.

    >>> from returns.result import Success, safe
    >>> square = Task(prompt=Prompt, parse=safe(int)).map(lambda n: n * n).contramap(lambda n: f"Say {n}")
    >>> square.prompt(7), square.parse("7")
    (Prompt(user='Say 7', system=None, history=()), <Success: 49>)
    """

    prompt: Callable[[In], Prompt | Result[Prompt, GenerateError]]
    parse: Callable[[str], Result[Out, object]]

    def map(self, fn: Callable[[Out], _B]) -> Task[In, _B]:
        """The same question; `fn` is applied to what was read.

        >>> from returns.result import Success
        >>> Task(Prompt, Success).map(len).parse("four")
        <Success: 4>
        """
        return Task(self.prompt, lambda text: self.parse(text).map(fn))

    def bind(self, fn: Callable[[Out], Result[_B, object]]) -> Task[In, _B]:
        """The same question; `fn` may refuse what was read.

        >>> from returns.result import Success, safe
        >>> Task(Prompt, safe(int)).bind(lambda n: Success(n) if n else Failure("zero")).parse("0")
        <Failure: zero>
        """
        return Task(self.prompt, lambda text: fold(self.parse(text), fn, Failure))

    def contramap(self, fn: Callable[[_A], In]) -> Task[_A, Out]:
        """The same task, asked about something from which `fn` makes its input.

        >>> from returns.result import Success
        >>> Task(Prompt, Success).contramap(str.upper).prompt("hi")
        Prompt(user='HI', system=None, history=())
        """
        return Task(lambda value: self.prompt(fn(value)), self.parse)

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """The fields, functions by their names; Rich reads this, and so does `repr`."""
        yield "prompt", Shown(self.prompt)
        yield "parse", Shown(self.parse)

    def __repr__(self) -> str:
        return shown_fields("Task", self.__rich_repr__())


@final
class Shown:
    """Shows a function or a format by its name, a `partial` by its function alone: its arguments may hold a key.

    >>> from functools import partial
    >>> Shown(str.upper), Shown(partial(print, "sk-secret")), Shown(8)
    (str.upper, partial(print), 8)
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:  # noqa: D107  (the class says it)
        self._value = value

    def __repr__(self) -> str:
        inner: object = getattr(self._value, "func", None)
        if inner is not None:
            return f"partial({Shown(inner)!r})"
        name: object = getattr(self._value, "__qualname__", None) or getattr(self._value, "name", None)
        return name if isinstance(name, str) else repr(self._value)


def shown_fields(name: str, fields: Iterator[tuple[str, object]]) -> str:
    """The repr of a record of functions: `name(field=value, ...)`."""
    return f"{name}({', '.join(f'{field}={value!r}' for field, value in fields)})"
