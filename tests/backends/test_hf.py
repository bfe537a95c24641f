"""The transformers backend on tiny models, and formats as the tokenizers of transformers read them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Result, Success

from distgen import LLM, Exchange, Prompt, Sequential, Task
from distgen.backends.generate import Row
from distgen.backends.hf import LocalModel, load
from distgen.backends.params import Params
from distgen.completion import Completion, Usage
from distgen.errors import BackendError, GenerateError, RequestFailed, error_kind, fold
from distgen.formats import FORMATS, ChatTemplate, chatml
from distgen.prompt import Rendered, Segment
from tests.support import tiny

pytest.importorskip("torch", reason="needs torch: pip install torch transformers")
pytest.importorskip("transformers", reason="needs transformers: pip install torch transformers")
pytestmark = pytest.mark.slow

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
EIGHT: Final = [
    *("Hi", "<|im_start|>user\nWhy?<|im_end|>\n", "a", "a b c d e f g h", "1, 2, 3, 4, 5, 6", "\n", "Ünïcödé", "Hi")
]
SAMPLED: Final[Params] = {"temperature": 1, "max_tokens": 12, "seed": 7}
Pair = tuple[tiny.TinyModel, tiny.ChatTokenizer]


@pytest.fixture(scope="module")
def alphabet() -> Pair:
    tokenizer = tiny.tokenizer()
    return tiny.alphabet_model(tokenizer), tokenizer


@pytest.fixture(scope="module")
def random() -> Pair:
    tokenizer = tiny.tokenizer(merges=50)
    return tiny.random_model(len(tokenizer)), tokenizer


def answer(pair: Pair, prompts: Sequence[Rendered], n: int = 1, **params: object) -> Sequence[Row]:
    given: Params = {"temperature": 0, **params}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    return LocalModel(*pair, given)(prompts, n)


def only(row: Row) -> Completion:
    assert not isinstance(row, Result), row
    [completion] = row
    return completion


def failure(row: Row) -> BackendError:
    assert isinstance(row, Result), row
    return row.failure()


def tokenize(tokenizer: tiny.ChatTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)


def detokenize(tokenizer: tiny.ChatTokenizer, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


# Ends of answers


def test_an_answer_ends_at_the_end_of_sequence(alphabet: Pair) -> None:
    assert answer(alphabet, ["a", "x"]) == [
        [Completion(ALPHABET[1:], "stop", Usage(1, 26))],
        [Completion("yz", "stop", Usage(1, 3))],
    ]


def test_a_model_without_an_end_token_goes_on_to_the_limit() -> None:
    tokenizer = tiny.tokenizer()
    for model in (tiny.alphabet_model(tokenizer, eos_token_id=None), tiny.alphabet_model(tokenizer, eos_token_id=[])):
        assert answer((model, tokenizer), ["x"], max_tokens=5) == [[Completion("yz", "length", Usage(1, 5))]]


def test_an_answer_that_is_cut_says_so(alphabet: Pair) -> None:
    assert answer(alphabet, ["a", "x"], max_tokens=3) == [
        [Completion("bcd", "length", Usage(1, 3))],
        [Completion("yz", "stop", Usage(1, 3))],
    ]


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        pytest.param("<|im_end|>", "9", 2, id="special token"),
        pytest.param(["no", "<|im_end|>"], "9", 2, id="special token of several"),
        pytest.param("cd", "9ab", 6, id="text"),
        pytest.param(["ef", "de"], "9abc", 7, id="first of two"),
        pytest.param("9", "", 1, id="first token"),
        pytest.param("z", "9" + ALPHABET[:-1], 28, id="last token"),
        pytest.param("8", "9" + ALPHABET, 29, id="in the prompt alone"),
        pytest.param("89", "9" + ALPHABET, 29, id="across the end of the prompt"),
        pytest.param("9a", "", 3, id="across a special token"),
    ],
)
def test_an_answer_ends_before_a_stop_string(alphabet: Pair, stop: str | list[str], text: str, tokens: int) -> None:
    assert answer(alphabet, ["8"], stop=stop) == [[Completion(text, "stop", Usage(1, tokens))]]


def test_a_stop_string_ends_only_the_rows_that_hold_it(alphabet: Pair) -> None:
    assert answer(alphabet, ["a", "v", "q"], stop="tu") == [
        [Completion(ALPHABET[1:19], "stop", Usage(1, 20))],
        [Completion("wxyz", "stop", Usage(1, 5))],
        [Completion("rs", "stop", Usage(1, 4))],
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 7), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), min_size=1, max_size=3))
def test_an_answer_is_cut_where_a_stop_string_is_first_whole(prompt: int, places: list[tuple[int, int]]) -> None:
    tokenizer, model = endless()
    made = greedy_tokens(prompt)
    text = detokenize(tokenizer, made).replace("\ufffd", "")  # which stands for the bytes of no character, or of a part
    stops = [text[start % len(text) :][:length] for start, length in places]
    ends = [end for end in range(len(made) + 1) if any(stop in detokenize(tokenizer, made[:end]) for stop in stops)]
    whole = detokenize(tokenizer, made[: ends[0]]) if ends else detokenize(tokenizer, made)
    expected = whole[: min([whole.index(stop) for stop in stops if stop in whole], default=None)]
    completion = only(answer((model, tokenizer), [EIGHT[prompt]], max_tokens=40, stop=stops)[0])
    assert (completion.text, completion.finish_reason) == (expected, "stop" if ends else "length")
    assert completion.usage == Usage(len(tokenize(tokenizer, EIGHT[prompt])), ends[0] if ends else 40)


@cache
def endless() -> tuple[tiny.ChatTokenizer, tiny.TinyModel]:
    tokenizer = tiny.tokenizer(merges=50)
    return tokenizer, tiny.random_model(len(tokenizer), eos_token_id=[])  # no end but that of the stop strings


@cache
def greedy_tokens(prompt: int) -> list[int]:
    tokenizer, model = endless()
    return tiny.greedy(model, tokenize(tokenizer, EIGHT[prompt]), 40)


def test_nothing_is_generated_long_after_the_last_stop_string() -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.alphabet_model(tokenizer)
    steps: list[None] = []
    model.register_forward_hook(lambda *_: steps.append(None))
    assert answer((model, tokenizer), ["a", "b"], stop="cd") == [
        [Completion("b", "stop", Usage(1, 3))],
        [Completion("", "stop", Usage(1, 2))],
    ]
    assert len(steps) == 8


def test_the_first_completion_of_a_row_has_its_usage(alphabet: Pair) -> None:
    assert answer(alphabet, ["xx", "w"], 2) == [
        [Completion("yz", "stop", Usage(2, 6)), Completion("yz", "stop")],
        [Completion("xyz", "stop", Usage(1, 8)), Completion("xyz", "stop")],
    ]


def test_a_call_may_ask_for_nothing(alphabet: Pair) -> None:
    assert answer(alphabet, [], 3) == []
    assert answer(alphabet, ["a", "b"], 0) == [[], []]


def test_a_prompt_that_cannot_be_asked_fails_alone(alphabet: Pair) -> None:
    full, almost = "a" * tiny.CONTEXT, "a" * (tiny.CONTEXT - 2)
    first, *refused, last = answer(alphabet, ["x", "", full, "\ud800", (Segment("\udfff", False),), almost])
    assert first == [Completion("yz", "length", Usage(1, 2))]
    assert [error_kind(failure(row)) for row in refused] == [
        *("not_sent", "prompt_too_long", "UnicodeEncodeError", "UnicodeEncodeError")
    ]
    message = "the prompt (64 tokens) and its answer do not fit the model's context of 64"
    assert failure(refused[1]) == RequestFailed("prompt_too_long", message)
    assert last == [Completion("bc", "length", Usage(tiny.CONTEXT - 2, 2))]


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])  # rotary positions, and learned ones that have an end
def test_answers_without_a_limit_fill_the_context_of_the_longest_prompt(kind: str) -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.random_model(len(tokenizer), kind)
    prompts = ["a" * (tiny.CONTEXT - 3), "b", "c" * 20]
    for prompt, row in zip(prompts, answer((model, tokenizer), prompts), strict=True):
        tokens = tokenize(tokenizer, prompt)
        made = tiny.greedy(model, tokens, 3)
        assert tiny.EOS not in made
        assert only(row) == Completion(detokenize(tokenizer, made), "length", Usage(len(tokens), 3))


def test_a_prompt_that_leaves_too_little_room_takes_none_from_others(alphabet: Pair) -> None:
    fits, full = "a" * (tiny.CONTEXT - 3), "a" * (tiny.CONTEXT - 2)
    first, last, refused = answer(alphabet, [fits, "d", full], max_tokens=3)
    assert first == [Completion("bcd", "length", Usage(tiny.CONTEXT - 3, 3))]
    assert last == [Completion("efg", "length", Usage(1, 3))]
    assert error_kind(failure(refused)) == "prompt_too_long"


def test_a_batch_answers_as_the_bare_network_does_one_by_one(random: Pair) -> None:
    model, tokenizer = random
    assert tokenizer.padding_side == "right"
    rows = answer(random, EIGHT, max_tokens=20)
    for prompt, row in zip(EIGHT, rows, strict=True):
        tokens = tokenize(tokenizer, prompt)
        made = tiny.greedy(model, tokens, 20)
        assert only(row) == Completion(detokenize(tokenizer, made), "length", Usage(len(tokens), 20))
    assert rows == [answer(random, [prompt], max_tokens=20)[0] for prompt in EIGHT]
    assert len({only(row).text for row in rows}) == 7  # two of the eight prompts are alike


# Sampling


@pytest.mark.parametrize("stop", [(), "never"])
def test_a_seed_gives_the_same_answers_and_each_generation_its_own(random: Pair, stop: str | tuple[str, ...]) -> None:
    params: Params = {**SAMPLED, "stop": stop}
    seeded, other = LocalModel(*random, params), LocalModel(*random, {**params, "seed": 8})
    answers = seeded(["Hi"] * 4, 1)
    assert seeded(["Hi"] * 4, 1) == answers
    [together] = seeded(["Hi"], 4)
    assert not isinstance(together, Result)
    assert [completion.text for completion in together] == [only(row).text for row in answers]
    assert len({only(row).text for row in [*answers, *other(["Hi"] * 4, 1)]}) == 8


def test_without_a_seed_each_call_samples_anew(random: Pair) -> None:
    unseeded = LocalModel(*random, {"temperature": 1, "max_tokens": 12})
    assert unseeded(["Hi"], 1) != unseeded(["Hi"], 1)


def test_threads_get_the_answers_of_a_loop(random: Pair) -> None:
    seeded = LocalModel(*random, {**SAMPLED, "stop": "e"})
    asked: list[list[Rendered]] = [[f"row {n}", (Segment("<s>", n % 2 == 0), Segment("<s>", False))] for n in range(16)]
    serial = [seeded(prompts, 2) for prompts in asked]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(seeded, asked, [2] * 16)] == serial


def test_the_model_decides_what_params_do_not_say() -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.random_model(len(tokenizer), do_sample=True, temperature=1e-6, max_new_tokens=5)
    [cold] = LocalModel(model, tokenizer)(["Hi"], 1)
    assert only(cold).usage == Usage(2, 5)
    assert LocalModel(model, tokenizer, {"temperature": 0})(["Hi"], 1) == [cold]
    assert LocalModel(model, tokenizer, {"temperature": 1.5, "top_p": 1})(["Hi"], 1) != [cold]
    assert LocalModel(model, tokenizer, {"temperature": 1.5, "top_p": 1e-6})(["Hi"], 1) == [cold]
    assert LocalModel(model, tokenizer, {"temperature": 1.5}, {"top_k": 1})(["Hi"], 1) == [cold]
    assert LocalModel(model, tokenizer, {"temperature": 0}, {"top_k": 1})(["Hi"], 1) == [cold]


def test_an_answer_ends_by_params_alone() -> None:
    tokenizer = tiny.tokenizer()
    model = tiny.alphabet_model(tokenizer, max_time=1e-9, stop_strings=["b"], num_beams=2, return_dict_in_generate=True)
    assert answer((model, tokenizer), ["a"], 2, max_tokens=3, stop="z") == [
        [Completion("bcd", "length", Usage(1, 6)), Completion("bcd", "length")]
    ]


def test_options_reach_the_model(random: Pair) -> None:
    params: Params = {"temperature": 0, "max_tokens": 40}
    [plain], [varied] = (LocalModel(*random, params, each)(["a"], 1) for each in ({}, {"repetition_penalty": 1e9}))
    assert len({*only(varied).text}) > len({*only(plain).text})


@pytest.mark.parametrize(
    ("params", "options", "name"),
    [
        ({"logprobs": True}, {}, "params['logprobs']"),
        ({"frequency_penalty": 1}, {}, "params['frequency_penalty']"),
        ({"temprature": 1}, {}, "params['temprature']"),
        *[({"temperature": value}, {}, "`temperature` (=") for value in (-1, float("nan"))],
        *[({"top_p": value}, {}, "`top_p` has to be a float") for value in (-1, 1.1)],
        ({}, {"temperature": 1}, "options['temperature']"),
        ({}, {"num_beams": 2}, "options['num_beams']"),
        ({}, {"max_new_tokens": 2}, "options['max_new_tokens']"),
        ({}, {"beams": 2}, "options['beams']"),
    ],
)
def test_a_parameter_that_will_not_do_is_named(
    alphabet: Pair, params: Params, options: Mapping[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(name)):
        LocalModel(*alphabet, params, options)


def test_an_empty_stop_string_ends_no_answer(alphabet: Pair) -> None:
    assert answer(alphabet, ["x"], stop=["", "z"]) == [[Completion("y", "stop", Usage(1, 2))]]


def test_a_model_of_any_length_needs_a_limit(alphabet: Pair) -> None:
    class FakeModel:
        """A test double of a model, of which only the configuration is read."""

        device = "cpu"
        dtype = "float32"
        generation_config = alphabet[0].generation_config

        def __init__(self, kind: str) -> None:
            self.config: object = getattr(import_module("transformers"), f"{kind}Config")()

    with pytest.raises(ValueError, match="max_tokens"):
        LocalModel(FakeModel("Mamba"), alphabet[1])  # which has no limit on its context
    LocalModel(FakeModel("Mamba"), alphabet[1], {"max_tokens": 9})


# Loading


@pytest.fixture(scope="module")
def folder(alphabet: Pair, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An alphabet model, saved as bfloat16."""
    tokenizer, path = alphabet[1], tmp_path_factory.mktemp("alphabet")
    model = tiny.alphabet_model(tokenizer).to(import_module("torch").bfloat16)
    for part in (model, tokenizer):
        part.save_pretrained(path)
    return str(path)


