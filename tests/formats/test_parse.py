"""Reading renderings back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen.errors import InjectedToken, NotParsed, explain
from distgen.formats import (
    ChatTemplate,
    chatml,
    llama2,
    llama3,
)
from distgen.prompt import Exchange, Prompt
from distgen.testing import (
    law_inverse,
    law_parse,
)
from tests.support.formats import (
    KINDS,
    TEXTS,
    VARIANTS,
    WHOLE,
)

every_kind = pytest.mark.parametrize("template", (KINDS | VARIANTS).values(), ids=(KINDS | VARIANTS).keys())
every_whole = pytest.mark.parametrize("template", WHOLE.values(), ids=WHOLE.keys())
every_text = pytest.mark.parametrize("template", TEXTS.values(), ids=TEXTS.keys())


@pytest.mark.parametrize(
    ("template", "text", "reason"),
    [
        (chatml, "", r"it does not begin with '<|im_start|>user\n'"),
        (chatml, "<|im_start|>user\nHi", r"it does not end with '<|im_end|>\n<|im_start|>assistant\n'"),
        (chatml, "<|im_start|>system\nHi", r"no '<|im_end|>\n<|im_start|>user\n' follows its system text"),
        (
            chatml,
            "<|im_start|>user\na<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n",
            r"its exchange 0 has no '<|im_end|>\n<|im_start|>assistant\n'",
        ),
        (
            chatml,
            "<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n",
            explain(InjectedToken("chatml", "<|im_end|>", "user", 1)),
        ),
        (llama2, "[INST] Hi [/INST]", "it does not begin with '<s>[INST] '"),
        (llama2, "<s>[INST]  Hi [/INST]", "rendered again, it is another text"),
        (llama2, "<s>[INST] [/INST]", "it does not end with ' [/INST]'"),
        (llama2, "<s>[INST] <<SYS>>\ns\n<</SYS>>Hi [/INST]", r"no '\n<</SYS>>\n\n' follows its system text"),
        (llama2, "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\n [/INST]", "rendered again, it is another text"),
        (
            llama2,
            "<s>[INST] a [/INST] b [/INST] c </s><s>[INST] d [/INST]",
            explain(InjectedToken("llama2", "[/INST]", "history[0].assistant", 2)),
        ),
        (llama3, "\n", "it does not begin with '<|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\n'"),
    ],
)
def test_parse_says_why(template: ChatTemplate, text: str, reason: str) -> None:
    assert template.parse(text) == Failure(NotParsed(template.name, reason))


@every_whole
def test_each_part_of_a_rendering_parses_to_nothing_or_to_itself(template: ChatTemplate) -> None:
    prompt = Prompt(" last?\n", "\nsystem ", (Exchange("\tone? ", " 1.\n\n"), Exchange("", "2")))
    text = template(prompt).unwrap()
    for cut in range(len(text) + 1):
        for part in (
            text[:cut],
            text[cut:],
            text[:cut] + " " + text[cut:],
            text[:cut] + text[cut + 1 :],
            text[:cut] + text,
        ):
            law_parse(template, part)


@every_kind
@given(text=st.text(st.characters()))
@settings(max_examples=50, deadline=None)
def test_parse_is_total(template: ChatTemplate, text: str) -> None:
    law_parse(template, text)


@every_whole
@pytest.mark.slow
def test_parse_takes_a_megabyte_of_anything(template: ChatTemplate) -> None:
    whole = template(Prompt("u", "s", (Exchange("a", "b"),) * 2)).unwrap()
    pieces = {
        whole,
        template.after_assistant,
        template.before_assistant,
        template.before_system,
        template.generation_prompt,
        "<",
        " ",
    }
    opening, tail = template.bos + template.user_prefix, template.generation_prompt
    for piece in pieces - {""}:
        law_parse(template, piece * (1_000_000 // len(piece)))
        law_parse(template, opening + piece * (1_000_000 // len(piece)) + tail)
    for prompt in (Prompt("<" * 1_000_000), Prompt("u", None, (Exchange("a", "b"),) * 20_000)):
        law_inverse(template, prompt)


def test_a_template_without_literals_refuses_what_it_could_not_read_back() -> None:
    bare = ChatTemplate("bare", "", "", "", "", "", "")
    assert isinstance(bare(Prompt("c", "s", (Exchange("a", "b"),))), Failure)
    assert bare.parse("sabc") == Success(Prompt("sabc"))
    halved = replace(bare, before_system="<", after_assistant="|")
    assert halved.parse("<a|b") == Failure(NotParsed("bare", "no '' follows its system text"))
    assert halved.parse("a|b") == Failure(NotParsed("bare", "its exchange 0 has no ''"))
    assert replace(halved, after_assistant="").parse("ab") == Success(Prompt("ab"))
