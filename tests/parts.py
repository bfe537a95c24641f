"""Parts that several tests share: the table of executors, and backends with planned faults (their names say so)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from returns.result import Result, Success

from distgen import Batch, Completion, Exchange, Executor, Pool, Prompt, Sequential, Task, Threads

EXECUTORS: Final[Mapping[str, Executor[Batch]]] = {
    "sequential": Sequential(),
    "one thread": Threads(1),
    "threads": Threads(8),
    "threads without buffer": Threads(3, buffer=0),
    "pool": Pool(lambda: ThreadPoolExecutor(4), 5, buffer=2),
}


def text_of(text: str) -> Result[str, object]:
    """A parser that takes every text as it is."""
    return Success(text)


def asking(text: str) -> Prompt:
    """A prompt function with a system text and history, so that both are rendered too."""
    return Prompt(text, system="Be brief.", history=(Exchange("2+2?", "4"),))


PLAIN: Final = Task(prompt=Prompt, parse=text_of)


def planned_faults(plan: Mapping[str, Callable[[], object]]) -> Callable[[Sequence[str], int], Batch]:
    """A double: answers each prompt with itself, but first runs what is planned for it, which may raise.

    As a real batch endpoint, it answers all prompts of a call or, when one of them raises, none.
    """

    def generate(prompts: Sequence[str], num_generations: int) -> Batch:
        for prompt in prompts:
            plan.get(prompt, lambda: None)()
        return [[Completion(prompt)] * num_generations for prompt in prompts]

    return generate
