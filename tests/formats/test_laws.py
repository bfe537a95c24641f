"""The laws, over the formats of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distgen.formats import (
    ChatTemplate,
    Format,
    TextFormat,
    openai,
)
from distgen.prompt import Prompt
from distgen.testing import (
    adversarial_prompts,
    check_format,
    law_canonical,
    law_complete,
    law_inverse,
    law_no_forgery,
    law_pure,
    law_refusal,
    prompts,
)
from tests.support.formats import (
    KINDS,
    TEXTS,
    VARIANTS,
    WHOLE,
    law_segments,
)

every_kind = pytest.mark.parametrize("template", (KINDS | VARIANTS).values(), ids=(KINDS | VARIANTS).keys())
every_whole = pytest.mark.parametrize("template", WHOLE.values(), ids=WHOLE.keys())
every_text = pytest.mark.parametrize("template", TEXTS.values(), ids=TEXTS.keys())

Law: TypeAlias = Callable[[Format[str], Prompt], None]
LAWS: Final[tuple[Law, ...]] = (law_pure, law_complete, law_refusal, law_no_forgery, law_canonical, law_inverse)


@every_kind
def test_laws(template: TextFormat) -> None:
    @settings(max_examples=40, deadline=None)
    @given(prompts() | adversarial_prompts(template))
    def hold(prompt: Prompt) -> None:
        for law in LAWS:
            law(template, prompt)
        law_segments(template, prompt)

    hold()


@every_text
@pytest.mark.slow
def test_segments_are_the_rendering(template: TextFormat) -> None:
    @settings(max_examples=60, deadline=None)
    @given(prompts() | adversarial_prompts(template))
    def hold(prompt: Prompt) -> None:
        law_segments(template, prompt)

    hold()


# Parts of markup at both ends of a literal, which may form markup with the text beside it.
_ENDS: Final = st.sampled_from(("", " ", "\n", "<", "<|", "|>", "[", "]", ">"))
_STRIPS: Final = st.sampled_from((str.strip, str.lstrip, str.rstrip))


@st.composite
def own_templates(draw: st.DrawFn) -> ChatTemplate:
    """Templates as a user may write them, with parts of markup at the ends of the literals."""
    user, model, system, end = (f"{token}{draw(_ENDS)}" for token in ("<|user|>", "<|model|>", "[SYS]", "</s>"))
    before_end = draw(_ENDS)
    return ChatTemplate(
        "own",
        user_prefix=user,
        before_system=system,
        after_system=f"{before_end}{end}{user}",
        before_assistant=f"{draw(_ENDS)}{model}",
        after_assistant=f"{draw(_ENDS)}{end}{user}",
        generation_prompt=f"{draw(_ENDS)}{model}",
        special_tokens=("<|user|>", "<|model|>", "[SYS]", "</s>"),
        strip_system=draw(_STRIPS),
        strip_user=draw(_STRIPS),
        strip_assistant=draw(_STRIPS),
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.nested_given])
@given(own_templates())
def test_check_format_finds_nothing_in_templates_of_any_literals(template: ChatTemplate) -> None:
    check_format(template, max_examples=40)


@every_text
@pytest.mark.slow
def test_check_format_finds_nothing(template: TextFormat) -> None:
    check_format(template, max_examples=30)


def test_check_format_finds_nothing_in_openai() -> None:
    check_format(openai, max_examples=50)