def test_a_model_is_loaded_in_the_type_of_its_checkpoint(folder: str) -> None:
    backend = load(folder, "cpu", params={"temperature": 0})
    assert (backend.device, backend.dtype) == ("cpu", "bfloat16")
    assert repr(backend) == "LocalModel(params={'temperature': 0}, options={})"
    assert backend(["x"], 1) == [[Completion("yz", "stop", Usage(1, 3))]]
    assert load(folder, "cpu", "float32").dtype == "float32"


def test_a_model_is_loaded_on_the_accelerator(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = import_module("torch")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert load(folder).device == "cpu"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))  # in place of a GPU
    assert load(folder).device == "meta"
    assert load(folder, "cpu").device == "cpu"


def test_a_wrong_parameter_is_found_before_a_model_is_loaded() -> None:
    with pytest.raises(ValueError, match="temperature"):
        load("no/such/model", params={"temperature": -1})


def test_rows_are_generated_together(alphabet: Pair) -> None:
    length: Task[str, int] = Task(Prompt, lambda text: Success(len(text)))
    backend = LocalModel(*alphabet, {"max_tokens": 3})
    asked = ["Hi", "<|im_end|>", "Hi" * 40, "Hello"]
    apart = LLM(length, chatml.segments, backend, Sequential(), batch_size=3).generate(asked)
    whole = LLM(length, chatml, backend, Sequential(), batch_size=3).generate(asked)
    assert [kind(row) for row in apart] == ["", "", "prompt_too_long", ""]
    assert [kind(row) for row in whole] == ["", "injected_token", "prompt_too_long", ""]


