"""The data of the oracle, and tables of formats that several test modules share."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats import FORMATS, ChatMessages, ChatTemplate, TextFormat, chatml, llama2, zephyr
from distgen.prompt import Exchange, Prompt
from tests.support.oracle import DATA as DATA
from tests.support.oracle import DATED as DATED
from tests.support.oracle import EDGES as EDGES
from tests.support.oracle import ORACLE as ORACLE
from tests.support.oracle import Case
from tests.support.oracle import Dated as Dated
from tests.support.oracle import Entry as Entry

TEXTS: Final[dict[str, TextFormat]] = {
    name: each for name, each in FORMATS.items() if not isinstance(each, ChatMessages)
}
TEMPLATES: Final = {name: each for name, each in FORMATS.items() if isinstance(each, ChatTemplate)}
# A template that is none of the registry's: a difference, and markup of another kind.
VARIANTS: Final = {
    "llama2-no-bos": replace(llama2, name="llama2-no-bos", bos=""),
    "chatml-stripped": replace(chatml, strip_system=str.rstrip, strip_user=str.lstrip, strip_assistant=str.strip),
    "zephyr-stripped": replace(zephyr, strip_user=str.strip, strip_first_user=str.rstrip),
}
# One of each kind; the others differ in their literals alone.
KINDS: Final[dict[str, TextFormat]] = {
    name: TEXTS[name]
    for name in (
        *("default", "chatglm4", "smollm3-nothink"),  # classes of their own
        *("chatml", "llama2", "llama3", "zephyr"),
        *("qwen2.5", "qwq", "bielik", "lfm2"),  # a default system text, strips of one side, an empty one as none
        *("llama3.1", "deepseek-v3", "harmony", "kimi-k2-0905"),  # system texts with something around them, or nothing
        *("mistral-v1", "mistral-v3", "gemma3"),  # the system text folded into a user text
        *("phi3-medium", "mistral-v7-tekken", "alpaca"),  # no system text, always one, no history
        *("vicuna", "solar", "deepseek-coder", "minimax-m2"),  # plain words, and a token that may straddle
    )
}
WHOLE: Final = {
    name: each
    for name, each in (KINDS | VARIANTS).items()
    if isinstance(each, ChatTemplate) and each.system_position != "refused" and each.refuse is None
}


def prompt_of(case: Case) -> Prompt:
    return Prompt(case["user"], case["system"], tuple(Exchange(user, answer) for user, answer in case["history"]))
