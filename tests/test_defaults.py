"""Defaults and bounds that the documentation promises; a method and its protocol have the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature

import pytest

from distgen import LLM, SupportsGenerate, batch, journal, testing
from distgen.backends import server, transport

DEFAULTS: list[tuple[Callable[..., object], Mapping[str, object]]] = [
    (LLM, {"model": "", "batch_size": 1}),
    (batch.write, {"num_generations": 1, "takes_n": True, "max_lines": 50_000, "max_bytes": 200_000_000}),
    (batch.read, {"num_generations": 1}),
    (journal.run, {"num_generations": 1}),
    (server.chat, {"timeout": 600.0, "max_connections": 512, "retry": server.Retry(6, 90.0, 60.0)}),
    (server.completions, {"timeout": 600.0, "max_connections": 512, "retry": server.Retry(6, 90.0, 60.0)}),
    (testing.check_format, {"max_examples": 50}),
    (testing.check_formatter, {"max_examples": 50}),
    (testing.prompts, {"max_exchanges": 3}),
]


@pytest.mark.parametrize(("function", "due"), DEFAULTS, ids=[function.__name__ for function, _ in DEFAULTS])
def test_defaults_are_as_promised(function: Callable[..., object], due: Mapping[str, object]) -> None:
    assert {name: signature(function).parameters[name].default for name in due} == due


@pytest.mark.parametrize("name", ["generate", "stream", "as_completed", "submitter", "prepare"])
def test_one_generation_is_asked_for_by_default(name: str) -> None:
    assert signature(getattr(LLM, name)).parameters["num_generations"].default == 1


@pytest.mark.parametrize("name", ["generate", "stream", "as_completed"])
def test_the_protocol_has_the_defaults_of_an_llm(name: str) -> None:
    def defaults(of: type) -> Mapping[str, object]:
        return {each.name: each.default for each in signature(getattr(of, name)).parameters.values()}

    assert defaults(SupportsGenerate) == defaults(LLM)
    assert defaults(LLM) == {
        "self": Parameter.empty,
        "inputs": Parameter.empty,
        "num_generations": 1,
        "on_progress": None,
    }


def test_an_answer_has_at_most_64_mebibytes() -> None:
    assert transport.MAX_ANSWER == 64 * 1024 * 1024
