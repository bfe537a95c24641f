"""The data of the oracle, and tables of formats that several test modules share."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from returns.result import Failure

from distgen.errors import InjectedToken
from distgen.formats import FORMATS, ChatMessages, ChatTemplate, TextFormat, chatml, llama2, zephyr
from distgen.formats.template import Thinking
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

_PLAIN: Final = ChatTemplate(
    "plain",
    user_prefix="<|user|>",
    before_system="<|sys|>",
    after_system="<|end|><|user|>",
    before_assistant="<|end|><|model|>",
    after_assistant="<|end|><|user|>",
    generation_prompt="<|end|><|model|>",
    special_tokens=("<|user|>", "<|model|>", "<|sys|>", "<|end|>", "<think>", "</think>"),
    thinking=Thinking("<|end|><|model|><think>", "</think>"),
    past_reasoning="written",
)
WORDS: Final = ChatTemplate("words", "", "S:\n", "\n--\n", "\n\nA:\n", "\n\nQ:\n", "\n\nA:\n")
# Templates as users write them: the role of a text that forms markup or an opening, and the literal that does it.
OPEN_STARTS: Final = (
    ("user", replace(_PLAIN, user_prefix="<|user|><")),
    ("user", replace(_PLAIN, after_system="<|end|><|user|><")),
    ("user", replace(_PLAIN, after_assistant="<|end|><|user|><")),
    ("system", replace(_PLAIN, before_system="<|sys|><")),
    ("assistant", replace(_PLAIN, before_assistant="<|end|><|model|><")),
    ("reasoning", replace(_PLAIN, thinking=Thinking("<|end|><|model|><think><", "</think>"))),
)
OPEN_ENDS: Final = (
    ("user", replace(_PLAIN, before_assistant="|><|end|><|model|>")),
    ("user", replace(_PLAIN, generation_prompt="|><|end|><|model|>")),
    ("system", replace(_PLAIN, after_system="|><|end|><|user|>", strip_system=str.rstrip)),
    ("assistant", replace(_PLAIN, after_assistant="|><|end|><|user|>")),
    ("reasoning", replace(_PLAIN, thinking=Thinking("<|end|><|model|><think>", "|></think>"))),
)
OWN: Final = (
    *(_PLAIN, WORDS),
    *(replace(_PLAIN, system_position="first_user"), replace(_PLAIN, system_position="last_user")),
    *(template for _, template in (*OPEN_STARTS, *OPEN_ENDS)),
)


def prompt_of(case: Case) -> Prompt:
    return Prompt(case["user"], case["system"], tuple(Exchange(user, answer) for user, answer in case["history"]))


def law_segments(template: TextFormat, prompt: Prompt) -> None:
    """The segments joined are the rendering, wherever there is one, and what is no control in them is the prompt's texts.

    None is refused for what a text holds.
    """
    rendered, segments = template(prompt), template.segments(prompt)
    if isinstance(segments, Failure):
        is_due = segments == rendered and not isinstance(segments.failure(), InjectedToken)
        assert is_due, f"law_segments: {prompt} has no segments: {segments}"
        return
    joined = "".join(each.text for each in segments.unwrap())
    is_whole = rendered.value_or(joined) == joined
    assert is_whole, f"law_segments: {prompt} gives {rendered}, but its segments {joined!r}"
    said = "".join(each.text for each in segments.unwrap() if not each.is_control)
    told = "".join(text for _, text in prompt.texts())
    is_told = sorted("".join(said.split())) == sorted("".join(told.split()))
    assert is_told, f"law_segments: {prompt} says {said!r} in its segments"
