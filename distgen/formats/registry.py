"""`FORMATS`, the registry of every format by its name, and the functions that look up a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, overload

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, UnknownFormat
from distgen.formats.formatter import TextFormat
from distgen.formats.messages import ChatMessages, openai
from distgen.formats.models import ALL
from distgen.prompt import Messages, Prompt

AnyFormat: TypeAlias = TextFormat | ChatMessages

FORMATS: Final[Mapping[str, AnyFormat]] = MappingProxyType({format.name: format for format in (*ALL, openai)})
"""Every format by its name, immutable. A format of your own needs no entry here."""

# The end of the name of a package that holds a model's weights in another file format, or quantized.
_PACKAGING: Final = re.compile(
    r"(?:[-.](?:gguf|ggml|hf|awq|gptq|mlx|onnx|exl[23]|bnb|unsloth|ud|i1|imatrix|qat|autoround|dynamic|(?:un)?quantized"
    r"|bf16|fp?(?:4|8|16|32)|(?:nv|mx)fp[48]|nf4|int[48]|w\d+a\d+|\d(?:\.\d+)?(?:bit|bpw)|\d+-of-\d+"
    r"|i?q\d(?:-(?:[01]|k|nl|x*[sml]))*))+$"
)
_SIZE: Final = r"e?\d[\d.x]*[bmke](?:-a\d[\d.]*b)?"
_TAG: Final = re.compile(rf"(?:-latest|-{_SIZE})?(?:-instruct|-it|-chat)?")  # Ollama's, of a model that chats
_MAX_NAME: Final = 200  # characters; a longer path is cut at its start


@overload
def lookup(name: Literal["openai"]) -> Result[ChatMessages, UnknownFormat]: ...
@overload
def lookup(name: str) -> Result[AnyFormat, UnknownFormat]: ...
def lookup(name: str) -> Result[AnyFormat, UnknownFormat]:
    """Return the format with that name or of the model with that name, or an error with the nearest names.

    In a name of a format, case, "-", "_" and a maker ("x/zephyr") do not matter. A name of a model may have a maker and a
    packaging ("unsloth/...", "Qwen_...", "...-GGUF"), or be one of Ollama ("llama3.1:8b"). If a model has several formats,
    such as one for each revision, the error names them all. For a model of the OpenAI API ("gpt-4o") it names "openai".

    >>> lookup("chatml").map(lambda found: found.name)
    <Success: chatml>
    >>> lookup("Qwen/Qwen2.5-7B-Instruct-AWQ").map(lambda found: found.name)
    <Success: qwen2.5>
    >>> lookup("mistralai/Mistral-7B-Instruct-v0.2").failure().nearest
    ('mistral-v1', 'mistral-v0.2-hf', 'mistral-v0.2-hf-sys')
    """
    exact = FORMATS.get(name)
    if exact is not None:
        return Success(exact)
    base = name[-_MAX_NAME:].rpartition("/")[2].lower()
    names = (*_candidates(base), *_candidates(base.partition("_")[2]))  # "Qwen_Qwen3-8B-GGUF"
    found = [format for format in FORMATS.values() if any(_has_name(format, each) for each in names)]
    if len(found) == 1:
        return Success(found[0])
    # The models of the OpenAI API have no template of their own.
    likely = ["openai"] if names[0].startswith("gpt-") else get_close_matches(names[0], FORMATS)
    nearest = [format.name for format in found] or likely
    return Failure(UnknownFormat(name, tuple(nearest)))


@overload
def format_as(prompt: Prompt, name: Literal["openai"]) -> Result[Messages, FormatError]: ...
@overload
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]: ...
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]:
    r"""Render the prompt in the format with that name: messages for "openai", text for every other.

    >>> format_as(Prompt("Hi", system="Be brief."), "llama2").unwrap()
    '<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]'
    """
    found = lookup(name)
    return Failure(found.failure()) if isinstance(found, Failure) else found.unwrap()(prompt)


def _candidates(name: str) -> tuple[str, ...]:
    """Return the names of models, without packaging, that a name may mean.

    >>> _candidates("qwen3-8b-ud-q4-k-xl.gguf"), _candidates("gemma3:4b-it-qat"), _candidates("llama3.1:8b-text")
    (('qwen3-8b',), ('gemma3', 'gemma3:4b-it', 'gemma3-4b-it'), ('llama3.1:8b-text', 'llama3.1-8b-text'))
    """
    package, colon, tag = name.replace("_", "-").partition(":")
    model = _PACKAGING.sub("", package)
    if not colon:
        return (model,)
    kind = _PACKAGING.sub("", f"-{tag}")
    whole = (f"{model}:{kind[1:]}", f"{model}{kind}")
    return (model, *whole) if _TAG.fullmatch(kind) else whole


def _has_name(format: AnyFormat, name: str) -> bool:
    if _simplify(name) == _simplify(format.name):
        return True
    patterns = () if isinstance(format, ChatMessages) else format.models
    return any(re.fullmatch(re.escape(each.lower()).replace(r"\*", _SIZE), name) for each in patterns)


def _simplify(name: str) -> str:
    return name.replace("-", "")
