"""The registry: every format by its name, and the functions that look a name up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, overload

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, UnknownFormat
from distgen.formats.family_chatml import CHATML
from distgen.formats.family_deepseek import DEEPSEEK
from distgen.formats.family_gemma import GEMMA
from distgen.formats.family_headers import HEADERS
from distgen.formats.family_llama import LLAMA
from distgen.formats.family_mistral import MISTRAL
from distgen.formats.family_plain import PLAIN
from distgen.formats.family_tags import TAGS
from distgen.formats.family_words import WORDS
from distgen.formats.messages import ChatMessages, openai
from distgen.formats.template import ChatTemplate
from distgen.prompt import Messages, Prompt

TextName: TypeAlias = Literal[
    "default",
    "chatml",
    "chatml-bos",
    "qwen1.5",
    "qwen2",
    "qwen2.5",
    "qwen3",
    "qwen3-nothink",
    "qwen3-2507",
    "qwq",
    "smollm2",
    "smollm3-nothink",
    "lfm2",
    "bielik",
    "minicpm3",
    "phi4",
    "kimi-k2",
    "kimi-k2-0905",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama4",
    "codellama-70b",
    "mistral-v1",
    "mistral-v0.2-hf",
    "mistral-v0.2-hf-sys",
    "mistral-v3",
    "mistral-v3-tekken",
    "mistral-v7",
    "mistral-v7-tekken",
    "zephyr",
    "tulu",
    "falcon3",
    "olmo2",
    "phi3-mini",
    "phi3-small",
    "phi3-medium",
    "phi3.5",
    "phi4-mini",
    "h2o-danube",
    "oasst",
    "starchat",
    "chatglm3",
    "chatglm4",
    "glm4.6",
    "exaone3",
    "exaone4",
    "gemma",
    "gemma3",
    "gemma4",
    "gemma4-e2b",
    "deepseek-coder",
    "deepseek-v2",
    "deepseek-v3",
    "deepseek-r1",
    "deepseek-r1-distill",
    "deepseek-v3.1",
    "vicuna",
    "alpaca",
    "alpaca-fastchat",
    "solar",
    "openchat",
    "orion",
    "command-r",
    "granite3",
    "granite3.1",
    "granite3.3",
    "granite4",
    "seed-oss",
    "minimax-m2",
    "megrez",
    "ling",
    "monarch",
    "minicpm",
    "baichuan2",
    "harmony",
    "apertus",
]
"""The names in FORMATS of the formats that render to text: all but "openai"."""


@overload
def lookup(name: Literal["openai"]) -> Result[ChatMessages, UnknownFormat]: ...
@overload
def lookup(name: TextName) -> Result[ChatTemplate, UnknownFormat]: ...
@overload
def lookup(name: str) -> Result[ChatTemplate | ChatMessages, UnknownFormat]: ...
def lookup(name: str) -> Result[ChatTemplate | ChatMessages, UnknownFormat]:
    """The format of that name, or of the model of that name where it is certain; else the names that may be meant.

    Case, "-" and "_" do not count in a name, nor do a model's maker and packaging ("unsloth/...", "...-GGUF"). A model with
    which more than one format goes is not decided here: the error names them all.

    >>> lookup("chatml").map(lambda found: found.stops)
    <Success: ('<|im_end|>',)>
    >>> lookup("Qwen/Qwen2.5-7B-Instruct-AWQ").map(lambda found: found.name)
    <Success: qwen2.5>
    >>> lookup("mistralai/Mistral-7B-Instruct-v0.2")
    <Failure: UnknownFormat(name='mistralai/Mistral-7B-Instruct-v0.2', nearest=('mistral-v1', 'mistral-v0.2-hf', 'mistral-v0.2-hf-sys'))>
    """
    exact = FORMATS.get(name)
    if exact is not None:
        return Success(exact)
    meant = list(_meant(name))
    return Success(meant[0]) if len(meant) == 1 else Failure(_unknown(name, tuple(each.name for each in meant)))


@overload
def format_as(prompt: Prompt, name: Literal["openai"]) -> Result[Messages, FormatError]: ...
@overload
def format_as(prompt: Prompt, name: TextName) -> Result[str, FormatError]: ...
@overload
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]: ...
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]:
    """The prompt in the format of that name: messages for "openai", text for every other.

    >>> format_as(Prompt("Hi", system="Be brief."), "llama2").unwrap()
    '<s>[INST] <<SYS>>\\nBe brief.\\n<</SYS>>\\n\\nHi [/INST]'
    """
    found = lookup(name)
    return Failure(found.failure()) if isinstance(found, Failure) else found.unwrap()(prompt)


def _unknown(name: str, meant: tuple[str, ...]) -> UnknownFormat:
    from difflib import get_close_matches

    return UnknownFormat(name, meant or tuple(get_close_matches(name.rpartition("/")[2].lower(), FORMATS)))


# What packages a model leaves its chat template as it is: weights in another file format, or quantized.
_PACKAGING = re.compile(
    r"(?:-(?:gguf|hf|awq|gptq|mlx|onnx|bnb|fp8|bf16|fp16|int[48]|[48]bit|q\d(?:-[01ksml])*))+(?:\.gguf)?$|\.gguf$"
)
_SIZE = r"\d[\d.x]*[bmke](?:-a\d[\d.]*b)?"


def _meant(name: str) -> Iterator[ChatTemplate | ChatMessages]:
    model = _PACKAGING.sub("", name[-200:].rpartition("/")[2].lower().replace("_", "-"))
    for each in FORMATS.values():
        models = each.models if isinstance(each, ChatTemplate) else ()
        if _bare(name) == _bare(each.name) or any(re.fullmatch(_pattern(known), model) for known in models):
            yield each


def _bare(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _pattern(model: str) -> str:
    return re.escape(model.lower()).replace(r"\*", _SIZE)


FAMILIES: Final[Mapping[str, tuple[ChatTemplate | ChatMessages, ...]]] = MappingProxyType(
    {
        "plain text": PLAIN,
        "messages": (openai,),
        "ChatML": CHATML,
        "Llama": LLAMA,
        "Mistral": MISTRAL,
        "role tags": TAGS,
        "Gemma": GEMMA,
        "DeepSeek": DEEPSEEK,
        "plain words": WORDS,
        "role headers": HEADERS,
    }
)
"""The formats by what they are made like, immutable."""

FORMATS: Final[Mapping[str, ChatTemplate | ChatMessages]] = MappingProxyType(
    {each.name: each for family in FAMILIES.values() for each in family}
)
"""Every format by its name, immutable. A format of one's own needs no entry: it is a value like these."""
