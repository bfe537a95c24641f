"""A call of a backend and what became of it: the two laws of a backend's shape, kept where the call is made.

A wrong count never shifts a row, and a failed batch is asked again row by row. Nothing here knows a pool or a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from returns.result import Failure, Result

from distgen.backends.generate import Batch, Generate, Row
from distgen.completion import Completion
from distgen.errors import Raised, WrongCount

P = TypeVar("P")
_R_co = TypeVar("_R_co", covariant=True)

RowAnswer: TypeAlias = tuple[Completion, ...] | Raised | WrongCount
"""What became of one prompt: as many completions as were asked for, or why there are none. Plain data, cheap to pickle."""

Answer: TypeAlias = tuple[RowAnswer, ...]
"""What became of a call: one `RowAnswer` a prompt, in their order."""


class Call(NamedTuple, Generic[P, _R_co]):
    """One call of a backend: all its prompts at once, each for `num_generations`."""

    backend: Generate[P, _R_co]
    prompts: Sequence[P]  # a backend gets a list of its own, to pad, sort or empty as it likes
    num_generations: int

    def failed(self, fault: Raised) -> Answer:
        """The answer when there is none: the same fault for each row."""
        return (fault,) * len(self.prompts)

    def rows(self) -> list[Call[P, _R_co]]:
        """A call for each prompt alone."""
        return [Call(self.backend, [prompt], self.num_generations) for prompt in self.prompts]


def attempt(call: Call[P, Batch]) -> Answer:
    """Calls the backend where this runs; what it raises becomes a Raised, KeyboardInterrupt alone excepted.

    Where the call as a whole fails, or its rows are not as many as its prompts, each row is asked again alone, so that
    only the guilty one fails.

    >>> attempt(Call(lambda prompts, n: [[Completion(prompt)] * n for prompt in prompts], ["42"], 1))
    ((Completion(text='42', finish_reason=None, usage=None),),)
    """
    backend, prompts, num_generations = call
    answer: Answer | Raised | WrongCount
    try:
        answer = shaped(backend([*prompts], num_generations), len(prompts), num_generations)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and GeneratorExit too: a backend must not end a run of a million rows
        answer = Raised.of(error)
    if isinstance(answer, tuple):
        return answer
    if len(prompts) == 1:
        return (answer,)
    return tuple(attempt(row)[0] for row in call.rows())


def shaped(batch: Batch, expected: int, num_generations: int) -> Answer | WrongCount:
    """The answer that a batch gives to `expected` prompts; raises what reading it raises."""
    answers: list[RowAnswer] = []
    for row in batch:  # no comprehension: in Python 3.11 it costs a call, and one row is common
        answers.append(_completions(row, num_generations))
    return tuple(answers) if len(answers) == expected else WrongCount("rows", expected, len(answers))


def _completions(row: Row, expected: int) -> RowAnswer:
    try:
        # A list is not put to isinstance: Result is an abstract class, and to say no costs it as much as all the rest.
        if not isinstance(row, list) and isinstance(row, Result):
            if isinstance(row, Failure):
                return _fault(row.failure())
            row = row.unwrap()
        completions = tuple(row)
        for completion in completions:
            if type(completion) is not Completion:
                raise TypeError(f"a row of the backend holds {type(completion).__name__} where a Completion is due")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a row may be lazy, and the backend's code run only here
        return Raised.of(error)
    got = len(completions)
    return completions if got == expected else WrongCount("generations", expected, got)


def _fault(error: object) -> Raised:
    """Untyped code may answer the Failure of another kind, such as an exception that `safe` caught."""
    if isinstance(error, Raised):
        return error
    return Raised.of(error) if isinstance(error, BaseException) else Raised(type(error).__name__, str(error))


def warn(message: str) -> None:
    """One RuntimeWarning, which is not raised even where warnings are errors: rows that were paid for are worth more."""
    import warnings

    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        return
