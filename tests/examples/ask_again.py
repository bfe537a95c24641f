"""Ask again when an answer does not parse: the model sees its answer and the reason why it was refused.

Run it with: python tests/examples/ask_again.py BASE_URL MODEL
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

from returns.result import Result, safe

from distgen import LLM, Asyncio, Exchange, Generation, Prompt, RowResult, SupportsGenerate, Task, explain, fold, single
from distgen.backends.server import chat
from distgen.errors import NoText, ParseFailed
from distgen.formats import openai

Out = TypeVar("Out")


def correction(generations: Sequence[Generation[Out]]) -> Prompt | None:
    """Return the prompt that asks for a better answer, or None if there is nothing to correct."""
    (generation,) = generations
    asked = generation.prompt

    def ask(error: ParseFailed | NoText) -> Prompt | None:
        if isinstance(error, NoText):
            return None
        history = (*asked.history, Exchange(asked.user, generation.completion.text))
        return Prompt(f"This was not accepted: {explain(error)} Answer again.", asked.system, history)

    return fold(generation.parsed, lambda _: None, ask)


def generate(llm: SupportsGenerate[Prompt, Out], prompts: Sequence[Prompt], attempts: int) -> list[RowResult[Out]]:
    """Return a row of one generation for each prompt: the first that parses, or the last."""
    rows = dict(enumerate(llm.generate(prompts)))
    for _ in range(attempts - 1):
        corrections = {index: fold(row, correction, lambda _: None) for index, row in rows.items()}
        again = {index: prompt for index, prompt in corrections.items() if prompt}
        rows.update(zip(again, llm.generate(list(again.values())), strict=True))
    return list(rows.values())


def main(base_url: str, model: str, questions: Sequence[str]) -> list[Result[int, str]]:
    """Answer each question with a number, in at most three attempts."""
    task = Task[Prompt, int](lambda prompt: prompt, safe(int))
    llm = LLM(task, openai, chat(base_url, model=model), Asyncio(64))
    prompts = [Prompt(question, system="Answer with a number only.") for question in questions]
    return [single(row).alt(explain) for row in generate(llm, prompts, attempts=3)]


if __name__ == "__main__":
    for number in main(sys.argv[1], sys.argv[2], ["2+2?", "How many legs has a spider?"]):
        print(number)
