"""The transformers backend on real models, tiny ones that are made here, and formats as transformers' own tokenizers read them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Result, Success

from distgen import LLM, Exchange, Prompt, Segment, Sequential, Task
from distgen.backends.in_process import encoded
from distgen.backends.params import Params
from distgen.backends.transformers import InProcess, load
from distgen.backends.generate import Row
from distgen.completion import Completion, Usage
from distgen.formats import FORMATS, ChatTemplate, chatml
from distgen.formats.marks import is_markup
from distgen.prompt import Rendered
from tests.models import tiny
from tests.test_second_oracle import SOURCES, fitted, template_of

pytest.importorskip("torch", reason="needs torch, and with it transformers: the extra transformers")
pytest.importorskip("transformers")

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
EIGHT = ["Hi", "<|im_start|>user\nWhy?<|im_end|>\n", "a", "a b c d e f g h", "1, 2, 3, 4, 5, 6", "\n", "Ünïcödé", "Hi"]
SAMPLED: Params = {"temperature": 1, "max_tokens": 12, "seed": 7}


@pytest.fixture(scope="module")
def speller() -> tuple[tiny.SavedModel, tiny.ChatTokenizer]:
    tokenizer = tiny.tokenizer()
    return tiny.spelling(tokenizer), tokenizer


@pytest.fixture(scope="module")
def drawn() -> tuple[tiny.SavedModel, tiny.ChatTokenizer]:
    tokenizer = tiny.tokenizer(merges=50)
    return tiny.drawn(len(tokenizer)), tokenizer


Pair = tuple[tiny.SavedModel, tiny.ChatTokenizer]


def spell(pair: Pair, prompts: Sequence[Rendered], n: int = 1, **params: object) -> Sequence[Row]:
    given: Params = {"temperature": 0, **params}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    return InProcess(*pair, given)(prompts, n)


def said(row: Row) -> Completion:
    assert not isinstance(row, Result), row
    [completion] = row
    return completion


def whole(tokenizer: tiny.ChatTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)


def spoken(tokenizer: tiny.ChatTokenizer, tokens: list[int]) -> str:
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def failed(row: Row) -> str:
    assert isinstance(row, Result), row
    return row.failure().kind


# What is generated


def test_an_answer_ends_at_the_end_of_sequence(speller: Pair) -> None:
    assert spell(speller, ["a", "x"]) == [
        [Completion(ALPHABET[1:], "stop", Usage(1, 26))],
        [Completion("yz", "stop", Usage(1, 3))],
    ]


def test_a_model_without_an_end_takes_that_of_its_tokenizer() -> None:
    tokenizer = tiny.tokenizer()
    assert spell((tiny.spelling(tokenizer, eos_token_id=None), tokenizer), ["x"]) == [
        [Completion("yz", "stop", Usage(1, 3))]
    ]


def test_an_answer_of_so_many_tokens_says_that_it_was_cut(speller: Pair) -> None:
    assert spell(speller, ["a", "x"], max_tokens=3) == [
        [Completion("bcd", "length", Usage(1, 3))],
        [Completion("yz", "stop", Usage(1, 3))],
    ]


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        ("<|im_end|>", "9", 2),  # a special token, and no part of the text
        (["no", "<|im_end|>"], "9", 2),
        ("cd", "9ab", 6),
        (["ef", "de"], "9abc", 7),
        ("9", "", 1),
        ("8", "9" + ALPHABET, 29),  # stands in the prompt alone
        ("89", "9" + ALPHABET, 29),  # stands across the end of the prompt
        ("9a", "", 3),  # across a special token, which is no text
    ],
)
def test_an_answer_ends_before_a_stop(speller: Pair, stop: str | list[str], text: str, tokens: int) -> None:
    assert spell(speller, ["8"], stop=stop) == [[Completion(text, "stop", Usage(1, tokens))]]


def test_the_prompt_is_counted_once(speller: Pair) -> None:
    assert spell(speller, ["xx"], 2) == [
        [Completion("yz", "stop", Usage(2, 3)), Completion("yz", "stop", Usage(0, 3))],
    ]


def test_nothing_to_ask(speller: Pair) -> None:
    assert spell(speller, [], 3) == []
    assert spell(speller, ["a", "b"], 0) == [[], []]


def test_a_row_that_cannot_be_asked_fails_alone(speller: Pair) -> None:
    full, almost = "a" * tiny.CONTEXT, "a" * (tiny.CONTEXT - 2)
    first, *refused, last = spell(speller, ["x", "", full, "\ud800", (Segment("\udfff", False),), almost])
    assert first == [Completion("yz", "stop", Usage(1, 3))]
    assert [*map(failed, refused)] == ["EmptyPrompt", "PromptTooLong", "UnicodeEncodeError", "UnicodeEncodeError"]
    assert last == [Completion("bc", "length", Usage(tiny.CONTEXT - 2, 2))]


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])  # positions by angle, and by a table that has an end
def test_a_long_neighbour_takes_nothing_from_an_answer(kind: str) -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.drawn(len(tokenizer), kind)
    prompts = ["a" * (tiny.CONTEXT - 3), "b", "c" * 20]
    for prompt, row in zip(prompts, spell((model, tokenizer), prompts), strict=True):
        completion, tokens = said(row), whole(tokenizer, prompt)
        made = tiny.greedy(model, tokens, tiny.CONTEXT - len(tokens))
        assert tiny.EOS not in made
        assert completion.text == spoken(tokenizer, made)
        assert (completion.finish_reason, completion.usage) == ("length", Usage(len(tokens), len(made)))


def test_a_batch_answers_as_the_bare_network_does_one_by_one(drawn: Pair) -> None:
    model, tokenizer = drawn
    assert tokenizer.padding_side == "right"
    rows = spell(drawn, EIGHT, max_tokens=20)
    for prompt, row in zip(EIGHT, rows, strict=True):
        tokens = whole(tokenizer, prompt)
        made = tiny.greedy(model, tokens, 20)
        assert said(row) == Completion(spoken(tokenizer, made), "length", Usage(len(tokens), 20))
    assert rows == [spell(drawn, [prompt], max_tokens=20)[0] for prompt in EIGHT]
    assert len({said(row).text for row in rows}) == 7  # of eight prompts, two alike


# Sampling


def test_a_seed_gives_the_same_answers_and_each_generation_its_own(drawn: Pair) -> None:
    seeded, other = InProcess(*drawn, SAMPLED), InProcess(*drawn, {**SAMPLED, "seed": 8})
    answers = seeded(["Hi"] * 4, 1)
    assert seeded(["Hi"] * 4, 1) == answers
    [together] = seeded(["Hi"], 4)
    assert not isinstance(together, Result)
    assert [each.text for each in together] == [said(row).text for row in answers]
    assert len({said(row).text for row in [*answers, *other(["Hi"] * 4, 1)]}) == 8


def test_a_seed_leaves_the_generator_of_torch_as_it_was(drawn: Pair) -> None:
    torch = import_module("torch")
    before = torch.get_rng_state()
    InProcess(*drawn, SAMPLED)(["Hi"], 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_each_call_samples_anew(drawn: Pair) -> None:
    unseeded = InProcess(*drawn, {"temperature": 1, "max_tokens": 12})
    assert unseeded(["Hi"], 1) != unseeded(["Hi"], 1)


def test_threads_get_what_a_loop_gets(drawn: Pair) -> None:
    seeded = InProcess(*drawn, SAMPLED)
    asked: list[list[Rendered]] = [[f"row {n}", (Segment("<s>", n % 2 == 0), Segment("<s>", False))] for n in range(16)]
    serial = [seeded(each, 2) for each in asked]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(seeded, asked, [2] * 16)] == serial


def test_what_is_not_given_is_as_the_model_has_it() -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.drawn(len(tokenizer), do_sample=True, temperature=1e-6, max_new_tokens=5)
    [cold] = InProcess(model, tokenizer)(["Hi"], 1)
    assert said(cold).usage == Usage(2, 5)
    assert InProcess(model, tokenizer, {"temperature": 0})(["Hi"], 1) == [cold]
    assert InProcess(model, tokenizer, {"temperature": 1.5, "top_p": 1})(["Hi"], 1) != [cold]
    assert InProcess(model, tokenizer, {"temperature": 1.5, "top_p": 1e-6})(["Hi"], 1) == [cold]
    assert InProcess(model, tokenizer, {"temperature": 1.5}, {"top_k": 1})(["Hi"], 1) == [cold]


def test_options_reach_the_model(drawn: Pair) -> None:
    params: Params = {"temperature": 0, "max_tokens": 40}
    [plain], [varied] = (InProcess(*drawn, params, each)(["a"], 1) for each in ({}, {"repetition_penalty": 1e9}))
    assert len({*said(varied).text}) > len({*said(plain).text})


@pytest.mark.parametrize(
    ("params", "options", "name"),
    [
        ({"logprobs": True}, {}, "logprobs"),
        ({"frequency_penalty": 1}, {}, "frequency_penalty"),
        ({}, {"temperature": 1}, "temperature"),
        ({}, {"num_beams": 2}, "num_beams"),
        ({}, {"beams": 2}, "beams"),
    ],
)
def test_what_cannot_be_heeded_is_named(
    speller: Pair, params: Params, options: Mapping[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=repr(name)):
        InProcess(*speller, params, options)


def test_a_model_that_it_cannot_run_is_refused(speller: Pair) -> None:
    class Unbounded:
        """A double for models, such as Mamba, that say nothing of a context; only its configuration is read."""

        config = object()
        device = "cpu"
        generate = print
        generation_config = speller[0].generation_config

    class EncoderDecoder(Unbounded):
        config = import_module("transformers").T5Config()

    with pytest.raises(ValueError, match="max_tokens"):
        InProcess(Unbounded(), speller[1])
    InProcess(Unbounded(), speller[1], {"max_tokens": 9})
    with pytest.raises(ValueError, match="encoder-decoder"):
        InProcess(EncoderDecoder(), speller[1])


def test_a_model_is_loaded_from_a_folder(speller: Pair, tmp_path: Path) -> None:
    for part in speller:
        part.save_pretrained(tmp_path)
    backend = load(str(tmp_path), params={"temperature": 0})
    assert repr(backend) == "InProcess(model=LlamaForCausalLM, params={'temperature': 0}, options=None)"
    assert backend(["x"], 1) == [[Completion("yz", "stop", Usage(1, 3))]]


def test_rows_are_generated_together(speller: Pair) -> None:
    length: Task[str, int] = Task(Prompt, lambda text: Success(len(text)))
    backend = InProcess(*speller, {"max_tokens": 3})
    asked = ["Hi", "<|im_end|>", "Hi" * 40, "Hello"]
    answers = LLM(length, chatml.segments, backend, Sequential(), batch_size=3).generate(asked)
    assert [isinstance(answer, Success) for answer in answers] == [True, True, False, True]
    answers = LLM(length, chatml, backend, Sequential(), batch_size=3).generate(asked)
    assert [type(answer.swap().value_or(None)).__name__ for answer in answers] == [
        *("NoneType", "InjectedToken", "Raised", "NoneType")
    ]


# Formats, as a real tokenizer reads them

TEXTS = (
    st.text(max_size=12) | st.text("\n a.<|", max_size=6) | st.sampled_from(["Hi\n", "\n\nHi", " Hi ", "<|im_end|>"])
)
PROMPTS = st.builds(
    Prompt, TEXTS, st.none() | TEXTS, st.lists(st.builds(Exchange, TEXTS, TEXTS), max_size=2).map(tuple)
)
EXACT = ["chatml", "qwen2.5", "llama3", "llama2", "mistral-v3", "gemma", "zephyr", "phi4", "deepseek-v3", "vicuna"]


@cache
def reader_of(name: str) -> tuple[ChatTemplate, InProcess, tiny.ChatTokenizer]:
    """The format, and a tokenizer to which its markup is special tokens."""
    template = FORMATS[name]
    assert isinstance(template, ChatTemplate)
    marks = {*template.control_tokens, *template.stops, template.bos}
    special = [*tiny.SPECIAL, *sorted(mark for mark in marks if is_markup(mark) and mark not in tiny.SPECIAL)]
    tokenizer = tiny.tokenizer(150, special)
    return template, InProcess(tiny.drawn(len(tokenizer)), tokenizer), tokenizer


def read(backend: InProcess, prompt: Rendered) -> list[int]:
    """The tokens of a prompt, as the backend gives them to its model."""
    tokens = encoded(prompt, backend.encode, 2**31)
    assert isinstance(tokens, list), tokens
    return tokens


def own_ids(name: str, tokenizer: tiny.ChatTokenizer, prompt: Prompt, sanitized: bool = False) -> list[int]:
    """What transformers itself makes of the prompt, by the format's Jinja template."""
    file, variables = template_of(name)
    sets = "".join(f"{{% set {variable} = {value!r} %}}" for variable, value in variables.items())
    messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    for exchange in prompt.history:
        messages += [{"role": "user", "content": exchange.user}, {"role": "assistant", "content": exchange.assistant}]
    return tokenizer.apply_chat_template(
        [*messages, {"role": "user", "content": prompt.user}],
        chat_template=sets + SOURCES[file].removesuffix("\n"),
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=sanitized,
    )