def kind(row: Result[object, GenerateError]) -> str:
    return fold(row, lambda _: "", error_kind)


# Formats, as a real tokenizer reads them

TEXTS = (
    st.text(max_size=12) | st.text("\n a.<|", max_size=6) | st.sampled_from(["Hi\n", "\n\nHi", " Hi ", "<|im_end|>"])
)
PROMPTS = st.builds(Prompt, TEXTS, TEXTS, st.lists(st.builds(Exchange, TEXTS, TEXTS), max_size=2).map(tuple))
MARKUP: Final[Mapping[str, Sequence[str]]] = {
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "phi4": ["<|im_start|>", "<|im_sep|>", "<|im_end|>"],
    "zephyr": ["<|system|>", "<|user|>", "<|assistant|>", "</s>"],
    "llama2": ["<s>", "</s>"],
}
# All markup of these is special tokens, so that segments keep contents apart.
APART: Final = ["chatml", "llama3", "phi4", "zephyr"]
TEMPLATES: Final = Path(__file__).parents[1] / "data" / "templates"


@cache
def reader(name: str) -> tuple[ChatTemplate, LocalModel, tiny.ChatTokenizer]:
    """A format, and a model whose tokenizer has the format's markup as special tokens."""
    template = FORMATS[name]
    assert isinstance(template, ChatTemplate)
    special = [*tiny.SPECIAL, *(mark for mark in MARKUP[name] if mark not in tiny.SPECIAL)]
    tokenizer = tiny.tokenizer(150, special)
    return template, LocalModel(tiny.random_model(len(tokenizer)), tokenizer), tokenizer


