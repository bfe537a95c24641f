"""Writes tests/data/training.json: finished conversations, as the models' published chat templates render them.

    python -m tests.support.training FOLDER

FOLDER is that of tests.support.oracle. The templates are those of oracle.json, and those in SOURCES: TRL's templates for
training, which mark in `{% generation %}` blocks what is trained, and templates that write more than the one of oracle.json.
Nothing of distgen is imported here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NotRequired, TypedDict

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from tests.support.oracle import DATA, ORACLE, compile_template, to_json


class Conversation(TypedDict):
    name: str
    system: str | None
    history: list[list[str | None]]  # user, answer, reasoning
    user: str
    answer: str
    reasoning: str | None
    prompt: NotRequired[str | None]  # rendered without the last answer, generation prompt included
    expected: NotRequired[str | None]  # the finished conversation; None: the template raises
    trained: NotRequired[list[list[int]]]  # the characters in `{% generation %}` blocks


class Finished(TypedDict):
    format: str
    template: str
    style: str  # see Source
    cases: list[Conversation]


class Source(NamedTuple):
    """A template besides those of oracle.json, rendered with the variables of the format there."""

    format: str
    template: str
    variables: Mapping[str, object] = {}
    style: str = (
        "fields"  # how an answer holds its reasoning: in "fields", "blocks" of content, or "marks" in the content
    )


FINISHED: Final[list[Finished]] = json.loads((DATA / "training.json").read_text("utf-8"))

_HISTORY: Final[list[list[str | None]]] = [["1+1?", "2", None], ["And 3+3?", "6", None]]
_THOUGHT: Final[list[list[str | None]]] = [["1+1?", "2", "One and one."]]
CASES: Final[tuple[Conversation, ...]] = (
    {"name": "one turn", "system": None, "history": [], "user": "2+2?", "answer": "4", "reasoning": None},
    {"name": "history", "system": "Add.", "history": _HISTORY, "user": "2+2?", "answer": "4", "reasoning": None},
    {"name": "reasoning", "system": None, "history": [], "user": "2+2?", "answer": "4", "reasoning": "Two and two."},
    {
        "name": "thoughts",
        "system": "Add.",
        "history": _THOUGHT,
        "user": "2+2?",
        "answer": "4",
        "reasoning": "Two, two.",
    },
    {"name": "kept answer", "system": None, "history": _THOUGHT, "user": "2+2?", "answer": "4", "reasoning": None},
    {
        "name": "white space",
        "system": None,
        "history": [],
        "user": " a\n",
        "answer": "\n\n b\nc \n",
        "reasoning": "\n hm \n",
    },
    {"name": "white space only", "system": None, "history": [], "user": "a", "answer": "\n b \n", "reasoning": None},
)
SOURCES: Final = (
    Source("command-r", "trl/cohere_training.jinja"),
    Source("deepseek-r1-distill", "trl/deepseek_r1_distill_training.jinja", style="marks"),
    Source("deepseek-v3", "trl/deepseekv3_training.jinja"),
    Source("deepseek-v3.1-think", "llama.cpp/deepseek-ai-DeepSeek-V4.jinja"),
    Source("exaone4-think", "axolotl/exaone4.jinja", {"skip_think": False}, "marks"),
    Source("gemma", "trl/gemma_training.jinja"),
    Source("gemma3", "trl/gemma3_training.jinja"),
    Source("gemma4-e2b", "trl/gemma4_v5.jinja"),
    Source("gemma4-think", "trl/gemma4_v5.jinja"),
    Source("glm4.6", "trl/glm4moe_training.jinja"),
    Source("harmony", "trl/gptoss_training.jinja"),
    Source("lfm2", "trl/lfm2_training.jinja"),
    Source("lfm2", "trl/lfm2_v2_training.jinja"),
    Source("llama3", "trl/llama3_training.jinja"),
    Source("ministral3-reasoning", "llama.cpp/mistralai-Ministral-3-14B-Reasoning-2512.jinja", style="blocks"),
    Source("nemotron3", "trl/nemotron_3_nano_training.jinja"),
    Source("nemotron3", "trl/nemotron_3_super_training.jinja"),
    Source("nemotron3-ultra", "trl/nemotron_3_ultra_training.jinja"),
    Source("nemotron3-ultra", "trl/nemotron_3_5_lightning_training.jinja"),
    Source("phi3-mini", "trl/phi3_training.jinja", {"eos_token": "<|endoftext|>"}),
    Source("phi3.5", "trl/phi3_5_training.jinja", {"eos_token": "<|endoftext|>"}),
    Source("qwen2", "trl/qwen2_5_vl_training.jinja"),
    Source("qwen2.5", "trl/qwen2_5_training.jinja"),
    Source("qwen3", "trl/qwen3_training.jinja"),
    Source("qwen3-2507", "trl/qwen3_instruct_2507_training.jinja"),
    Source("qwen3-2507", "trl/qwen3_vl_training.jinja"),
    Source("qwen3.5", "trl/qwen3_5_think_training.jinja"),
    Source("qwen3.5", "trl/qwen3_6_training.jinja"),
    Source("qwen3.5-nothink", "trl/qwen3_5_nothink_training.jinja"),
    Source("qwen3.8", "trl/qwen3_8_training.jinja"),
)

# Private characters of Unicode around each `{% generation %}` block.
_START, _END = "\ue100", "\ue101"


class MarkedGeneration(Extension):
    """Writes the body of `{% generation %}` between two marks."""

    tags = {"generation"}  # noqa: RUF012 (a variable of the class in jinja2 too)

    def parse(self, parser: Parser) -> nodes.Node:
        next(parser.stream)
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body)

    def mark(self, caller: Callable[[], str]) -> str:
        return f"{_START}{caller()}{_END}"


def take_marks(text: str) -> tuple[str, list[list[int]]]:
    """Return the text without the marks, and the characters between them."""
    plain, spans = "", list[list[int]]()
    for part in re.split(f"({_START}.*?{_END})", text, flags=re.DOTALL):
        inner = part.strip(_START + _END)
        if part.startswith(_START):
            spans.append([len(plain), len(plain) + len(inner)])
        plain += inner
    return plain, spans


def answer_of(style: str, text: str, reasoning: str | None) -> dict[str, object]:
    """Return an answer as the message that a template reads."""
    if reasoning is None:
        return {"role": "assistant", "content": text}
    if style == "marks":
        return {"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n\n{text}"}
    if style == "blocks":
        blocks = [{"type": "thinking", "thinking": reasoning}, {"type": "text", "text": text}]
        return {"role": "assistant", "content": blocks}
    fields = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), reasoning)
    return {"role": "assistant", "content": text, **fields}


def messages_of(case: Conversation, style: str) -> list[dict[str, object]]:
    """Return the prompt of a case as the messages that a chat template takes."""
    messages: list[dict[str, object]] = (
        [] if case["system"] is None else [{"role": "system", "content": case["system"]}]
    )
    for user, text, reasoning in case["history"]:
        messages.append({"role": "user", "content": user})
        messages.append(answer_of(style, text or "", reasoning))
    return [*messages, {"role": "user", "content": case["user"]}]


def finish(template: str, variables: Mapping[str, object], today: str, style: str) -> list[Conversation]:
    """Return each case with its prompt and its finished conversation."""
    compiled = compile_template(template, today, MarkedGeneration)

    def render(messages: Sequence[Mapping[str, object]], add_generation_prompt: bool) -> str | None:
        given = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **variables}
        try:
            return compiled.render(given, messages=messages)
        except Exception:  # a template may raise any exception of Python's
            return None

    cases: list[Conversation] = []
    for case in CASES:
        messages = messages_of(case, style)
        prompt = render(messages, True)
        finished = render([*messages, answer_of(style, case["answer"], case["reasoning"])], False)
        expected, spans = (None, list[list[int]]()) if finished is None else take_marks(finished)
        done: Conversation = {**case, "prompt": prompt and take_marks(prompt)[0], "expected": expected}
        cases.append({**done, "trained": spans} if spans else done)
    return cases


def main(folder: Path) -> None:
    """Render every finished conversation whose template is in the folder, and write the file."""
    known = {entry["format"]: entry for entry in ORACLE}
    named = [Source(entry["format"], entry["template"]) for entry in ORACLE if "template" in entry]
    done: list[Finished] = []
    for source in (*named, *SOURCES):
        entry = known[source.format]
        variables = {**entry.get("variables", {}), **source.variables}
        template = (folder / source.template).read_text("utf-8")
        cases = finish(template, variables, entry.get("today", "2024-02-29"), source.style)
        done.append({"format": source.format, "template": source.template, "style": source.style, "cases": cases})
    (DATA / "training.json").write_text(to_json(done, indent=1), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
