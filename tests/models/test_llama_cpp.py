"""The llama.cpp backend on real GGUF files, tiny ones that are written here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Result, Success

from distgen import LLM, Prompt, Segment, Sequential, Task
from distgen.backends.llama_cpp import InProcess, Model, load
from distgen.backends.params import Params
from distgen.completion import Completion, Row, Usage
from distgen.formats import chatml
from distgen.prompt import Rendered
from tests.models import tiny_gguf

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: the extra llama-cpp")
pytest.importorskip("gguf")

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
SAMPLED: Params = {"temperature": 1, "top_p": 1, "max_tokens": 12, "seed": 7}
ANY: Mapping[str, object] = {"top_k": 0, "min_p": 0}


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(
        str(tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "speller.gguf", spells=True)), n_ctx=256, n_threads=1
    ).model


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(
        str(tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "drawn.gguf", spells=False)), n_ctx=256, n_threads=1
    ).model


def spell(model: Model, prompts: Sequence[Rendered], n: int = 1, **params: object) -> Sequence[Row]:
    given: Params = {"temperature": 0, **params}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    return InProcess(model, given)(prompts, n)


def texts(row: Row) -> list[str]:
    assert not isinstance(row, Result), row
    return [completion.text for completion in row]


def failed(row: Row) -> str:
    assert isinstance(row, Result), row
    return row.failure().kind


def test_an_answer_ends_at_the_end_of_sequence_or_where_it_is_cut(speller: Model) -> None:
    assert spell(speller, ["a", "x"], max_tokens=4) == [
        [Completion("bcde", "length", Usage(1, 4))],
        [Completion("yz", "stop", Usage(1, 3))],
    ]
    assert spell(speller, ["xx"], 2) == [
        [Completion("yz", "stop", Usage(2, 3)), Completion("yz", "stop", Usage(0, 3))],
    ]


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        ("<s>", tiny_gguf.LONG, 2),  # END is one of those that llama.cpp itself knows to end an answer
        ("more", tiny_gguf.LONG[:-4], 1),
        (["no", "_and"], "supercalifragilisticexpialidocious", 1),
        ("9", tiny_gguf.LONG, 2),  # stands in the prompt alone
        ("9super", tiny_gguf.LONG, 2),  # stands across the end of the prompt
    ],
)
def test_an_answer_ends_before_a_stop(speller: Model, stop: str | list[str], text: str, tokens: int) -> None:
    assert spell(speller, ["9"], stop=stop) == [[Completion(text, "stop", Usage(1, tokens))]]


def test_nothing_to_ask(speller: Model) -> None:
    assert spell(speller, [], 3) == []
    assert spell(speller, ["a", "b"], 0) == [[], []]


def test_a_row_that_cannot_be_asked_fails_alone(speller: Model) -> None:
    full, almost = "a" * tiny_gguf.CONTEXT, "a" * (tiny_gguf.CONTEXT - 2)
    first, *refused, last = spell(speller, ["x", "", full, "\ud800", (Segment("\udfff", False),), almost])
    assert first == [Completion("yz", "stop", Usage(1, 3))]
    assert [*map(failed, refused)] == ["EmptyPrompt", "PromptTooLong", "UnicodeEncodeError", "UnicodeEncodeError"]
    assert last == [Completion("bc", "length", Usage(tiny_gguf.CONTEXT - 2, 2))]


def test_no_more_is_taken_than_the_model_was_trained_with(tmp_path: Path) -> None:
    path = str(tiny_gguf.write(tmp_path / "tiny.gguf", spells=True))
    backend = load(path, n_ctx=2 * tiny_gguf.CONTEXT, n_threads=1)
    assert backend.model.n_ctx() == 2 * tiny_gguf.CONTEXT
    [row] = backend(["a" * tiny_gguf.CONTEXT], 1)
    assert failed(row) == "PromptTooLong"


def test_a_row_on_which_the_library_fails_fails_alone(drawn: Model) -> None:
    backend = InProcess(drawn, {"max_tokens": 2}, {"top_k": "many"})
    assert [*map(failed, backend(["a", "b"], 1))] == ["ctypes.ArgumentError"] * 2


# Sampling


def test_a_seed_gives_the_same_answers_and_each_generation_its_own(drawn: Model) -> None:
    seeded, other = InProcess(drawn, SAMPLED, ANY), InProcess(drawn, {**SAMPLED, "seed": 1000}, ANY)
    [first], [others] = seeded(["Hi"], 4), other(["Hi"], 4)
    assert len({*texts(first), *texts(others)}) == 8
    assert seeded(["Ho", "Hi", "Hi there"], 4)[1] == first  # whatever is beside it
    [second] = InProcess(drawn, {**SAMPLED, "seed": 8}, ANY)(["Hi"], 3)
    assert texts(second) == texts(first)[1:]


def test_without_a_seed_each_call_samples_anew(drawn: Model) -> None:
    InProcess(drawn, SAMPLED, ANY)(["Hi"], 1)
    unseeded = InProcess(drawn, {"temperature": 1, "top_p": 1, "max_tokens": 12}, ANY)
    assert len({text for _ in range(2) for text in texts(unseeded(["Hi"], 3)[0])}) == 6


def test_threads_get_what_a_loop_gets(drawn: Model) -> None:
    seeded = InProcess(drawn, SAMPLED, ANY)
    asked: list[list[Rendered]] = [[f"row {n}", (Segment("<s>", n % 2 == 0), Segment("<s>", False))] for n in range(16)]
    serial = [seeded(each, 2) for each in asked]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(seeded, asked, [2] * 16)] == serial


def test_parameters_and_options_reach_the_model(drawn: Model) -> None:
    [greedy] = InProcess(drawn, {"temperature": 0, "max_tokens": 12})(["Hi"], 1)
    hot: Params = {"temperature": 1.5, "max_tokens": 12, "seed": 1}
    assert InProcess(drawn, hot)(["Hi"], 1) != [greedy]
    assert InProcess(drawn, {**hot, "top_p": 1e-6})(["Hi"], 1) == [greedy]
    assert InProcess(drawn, hot, {"top_k": 1})(["Hi"], 1) == [greedy]
    plain: Params = {"temperature": 0, "max_tokens": 40}
    for penalty in ("presence_penalty", "frequency_penalty"):
        penalised: Params = {**plain, penalty: 100}  # type: ignore[misc]  # pyright: ignore[reportAssignmentType]
        assert InProcess(drawn, penalised)(["Hi"], 1) != InProcess(drawn, plain)(["Hi"], 1)


@pytest.mark.parametrize(
    ("params", "options", "name"),
    [({"logprobs": True}, {}, "logprobs"), ({}, {"temp": 1}, "temp"), ({}, {"beams": 2}, "beams")],
)
def test_what_cannot_be_heeded_is_named(
    speller: Model, params: Params, options: Mapping[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=repr(name)):
        InProcess(speller, params, options)


# Texts and segments


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*tiny_gguf.SPECIAL, "Hi", " ", "\n", "é", "\0", "<", "the"])).map("".join))
def test_no_content_of_a_segment_is_a_special_token(speller: Model, text: str) -> None:
    backend = InProcess(speller)
    apart, together = backend.encode(text, is_control=False), backend.encode(text, is_control=True)
    assert {*apart}.isdisjoint(range(len(tiny_gguf.SPECIAL)))
    for token, mark in enumerate(tiny_gguf.SPECIAL):
        assert together.count(token) == text.count(mark)
        assert backend.is_token(mark)
    assert backend.holds_token(text) == any(mark in text for mark in tiny_gguf.SPECIAL)
    assert not backend.is_token(f"{text} ")


def test_no_token_is_added_to_a_prompt(speller: Model) -> None:
    text = chatml(Prompt("Why?", system="Be brief.")).unwrap()
    assert InProcess(speller).encode(text, is_control=True).count(tiny_gguf.BOS) == 0
    assert InProcess(speller).encode(f"<s>{text}", is_control=True).count(tiny_gguf.BOS) == 1


def test_bytes_that_are_no_text_are_seen(drawn: Model) -> None:
    [row] = InProcess(drawn, {"temperature": 2, "max_tokens": 100, "seed": 3}, ANY)(["Hi"], 1)
    assert "\ufffd" in texts(row)[0]


def test_a_model_composes(speller: Model) -> None:
    length: Task[str, int] = Task(Prompt, lambda text: Success(len(text)))
    asked = ["Hi", "<|im_end|>", "Hi" * 200, "Hello"]
    backend = InProcess(speller, {"max_tokens": 3})
    answers = LLM(length, chatml.segments, backend, Sequential(), batch_size=3).generate(asked)
    assert [isinstance(answer, Success) for answer in answers] == [True, True, False, True]
    answers = LLM(length, chatml, backend, Sequential()).generate(asked)
    assert [isinstance(answer, Success) for answer in answers] == [True, False, False, True]


# Files


def test_a_file_is_opened_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_gguf.write(tmp_path / "tiny.gguf", spells=True))
    capfd.readouterr()
    backend = load(path, params={"temperature": 0}, n_ctx=0, n_threads=1)
    assert repr(backend) == "InProcess(model=Llama, params={'temperature': 0}, options=None)"
    assert backend(["x"], 1) == [[Completion("yz", "stop", Usage(1, 3))]]
    assert backend.model.n_ctx() == tiny_gguf.CONTEXT
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"no model"])
def test_a_file_that_is_no_model_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.gguf"):
        load(str(path))


def test_the_class_of_llama_cpp_is_what_the_backend_takes(tmp_path: Path) -> None:
    source = """
from llama_cpp.llama import Llama
from distgen.backends.llama_cpp import InProcess

def held(model: Llama) -> InProcess:
    return InProcess(model)

def wrong(model: Llama) -> InProcess:
    return InProcess(model.metadata)  # refused
"""
    (tmp_path / "held.py").write_text(source)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "held.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = [each["range"]["start"]["line"] for each in json.loads(done.stdout)["generalDiagnostics"]]
    assert {*lines} == {source[: source.index("# refused")].count("\n")}, done.stdout