def apply_chat_template(name: str, tokenizer: tiny.ChatTokenizer, prompt: Prompt, sanitized: bool = False) -> list[int]:
    """Tokenize a prompt by transformers itself and the format's Jinja template."""
    messages = [{"role": "system", "content": prompt.system or ""}]
    for exchange in prompt.history:
        messages += [{"role": "user", "content": exchange.user}, {"role": "assistant", "content": exchange.assistant}]
    return tokenizer.apply_chat_template(
        [*messages, {"role": "user", "content": prompt.user}],
        chat_template="{% set end = '</s>' %}" + (TEMPLATES / f"{name}.jinja").read_text().removesuffix("\n"),
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=sanitized,
    )


@pytest.mark.parametrize("name", MARKUP)
def test_a_text_is_tokenized_as_transformers_tokenizes_its_template(name: str) -> None:
    template, backend, tokenizer = reader(name)
    refused: list[bool] = []

    @settings(max_examples=40, deadline=None)
    @given(PROMPTS)
    @example(Prompt("\nHi ", " \n ", ()))
    def alike(prompt: Prompt) -> None:
        text = template(prompt)
        refused.append(not isinstance(text, Success))
        if isinstance(text, Success):
            assert backend.encode(text.unwrap()) == apply_chat_template(name, tokenizer, prompt)

    alike()
    assert sum(refused) < len(refused) / 2


