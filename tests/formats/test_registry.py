"""Names of formats and models."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen.errors import FormatError, Raised, UnknownFormat
from distgen.formats import (
    FORMATS,
    ChatMessages,
    format_as,
    formatter_of,
    lookup,
    openai,
)
from distgen.prompt import Exchange, Messages, Prompt
from tests.support.formats import (
    TEMPLATES,
)


def test_lookup_finds_every_name_and_nothing_else() -> None:
    for name, each in FORMATS.items():
        assert lookup(name) == Success(each)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("ChatML", "chatml"),
        ("chat-ml", "chatml"),
        ("LLAMA_2", "llama2"),
        ("Llama-3", "llama3"),
        ("OpenAI", "openai"),
        ("Nous-Hermes-2", "chatml"),
        ("Qwen2.5-7B-Instruct", "qwen2.5"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5"),
        ("qwen2.5_coder_32b_instruct", "qwen2.5"),
        ("unsloth/Qwen3-30B-A3B-bnb-4bit", "qwen3"),
        ("Qwen3-4B-Instruct-2507", "qwen3-2507"),
        ("meta-llama/Llama-2-13b-chat-hf", "llama2"),
        ("Llama-3.1-8B-Instruct", "llama3.1"),
        ("Llama-3.3-70B-Instruct", "llama3.1"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4"),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mistral-v3"),
        ("google/gemma-2b-it", "gemma"),
        ("google/gemma-3-4b-it", "gemma3"),
        ("microsoft/Phi-3-mini-128k-instruct", "phi3-mini"),
        ("DeepSeek-R1-Distill-Llama-8B-Q4_K_M.gguf", "deepseek-r1-distill"),
        ("/models/granite-3.1-8b-instruct.gguf", "granite3.1"),
        ("openai/gpt-oss-20b", "harmony"),
        ("GLM-4.6-FP8", "glm4.6"),
    ],
)
def test_a_model_s_name_finds_its_format(name: str, format: str) -> None:
    assert lookup(name) == Success(FORMATS[format])
    assert format_as(Prompt("Hi"), name) == FORMATS[format](Prompt("Hi"))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("gpt-4o", ("openai",)),
        ("openai/gpt-5-mini", ("openai",)),
        ("zefyr", ("zephyr",)),
        ("Mistral-7B-Instruct-v0.2", ("mistral-v1", "mistral-v0.2-hf", "mistral-v0.2-hf-sys")),
        ("Kimi-K2-Instruct", ("kimi-k2", "kimi-k2-0905")),
        # Base models, and models with a template of their own.
        ("Llama-3.1-8B", ("llama3.1", "llama3.2", "llama3")),
        ("Qwen2.5-Math-7B-Instruct", ()),
        ("Qwen3-8B-Base", ("qwen3.8",)),
        ("QwQ-32B-Preview", ()),
        ("Llama-3.2-11B-Vision-Instruct", ()),
        ("HuggingFaceH4/zephyr-7b-gemma-v0.1", ()),
        ("", ()),
        ("/", ()),
        ("\ud800", ()),
        ("no such format at all", ()),
        ("chatml" * 100_000, ()),
    ],
)
def test_a_name_that_is_not_certain_is_answered_with_what_may_be_meant(name: str, nearest: tuple[str, ...]) -> None:
    assert lookup(name) == Failure(UnknownFormat(name, nearest))
    assert format_as(Prompt("Hi"), name) == Failure(UnknownFormat(name, nearest))


def test_every_model_of_the_registry_finds_its_format_or_several() -> None:
    for name, each in TEMPLATES.items():
        for model in each.models:
            found = lookup("maker/" + model.replace("*", "7B"))
            if isinstance(found, Success):
                assert found == Success(each), model
            else:
                nearest = found.failure().nearest
                assert name in nearest, model
                assert len(nearest) > 1, model


@given(st.text(st.characters()))
@settings(deadline=None)
def test_lookup_is_total(name: str) -> None:
    assert isinstance(lookup(name), Success | Failure)


def test_openai_is_known_to_the_type_checker() -> None:
    messages: Result[Messages, FormatError] = format_as(Prompt("Hi"), "openai")
    spoken: Result[ChatMessages, UnknownFormat] = lookup("openai")
    assert messages == Success([{"role": "user", "content": "Hi"}])
    assert spoken == Success(openai)


def test_formatter_of_lifts_a_function_and_catches_what_it_raises() -> None:
    def first(prompt: Prompt) -> str:
        return prompt.history[0].user

    assert formatter_of(first)(Prompt("b", None, (Exchange("a", "x"),))) == Success("a")
    fault = Raised("IndexError", "tuple index out of range")
    assert formatter_of(first)(Prompt("b")) == Failure(replace(fault, stage="format"))
    assert pickle.loads(pickle.dumps(formatter_of(len_of_user)))(Prompt("abc")) == Success(3)


def test_formatter_of_lets_an_interrupt_through() -> None:
    def interrupted(prompt: Prompt) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        formatter_of(interrupted)(Prompt("Hi"))


def len_of_user(prompt: Prompt) -> int:
    return len(prompt.user)


def test_a_name_has_at_most_two_hundred_characters() -> None:
    assert lookup("chatml" + "-gguf" * 37 + "-hf" * 3).map(lambda found: found.name) == Success("chatml")
    assert isinstance(lookup("chatml" + "-gguf" * 39), Failure)
