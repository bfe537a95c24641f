"""The registry beside the models' own templates, and beside templates written from descriptions, in jinja2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Final, TypeAlias

import pytest
from hypothesis import example, given, settings
from jinja2.sandbox import SandboxedEnvironment
from returns.result import Failure, Result, Success

from distgen.errors import FormatError, Unsupported
from distgen.formats import (
    FORMATS,
    ChatMessages,
    Format,
    TextFormat,
    format_as,
)
from distgen.formats.models.huggingface import smollm3_nothink_with, smollm3_with
from distgen.formats.models.ibm import granite3_1_with, granite3_3_with
from distgen.formats.models.meta import llama3_1_with, llama3_2_with, muse_glimmer_with
from distgen.formats.models.mistral import mistral_v7_tekken_with
from distgen.formats.models.openai import harmony_with
from distgen.formats.models.swiss_ai import apertus_with
from distgen.formats.models.upstage import solar_open_with
from distgen.prompt import Exchange, Messages, Prompt
from distgen.testing import (
    adversarial_prompts,
    law_canonical,
    law_complete,
    law_inverse,
    law_no_forgery,
    law_pure,
    law_refusal,
    prompts,
)
from tests.support.formats import (
    DATA,
    DATED,
    EDGES,
    ORACLE,
    TEXTS,
    Dated,
    Entry,
    prompt_of,
)
from tests.support.oracle import Source

Law: TypeAlias = Callable[[Format[str], Prompt], None]
LAWS: Final[tuple[Law, ...]] = (law_pure, law_complete, law_refusal, law_no_forgery, law_canonical, law_inverse)


FORMAT: Final = pytest.mark.parametrize("entry", ORACLE, ids=[entry["format"] for entry in ORACLE])


def text_of(answer: Result[str | Messages, FormatError]) -> str | Messages | FormatError:
    """Return the text or the error: a difference in white space shows in their comparison, not in that of Results."""
    return answer.unwrap() if isinstance(answer, Success) else answer.failure()


# Their templates render an empty system text unlike any other text; they refuse it.
NO_EMPTY_SYSTEM: Final = frozenset({"command-a", "command-a-response", "minimax-m1", "laguna-xs2"})


@FORMAT
def test_each_case_is_rendered_as_the_vendor_renders_it(entry: Entry) -> None:
    name, rendered = entry["format"], 0
    for case in entry["cases"]:
        expected, answer = case["expected"], text_of(format_as(prompt_of(case), name))
        is_dropped = case["system"] is not None and isinstance(expected, str) and case["system"].strip() not in expected
        is_empty = case["system"] == "" and name in NO_EMPTY_SYSTEM
        if case.get("contested"):
            continue
        if expected is None or is_dropped or is_empty:
            assert answer == Unsupported(name, "system"), (
                f"{case['name']}: the template raises, or drops the system text, or it is empty"
            )
        else:
            rendered += 1
            assert answer == expected, (
                f"{case['name']}: the format renders the left side, the published template the right"
            )
    assert rendered >= 4, f"{name}: only {rendered} cases have a text"


@FORMAT
def test_bos_stop_and_special_tokens_are_the_vendors(entry: Source) -> None:
    assert entry["format"] in FORMATS, "FORMATS has no format of that name"
    found = FORMATS[entry["format"]]
    if isinstance(found, ChatMessages):
        assert entry["special_tokens"] == []
        return
    missing = {*entry["special_tokens"]} - {*found.special_tokens}
    assert not missing, f"oracle.json names special tokens that the record lacks: {sorted(missing)}"
    assert found.bos == entry["bos"], "bos: left the record's, right that of oracle.json"
    assert found.stop == tuple(entry["stop"]), "stop: left the record's, right that of oracle.json"


def test_every_format_but_default_has_an_oracle() -> None:
    named, known = {entry["format"] for entry in ORACLE}, {*FORMATS} - {"default"}
    unknown, bare = sorted(named - known), sorted(known - named)
    assert not unknown, (
        f"oracle.json has {unknown}, FORMATS has not: is each in the FORMATS of its file, and the file in models/__init__.py?"
    )
    assert not bare, f"FORMATS has {bare}, oracle.json has not"
    short = [entry["format"] for entry in ORACLE if len(entry["cases"]) < 6]
    assert not short, f"without expected texts: {short}; run python -m tests.support.oracle FOLDER"


# Dates.


def test_the_registry_has_the_dates_that_it_says() -> None:
    assert llama3_1_with(today=date(2024, 7, 26)) == FORMATS["llama3.1"]
    assert llama3_2_with(today=date(2024, 7, 26)) == FORMATS["llama3.2"]
    assert granite3_1_with(today=date(2025, 4, 16)) == FORMATS["granite3.1"]
    assert granite3_3_with(today=date(2025, 4, 16)) == FORMATS["granite3.3"]
    assert smollm3_with(today=date(2025, 7, 10)) == FORMATS["smollm3"]
    assert smollm3_nothink_with(today=date(2025, 7, 10)) == FORMATS["smollm3-nothink"]
    assert solar_open_with(today=date(2025, 12, 31)) == FORMATS["solar-open"]
    assert apertus_with(today=date(2025, 9, 2)) == FORMATS["apertus"]
    assert muse_glimmer_with(today=date(2026, 8, 10)) == FORMATS["muse-glimmer"]
    assert harmony_with(today=date(2025, 8, 5)) == FORMATS["harmony"]


def dated(entry: Dated) -> TextFormat:
    today = date.fromisoformat(entry["date"])
    factories: dict[str, Callable[..., TextFormat]] = {
        "llama3.1": llama3_1_with,
        "llama3.2": llama3_2_with,
        "granite3.1": granite3_1_with,
        "granite3.3": granite3_3_with,
        "smollm3": smollm3_with,
        "smollm3-nothink": smollm3_nothink_with,
        "solar-open": solar_open_with,
        "apertus": apertus_with,
        "muse-glimmer": muse_glimmer_with,
        "mistral-v7-tekken": mistral_v7_tekken_with,
    }
    if entry["format"] == "harmony":
        assert entry["reasoning"] is not None
        return harmony_with(today=today, reasoning_effort=entry["reasoning"])
    return factories[entry["format"]](today=today)


@pytest.mark.parametrize("entry", DATED, ids=lambda entry: f"{entry['format']}-{entry['date']}-{entry['reasoning']}")
def test_each_date_is_printed_as_the_vendor_prints_it(entry: Dated) -> None:
    template = dated(entry)
    for case in entry["cases"]:
        assert template(prompt_of(case)) == Success(case["expected"])
        assert template.parse(template(prompt_of(case)).unwrap()) == Success(template.canonical(prompt_of(case)))


def test_deliberation_is_one_word_of_apertus() -> None:
    thinking = apertus_with(today=date(2025, 9, 2), enable_thinking=True)
    expected = FORMATS["apertus"](Prompt("u", "s")).unwrap()
    assert isinstance(expected, str)
    assert thinking(Prompt("u", "s")) == Success(expected.replace("disabled\nTool", "enabled\nTool"))


# Empty texts.


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        pytest.param(entry["format"], prompt_of(case), id=f"{entry['format']}-{case['name']}")
        for entry in EDGES
        if entry["format"] in TEXTS
        for case in entry["cases"]
    ],
)
def test_empty_and_blank_texts_are_read_back(name: str, prompt: Prompt) -> None:
    for law in LAWS:
        law(TEXTS[name], prompt)


# A second oracle: a template for each format, written from its description, rendered by jinja2.

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
    "qwen3-thinking": ("chatml", {"thought": "<think>\n"}),
    "minicpm5": ("chatml", {"bos": "<s>"}),
    "minicpm5-think": ("chatml", {"bos": "<s>", "thought": "<think>\n"}),
    "minicpm5-nothink": ("chatml", {"bos": "<s>", "thought": "<think>\n\n</think>\n\n"}),
    "step3.5": ("chatml", {"bos": "<｜begin▁of▁sentence｜>", "thought": "<think>\n"}),
    "falcon-h1": ("chatml", {"bos": "<|begin_of_text|>"}),
    "mimo-vl": ("chatml", {"default": "You are MiMo, an AI assistant developed by Xiaomi."}),
    "qwen3.5": ("qwen3.5", {"thought": "<think>\n"}),
    "qwen3.5-nothink": ("qwen3.5", {"thought": "<think>\n\n</think>\n\n"}),
    "nemotron3": ("nemotron3", {"thought": "<think>\n"}),
    "nemotron3-ultra": ("nemotron3", {"thought": "<think>\n"}),
    "nemotron3-nothink": ("nemotron3", {"thought": "<think></think>"}),
    "lfm2.5": ("lfm2", {"bos": "<|startoftext|>"}),
    "kimi-k2-thinking": (
        "kimi-k2",
        {"default": "You are Kimi, an AI assistant created by Moonshot AI.", "past": "<think></think>"},
    ),
    "glm4.7": ("glm4.7", {"thought": "<think>"}),
    "glm4.7-nothink": ("glm4.7", {"thought": "</think>"}),
    "tulu3": ("tulu", {"end": "<|end_of_text|>"}),
    "llama3.1-nemotron": ("llama3", {"always_system": "yes"}),
    "smollm3": ("smollm3", {"today": "10 July 2025"}),
    "exaone4": ("exaone4", {"thought": "<think>\n\n</think>\n\n"}),
    "exaone4-think": ("exaone4", {"thought": "<think>\n"}),
    "deepseek-v3.1-think": ("deepseek-v3", {"before_past": "</think>", "thought": "<think>"}),
    "chatglm4": ("chatglm4", {"end": "\n"}),
    "glm4": ("chatglm4", {}),
    "deepseek-v4.1": ("deepseek-v3", {"before_past": "</think>", "thought": "</think>", "tag": "<｜System｜>"}),
    "deepseek-v4.1-think": (
        "deepseek-v3",
        {
            "before_past": "</think>",
            "thought": "<think>",
            "effort": "<｜System｜>Reasoning Effort: 75 "
            "(range 1-100, the higher the value, the more thorough the reasoning)\n\n",
        },
    ),
    "command-a": ("command-a", {}),
    "command-a-response": ("command-a", {"gap": "\n", "opening": "<|START_RESPONSE|>"}),
    "laguna-xs2.1": ("laguna-xs", {}),
    "laguna-xs2": (
        "laguna-xs",
        {
            "default": "You are a helpful, conversationally-fluent assistant made by Poolside. "
            "You are here to be helpful to users through natural language conversations."
        },
    ),
    "minimax-m2": ("minimax-m2", {"default": "You are a helpful assistant."}),
    "minimax-m2.1": (
        "minimax-m2",
        {"default": "You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax."},
    ),
    "minimax-m2.5": (
        "minimax-m2",
        {"default": "You are a helpful assistant. Your name is MiniMax-M2.5 and is built by MiniMax."},
    ),
    "solar-open": ("solar-open", {"today": "2025-12-31"}),
    "muse-glimmer": ("muse-glimmer", {"today": "2026-08-10"}),
}
# How a format prints the date, the day always in two digits.
PRINTED: Final[Mapping[str, str]] = {
    "llama3.1": "%d %b %Y",
    "llama3.2": "%d %b %Y",
    "granite3.1": "%B %d, %Y",
    "granite3.3": "%B %d, %Y",
    "smollm3": "%d %B %Y",
    "smollm3-nothink": "%d %B %Y",
    "solar-open": "%Y-%m-%d",
    "muse-glimmer": "%Y-%m-%d",
    "harmony": "%Y-%m-%d",
    "apertus": "%Y-%m-%d",
    "mistral-v7-tekken": "%Y-%m-%d",
}
JINJA: Final = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
SOURCES: Final = {path.stem: path.read_text("utf-8") for path in (DATA / "templates").glob("*.jinja")}
COMPILED: Final = {stem: JINJA.from_string(source) for stem, source in SOURCES.items()}


def template_of(name: str) -> tuple[str, Mapping[str, str]]:
    """The file of that format, and its variables."""
    own: tuple[str, Mapping[str, str]] = (name, {})
    return SHARED.get(name, own)


def rendered(name: str, prompt: Prompt, **others: str) -> str:
    """What the template of that format makes of the prompt, and of other variables; distgen has no part in it."""
    file, variables = template_of(name)
    assert file in COMPILED, f"write tests/data/templates/{file}.jinja, or name {name} in SHARED"
    messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    for exchange in prompt.history:
        messages += [
            {"role": "user", "content": exchange.user},
            {"role": "assistant", "content": exchange.assistant},
        ]
    messages.append({"role": "user", "content": prompt.user})
    return COMPILED[file].render({**variables, **others}, messages=messages)


def fitted(format: Format[str], prompt: Prompt) -> Prompt:
    """The prompt, changed where the format has no place for what it is made of, or asks for a system text."""
    bare = replace(prompt, system=None)
    for shape in (prompt, bare, replace(bare, history=()), replace(prompt, system=prompt.system or "Be brief.")):
        answer = format(shape)
        if not (isinstance(answer, Failure) and isinstance(answer.failure(), Unsupported)):
            return shape
    return prompt


def test_the_written_templates_render_the_oracle() -> None:
    for entry in (*ORACLE, *EDGES):
        for case in entry["cases"] if entry["format"] != "openai" else ():
            if case["expected"] is not None and not case.get("contested"):
                text = rendered(entry["format"], prompt_of(case))
                assert text == case["expected"], (entry["format"], case["name"])
    for dated_entry in DATED:
        name, reasoning = dated_entry["format"], dated_entry["reasoning"] or ""
        printed = date.fromisoformat(dated_entry["date"]).strftime(PRINTED[name])
        for case in dated_entry["cases"]:
            text = rendered(name, prompt_of(case), today=printed, reasoning=reasoning)
            assert text == case["expected"], (name, case["name"])


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "default"])
@pytest.mark.slow
@pytest.mark.no_cover
def test_the_registry_renders_as_the_template_does(name: str) -> None:
    format, answered = TEXTS[name], Counter[bool]()

    @settings(max_examples=240, deadline=None)
    @given(prompts() | adversarial_prompts(format))
    @example(Prompt("", "", (Exchange("", ""), Exchange("", ""))))
    @example(Prompt(" \n", " \n", (Exchange(" \n", " \n"),)))
    @example(Prompt("", None, (Exchange("\ud800", " "),)))
    def agree(prompt: Prompt) -> None:
        shape = fitted(format, prompt)
        answer = format(shape)
        answered[isinstance(answer, Success)] += 1
        if isinstance(answer, Success):
            assert answer.unwrap() == rendered(name, shape)

    agree()
    assert answered[True] >= answered.total() / 4


@pytest.mark.parametrize("entry", [entry for entry in EDGES if entry["format"] in TEXTS], ids=lambda e: e["format"])
def test_the_registry_writes_empty_and_blank_texts_as_the_model_s_own(entry: Entry) -> None:
    answered = 0
    for case in entry["cases"]:
        answer = TEXTS[entry["format"]](prompt_of(case))
        if isinstance(answer, Failure):
            assert isinstance(answer.failure(), Unsupported)
        elif case["expected"] is not None:
            answered += 1
            assert answer.unwrap() == case["expected"]
    assert answered >= 1


def test_every_format_has_a_template_and_every_template_a_format() -> None:
    named = {entry["format"] for entry in ORACLE} - {"openai"}
    used = {template_of(name)[0] for name in named}
    lacking, spare, strange = sorted(used - {*COMPILED}), sorted({*COMPILED} - used), sorted({*SHARED} - named)
    assert not lacking, f"write these in tests/data/templates, or name their formats in SHARED: {lacking}"
    assert not spare, f"no format has these files of tests/data/templates: {spare}"
    assert not strange, f"SHARED names no formats of oracle.json: {strange}"
