"""A transformers model in this process: `load` it by name, or make a `LocalModel` of a model and tokenizer that you hold.

All prompts of a call are generated as one batch. A prompt is tokenized as it is: formats write the BOS token themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module  # torch and transformers have types only where they are installed
from itertools import islice, takewhile
from operator import methodcaller
from threading import RLock
from typing import Any, Final, Literal, NamedTuple, Protocol, final

from returns.result import Failure

from distgen.backends.generate import Batch
from distgen.backends.params import Params
from distgen.completion import Completion, Usage
from distgen.errors import BackendError, Raised, RequestFailed
from distgen.prompt import Rendered, Segment

_LOCK: Final = RLock()  # torch's random generators and the state of tokenizers are not thread-safe
_UNBOUNDED: Final = 2**31  # tokens
_INTERVAL: Final = 8  # steps from one search for stop strings to the next; a search may take longer than a step
_MARGIN: Final = 8  # special tokens, which are no text, among the tokens that are searched
_RANGES: Final[Mapping[str, tuple[tuple[type, ...], float, float, str]]] = {
    "temperature": ((int, float), 0, 1e300, "a number, 0 or more"),
    "top_p": ((int, float), 1e-300, 1, "a number above 0, at most 1"),
    "max_tokens": ((int,), 1, _UNBOUNDED, "a whole number, 1 or more"),
    "max_completion_tokens": ((int,), 1, _UNBOUNDED, "a whole number, 1 or more"),
    "seed": ((int,), 0, 2**31 - 1, "a whole number from 0 to 2,147,483,647"),
}
_FIXED: Final = {"pad_token_id": 0, "num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False}
_OFF: Final = {"max_length": None, "max_time": None, "stop_strings": None}  # these end answers, and do not say which
_RESERVED: Final = {*_FIXED, *_OFF, "temperature", "top_p", "do_sample", "max_new_tokens", "eos_token_id"}


class Tokenizer(Protocol):
    """The part of `transformers.PreTrainedTokenizerBase` that is used here."""

    def encode(self, text: str, /, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Tokenize a text."""
        ...

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> object:
        """Return the text of tokens, a str."""


class Model(Protocol):
    """The part of `transformers.PreTrainedModel` that is used here; its `generate` too, which has no usable type."""

    @property
    def config(self) -> object:
        """The configuration of the network."""

    @property
    def generation_config(self) -> object:
        """The defaults of `generate`."""

    @property
    def device(self) -> object:
        """The device of the weights."""

    @property
    def dtype(self) -> object:
        """The type of the weights."""


class _Answer(NamedTuple):
    tokens: list[int]
    text: str
    finish_reason: Literal["stop", "length"] | None  # None while it goes on


def load(
    path_or_name: str,
    device: str | None = None,
    dtype: str | None = None,
    *,
    params: Params | None = None,
    options: Mapping[str, object] | None = None,
) -> LocalModel:
    """Load a model and its tokenizer from a folder, or by their name on the Hub. Raises what transformers raises.

    Without `device`: on the accelerator (CUDA, MPS, XPU ...), or else on the CPU. Without `dtype`: as in the checkpoint.
    """
    _check_params(params or {})  # before minutes are spent on loading
    try:
        torch, transformers = import_module("torch"), import_module("transformers")
    except ImportError as error:
        raise ImportError("distgen.backends.hf needs torch and transformers: pip install torch transformers") from error
    tokenizer = transformers.AutoTokenizer.from_pretrained(path_or_name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path_or_name, dtype=dtype or "auto")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return LocalModel(model.to(device or accelerator), tokenizer, params or {}, options or {})