# The markup of chatml and zephyr ends in a line break, which a tokenizer joins with those that a text begins with.
JOINED = re.compile(r"\s*[\r\n]")


@pytest.mark.parametrize("name", APART)
def test_segments_are_tokenized_as_the_text_is(name: str) -> None:
    template, backend, tokenizer = reader(name)
    compared: list[Prompt] = []

    @settings(max_examples=60, deadline=None)
    @given(PROMPTS)
    @example(Prompt("What does <|im_end|> mean, and </s>?", ""))
    def alike(prompt: Prompt) -> None:
        segments = template.segments(prompt).unwrap()
        contents = [segment.text for segment in segments if not segment.is_control]
        if any(map(JOINED.match, contents)):
            return
        tokens = backend.encode(segments)
        assert tokens == apply_chat_template(name, tokenizer, prompt, sanitized=True)
        if not any(map(backend.has_special_token, contents)):
            assert tokens == backend.encode(template(prompt).unwrap())
        compared.append(prompt)

    alike()
    assert len(compared) > 15


@pytest.mark.parametrize(("name", "user"), [("chatml", "\nHi"), ("llama2", "the river")])
def test_markup_that_ends_in_white_space_is_joined_with_the_text_after_it(name: str, user: str) -> None:
    template, backend, tokenizer = reader(name)
    text, segments = template(Prompt(user)).unwrap(), template.segments(Prompt(user)).unwrap()
    together, apart = backend.encode(text), backend.encode(segments)
    assert len(apart) > len(together)
    for tokens in (together, apart):
        assert tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("name", MARKUP)
