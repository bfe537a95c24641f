"""A transformers model in this process: `load` it by name, or make a `LocalModel` of your own model and tokenizer.

All prompts of a call are generated as one batch. A prompt is tokenized as it is: formats write the BOS token themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module  # torch and transformers have types only where they are installed
from itertools import takewhile
from operator import methodcaller
from threading import RLock
from typing import Any, Final, Protocol, final

from returns.result import Failure, Result, Success

from distgen.backends.generate import Batch
from distgen.backends.params import Params
from distgen.completion import Completion, Usage
from distgen.errors import BackendError, Raised, RequestFailed
from distgen.prompt import Rendered, Segment

_LOCK: Final = RLock()  # torch's random generators and the state of tokenizers are not thread-safe
_UNBOUNDED: Final = 2**31 - 1  # tokens
_INTERVAL: Final = 8  # steps from one search for stop strings to the next; a search may take as long as a step
_MARGIN: Final = 8  # special tokens, which are no text, among the tokens that are searched for stop strings
_PARAMS: Final = {"temperature", "top_p", "max_tokens", "stop", "seed"}
# max_length, max_time and stop_strings of a model's own configuration would end answers without a sign of it.
_OFF: Final = {"max_length": None, "max_time": None, "stop_strings": None}
_FIXED: Final = {"pad_token_id": 0, "num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False, **_OFF}
_OWN: Final = {*_FIXED, "temperature", "top_p", "do_sample", "max_new_tokens", "eos_token_id"}


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


def load(
    path_or_name: str,
    device: str | None = None,
    dtype: str | None = None,
    *,
    params: Params | None = None,
    options: Mapping[str, object] | None = None,
) -> LocalModel:
    """Load a model and its tokenizer from a folder, or by their name on the Hub; raise what transformers raises.

    `device` defaults to the accelerator (CUDA, MPS, XPU ...) or else the CPU, and `dtype` to that of the checkpoint.
    """
    _check_params(params or {})  # before minutes are spent on loading
    torch, transformers = import_module("torch"), import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path_or_name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path_or_name, dtype=dtype or "auto")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return LocalModel(model.to(device or accelerator), tokenizer, params or {}, options or {})


@final
@dataclass(frozen=True)
class LocalModel:
    """A synchronous backend over a transformers model, on the device where the model is. One call runs at a time.

    - `params`: temperature (0 is greedy), top_p, max_tokens, stop and seed; any other raises a ValueError. `options`: other
      fields of a generation_config, such as top_k. All other fields are those of the model's own generation_config.
    - In a text, special tokens are read as such; in segments (`chatml.segments`), only those of the format's literals.
      Tokens that a tokenizer has added without making them special (<think> of Qwen) are read in contents too.
    - With a seed, which is torch's, the same call gives the same answers. The samples of a prompt also depend on the other
      prompts of the call.
    - An answer ends before its stop string. `finish_reason` is "stop" after a stop string or an end-of-sequence token, else
      "length". The first completion of a row has the usage of all of them.
    - A prompt is too long if it leaves less room than `max_tokens`, as on a server. Without `max_tokens`, answers end where the
      model's own configuration says, or when the longest prompt of the call and its answer fill the model's context.
    - A prompt that is empty, too long or cannot be encoded is a Failure of its row alone.
    """

    model: Model = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    params: Params = field(default_factory=Params, hash=False)
    options: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)

    def __post_init__(self) -> None:
        _check_params(self.params)
        for name in self.options:
            if name in _OWN or not hasattr(self.model.generation_config, name):
                raise ValueError(f"options[{name!r}] is no generation_config field, or set by params; leave it out.")
        if self._context == self._max_tokens == _UNBOUNDED:
            raise ValueError("the model does not say how many tokens it takes; give params={'max_tokens': ...}.")

    @property
    def device(self) -> str:
        """The device of the model, such as "cuda:0"."""
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        """The type of the model's weights, such as "bfloat16"."""
        return str(self.model.dtype).removeprefix("torch.")

    def has_special_token(self, text: str) -> bool:
        """Return True if this text holds a special token: as markup it has other tokens than as plain text."""
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
            asked = [row.unwrap() for row in encoded if isinstance(row, Success)]
            tokens = iter(self._generate([row for row in asked for _ in range(num_generations)]))
            answers = ([self._read_answer(next(tokens)) for _ in range(num_generations)] for _ in asked)
            return [row if isinstance(row, Failure) else _row(len(row.unwrap()), next(answers)) for row in encoded]

    def _try_encode(self, prompt: Rendered) -> Result[list[int], BackendError]:
        try:
            tokens = self.encode(prompt)
        except Exception as error:
            return Failure(Raised.of(error))
        if not tokens:
            return Failure(RequestFailed("not_sent", "the prompt is empty; a model needs a token to continue"))
        if len(tokens) + self.params.get("max_tokens", 1) > self._context:
            said = f"the prompt ({len(tokens):,} tokens) and its answer do not fit the model's context of"
            return Failure(RequestFailed("prompt_too_long", f"{said} {self._context:,}"))
        return Success(tokens)

    @cached_property
    def _context(self) -> int:
        """The most tokens of a prompt and its answer; a multimodal model has a configuration of its own for text."""
        config = methodcaller("get_text_config")(self.model.config)
        return getattr(config, "max_position_embeddings", None) or _UNBOUNDED

    @cached_property
    def _max_tokens(self) -> int:
        own = getattr(self.model.generation_config, "max_new_tokens", None)
        return self.params.get("max_tokens", own or _UNBOUNDED)

    @cached_property
    def _stops(self) -> tuple[list[str], list[int]]:
        """The stop strings to search for in texts, and the tokens that end an answer: end-of-sequence, special stops."""
        stop = self.params.get("stop", ())
        given = [stop] if isinstance(stop, str) else stop
        special = [text for text in given if self.is_special_token(text)]
        own: int | list[int] | None = getattr(self.model.generation_config, "eos_token_id", None)
        ends = [own] if isinstance(own, int) else own or []
        texts = [text for text in given if text and text not in special]
        return texts, [*ends, *(self.encode(text)[0] for text in special)]

    def _generate(self, prompts: list[list[int]]) -> list[list[int]]:
        """Return the tokens that continue each prompt. After the end of an answer, any tokens follow."""
        if not prompts:
            return []
        torch = import_module("torch")
        width = max(map(len, prompts))
        tensor = partial(torch.tensor, device=self.model.device)
        generate = methodcaller(
            "generate",
            input_ids=tensor([[0] * (width - len(row)) + row for row in prompts]),  # the mask hides the padding
            attention_mask=tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts]),
            max_new_tokens=min(self._max_tokens, self._context - width),
            stopping_criteria=[partial(self._find_stops, width)] if self._stops[0] else None,
            eos_token_id=self._stops[1] or None,
            **_FIXED,
            **{**_sampling(self.params), **self.options},
        )
        if "seed" in self.params:
            torch.manual_seed(self.params["seed"])
        return list(generate(self.model)[:, width:].tolist())

    def _find_stops(self, width: int, input_ids: Any, _scores: object, **_: object) -> object:
        """Tell `generate` which rows hold a stop string. This only saves steps: `_read_answer` finds the end of an answer."""
        rows, length = input_ids.shape
        texts = [""] * rows
        if (length - width) % _INTERVAL == 0:
            # A token that is not special has at least one byte, so these tokens hold the longest stop string.
            longest = max(len(stop.encode()) for stop in self._stops[0])
            newest = input_ids[:, max(width, length - longest - _INTERVAL - _MARGIN) :].tolist()
            texts = [self._decode(tokens) for tokens in newest]
        return import_module("torch").tensor([self._find_stop(text) >= 0 for text in texts], device=input_ids.device)

    def _read_answer(self, tokens: list[int]) -> tuple[Completion, int]:
        """Return an answer, and its number of tokens."""
        said = [*takewhile(lambda token: token not in self._stops[1], tokens)]
        text = self._decode(said)
        if self._find_stop(text) >= 0:
            # The fewest tokens whose text holds a stop string.
            count = bisect_left(range(len(said)), 0, key=lambda count: self._find_stop(self._decode(said[:count])))
            text = self._decode(said[:count])
            return Completion(text[: self._find_stop(text)], "stop"), count
        return Completion(text, "stop" if len(said) < len(tokens) else "length"), min(len(said) + 1, len(tokens))

    def _find_stop(self, text: str) -> int:
        """Return where the first stop string begins; -1 if there is none."""
        return min((text.index(stop) for stop in self._stops[0] if stop in text), default=-1)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _row(prompt_tokens: int, answers: list[tuple[Completion, int]]) -> list[Completion]:
    usage = Usage(prompt_tokens, sum(count for _, count in answers))
    return [replace(each, usage=None if n else usage) for n, (each, _) in enumerate(answers)]


def _sampling(params: Params) -> dict[str, object]:
    temperature = params.get("temperature")
    if temperature == 0:  # None: else transformers warns of sampling options that the model's own configuration has
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    top_p: dict[str, object] = {"top_p": float(params["top_p"])} if "top_p" in params else {}
    return top_p if temperature is None else {**top_p, "do_sample": True, "temperature": float(temperature)}


def _check_params(params: Params) -> None:
    for name in params:
        if name not in _PARAMS:
            raise ValueError(f"params[{name!r}] is not supported by this backend; leave it out.")
    try:
        transformers = import_module("transformers")  # which checks the values
    except ModuleNotFoundError as missing:  # pragma: no cover  (by tests/test_imports.py)
        raise ImportError(
            "distgen.backends.hf needs torch and transformers: pip install torch transformers"
        ) from missing
    transformers.TemperatureLogitsWarper(float(params.get("temperature") or 1))
    transformers.TopPLogitsWarper(float(params.get("top_p", 1)))
