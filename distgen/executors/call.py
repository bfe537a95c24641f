"""One call of a backend, and the checks on its answer. Nothing here knows a pool or an order of rows.

A wrong number of rows or completions never moves an answer to another row. The rows of a failed batch are asked again alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from returns.result import Failure, Result

from distgen.backends.generate import Batch, Generate, Row, is_async
from distgen.completion import Completion
from distgen.errors import BackendError, Raised, WrongCount

P = TypeVar("P")
_R_co = TypeVar("_R_co", covariant=True)

RowAnswer: TypeAlias = tuple[Completion, ...] | BackendError
"""The answer to one prompt: as many completions as were asked for, or an error. Plain data, cheap to pickle."""

CallResult: TypeAlias = tuple[RowAnswer, ...]
"""The answer to a call: one `RowAnswer` a prompt, in the order of the prompts."""

_IS_ASYNC: Final = Raised("TypeError", "the backend is async: use Asyncio(...), or blocking(backend)")


class Call(NamedTuple, Generic[P, _R_co]):
    """One call of a backend: all its prompts at once, each for `num_generations` completions."""

    backend: Generate[P, _R_co]
    prompts: Sequence[P]
    num_generations: int

    def failed(self, error: BackendError) -> CallResult:
        """Return the same error for each prompt."""
        return (error,) * len(self.prompts)

    def rows(self) -> list[Call[P, _R_co]]:
        """Return a call for each prompt alone."""
        return [Call(self.backend, [prompt], self.num_generations) for prompt in self.prompts]


def call_backend(call: Call[P, Batch]) -> CallResult:
    """Call a synchronous backend; an exception becomes a Raised, except KeyboardInterrupt.

    If the call fails as a whole, each prompt is asked again alone, so that only the rows that cause it fail.

    >>> from distgen.backends.echo import echo
    >>> [[completion.text for completion in row] for row in call_backend(Call(echo, ["42"], 2))]
    [['42', '42']]
    """
    result: CallResult | BackendError
    try:
        # The backend gets a list of its own, which it may sort, pad or empty.
        batch = call.backend([*call.prompts], call.num_generations)
        result = call.failed(_IS_ASYNC) if is_async(batch) else check_batch(call, batch)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and GeneratorExit too: one row must not end a run of a million
        result = Raised.of(error)
    if isinstance(result, tuple):
        return result
    if len(call.prompts) == 1:
        return (result,)
    return tuple(call_backend(row)[0] for row in call.rows())


def check_batch(call: Call[P, object], batch: Batch) -> CallResult | WrongCount:
    """Return one answer a prompt, or a WrongCount if the batch has more or fewer rows. Raise what reading it raises."""
    answers = tuple([_check_row(row, call.num_generations) for row in batch])
    if len(answers) == len(call.prompts):
        return answers
    completions = [completion for answer in answers for completion in completions_of(answer)]
    return WrongCount("rows", len(call.prompts), len(answers), tuple(completions))


def completions_of(answer: RowAnswer) -> tuple[Completion, ...]:
    """Return the completions of a row: those of an answer, or those that an error keeps."""
    return answer if isinstance(answer, tuple) else answer.completions


def _check_row(row: Row, expected: int) -> RowAnswer:
    completions: list[Completion] = []
    try:
        # isinstance(list, Result) is slow because Result is an ABC, so test for list first.
        if not isinstance(row, list) and isinstance(row, Result):
            if isinstance(row, Failure):
                return _to_error(row.failure())
            row = row.unwrap()
        for completion in row:  # a row may be lazy, and raise only here
            if type(completion) is not Completion:
                raise TypeError(f"a row of the backend must hold Completions, got {type(completion).__name__}")
            completions.append(completion)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Raised.of(error, completions=tuple(completions))
    if len(completions) == expected:
        return tuple(completions)
    return WrongCount("generations", expected, len(completions), tuple(completions))


def _to_error(error: object) -> BackendError:
    """Return the error of a Failure; anything else, which untyped code may put into one, becomes a Raised."""
    if isinstance(error, BackendError):
        return error
    return Raised.of(error)


def warn(message: str) -> None:
    """Warn, but never raise, even if warnings are errors: an exception would lose rows that were paid for."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        return