def test_no_content_of_a_segment_is_a_special_token(name: str) -> None:
    template, backend, tokenizer = reader(name)
    special = tokenizer.get_added_vocab()
    assert all(map(backend.is_special_token, special))
    assert not backend.is_special_token("Hi")
    assert not backend.is_special_token("".join(special))

    @settings(max_examples=40, deadline=None)
    @given(PROMPTS, st.lists(st.sampled_from([*special]), min_size=1).map("".join))
    def apart(prompt: Prompt, quoted: str) -> None:
        segments = template.segments(Prompt(prompt.user + quoted, quoted, prompt.history)).unwrap()
        tokens = backend.encode(segments)
        assert backend.has_special_token(quoted)
        for mark, token in special.items():
            assert tokens.count(token) == sum(each.text.count(mark) for each in segments if each.is_control)

    apart()


def test_an_answer_to_segments_is_that_to_the_text(random: Pair) -> None:
    prompt = Prompt("Why?", system="Be brief.")
    first, second = answer(random, [chatml(prompt).unwrap(), chatml.segments(prompt).unwrap()], max_tokens=9)
    assert first == second


# The types of transformers itself


def test_the_classes_of_transformers_fit_the_types_of_the_backend(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="needs pyright: pip install pyright[nodejs]")
    source = """
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast
from distgen.backends.hf import LocalModel

def held(model: LlamaForCausalLM, fast: PreTrainedTokenizerFast, any_kind: PreTrainedTokenizerBase) -> list[LocalModel]:
    return [LocalModel(model, fast), LocalModel(model, any_kind)]

def swapped(model: LlamaForCausalLM, fast: PreTrainedTokenizerFast) -> LocalModel:
    return LocalModel(fast, model)  # refused
"""
    (tmp_path / "held.py").write_text(source)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "held.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = [each["range"]["start"]["line"] for each in json.loads(done.stdout)["generalDiagnostics"]]
    assert {*lines} == {source[: source.index("# refused")].count("\n")}, done.stdout
