"""A backend without a model: every prompt is answered with itself, for tests, dry runs and examples."""

from __future__ import annotations

from collections.abc import Sequence

from distgen.backends.generate import Batch
from distgen.completion import Completion
from distgen.prompt import Messages


def echo(prompts: Sequence[str] | Sequence[Messages], num_generations: int) -> Batch:
    """Answers a text with itself and messages with the content of the last one, `num_generations` times.

    >>> echo(["Hello"], 1)
    [[Completion(text='Hello', finish_reason='stop', usage=None)]]
    >>> echo([[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]], 1)
    [[Completion(text='Hi', finish_reason='stop', usage=None)]]
    """
    return [[Completion(_said(prompt), "stop") for _ in range(num_generations)] for prompt in prompts]


def _said(prompt: str | Messages) -> str:
    if isinstance(prompt, str):
        return prompt
    return prompt[-1]["content"] if prompt else ""
