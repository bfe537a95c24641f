"""The registry: every format by its name, and the two functions that look a name up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, overload

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, UnknownFormat
from distgen.formats.family_chatml import (
    bielik,
    chatml,
    chatml_bos,
    kimi_k2,
    kimi_k2_0905,
    lfm2,
    minicpm3,
    phi4,
    qwen1_5,
    qwen2_5,
    qwen3,
    qwen3_nothink,
    qwq,
    smollm2,
    smollm3_nothink,
)
from distgen.formats.family_deepseek import (
    deepseek_coder,
    deepseek_r1,
    deepseek_r1_distill,
    deepseek_v2,
    deepseek_v3,
    deepseek_v3_1,
)
from distgen.formats.family_gemma import (
    gemma,
    gemma3,
    gemma4,
)
from distgen.formats.family_headers import (
    apertus,
    baichuan2,
    command_r,
    granite3,
    granite3_3,
    granite4,
    harmony,
    ling,
    megrez,
    minicpm,
    minimax_m2,
    monarch,
    seed_oss,
)
from distgen.formats.family_llama import (
    codellama_70b,
    llama2,
    llama3,
    llama3_1,
    llama3_2,
    llama4,
)
from distgen.formats.family_mistral import (
    mistral_v0_2_hf,
    mistral_v0_2_hf_sys,
    mistral_v1,
    mistral_v3,
    mistral_v3_tekken,
    mistral_v7,
    mistral_v7_tekken,
)
from distgen.formats.family_plain import default
from distgen.formats.family_tags import (
    chatglm3,
    chatglm4,
    exaone3,
    exaone4,
    glm4_6,
    h2o_danube,
    oasst,
    olmo2,
    phi3_5,
    phi3_medium,
    phi3_mini,
    phi3_small,
    phi4_mini,
    starchat,
    tulu,
    zephyr,
)
from distgen.formats.family_words import (
    alpaca,
    alpaca_fastchat,
    openchat,
    orion,
    solar,
    vicuna,
)
from distgen.formats.messages import ChatMessages, openai
from distgen.formats.template import ChatTemplate
from distgen.prompt import Messages, Prompt

TextName: TypeAlias = Literal[
    "default",
    "chatml",
    "chatml-bos",
    "qwen1.5",
    "qwen2.5",
    "qwen3",
    "qwen3-nothink",
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
    """The format of that name, or the names nearest to it.

    >>> lookup("chatml").map(lambda found: found.stops)
    <Success: ('<|im_end|>',)>
    >>> lookup("Llama-3")
    <Failure: UnknownFormat(name='Llama-3', nearest=('llama3', 'llama3.2', 'llama3.1'))>
    """
    found = FORMATS.get(name)
    return Failure(_unknown(name)) if found is None else Success(found)


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
    found = FORMATS.get(name)
    return Failure(_unknown(name)) if found is None else found(prompt)


def _unknown(name: str) -> UnknownFormat:
    from difflib import get_close_matches

    return UnknownFormat(name, tuple(get_close_matches(name.lower(), FORMATS)))


FORMATS: Final[Mapping[str, ChatTemplate | ChatMessages]] = MappingProxyType(
    {
        "default": default,
        "openai": openai,
        "chatml": chatml,
        "chatml-bos": chatml_bos,
        "qwen1.5": qwen1_5,
        "qwen2.5": qwen2_5,
        "qwen3": qwen3,
        "qwen3-nothink": qwen3_nothink,
        "qwq": qwq,
        "smollm2": smollm2,
        "smollm3-nothink": smollm3_nothink,
        "lfm2": lfm2,
        "bielik": bielik,
        "minicpm3": minicpm3,
        "phi4": phi4,
        "kimi-k2": kimi_k2,
        "kimi-k2-0905": kimi_k2_0905,
        "llama2": llama2,
        "llama3": llama3,
        "llama3.1": llama3_1,
        "llama3.2": llama3_2,
        "llama4": llama4,
        "codellama-70b": codellama_70b,
        "mistral-v1": mistral_v1,
        "mistral-v0.2-hf": mistral_v0_2_hf,
        "mistral-v0.2-hf-sys": mistral_v0_2_hf_sys,
        "mistral-v3": mistral_v3,
        "mistral-v3-tekken": mistral_v3_tekken,
        "mistral-v7": mistral_v7,
        "mistral-v7-tekken": mistral_v7_tekken,
        "zephyr": zephyr,
        "tulu": tulu,
        "olmo2": olmo2,
        "phi3-mini": phi3_mini,
        "phi3-small": phi3_small,
        "phi3-medium": phi3_medium,
        "phi3.5": phi3_5,
        "phi4-mini": phi4_mini,
        "h2o-danube": h2o_danube,
        "oasst": oasst,
        "starchat": starchat,
        "chatglm3": chatglm3,
        "chatglm4": chatglm4,
        "glm4.6": glm4_6,
        "exaone3": exaone3,
        "exaone4": exaone4,
        "gemma": gemma,
        "gemma3": gemma3,
        "gemma4": gemma4,
        "deepseek-coder": deepseek_coder,
        "deepseek-v2": deepseek_v2,
        "deepseek-v3": deepseek_v3,
        "deepseek-r1": deepseek_r1,
        "deepseek-r1-distill": deepseek_r1_distill,
        "deepseek-v3.1": deepseek_v3_1,
        "vicuna": vicuna,
        "alpaca": alpaca,
        "alpaca-fastchat": alpaca_fastchat,
        "solar": solar,
        "openchat": openchat,
        "orion": orion,
        "command-r": command_r,
        "granite3": granite3,
        "granite3.3": granite3_3,
        "granite4": granite4,
        "seed-oss": seed_oss,
        "minimax-m2": minimax_m2,
        "megrez": megrez,
        "ling": ling,
        "monarch": monarch,
        "minicpm": minicpm,
        "baichuan2": baichuan2,
        "harmony": harmony,
        "apertus": apertus,
    }
)
"""Every format by its name, immutable. A format of one's own needs no entry: it is a value like these."""
