"""Get answers as values of a pydantic model: one class gives the schema that the server enforces and the parser.

Run it with: python tests/examples/structured.py BASE_URL MODEL
"""

from __future__ import annotations

import sys

from pydantic import BaseModel, ConfigDict, Field
from returns.result import Result, safe

from distgen import LLM, Asyncio, Prompt, Task, explain, single
from distgen.backends.server import chat
from distgen.formats import openai


class Review(BaseModel):
    """A judgement of one answer."""

    model_config = ConfigDict(extra="forbid")  # OpenAI's strict mode requires additionalProperties: false

    reason: str
    stars: int = Field(ge=1, le=5)


# Source: OpenAI guide "Structured model outputs", response_format; vLLM, SGLang, llama.cpp and Ollama take the same.
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": Review.__name__, "schema": Review.model_json_schema(), "strict": True},
}


def ask(answer: str) -> Prompt:
    """Ask for a review of an answer."""
    return Prompt(answer, system="Review this answer: give a reason in one sentence, then 1 to 5 stars.")


def main(base_url: str, model: str, answers: list[str]) -> list[Result[Review, str]]:
    """Review each answer; a Failure says why there is no review."""
    backend = chat(base_url, model=model, params={"response_format": RESPONSE_FORMAT, "temperature": 0})
    llm = LLM(Task(ask, safe(Review.model_validate_json)), openai, backend, Asyncio(64))
    return [single(row).alt(explain) for row in llm.stream(answers)]


if __name__ == "__main__":
    for review in main(sys.argv[1], sys.argv[2], ["The Nile is the longest river.", "No idea."]):
        print(review)
