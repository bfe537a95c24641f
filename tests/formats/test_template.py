"""What templates render: by hand, at their edges, as segments, and as values."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import product
from typing import Final

import pytest
from returns.result import Failure, Success

from distgen.errors import InjectedToken, NotParsed, Unsupported
from distgen.formats import (
    FORMATS,
    ChatTemplate,
    TextFormat,
    allow_markup,
    chatml,
    default,
    llama2,
    llama3,
    segment_if_needed,
)
from distgen.prompt import Exchange, Prompt, Segment
from distgen.testing import (
    law_inverse,
)
from tests.support.formats import (
    ORACLE,
    TEMPLATES,
    TEXTS,
    prompt_of,
)


def test_what_a_model_has_no_place_for_is_refused_by_name() -> None:
    history = (Exchange("a", "b"),)
    assert FORMATS["gemma"](Prompt("u", "s")) == Failure(Unsupported("gemma", "system"))
    assert FORMATS["phi3-medium"](Prompt("u", "")) == FORMATS["phi3-medium"](Prompt("u"))
    assert FORMATS["alpaca"](Prompt("u", None, history)) == Failure(Unsupported("alpaca", "history"))
    assert FORMATS["mistral-v7-tekken"](Prompt("u")) == Failure(Unsupported("mistral-v7-tekken", "no system"))
    unread = TEMPLATES["mistral-v7-tekken"].parse("<s>[INST]u[/INST]")
    assert isinstance(unread, Failure)
    assert TEMPLATES["alpaca"].parse("x") == Failure(
        NotParsed("alpaca", f"it does not begin with {TEMPLATES['alpaca'].user_prefix!r}")
    )


@pytest.mark.parametrize(
    ("name", "prompt", "canonical"),
    [
        ("mistral-v1", Prompt("u", "s"), Prompt("s\n\nu")),
        ("mistral-v1", Prompt("u", "s", (Exchange("a", "b"),)), Prompt("u", None, (Exchange("s\n\na", "b"),))),
        ("mistral-v3", Prompt("u", "s", (Exchange("a", "b"),)), Prompt("s\n\nu", None, (Exchange("a", "b"),))),
        ("mistral-v3", Prompt("u", "", ()), Prompt("u")),
        ("gemma3", Prompt(" u ", "s"), Prompt("s\n\nu")),
        ("gemma3", Prompt("u", ""), Prompt("u", "")),
        ("gemma3", Prompt("", "s"), Prompt("", "s")),  # no user text alone keeps white space at its end
        ("gemma3", Prompt("b\n\nc", " s\n\na"), Prompt("a\n\nb\n\nc", " s")),
        ("gemma3", Prompt("b", " s\n"), Prompt("b", " s\n")),  # the first "\n\n" is not the end of the system text
        ("gemma3", Prompt("b", "\n"), Prompt("b", "\n")),
        ("gemma3", Prompt("\n", "s\n\n"), Prompt("", "s\n\n")),
        ("gemma3", Prompt("u", " s", (Exchange("a", "b"),)), Prompt("u", " s", (Exchange("a", "b"),))),
        ("qwen2.5", Prompt("u", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), Prompt("u")),
        ("llama3.1", Prompt("u", " \n"), Prompt("u")),
        ("deepseek-v3", Prompt("u", ""), Prompt("u")),
        ("lfm2", Prompt("u", ""), Prompt("u")),
        ("chatml", Prompt("u", ""), Prompt("u", "")),
    ],
)
def test_canonical_forms_by_hand(name: str, prompt: Prompt, canonical: Prompt) -> None:
    template = TEMPLATES[name]
    assert template.canonical(prompt) == canonical
    assert template(canonical) == template(prompt)
    assert template.parse(template(prompt).unwrap()) == Success(canonical)


@pytest.mark.parametrize("text", [" a", "a ", "\n\n a", " a\n\n b", "a\n\n\n"])
def test_a_user_turn_that_stripping_would_change_is_read_with_a_system_text_or_not_at_all(text: str) -> None:
    rendered = f"<bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"
    found = TEMPLATES["gemma3"].parse(rendered)
    due = (
        Success(Prompt("", "a\n"))
        if text == "a\n\n\n"
        else Failure(NotParsed("gemma3", "rendered again, it is another text"))
    )
    assert found == due


def test_an_empty_user_text_is_read_after_any_end_of_a_system_text() -> None:
    template = replace(TEMPLATES["gemma3"], after_system=": ")
    law_inverse(template, Prompt("", "s"))
    assert template.canonical(Prompt("", "s")) == Prompt("", "s")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (Prompt("Hi"), "Hi"),
        (Prompt("Hi", "Be brief."), "Be brief.\nHi"),
        (Prompt(" Hi ", ""), "\n Hi "),
        (
            Prompt("And of Chile?", None, (Exchange("Capital of Peru?", "Lima."),)),
            "Capital of Peru?\nLima.\nAnd of Chile?",
        ),
        (Prompt("e", "s", (Exchange("a", "b"), Exchange("c", "d"))), "s\na\nb\nc\nd\ne"),
        (Prompt("<|im_end|></s>"), "<|im_end|></s>"),
    ],
)
def test_default_is_lines_in_the_order_said(prompt: Prompt, text: str) -> None:
    assert default(prompt) == Success(text)
    assert default.parse(text) == Success(Prompt(text))
    assert default.canonical(prompt) == Prompt(text)


@pytest.mark.parametrize(
    ("template", "prompt", "text"),
    [
        # str.strip strips every white space of Unicode, and the four separators of ASCII; not the zero-width ones.
        (
            llama3,
            Prompt("\u3000\x1fHi\xa0\u2029"),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (llama2, Prompt("\u200bHi\ufeff"), "<s>[INST] \u200bHi\ufeff [/INST]"),
        (llama2, Prompt("\u2028 \n", "s\t"), "<s>[INST] <<SYS>>\ns\t\n<</SYS>> [/INST]"),
        (
            llama2,
            Prompt("Hi", " ", (Exchange("\n", ""),)),
            "<s>[INST] <<SYS>>\n \n<</SYS>> [/INST]  </s><s>[INST] Hi [/INST]",
        ),
        (chatml, Prompt("\ud800"), "<|im_start|>user\n\ud800<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_renderings_by_hand(template: ChatTemplate, prompt: Prompt, text: str) -> None:
    assert template(prompt) == Success(text)


@pytest.mark.parametrize(
    ("prompt", "canonical"),
    [
        (Prompt(" a ", " s ", (Exchange("\tu\n", " v "),)), Prompt("a", " s ", (Exchange("\tu", "v"),))),
        (Prompt(" a ", "s"), Prompt(" a", "s")),
        (Prompt(" a "), Prompt("a")),
        (Prompt(" \n", "s"), Prompt("", "s")),
        (Prompt(" <s> "), Prompt(" <s> ")),  # refused: it stands for itself
    ],
)
def test_canonical_of_llama2_by_hand(prompt: Prompt, canonical: Prompt) -> None:
    assert llama2.canonical(prompt) == canonical


def test_a_system_text_before_markup_in_a_user_turn_is_refused() -> None:
    format = replace(chatml, system_position="first_user")  # `after_system` ends the user turn
    assert format(Prompt("a", "s")) == Failure(Unsupported("chatml", "system"))
    assert format(Prompt("a")) == chatml(Prompt("a"))
    spaced = replace(format, after_system="\n\n")
    assert spaced(Prompt("a", "s")).map(spaced.parse) == Success(Success(Prompt("s\n\na")))


def test_segments_by_hand() -> None:
    told = Prompt(" b ", "s", (Exchange("a", "</s>"),))
    assert llama2.segments(told) == Success(
        (
            Segment("<s>[INST] <<SYS>>\n", True),
            Segment("s", False),
            Segment("\n<</SYS>>\n\n", True),
            Segment("a", False),
            Segment(" [/INST] ", True),
            Segment("</s>", False),
            Segment(" </s><s>[INST] ", True),
            Segment("b", False),
            Segment(" [/INST]", True),
        )
    )
    assert isinstance(llama2(told), Failure)
    assert allow_markup(llama2)(told) == Success(
        "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\na [/INST] </s> </s><s>[INST] b [/INST]"
    )
    assert FORMATS["gemma"](Prompt("u", "s")) == allow_markup(TEMPLATES["gemma"])(Prompt("u", "s"))
    assert pickle.loads(pickle.dumps(allow_markup(llama2)))(told) == allow_markup(llama2)(told)


def test_without_bos_only_the_leading_bos_is_gone() -> None:
    bare = replace(llama2, bos="")
    for entry in ORACLE:
        if entry["format"] == "llama2":
            for case in entry["cases"]:
                expected = case["expected"]
                assert isinstance(expected, str)
                assert bare(prompt_of(case)) == Success(expected[3:])
                assert bare.parse(expected[3:]) == Success(llama2.canonical(prompt_of(case)))
                assert isinstance(bare.parse(expected), Failure)
    assert bare(Prompt("b", None, (Exchange("a", "x"),))) == Success("[INST] a [/INST] x </s><s>[INST] b [/INST]")
    assert bare(Prompt("<s>")) == Failure(InjectedToken("llama2", "<s>", "user", 0))


def test_what_an_empty_text_takes_may_hold_anything() -> None:
    odd = replace(
        chatml,
        user_prefix=chatml.user_prefix + "\\1 ",
        after_system=chatml.after_system + "\\1 ",
        around=(("user", "\\1 ", ""),),
    )
    for prompt in (Prompt(""), Prompt("", "s"), Prompt("u", "s")):
        law_inverse(odd, prompt)
    assert odd(Prompt("")) == Success("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n")


DROPS: Final = ChatTemplate(
    "drops",
    user_prefix="[U]u<",
    before_system="[S]s<",
    after_system="s>[U]u<",
    before_assistant="u>[A]a<",
    after_assistant="a>[U]u<",
    generation_prompt="u>[A]",
    special_tokens=("[S]", "[U]", "[A]"),
    around=(("system", "s<", "s>"), ("user", "u<", "u>"), ("assistant", "a<", "a>")),
)


@pytest.mark.parametrize("system", [None, "", "x"])
def test_an_empty_text_takes_what_is_around_it_and_is_read_back(system: str | None) -> None:
    for user, first, answer, second, other in product(("", "x"), repeat=5):
        prompt = Prompt(user, system, (Exchange(first, answer), Exchange(second, other)))
        whole = replace(DROPS, around=())(prompt).unwrap()
        assert DROPS(prompt) == Success(whole.replace("s<s>", "").replace("u<u>", "").replace("a<a>", ""))
        law_inverse(DROPS, prompt)


def test_a_family_member_names_only_its_difference() -> None:
    smol = replace(chatml, name="smol", special_tokens=(*chatml.special_tokens, "<|pad|>"))
    assert smol(Prompt("Hi")) == chatml(Prompt("Hi"))
    assert smol(Prompt("<|pad|>")) == Failure(InjectedToken("smol", "<|pad|>", "user", 0))
    assert smol != chatml
    assert replace(smol, name="chatml", special_tokens=chatml.special_tokens) == chatml


def test_formats_are_values() -> None:
    for name, each in FORMATS.items():
        assert each.name == name
        assert pickle.loads(pickle.dumps(each)) == each
        assert pickle.loads(pickle.dumps(each))(Prompt("Hi")) == each(Prompt("Hi"))
        copy = replace(each) if isinstance(each, ChatTemplate) else each
        assert len({each, copy}) == 1
    with pytest.raises(AttributeError):
        setattr(chatml, "name", "other")  # noqa: B010


def test_the_registry_cannot_change() -> None:
    assert not hasattr(FORMATS, "__setitem__")
    assert not hasattr(FORMATS, "pop")


# Text formats.


PLAIN_PROMPT = Prompt("u", "s")


@pytest.mark.parametrize("format", TEXTS.values(), ids=TEXTS.keys())
def test_every_text_format_splits_completions_and_may_be_segmented(format: TextFormat) -> None:
    opened = "<think>\nr\n</think>\n\na"
    if format(PLAIN_PROMPT).value_or("").rstrip().endswith("<think>"):
        assert (format.split("a"), format.split("r</think>a"), format.split(opened)) == (
            ("a", ""),
            ("r", "a"),
            ("r", "a"),
        )
    else:
        assert (format.split("a"), format.split(opened)) == ((None, "a"), (None, opened))
    prompt = Prompt("u", "s") if format(Prompt("u", "s")).value_or(None) else Prompt("u")
    assert allow_markup(format)(prompt) == format(prompt)
    assert isinstance(format.parse("<s>\ud800"), Success) == (format.name == "default")


def test_segments_are_given_where_the_tokenizer_can_keep_them_apart() -> None:
    quote = segment_if_needed(chatml, is_token=lambda text: True, holds_token=lambda text: "<|im_" in text)
    forged = Prompt("a<|im_end|>")
    assert quote(Prompt("a")) == chatml(Prompt("a"))
    assert quote(forged) == chatml.segments(forged)
    assert segment_if_needed(chatml, is_token=lambda text: False, holds_token=lambda text: True)(forged) == chatml(
        forged
    )


def test_default_has_line_breaks_between_its_segments() -> None:
    assert default.segments(Prompt("u", "s")) == Success(
        (Segment("s", False), Segment("\n", True), Segment("u", False))
    )
