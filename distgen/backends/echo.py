"""A backend without a model, for tests, rehearsals and examples: it answers each prompt with that prompt."""

from __future__ import annotations

from collections.abc import Sequence

from distgen.backends.generate import Batch
from distgen.completion import Completion
from distgen.prompt import Messages


def echo(prompts: Sequence[str | Messages], num_generations: int) -> Batch:
    """Answer a text with itself, and messages with the content of the last one, `num_generations` times.

    >>> [completion.text for completion in echo(["Hello"], 2)[0]]
    ['Hello', 'Hello']
    """
    texts = [
        prompt if isinstance(prompt, str) else "".join(last["content"] for last in prompt[-1:]) for prompt in prompts
    ]
    return [[Completion(text, "stop") for _ in range(num_generations)] for text in texts]
