"""The registry: every format by its name, and the functions that look a name up."""

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

_TEXT_FORMATS: Final[Mapping[str, TextFormat]] = {format.name: format for format in ALL}
FORMATS: Final[Mapping[str, AnyFormat]] = MappingProxyType({**_TEXT_FORMATS, openai.name: openai})
"""Every format by its name, immutable. A format of your own needs no entry here."""

# A package of a model keeps its chat template: the same weights quantized, or in another file format.
_PACKAGING: Final = re.compile(
    r"(?:-(?:gguf|hf|awq|gptq|mlx|onnx|bnb|fp8|bf16|fp16|int[48]|[48]bit|q\d(?:-[01ksml])*))+(?:\.gguf)?$|\.gguf$"
)
_SIZE: Final = r"\d[\d.x]*[bmke](?:-a\d[\d.]*b)?"
_MAX_NAME: Final = 200  # characters; a longer path is cut at its start


@overload
def lookup(name: Literal["openai"]) -> Result[ChatMessages, UnknownFormat]: ...
@overload
def lookup(name: str) -> Result[AnyFormat, UnknownFormat]: ...
def lookup(name: str) -> Result[AnyFormat, UnknownFormat]:
    """Return the format of that name or of that model, or the names that may be meant.

    Case, "-" and "_" do not matter in a name of a format, nor a maker or a packaging ("unsloth/...", "...-GGUF") in one
    of a model. If a model has several formats, the error names them all.

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
    model = _PACKAGING.sub("", name[-_MAX_NAME:].rpartition("/")[2].lower().replace("_", "-"))
    found = [
        format for format in FORMATS.values() if _simplify(name) == _simplify(format.name) or _has_model(format, model)
    ]
    if len(found) == 1:
        return Success(found[0])
    nearest = [format.name for format in found] or get_close_matches(name.rpartition("/")[2].lower(), FORMATS)
    return Failure(UnknownFormat(name, tuple(nearest)))


@overload
def format_as(prompt: Prompt, name: Literal["openai"]) -> Result[Messages, FormatError]: ...
@overload
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]: ...
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]:
    r"""Render the prompt in the format of that name: messages for "openai", text for every other.

    >>> format_as(Prompt("Hi", system="Be brief."), "llama2").unwrap()
    '<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]'
    """
    found = lookup(name)
    return Failure(found.failure()) if isinstance(found, Failure) else found.unwrap()(prompt)


def _simplify(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _has_model(format: AnyFormat, model: str) -> bool:
    patterns = () if isinstance(format, ChatMessages) else format.models
    return any(re.fullmatch(re.escape(each.lower()).replace(r"\*", _SIZE), model) for each in patterns)