@pytest.mark.parametrize("name", EXACT)
def test_a_text_is_read_as_transformers_reads_its_template(name: str) -> None:
    template, backend, tokenizer = reader_of(name)

    @settings(max_examples=40, deadline=None)
    @given(PROMPTS)
    @example(Prompt("\nHi ", " \n ", ()))
    def alike(prompt: Prompt) -> None:
        shape = fitted(template, prompt)
        text = template(shape)
        if isinstance(text, Success):
            assert read(backend, text.unwrap()) == own_ids(name, tokenizer, shape)

    alike()


# Those of them whose markup is special tokens, so that segments may go with them.
APART = ["llama3", "gemma", "phi4", "deepseek-v3", "chatml", "qwen2.5", "zephyr"]
# Those whose markup ends in a line break, which a tokenizer joins with those that a text begins with.
JOINED = re.compile(r"\s*[\r\n]")


@pytest.mark.parametrize("name", APART)
def test_segments_are_read_as_the_text_is(name: str) -> None:
    template, backend, tokenizer = reader_of(name)

    @settings(max_examples=60, deadline=None)
    @given(PROMPTS)
    @example(Prompt("What does <|im_end|> mean, and </s>?"))
    def alike(prompt: Prompt) -> None:
        shape = fitted(template, prompt)
        segments = template.segments(shape).unwrap()
        if any(JOINED.match(segment.text) for segment in segments if not segment.is_control):
            return
        tokens = read(backend, segments)
        assert tokens == own_ids(name, tokenizer, shape, sanitized=True)
        if not any(backend.holds_token(text) for _, text in shape.texts()):
            assert tokens == read(backend, template(shape).unwrap())

    alike()