@final
@dataclass(frozen=True, repr=False)
class LocalModel:
    """A synchronous backend over a transformers model, on the device where the model is. One call runs at a time.

    - `params`: temperature (0 is greedy), top_p, max_tokens, stop and seed; a ValueError names any other. `options`: other
      fields of a generation_config, such as top_k. The rest is as in the model's own generation_config.
    - In a text, special tokens are read as such; in segments (`chatml.segments`), only those of the format's literals.
      Tokens that a tokenizer has added without making them special (<think> of Qwen) are read in contents too.
    - With a seed, the same call gives the same answers. The samples of a prompt depend on the prompts beside it, too.
    - An answer ends before its stop string. `finish_reason` is "stop" after a stop string or an end-of-sequence token, else
      "length". The first completion of a row has the usage of all of them.
    - A prompt that is empty, too long or cannot be encoded is a Failure of its row alone.
    """

    model: Model
    tokenizer: Tokenizer
    params: Params = field(default_factory=Params, hash=False)
    options: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)

    def __post_init__(self) -> None:
        _check_params(self.params)
        for name in self.options:
            if name in _RESERVED:
                raise ValueError(f"options[{name!r}] is set by params, or by the backend itself; leave it out.")
            if not hasattr(self.model.generation_config, name):
                raise ValueError(f"options[{name!r}] is not a field of a generation_config; check its name.")
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ValueError("the model is an encoder-decoder, which does not continue a text; load another one.")
        if self._context == self._max_tokens == _UNBOUNDED:
            raise ValueError("the model does not say how many tokens it takes; give params={'max_tokens': ...}.")

    def __repr__(self) -> str:
        return f"LocalModel({type(self.model).__name__}, device={self.device!r}, dtype={self.dtype!r})"

    @property
    def device(self) -> str:
        """The device of the model, such as "cuda:0"."""
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        """The type of the model's weights, such as "bfloat16"."""
        return str(self.model.dtype).removeprefix("torch.")

    def has_special_token(self, text: str) -> bool:
        """Return True if the tokenizer reads a special token in this text, where it is not the content of a segment."""
        return self.encode(text) != self.encode((Segment(text, False),))

    def is_special_token(self, text: str) -> bool:
        """Return True if this text is exactly one special token."""
        return self.has_special_token(text) and len(self.encode(text)) == 1

    def encode(self, prompt: Rendered) -> list[int]:
        """Return the tokens that the model gets for a prompt; raises what the tokenizer raises."""
        tokens: list[int] = []
        for text, is_control in [Segment(prompt, True)] if isinstance(prompt, str) else prompt:
            text.encode()  # raises a plainer error for a lone surrogate than tokenizers does
            with _LOCK:
                tokens += self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not is_control)
        return tokens

    def __call__(self, prompts: Sequence[Rendered], num_generations: int) -> Batch:
        """Return one row a prompt."""
        with _LOCK:
            encoded = [self._try_encode(prompt) for prompt in prompts]
            answers = iter(
                self._answer([ids for ids in encoded if isinstance(ids, list) for _ in range(num_generations)])
            )
            return [
                _row(len(ids), [*islice(answers, num_generations)]) if isinstance(ids, list) else Failure(ids)
                for ids in encoded
            ]

    def _try_encode(self, prompt: Rendered) -> list[int] | BackendError:
        try:
            tokens = self.encode(prompt)
        except Exception as error:
            return Raised.of(error)
        if not tokens:
            return RequestFailed("not_sent", "the prompt is empty, and a model needs at least one token to continue")
        if len(tokens) >= self._context:
            return RequestFailed(
                "prompt_too_long", f"{len(tokens):,} tokens, of {self._context:,} that fit; shorten it"
            )
        return tokens

    @cached_property
    def _context(self) -> int:
        """The most tokens of a prompt and its answer. A model of more than text has a configuration for its text alone."""
        config = methodcaller("get_text_config")(self.model.config)
        return getattr(config, "max_position_embeddings", None) or _UNBOUNDED

    @cached_property
    def _max_tokens(self) -> int:
        default = getattr(self.model.generation_config, "max_new_tokens", None) or _UNBOUNDED
        return self.params.get("max_tokens", self.params.get("max_completion_tokens", default))

    @cached_property
    def _stops(self) -> tuple[tuple[str, ...], frozenset[int]]:
        """The stop strings to search for in texts, and the tokens that end an answer: end-of-sequence, special stops."""
        stop = self.params.get("stop", ())
        given = [stop] if isinstance(stop, str) else stop
        special = [text for text in given if self.is_special_token(text)]
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ends: int | list[int] | None = getattr(self.tokenizer, "eos_token_id", None) if own is None else own
        tokens = [*([ends] if isinstance(ends, int) else ends or []), *(self.encode(text)[0] for text in special)]
        return tuple(text for text in given if text not in special), frozenset(tokens)

    def _answer(self, prompts: list[list[int]]) -> list[_Answer]:
        """Generate until each answer has ended. A batch ends where its longest prompt has no room; the rest is continued."""
        rooms = [min(self._max_tokens, self._context - len(prompt)) for prompt in prompts]
        answers = [_Answer([], "", None)] * len(prompts)
        torch, seed = import_module("torch"), self.params.get("seed")
        kind = torch.device(self.device).type
        with torch.random.fork_rng([] if kind == "cpu" else [self.device], seed is not None, device_type=kind):
            if seed is not None:
                torch.manual_seed(seed)
            while unfinished := [place for place, answer in enumerate(answers) if answer.finish_reason is None]:
                rows = [prompts[place] + answers[place].tokens for place in unfinished]
                steps = max(rooms[place] - len(answers[place].tokens) for place in unfinished)
                for place, tokens in zip(unfinished, self._generate(rows, steps), strict=True):
                    answers[place] = self._read(answers[place].tokens + tokens, rooms[place])
        return answers

    def _generate(self, rows: list[list[int]], steps: int) -> list[list[int]]:
        """Return the tokens that continue each row. After the end of an answer, any tokens follow."""
        tensor = partial(import_module("torch").tensor, device=self.model.device)
        width = max(map(len, rows))
        generate = methodcaller(
            "generate",
            input_ids=tensor([[0] * (width - len(row)) + row for row in rows]),  # masked, so that any token will do
            attention_mask=tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
            max_new_tokens=min(steps, self._context - width),
            stopping_criteria=[partial(self._find_stops, width)] if self._stops[0] else None,
            eos_token_id=[*self._stops[1]] or None,
            **_FIXED,
            **_OFF,
            **{**_sampling(self.params), **self.options},
        )
        return list(generate(self.model)[:, width:].tolist())

    def _find_stops(self, width: int, input_ids: Any, _scores: object, **_: object) -> object:
        """Tell `generate` which rows hold a stop string. This only saves steps: `_read` finds where an answer ends."""
        rows, length = input_ids.shape
        torch = import_module("torch")
        if (length - width) % _INTERVAL:
            return torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        longest = max(len(stop.encode()) for stop in self._stops[0])  # a token that is not special has a byte or more
        newest = input_ids[:, max(width, length - longest - _INTERVAL - _MARGIN) :].tolist()
        return torch.tensor([self._has_stop(self._decode(tokens)) for tokens in newest], device=input_ids.device)

    def _read(self, tokens: list[int], room: int) -> _Answer:
        """Cut tokens where the answer ends: after a stop string, after an end token, or where there is no more room."""
        said = [*takewhile(lambda token: token not in self._stops[1], tokens[:room])]
        text = self._decode(said)
        if self._has_stop(text):
            count = bisect_left(range(len(said)), True, key=lambda count: self._has_stop(self._decode(said[:count])))
            text = self._decode(said[:count])
            end = min(text.index(stop) for stop in self._stops[0] if stop in text)
            return _Answer(said[:count], text[:end], "stop")
        if len(said) < min(len(tokens), room):
            return _Answer(tokens[: len(said) + 1], text, "stop")
        return _Answer(said, text, "length" if len(said) == room else None)

    def _has_stop(self, text: str) -> bool:
        return any(stop in text for stop in self._stops[0])

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _row(prompt_tokens: int, answers: Sequence[_Answer]) -> list[Completion]:
    usage = Usage(prompt_tokens, sum(len(answer.tokens) for answer in answers))
    return [Completion(answer.text, answer.finish_reason, None if n else usage) for n, answer in enumerate(answers)]


def _sampling(params: Params) -> dict[str, object]:
    temperature = params.get("temperature")
    if temperature == 0:  # None: else transformers warns of sampling options that the model's own configuration has
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    top_p: dict[str, object] = {"top_p": float(params["top_p"])} if "top_p" in params else {}
    return top_p if temperature is None else {**top_p, "do_sample": True, "temperature": float(temperature)}


def _check_params(params: Params) -> None:
    for name, value in params.items():
        if name == "stop":
            stops: list[object] = [*value] if isinstance(value, list | tuple) else [value]
            if not all(isinstance(stop, str) and stop for stop in stops):
                raise ValueError(f"params['stop'] is {value!r}; it must be a text or several, none of them empty.")
        elif name not in _RANGES:
            raise ValueError(f"params[{name!r}] is not supported by this backend; leave it out.")
        else:
            types, low, high, text = _RANGES[name]  # type() is compared too, since True is an int
            if not isinstance(value, int | float) or type(value) not in types or not low <= value <= high:
                raise ValueError(f"params[{name!r}] is {value!r}; it must be {text}.")
    if "max_tokens" in params and "max_completion_tokens" in params:
        raise ValueError("params has both 'max_tokens' and 'max_completion_tokens', which mean the same; give one.")
