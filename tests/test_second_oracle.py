"""The registry and the second oracle: a chat template for each format, written from its description, rendered by jinja2.

The templates show how a format is laid out. What is written in one is written in the rendering, line breaks too, save
the one after a tag or a comment, and what a hyphen in a tag takes away. Undefined variables are written as nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final, NotRequired, TypedDict

import pytest
from hypothesis import example, given, settings
from jinja2.sandbox import SandboxedEnvironment
from returns.result import Failure, Success

from distgen.errors import Unsupported
from distgen.formats import FORMATS, ChatMessages, Format
from distgen.prompt import Exchange, Prompt
from distgen.testing import adversarial_prompts, prompts


class Case(TypedDict):
    name: str
    system: str | None
    history: list[list[str]]
    user: str
    expected: str | list[dict[str, str]] | None  # None: the model's own template raises
    contested: NotRequired[bool]


class Entry(TypedDict):
    format: str
    cases: list[Case]


class Dated(Entry):
    date: str
    reasoning: str | None


DATA: Final = Path(__file__).parent / "data"
ORACLE: Final[list[Entry]] = json.loads((DATA / "oracle.json").read_text("utf-8"))
EDGES: Final[list[Entry]] = json.loads((DATA / "edges.json").read_text("utf-8"))  # empty and blank texts, everywhere
DATED: Final[list[Dated]] = json.loads((DATA / "dated.json").read_text("utf-8"))
TEXTS: Final[dict[str, Format[str]]] = {
    name: each for name, each in FORMATS.items() if name != "default" and not isinstance(each, ChatMessages)
}
# The file that a member of a family shares, and its variables there; every other format has a file of its own name.
SHARED: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "chatml-bos": ("chatml", {"bos": "<s>"}),
    "qwen1.5": ("chatml", {"default": "You are a helpful assistant"}),
    "qwen2": ("chatml", {"default": "You are a helpful assistant."}),
    "qwen3-2507": ("chatml", {}),
    "qwen2.5": ("chatml", {"default": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."}),
    "qwen3": ("chatml", {}),
    "qwen3-nothink": ("chatml", {"thought": "<think>\n\n</think>\n\n"}),
    "smollm2": ("chatml", {"default": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}),
    "lfm2": ("lfm2", {"bos": "<|startoftext|>"}),
    "minicpm3": ("lfm2", {}),
    "smollm3-nothink": ("smollm3-nothink", {"today": "10 July 2025"}),
    "kimi-k2": ("kimi-k2", {"default": "You are a helpful assistant"}),
    "kimi-k2-0905": (
        "kimi-k2",
        {"default": "You are Kimi, an AI assistant created by Moonshot AI.", "after_default": "\n"},
    ),
    "llama3.1": ("llama3.1", {"today": "26 Jul 2024"}),
    "llama3.2": ("llama3.1", {"today": "26 Jul 2024"}),
    "mistral-v0.2-hf-sys": ("mistral-v1", {"empty_system": "written"}),
    "mistral-v3": ("mistral-v3", {"blank": " "}),
    "mistral-v3-tekken": ("mistral-v3", {}),
    "zephyr": ("zephyr", {"end": "</s>"}),
    "phi3-mini": ("zephyr", {"end": "<|end|>"}),
    "phi3-small": ("zephyr", {"end": "<|end|>", "bos": "<|endoftext|>"}),
    "olmo2": ("tulu", {"bos": "<|endoftext|>"}),
    "falcon3": ("tulu", {}),
    "gemma3": ("gemma", {}),
    "deepseek-r1": ("deepseek-v3", {}),
    "deepseek-r1-distill": ("deepseek-v3", {"thought": "<think>\n"}),
    "deepseek-v3.1": ("deepseek-v3", {"before_past": "</think>", "thought": "</think>"}),
    "vicuna": (
        "vicuna",
        {
            "user": "USER",
            "assistant": "ASSISTANT",
            "gap": " ",
            "default": "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        },
    ),
    "alpaca-fastchat": (
        "vicuna",
        {
            "user": "### Instruction",
            "assistant": "### Response",
            "gap": "\n\n",
            "default": "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.",
        },
    ),
    "gemma4": ("gemma4", {"thought": "<|channel>thought\n<channel|>"}),
    "gemma4-e2b": ("gemma4", {}),
    "granite3.1": ("granite3", {"today": "April 16, 2025", "gap": "\n"}),
    "granite3.3": ("granite3", {"today": "April 16, 2025", "gap": " "}),
    "harmony": ("harmony", {"today": "2025-08-05", "reasoning": "medium"}),
    "apertus": ("apertus", {"today": "2025-09-02"}),
}
# How a format prints the date, the day always in two digits.
PRINTED: Final[Mapping[str, str]] = {
    "llama3.1": "%d %b %Y",
    "llama3.2": "%d %b %Y",
    "granite3.1": "%B %d, %Y",
    "granite3.3": "%B %d, %Y",
    "smollm3-nothink": "%d %B %Y",
    "harmony": "%Y-%m-%d",
    "apertus": "%Y-%m-%d",
    "mistral-v7-tekken": "%Y-%m-%d",
}
JINJA: Final = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
SOURCES: Final = {path.stem: path.read_text("utf-8") for path in (DATA / "templates").glob("*.jinja")}
TEMPLATES: Final = {stem: JINJA.from_string(source) for stem, source in SOURCES.items()}


def template_of(name: str) -> tuple[str, Mapping[str, str]]:
    """The file of that format, and its variables."""
    own: tuple[str, Mapping[str, str]] = (name, {})
    return SHARED.get(name, own)


def rendered(name: str, prompt: Prompt, **others: str) -> str:
    """What the template of that format makes of the prompt, and of other variables; distgen has no part in it."""
    file, variables = template_of(name)
    messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    for exchange in prompt.history:
        messages += [
            {"role": "user", "content": exchange.user},
            {"role": "assistant", "content": exchange.assistant},
        ]
    messages.append({"role": "user", "content": prompt.user})
    return TEMPLATES[file].render({**variables, **others}, messages=messages)


def prompt_of(case: Case) -> Prompt:
    return Prompt(case["user"], case["system"], tuple(Exchange(user, answer) for user, answer in case["history"]))


def fitted(format: Format[str], prompt: Prompt) -> Prompt:
    """The prompt, changed where the format has no place for what it is made of, or asks for a system text."""
    bare = replace(prompt, system=None)
    for shape in (prompt, bare, replace(bare, history=()), replace(prompt, system=prompt.system or "Be brief.")):
        answer = format(shape)
        if not (isinstance(answer, Failure) and isinstance(answer.failure(), Unsupported)):
            return shape
    return prompt


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(entry["format"], case, id=f"{entry['format']}-{case['name']}")
        for entry in (*ORACLE, *EDGES)
        for case in entry["cases"]
        if entry["format"] != "openai" and case["expected"] is not None and not case.get("contested")
    ],
)
def test_the_template_renders_each_case_as_the_model_s_own(name: str, case: Case) -> None:
    assert rendered(name, prompt_of(case)) == case["expected"]


@pytest.mark.parametrize(
    "entry", DATED, ids=[f"{entry['format']}-{entry['date']}-{entry['reasoning']}" for entry in DATED]
)
def test_the_template_prints_each_date_as_the_model_s_own(entry: Dated) -> None:
    printed = date.fromisoformat(entry["date"]).strftime(PRINTED[entry["format"]])
    for case in entry["cases"]:
        text = rendered(entry["format"], prompt_of(case), today=printed, reasoning=entry["reasoning"] or "")
        assert text == case["expected"]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.no_cover
def test_the_registry_renders_as_the_template_does(name: str) -> None:
    format = TEXTS[name]

    @settings(max_examples=60, deadline=None)
    @given(prompts() | adversarial_prompts(format))
    @example(Prompt("", "", (Exchange("", ""), Exchange("", ""))))
    @example(Prompt(" \n", " \n", (Exchange(" \n", " \n"),)))
    @example(Prompt("", None, (Exchange("\ud800", " "),)))
    def agree(prompt: Prompt) -> None:
        shape = fitted(format, prompt)
        answer = format(shape)
        if isinstance(answer, Success):
            assert answer.unwrap() == rendered(name, shape)

    agree()


@pytest.mark.parametrize("entry", [entry for entry in EDGES if entry["format"] in TEXTS], ids=lambda e: e["format"])
def test_the_registry_writes_empty_and_blank_texts_as_the_model_s_own(entry: Entry) -> None:
    for case in entry["cases"]:
        answer = TEXTS[entry["format"]](prompt_of(case))
        if isinstance(answer, Success) and case["expected"] is not None:
            assert answer.unwrap() == case["expected"]


def test_every_format_has_a_template_and_every_template_a_format() -> None:
    named = {entry["format"] for entry in ORACLE} - {"openai"} | set(TEXTS)
    assert {template_of(name)[0] for name in named} == set(TEMPLATES)
    assert set(SHARED) <= named
