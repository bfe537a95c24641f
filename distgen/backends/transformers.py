"""A model in this process, by transformers: `InProcess` over a model and a tokenizer that you hold, or that `load` loads.

All prompts of a call are generated together, padded on the left. Nothing is added to a prompt: its format writes the BOS
text. One call runs at a time in a process.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module  # torch and transformers are typed only where they are installed
from operator import methodcaller
from typing import Final, NamedTuple, Protocol, final

from returns.result import Failure

from distgen.backends.in_process import ONE_AT_A_TIME, Answer, Reader, Sampling, encoded, sampling
from distgen.backends.params import Params
from distgen.backends.generate import Batch
from distgen.errors import Raised
from distgen.prompt import Rendered

_ENDLESS: Final = 2**31  # tokens

# What is set here or by `params`, and what would end a row, or give rows, without this module's knowing.
_OURS: Final = frozenset(
    ("temperature", "top_p", "max_new_tokens", "max_length", "stop_strings", "eos_token_id", "pad_token_id", "max_time")
) | {"do_sample", "num_beams", "num_return_sequences", "return_dict_in_generate"}


class Tokenizer(Protocol):
    """What is called of a `transformers.PreTrainedTokenizerBase`."""

    def encode(self, text: str, /, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Tokens of a text."""
        ...

    def decode(
        self, token_ids: list[int], /, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str | list[str]:
        """The text of tokens."""
        ...


class Model(Protocol):
    """What is read of a `transformers.PreTrainedModel`.

    Its `generate` is called too, but is typed so that pyright finds it in no model (transformers 5.23).
    """

    @property
    def config(self) -> object:
        """Says how many tokens it takes, as max_position_embeddings, where it says so."""
        ...

    @property
    def device(self) -> object:
        """Where the prompts are put."""
        ...

    @property
    def generation_config(self) -> object:
        """What `generate` does where it is not told."""
        ...


class _Tensor(Protocol):
    def __getitem__(self, index: tuple[slice, slice], /) -> _Tensor: ...

    def new_tensor(self, data: Sequence[bool], /) -> _Tensor: ...

    def tolist(self) -> list[list[int]]: ...


def load(path_or_name: str, *, params: Params | None = None, options: Mapping[str, object] | None = None) -> InProcess:
    """Loads a model and its tokenizer from a folder, or by their name on the Hub; raises what transformers raises.

    >>> load("path/to/model", params={"temperature": 0, "max_tokens": 100})  # doctest: +SKIP
    InProcess(model=LlamaForCausalLM, params={'temperature': 0, 'max_tokens': 100}, options={})
    """
    sampling(params)  # a mistake is said before minutes are spent
    auto = import_module("transformers")
    tokenizer: Tokenizer = auto.AutoTokenizer.from_pretrained(path_or_name)
    model: Model = auto.AutoModelForCausalLM.from_pretrained(path_or_name)
    return InProcess(model, tokenizer, params, options)


@final
@dataclass(frozen=True)
class InProcess:
    """A generate callable over a model and its tokenizer, on the device where the model is.

    - A text is encoded with the special tokens in it, segments (`chatml.segments`) with those in the format's literals
      alone: no content is ever read as one. Tokens that were added to a tokenizer, but not as special ones (Qwen's <think>),
      are read in contents too, as they are under the model's own template.
    - `params`: temperature (0 is greedy), top_p, max_tokens, stop, seed; a ValueError names any other. What is not given is
      as the model's generation_config has it; without max_new_tokens there, an answer may be as long as there is room.
    - `options`: what else a generation_config holds, such as top_k, min_p, repetition_penalty.
    - With a seed, the same call gives the same answers, and torch's generators are left as they were. A row's samples
      depend on the call that it is in: on the prompts beside it, their order, and num_generations.
    - An answer ends before its stop, and special tokens are no part of its text. Its finish_reason is "stop" after a stop
      or an end-of-sequence token, else "length". The usage of a row's first completion counts the prompt, and each counts
      the tokens that were made for it, its end included.
    - A row that `in_process.encoded` refuses is a Failure, and the others are answered.

    >>> InProcess(model, tokenizer, {"temperature": 0.7, "seed": 1})(["<|im_start|>user\\n"], 2)  # doctest: +SKIP
    """

    model: Model
    tokenizer: Tokenizer
    params: Params | None = field(default=None, hash=False)
    options: Mapping[str, object] | None = field(default=None, hash=False)
    _plan: _Plan = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plan", self._planned(sampling(self.params)))

    def __call__(self, prompts: Sequence[Rendered], num_generations: int) -> Batch:
        """One row a prompt, all of them generated together."""
        with ONE_AT_A_TIME:
            read = [encoded(prompt, self.encode, self._plan.context) for prompt in prompts]
            asked = [each if isinstance(each, Raised) else self._opened(each, num_generations) for each in read]
            self._generate([answer for each in asked if not isinstance(each, Raised) for answer in each])
            return [Failure(each) if isinstance(each, Raised) else self._plan.reader.row(each) for each in asked]

    def __repr__(self) -> str:
        """Without the layers of the model."""
        return f"InProcess(model={type(self.model).__name__}, params={self.params!r}, options={self.options!r})"

    def encode(self, text: str, is_control: bool) -> list[int]:
        """The tokens of a literal of a format, or of a content."""
        text.encode()  # tokenizers says less clearly why it takes no lone surrogate
        with ONE_AT_A_TIME:
            return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not is_control)

    def is_token(self, text: str) -> bool:
        """Whether this text is a special token of the tokenizer, which is read in a text and never in a content.

        >>> InProcess(model, tokenizer).is_token("<|im_end|>")  # doctest: +SKIP
        True
        """
        return self.holds_token(text) and len(self.encode(text, is_control=True)) == 1

    def holds_token(self, text: str) -> bool:
        """Whether the tokenizer reads a special token in this text, where it is no content."""
        return self.encode(text, is_control=True) != self.encode(text, is_control=False)

    def _planned(self, asked: Sampling) -> _Plan:
        config = self.model.generation_config
        for name in self.options or ():
            if name in _OURS:
                raise ValueError(f"options[{name!r}] is set by the backend itself, or by params; leave it out.")
            if not hasattr(config, name):
                raise ValueError(f"options[{name!r}] is nothing that a generation_config holds.")
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ValueError("the model is an encoder-decoder, which does not go on from a text.")
        context: int = getattr(self.model.config, "max_position_embeddings", None) or _ENDLESS
        longest: int = asked.max_tokens or getattr(config, "max_new_tokens", None) or _ENDLESS
        if context == longest == _ENDLESS:
            raise ValueError("the model does not say how much it takes; give params={'max_tokens': ...}.")
        ends = _whole(getattr(config, "eos_token_id", None)) or _whole(getattr(self.tokenizer, "eos_token_id", None))
        special = [stop for stop in asked.stops if self.is_token(stop)]
        stops = tuple(stop for stop in asked.stops if stop not in special)
        ended = frozenset((*ends, *(token for stop in special for token in self.encode(stop, is_control=True))))
        return _Plan(asked, context, longest, ended, Reader(self._decode, ended.__contains__, stops))

    def _decode(self, tokens: list[int]) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text if isinstance(text, str) else "".join(text)

    def _opened(self, prompt: list[int], num_generations: int) -> list[Answer]:
        room = min(self._plan.longest, self._plan.context - len(prompt))
        return [Answer(prompt, room) for _ in range(num_generations)]

    def _generate(self, answers: list[Answer]) -> None:
        """Goes on until each is finished; one that fills the context ends no other, and those are taken up again."""
        with _seeded(self._plan.sampling.seed):
            while answers:
                self._extend(answers)
                answers = [each for each in answers if each.finish_reason is None]

    def _extend(self, answers: list[Answer]) -> None:
        rows = [each.prompt + each.tokens for each in answers]
        width = max(map(len, rows))
        steps = max(each.room - len(each.tokens) for each in answers)
        tensor: Callable[..., _Tensor] = import_module("torch").tensor
        generate = methodcaller(
            "generate",
            # the id is masked, so that any will do
            input_ids=tensor([[0] * (width - len(row)) + row for row in rows], device=self.model.device),
            attention_mask=tensor(
                [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.model.device
            ),
            max_new_tokens=min(steps, self._plan.context - width),
            max_length=None,
            stopping_criteria=[_Watch(self._plan.reader, answers, width)],
            eos_token_id=[*self._plan.ends] or None,
            pad_token_id=0,
            num_beams=1,
            num_return_sequences=1,
            **{**_sampled(self._plan.sampling), **(self.options or {})},
        )
        generate(self.model)


class _Plan(NamedTuple):
    """What follows from the parameters and the model."""

    sampling: Sampling
    context: int
    longest: int
    """The most tokens of an answer."""
    ends: frozenset[int]
    """The tokens that end an answer: the model's own, and the stops that are special tokens."""
    reader: Reader


@final
@dataclass(slots=True)
class _Watch:
    """Reads what `generate` makes as it is made, a stopping criterion: `seen` is the width of what was read before.

    Transformers' own criterion for texts takes the end of the prompt for a part of the answer, and says of no row why it ended.
    """

    reader: Reader
    answers: Sequence[Answer]
    seen: int

    def __call__(self, input_ids: _Tensor, _: object, **__: object) -> _Tensor:
        news = input_ids[:, self.seen :].tolist()
        self.seen += len(news[0])
        for answer, new in zip(self.answers, news, strict=True):
            for token in new:
                self.reader.take(answer, token)
        return input_ids.new_tensor([answer.finish_reason is not None for answer in self.answers])


def _sampled(asked: Sampling) -> dict[str, object]:
    if asked.temperature == 0:  # what else the model's own configuration says of sampling would only be warned of
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    given: dict[str, object] = {} if asked.top_p is None else {"top_p": float(asked.top_p)}
    return given if asked.temperature is None else {**given, "do_sample": True, "temperature": float(asked.temperature)}


@contextmanager
def _seeded(seed: int | None) -> Generator[None, None, None]:
    torch = import_module("torch")
    if seed is None:
        yield
        return
    with torch.random.fork_rng(range(torch.accelerator.device_count())):
        torch.manual_seed(seed)
        yield


def _whole(value: int | list[int] | None) -> list[int]:
    """The token ids of a configuration, which names none, one or several."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else value
