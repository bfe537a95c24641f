"""Distil a thinking teacher: what it thought and said becomes training text of a student, one JSON object a line.

Run it with: python tests/examples/distil.py STUDENT, such as qwen3; the teacher is a rehearsal
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from returns.result import Result, Success

from distgen import LLM, Completion, Prompt, SupportsGenerate, Task, Threads, each
from distgen.errors import FormatError
from distgen.formats import FORMATS, ChatMessages, TextFormat, TrainingText, openai
from distgen.prompt import Messages


def think(messages: Messages) -> Completion:
    """Answer as a thinking teacher would; `chat(base_url, model=...)` asks a real one."""
    question = messages[-1]["content"]
    return Completion(f"You asked: {question}", "stop", reasoning=f"They ask {question!r}. I say so.")


def distil(
    teacher: SupportsGenerate[str, str], student: TextFormat, questions: Iterable[str]
) -> Iterator[Result[TrainingText, FormatError]]:
    """Yield the training text of each answer; an answer that was cut teaches no stop."""
    for row in teacher.stream(questions):
        for generation in row.value_or(()):
            said = generation.completion
            if said.text and not said.error:
                yield student.training_text(generation.prompt, said.text, said.reasoning, said.finish_reason)


def to_json(written: TrainingText) -> str:
    """Return the text and the characters to train on; `label_tokens` makes labels of them."""
    trained = [(start, end) for start, end, _, is_trained in written.spans if is_trained]
    return json.dumps({"text": written.text, "trained": trained}, ensure_ascii=False)


def main(student: TextFormat, questions: Iterable[str]) -> list[str]:
    """Return the lines of a training file."""
    teacher = LLM(Task(Prompt, Success), openai, each(think), Threads(8))
    return [to_json(written.unwrap()) for written in distil(teacher, student, questions)]


if __name__ == "__main__":
    format = FORMATS[sys.argv[1]]
    if isinstance(format, ChatMessages):
        sys.exit(f"{format.name} has no training text: name a text format, such as qwen3")
    print("\n".join(main(format, ["Name a river.", "Name a lake."])))
