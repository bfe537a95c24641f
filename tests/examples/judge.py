"""Generate answers, judge each, and keep the good ones, as streams: memory does not grow with the number of questions.

Run it with: python tests/examples/judge.py BASE_URL MODEL
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from itertools import tee
from typing import NamedTuple

from returns.result import Success, safe

from distgen import LLM, Asyncio, Prompt, SupportsGenerate, Task, fold, single
from distgen.backends.server import chat
from distgen.formats import openai


class Draft(NamedTuple):
    """An answer to be judged."""

    question: str
    answer: str


def write(
    writer: SupportsGenerate[str, str], questions: Iterable[str], num_generations: int
) -> Generator[Draft, None, None]:
    """Yield the answers of a writer; what failed is left out."""
    for row in writer.stream(questions, num_generations):
        for generation in row.value_or(()):
            text = generation.parsed.value_or("")
            if text:
                yield Draft(generation.prompt.user, text)


def keep(judge: SupportsGenerate[Draft, int], drafts: Iterable[Draft], least: int) -> Generator[Draft, None, None]:
    """Yield the drafts that the judge gives at least so many points."""
    judged, drafts = tee(drafts)  # holds no more than the judge has in flight
    for draft, row in zip(drafts, judge.stream(judged), strict=True):
        if fold(single(row), lambda points: points >= least, lambda _: False):
            yield draft


def ask(draft: Draft) -> Prompt:
    """Ask for points."""
    return Prompt(
        f"Question: {draft.question}\nAnswer: {draft.answer}", system="Answer with 1 to 5 points, a number only."
    )


def main(base_url: str, model: str, questions: Iterable[str]) -> Generator[Draft, None, None]:
    """Ask each question twice, and yield the answers that pass."""
    writer = LLM(Task(Prompt, Success), openai, chat(base_url, model=model), Asyncio(64))
    judge = LLM(Task(ask, safe(int)), openai, chat(base_url, model=model, params={"temperature": 0}), Asyncio(64))
    return keep(judge, write(writer, questions, num_generations=2), least=4)


if __name__ == "__main__":
    for draft in main(sys.argv[1], sys.argv[2], (line.strip() for line in sys.stdin)):
        print(draft.question, draft.answer, sep="\t")
