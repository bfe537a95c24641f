"""Compute the cost of a run in US dollars, failed rows included, with the prices of genai-prices (no network needed).

Answers that do not parse and answers that came before a row failed were paid for, and are counted.

Run it with: python tests/examples/cost.py BASE_URL MODEL
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

import genai_prices
from returns.result import Success

from distgen import LLM, Asyncio, Completion, Prompt, RowResult, Task, fold
from distgen.backends.server import chat
from distgen.completion import Usage
from distgen.errors import GenerateError, Raised, RequestFailed, WrongCount
from distgen.formats import openai

Out = TypeVar("Out")


def usages(completions: Iterable[Completion]) -> list[Usage]:
    """Return the usage of each HTTP answer."""
    return [completion.usage for completion in completions if completion.usage]


def failed_usages(error: GenerateError) -> list[Usage]:
    """Return the usage of what came before a row failed."""
    match error:
        case RequestFailed(usage=usage, completions=completions):
            return [*usages(completions), *([usage] if usage else [])]
        case Raised(completions=completions) | WrongCount(completions=completions):
            return usages(completions)
        case _:
            return []


def row_usages(row: RowResult[Out]) -> list[Usage]:
    """Return the usages of a row, answered or failed."""
    return fold(row, lambda generations: usages(generation.completion for generation in generations), failed_usages)


def price(usage: Usage, model: str) -> Decimal:
    """Return the price of one HTTP answer. Raises LookupError for a model that has no price."""
    tokens = genai_prices.Usage(
        input_tokens=usage.prompt_tokens, cache_read_tokens=usage.cached_tokens, output_tokens=usage.completion_tokens
    )
    return genai_prices.calc_price(tokens, model).total_price


def main(base_url: str, model: str, questions: Iterable[str]) -> Decimal:
    """Answer each question twice, and return the cost."""
    llm = LLM(Task(Prompt, Success), openai, chat(base_url, model=model), Asyncio(64))
    return sum((price(usage, model) for row in llm.stream(questions, 2) for usage in row_usages(row)), start=Decimal(0))


if __name__ == "__main__":
    print(f"${main(sys.argv[1], sys.argv[2], ['2+2?', '3+3?'])}")
