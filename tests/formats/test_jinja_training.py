"""Training text of a published template: it is rendered with and without the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, Raised, Unsupported
from distgen.formats import Span, TextFormat, TrainingText
from distgen.formats.jinja import JinjaTemplate, jinja
from distgen.formats.models.alibaba import qwen3
from distgen.formats.models.chatml import chatml
from distgen.formats.models.mistral import mistral_v0_2_hf
from distgen.formats.training import Train
from distgen.prompt import Exchange, Prompt
from distgen.testing import PROSE, prompts

_TURN: Final = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_OPEN: Final = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML: Final = "{% for m in messages %}" + _TURN + "{% endfor %}" + _OPEN
# Written from the description of Qwen3's template: the last answer has a thought, be it empty, and past ones have none.
QWEN3: Final = (
    "{% for m in messages %}{% if loop.last and m.role == 'assistant' %}<|im_start|>assistant\n<think>\n"
    "{{ (m.reasoning_content or '').strip('\n') }}\n</think>\n\n{{ m.content.lstrip('\n') }}<|im_end|>\n"
    "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _OPEN
)
INST: Final = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content ~ eos_token }}{% endif %}{% endfor %}"
)
# The generation prompt opens a thought, which past answers have lost.
OPENED: Final = QWEN3.replace(_OPEN, "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}")
WORDS: Final = st.sampled_from(("2+2?", "4", "a", "m", *PROSE))


def template_of(source: str) -> JinjaTemplate:
    return jinja(source, bos="<s>", eos="</s>" if source == INST else "<|im_end|>")


@pytest.mark.parametrize(("source", "format"), [(CHATML, chatml), (QWEN3, qwen3), (INST, mistral_v0_2_hf)])
@given(
    prompt=prompts(WORDS, max_exchanges=2),
    answer=WORDS,
    reasoning=st.none() | WORDS,
    train=st.sampled_from(("last", "all")),
    finish_reason=st.sampled_from(("stop", "length", None)),
)
@settings(max_examples=60, deadline=None)
def test_it_is_that_of_the_registry(
    source: str,
    format: TextFormat,
    prompt: Prompt,
    answer: str,
    reasoning: str | None,
    train: Train,
    finish_reason: str | None,
) -> None:
    ours = template_of(source).training_text(prompt, answer, reasoning, finish_reason, train)
    theirs = format.training_text(prompt, answer, reasoning, finish_reason, train)
    if source == INST and prompt.system is not None:
        assert (what(ours), what(theirs)) == ("system", "system")
    elif isinstance(theirs, Failure):
        assert what(ours) == what(theirs) == "thinking"
    else:
        assert merge(ours.unwrap()) == merge(theirs.unwrap())


def test_a_text_may_name_a_role() -> None:
    prompt = Prompt("Who is the assistant", "You are the assistant")
    format = template_of(CHATML)
    assert format(prompt) == chatml(prompt)
    assert merge(format.training_text(prompt, "user").unwrap()) == merge(chatml.training_text(prompt, "user").unwrap())


def test_a_text_may_be_the_first_of_all() -> None:
    format = jinja("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", bos="", eos="<|im_end|>")
    written = format.training_text(Prompt("a"), "b", train="all").unwrap()
    assert [(written.text[span.start : span.end], span.role) for span in written.spans] == [
        ("a", "user"),
        ("<|im_end|>", "markup"),
        ("b", "assistant"),
        ("<|im_end|>", "markup"),
    ]


def what(answer: Result[TrainingText, FormatError]) -> str:
    refusal = answer.failure()
    assert isinstance(refusal, Unsupported)
    return refusal.what


def merge(written: TrainingText) -> tuple[str, list[Span], list[tuple[int, int]]]:
    """Return the text, the spans of its texts, and the trained characters as few pairs."""
    trained: list[tuple[int, int]] = []
    for start, end, _, is_trained in written.spans:
        if is_trained and trained and trained[-1][1] == start:
            trained[-1] = (trained[-1][0], end)
        elif is_trained:
            trained.append((start, end))
    return written.text, [span for span in written.spans if span.role != "markup"], trained


PAST: Final = Prompt("3+3?", None, (Exchange("2+2?", "4"),))


@pytest.mark.parametrize(
    ("template", "prompt", "reasoning", "train", "feature"),
    [
        pytest.param(jinja(CHATML), Prompt("2+2?"), None, "last", "training", id="no eos is known"),
        pytest.param(jinja(CHATML, eos="</s>"), Prompt("2+2?"), None, "last", "training", id="its eos is not written"),
        pytest.param(jinja(INST.replace("~ eos_token", ""), eos="?"), PAST, None, "all", "training", id="a later eos"),
        pytest.param(
            template_of(CHATML), Prompt("2+2?"), "Two and two.", "last", "thinking", id="reasoning is dropped"
        ),
        pytest.param(
            template_of(CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")),
            Prompt("2+2?"),
            None,
            "last",
            "training",
            id="its answer does not follow its generation prompt",
        ),
        pytest.param(
            template_of(CHATML.replace("{{ m.content }}", "{{ m.content if m.role == 'user' }}")),
            Prompt("2+2?"),
            None,
            "last",
            "training",
            id="the answer is dropped",
        ),
    ],
)
def test_a_template_that_does_not_continue_itself_has_none(
    template: JinjaTemplate, prompt: Prompt, reasoning: str | None, train: Train, feature: str
) -> None:
    assert what(template.training_text(prompt, "6", reasoning, train=train)) == feature


def test_an_answer_that_the_template_changes_is_named() -> None:
    template = template_of(CHATML.replace("m.content", "m.content | replace('6', '7')"))
    refusal = template.training_text(Prompt("2+2?"), "6").failure()
    assert refusal == Raised("TextChanged", "the template changes the text of assistant", "format")


def test_a_template_that_opens_the_thought_continues_in_it() -> None:
    written = template_of(OPENED).training_text(Prompt("2+2?"), "4", "Two and two.").unwrap()
    trained = "".join(written.text[start:end] for start, end, _, is_trained in written.spans if is_trained)
    assert trained == "Two and two.\n</think>\n\n4<|im_end|>"


@pytest.mark.parametrize("reasoning", [None, "Three and three."])
def test_after_an_empty_question_only_the_last_answer_is_trained(reasoning: str | None) -> None:
    written = template_of(QWEN3).training_text(replace(PAST, user=""), "6", reasoning).unwrap()
    trained = "".join(written.text[start:end] for start, end, _, is_trained in written.spans if is_trained)
    assert trained == f"<think>\n{reasoning or ''}\n</think>\n\n6<|im_end|>"


def test_after_an_empty_question_no_past_thought_is_trained() -> None:
    prompt = Prompt("", None, (Exchange("2+2?", "4", "Two and two."),))
    written = template_of(CHATML.replace("{{ m.content }}", "{{ m.thinking }}{{ m.content }}"))
    (start, end), *others = merge(written.training_text(prompt, "6").unwrap())[2]
    assert (written(prompt).unwrap() + "6<|im_end|>")[start:end] == "6<|im_end|>"
    assert others == []


def test_an_answer_to_an_empty_first_question_is_trained() -> None:
    written = template_of(CHATML).training_text(Prompt("3+3?", None, (Exchange("", "4"),)), "6", train="all").unwrap()
    assert [written.text[start:end] for start, end in merge(written)[2]] == ["4<|im_end|>", "6<|im_end|>"]


def test_a_past_answer_without_the_thought_that_was_opened_is_trained_alone() -> None:
    written = template_of(OPENED).training_text(PAST, "6", "Three and three.", train="all").unwrap()
    trained = [written.text[start:end] for start, end, _, is_trained in written.spans if is_trained]
    assert trained == ["4", "<|im_end|>", "Three and three.", "\n</think>\n\n", "6", "<|im_end|>"]


def test_blank_reasoning_is_none() -> None:
    template = template_of(CHATML)
    assert template.training_text(Prompt("2+2?"), "4", " \n") == template.training_text(Prompt("2+2?"), "4")
    assert isinstance(template.training_text(Prompt("2+2?"), "4", ""), Success)


def test_refusals_and_errors_are_those_of_a_prompt() -> None:
    template = template_of(QWEN3)
    for answer, reasoning, where in (("a<|im_end|>", None, "answer"), ("a", "<|im_start|>", "reasoning")):
        found = template.training_text(Prompt("2+2?"), answer, reasoning)
        assert isinstance(found, Failure)
        refusal = found.failure()
        assert isinstance(refusal, InjectedToken)
        assert refusal.where == where
    forged = Prompt("2+2?<|im_end|>")
    assert template.training_text(forged, "4") == Failure(template(forged).failure())
    strict = jinja("{{ messages[-1].content }}{{ raise_exception('no') if messages[-1].role == 'assistant' }}")
    assert isinstance(strict.training_text(Prompt("2+2?"), "4"), Failure)


def test_past_reasoning_is_dropped_only_by_a_template_that_knows_it() -> None:
    prompt = Prompt("3+3?", None, (Exchange("2+2?", "4", "Two and two."),))
    assert template_of(QWEN3)(prompt) == template_of(QWEN3)(PAST)
    assert template_of(CHATML)(prompt) == Failure(Unsupported("jinja", "thinking"))
    written = template_of(CHATML.replace("{{ m.content }}", "{{ m.thinking }}{{ m.content }}"))
    assert isinstance(written(prompt), Success)
    assert "Two and two.4" in written(prompt).unwrap()
