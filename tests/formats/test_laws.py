"""The laws, over the formats of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
from hypothesis import given, settings

from distgen.formats import (
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

    hold()


@every_text
@pytest.mark.slow
def test_check_format_finds_nothing(template: TextFormat) -> None:
    check_format(template, max_examples=30)


def test_check_format_finds_nothing_in_openai() -> None:
    check_format(openai, max_examples=50)
