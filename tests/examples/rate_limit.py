"""Keep an async backend within so many requests and tokens a minute.

Requests start evenly, without bursts. Before a request its tokens are your estimate; after it they are counted by the
server. Retries within the backend are not counted. pyrate-limiter takes a weight too, but only before the request.

Run it with: python tests/examples/rate_limit.py BASE_URL MODEL
"""

from __future__ import annotations

import sys
from asyncio import sleep
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TypeVar

from returns.result import Result, Success

from distgen import LLM, Asyncio, Batch, Generate, Messages, Prompt, Task, single
from distgen.backends.generate import Row
from distgen.backends.server import chat
from distgen.formats import openai

P = TypeVar("P")
MAX_TOKENS = 200


def limited(
    backend: Generate[P, Awaitable[Batch]],
    requests_per_minute: float,
    tokens_per_minute: float,
    estimate: Callable[[P], int],
) -> Generate[P, Awaitable[Batch]]:
    """Return a backend that waits until both limits have room. `estimate` counts the tokens of a prompt and its answer."""
    next_request = next_token = 0.0  # when the limit has room again, on the clock of time.monotonic

    async def ask(prompts: Sequence[P], num_generations: int) -> Batch:
        nonlocal next_request, next_token
        expected = [estimate(prompt) * num_generations for prompt in prompts]
        now = monotonic()
        start = max(now, next_request, next_token)
        next_request = start + 60 * len(prompts) / requests_per_minute
        next_token = start + 60 * sum(expected) / tokens_per_minute
        await sleep(start - now)
        batch = await backend(prompts, num_generations)
        excess = sum(map(count_tokens, batch, expected)) - sum(expected)
        next_token += 60 * excess / tokens_per_minute
        return batch

    return ask


def count_tokens(row: Row, expected: int) -> int:
    """Return the tokens of a row as the server counted them, or `expected` if it did not."""
    completions = row.value_or([]) if isinstance(row, Result) else row
    usages = [completion.usage for completion in completions if completion.usage]
    return sum((usage.prompt_tokens or 0) + (usage.completion_tokens or 0) for usage in usages) or expected


def estimate(messages: Messages) -> int:
    """Estimate 4 characters a token, and an answer as long as it may be."""
    return sum(len(message["content"]) for message in messages) // 4 + MAX_TOKENS


def main(base_url: str, model: str, requests_per_minute: float = 500, tokens_per_minute: float = 200_000) -> list[str]:
    """Ask ten questions."""
    backend = chat(base_url, model=model, params={"max_tokens": MAX_TOKENS})
    slow = limited(backend, requests_per_minute, tokens_per_minute, estimate)
    llm = LLM(Task(Prompt, Success), openai, slow, Asyncio(64))
    return [str(single(row)) for row in llm.stream(f"What is {n} squared?" for n in range(10))]


if __name__ == "__main__":
    print("\n".join(main(sys.argv[1], sys.argv[2])))
