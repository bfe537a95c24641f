"""The type of a backend, `Generate`: a function from prompts to completions. There is no class to inherit from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from returns.result import Failure, Result

from distgen.completion import Completion
from distgen.errors import BackendError, Raised

P = TypeVar("P")
R = TypeVar("R")

Row: TypeAlias = Sequence[Completion] | Result[Sequence[Completion], BackendError]
"""The answer of a backend to one prompt: its completions, or a Failure for this prompt alone."""

Batch: TypeAlias = Sequence[Row]
"""The answer of a backend to one call: one row a prompt, in the order of the prompts."""

Generate: TypeAlias = Callable[[Sequence[P], int], R]
"""A backend: (prompts, num_generations) -> R. R is a Batch, or an Awaitable[Batch] for an async backend."""


@runtime_checkable
class SupportsEndWaits(Protocol):
    """A backend that can end the waits of its calls, such as the wait for a retry, when a run is closed."""

    def end_waits(self) -> None:
        """Let calls under way finish their requests and send no other; later calls are not affected."""
        ...


def each(fn: Callable[[P], str | Completion]) -> Generate[P, Batch]:
    """Make a backend of a function of one prompt, which is called once for each generation.

    If it raises, only that prompt fails, and the Failure keeps the completions that came before.

    >>> generate = each(str.upper)
    >>> [[completion.text for completion in row] for row in generate(["hi"], 2)]
    [['HI', 'HI']]
    """
    return partial(_call_each, fn)


def _call_each(fn: Callable[[P], str | Completion], prompts: Sequence[P], num_generations: int) -> Batch:
    rows: list[Row] = []
    for prompt in prompts:
        completions: list[Completion] = []
        rows.append(completions)
        for _ in range(num_generations):
            try:
                answer = fn(prompt)
            except Exception as error:
                rows[-1] = Failure(Raised.of(error, completions=tuple(completions)))
                break
            if is_async(answer):
                raise TypeError("the function is async: write `async def backend(prompts, num_generations)` instead")
            completions.append(Completion(answer) if isinstance(answer, str) else answer)
    return rows


def is_async(answer: object) -> bool:
    """Return True if the answer of a function shows that it is async; close a coroutine."""
    if isinstance(answer, Coroutine):
        answer.close()  # or Python warns that it was never awaited
    return isinstance(answer, Awaitable)