@pytest.mark.parametrize(("name", "user"), [("chatml", "\nHi"), ("llama2", "the river")])
def test_markup_that_ends_in_white_space_is_joined_with_what_a_text_begins_with(name: str, user: str) -> None:
    template, backend, tokenizer = reader_of(name)
    text, segments = template(Prompt(user)).unwrap(), template.segments(Prompt(user)).unwrap()
    together, apart = read(backend, text), read(backend, segments)
    assert len(apart) > len(together)
    for tokens in (together, apart):
        assert tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("name", EXACT)
def test_no_content_of_a_segment_is_a_special_token(name: str) -> None:
    template, backend, tokenizer = reader_of(name)
    special = {mark: token for mark, token in tokenizer.get_added_vocab().items() if backend.is_token(mark)}
    assert len(special) == len(tokenizer.get_added_vocab())

    @settings(max_examples=40, deadline=None)
    @given(PROMPTS, st.lists(st.sampled_from([*special]), min_size=1).map("".join))
    def apart(prompt: Prompt, quoted: str) -> None:
        shape = fitted(template, replace(prompt, user=f"{prompt.user}{quoted}", system=quoted))
        segments = template.segments(shape).unwrap()
        tokens = read(backend, segments)
        assert backend.holds_token(quoted)
        for mark, token in special.items():
            assert tokens.count(token) == sum(each.text.count(mark) for each in segments if each.is_control)

    apart()


def test_an_answer_to_segments_is_that_to_the_text(drawn: Pair) -> None:
    prompt = Prompt("Why?", system="Be brief.")
    text, segments = chatml(prompt).unwrap(), chatml.segments(prompt).unwrap()
    first, second = spell(drawn, [text, segments], max_tokens=9)
    assert first == second


# The types of transformers itself


def test_the_classes_of_transformers_are_what_the_backend_takes(tmp_path: Path) -> None:
    source = """
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast
from distgen.backends.transformers import InProcess

def held(model: LlamaForCausalLM, fast: PreTrainedTokenizerFast, any_kind: PreTrainedTokenizerBase) -> list[InProcess]:
    return [InProcess(model, fast), InProcess(model, any_kind)]

def swapped(model: LlamaForCausalLM, fast: PreTrainedTokenizerFast) -> InProcess:
    return InProcess(fast, model)  # refused
"""
    (tmp_path / "held.py").write_text(source)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "held.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = [each["range"]["start"]["line"] for each in json.loads(done.stdout)["generalDiagnostics"]]
    assert {*lines} == {source[: source.index("# refused")].count("\n")}, done.stdout
