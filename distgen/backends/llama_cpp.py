"""A model in this process, by llama.cpp: `InProcess` over a `llama_cpp.Llama` that you hold, or a GGUF file that `load` opens.

Prompts are answered one after the other. Nothing is added to a prompt: its format writes the BOS text. One call runs at a
time in a process.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module  # llama_cpp is typed only where it is installed
from typing import Final, NamedTuple, Protocol, final

from returns.result import Failure

from distgen.backends.in_process import ONE_AT_A_TIME, Answer, Reader, Sampling, encoded, sampling
from distgen.backends.params import Params
from distgen.completion import Batch, Row
from distgen.errors import Fault
from distgen.prompt import Rendered

_PENALTIES: Final = ("presence_penalty", "frequency_penalty")
_OURS: Final = frozenset(("tokens", "temp", "top_p", "reset", "stopping_criteria", *_PENALTIES))
_RANDOM: Final = 0xFFFFFFFF  # Source: llama.h, LLAMA_DEFAULT_SEED


class Model(Protocol):
    """What is called of a `llama_cpp.Llama`."""

    @property
    def model(self) -> object:
        """The model as the functions of llama.h take it."""
        ...

    @property
    def generate(self) -> Callable[..., Iterator[int]]:
        """Goes on from tokens, one by one and without end."""
        ...

    def n_ctx(self) -> int:
        """How many tokens it takes, the answer's among them."""
        ...

    def reset(self) -> object:
        """Forgets what was read."""
        ...

    def set_seed(self, seed: int, /) -> object:
        """Seeds what is sampled next."""
        ...

    def tokenize(self, text: bytes, /, *, add_bos: bool, special: bool) -> list[int]:
        """Tokens of a text in UTF-8."""
        ...


def load(
    path: str,
    *,
    params: Params | None = None,
    options: Mapping[str, object] | None = None,
    n_ctx: int = 4096,
    n_threads: int | None = None,
) -> InProcess:
    """Opens a GGUF file with room for `n_ctx` tokens, a prompt and its answer together; 0 is as many as the model takes.

    `n_threads` are half of the machine's unless given. A ValueError of llama_cpp says that a file is not there or no model.

    >>> load("model.gguf", params={"temperature": 0}, n_threads=4)  # doctest: +SKIP
    InProcess(model=Llama, params={'temperature': 0}, options=None)
    """
    sampling(params, _PENALTIES)  # a mistake is said before minutes are spent
    opened: Callable[..., Model] = import_module("llama_cpp").Llama
    model = opened(path, n_ctx=n_ctx, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
    return InProcess(model, params, options)


@final
@dataclass(frozen=True)
class InProcess:
    """A generate callable over a `llama_cpp.Llama`.

    - A text is encoded with the special tokens in it, segments (`chatml.segments`) with those in the format's literals
      alone: no content is ever read as one.
    - `params`: temperature (0 is greedy), top_p, max_tokens, stop, seed, presence_penalty, frequency_penalty; a ValueError
      names any other. What is not given is as `Llama.generate` has it; without max_tokens an answer may be as long as there
      is room.
    - `options`: what else `Llama.generate` takes, such as top_k, min_p, repeat_penalty.
    - With a seed, an answer depends on nothing but it and the prompt; the k-th generation of a row has seed + k. Without
      one, what two prompts begin with alike is read once.
    - An answer ends before its stop, special tokens are no part of its text, and bytes that are no UTF-8 are U+FFFD. Its
      finish_reason is "stop" after a stop or an end-of-generation token, else "length". The usage of a row's first
      completion counts the prompt, and each counts the tokens that were made for it, its end included.
    - A row that `in_process.encoded` refuses is a Failure, and so is one on which llama.cpp fails; the others are answered.

    >>> InProcess(Llama("model.gguf"), {"max_tokens": 9})(["<|im_start|>user\\n"], 2)  # doctest: +SKIP
    """

    model: Model
    params: Params | None = field(default=None, hash=False)
    options: Mapping[str, object] | None = field(default=None, hash=False)
    _plan: _Plan = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plan", self._planned(sampling(self.params, _PENALTIES)))

    def __call__(self, prompts: Sequence[Rendered], num_generations: int) -> Batch:
        """One row a prompt, asked one after the other."""
        with ONE_AT_A_TIME:
            return [self._row(prompt, num_generations) for prompt in prompts]

    def __repr__(self) -> str:
        """Without where the model lies in memory."""
        return f"InProcess(model={type(self.model).__name__}, params={self.params!r}, options={self.options!r})"

    def encode(self, text: str, is_control: bool) -> list[int]:
        """The tokens of a literal of a format, or of a content."""
        with ONE_AT_A_TIME:
            return self.model.tokenize(text.encode(), add_bos=False, special=is_control)

    def is_token(self, text: str) -> bool:
        """Whether this text is a special token of the tokenizer, which is read in a text and never in a content.

        >>> InProcess(Llama("model.gguf")).is_token("<|im_end|>")  # doctest: +SKIP
        True
        """
        return self.holds_token(text) and len(self.encode(text, is_control=True)) == 1

    def holds_token(self, text: str) -> bool:
        """Whether the tokenizer reads a special token in this text, where it is no content."""
        return self.encode(text, is_control=True) != self.encode(text, is_control=False)

    def _planned(self, asked: Sampling) -> _Plan:
        known = inspect.signature(self.model.generate).parameters
        for name in self.options or ():
            if name in _OURS:
                raise ValueError(f"options[{name!r}] is set by the backend itself, or by params; leave it out.")
            if name not in known:
                raise ValueError(f"options[{name!r}] is nothing that Llama.generate takes.")
        given = self.params or Params()
        told = {"temp": asked.temperature, "top_p": asked.top_p} | {name: given.get(name) for name in _PENALTIES}
        special = [stop for stop in asked.stops if self.is_token(stop)]
        ends = frozenset(token for stop in special for token in self.encode(stop, is_control=True))
        api = import_module("llama_cpp")
        vocabulary: object = api.llama_model_get_vocab(self.model.model)

        def is_end(token: int) -> bool:
            return token in ends or api.llama_vocab_is_eog(vocabulary, token)

        def decode(tokens: list[int]) -> str:
            return b"".join(_piece(vocabulary, token) for token in tokens).decode(errors="replace")

        stops = tuple(stop for stop in asked.stops if stop not in special)
        sampled = {name: value for name, value in told.items() if value is not None} | dict(self.options or {})
        context = min(self.model.n_ctx(), api.llama_model_n_ctx_train(self.model.model))
        return _Plan(asked, context, sampled, Reader(decode, is_end, stops))

    def _row(self, prompt: Rendered, num_generations: int) -> Row:
        context, seed = self._plan.context, self._plan.sampling.seed
        tokens = encoded(prompt, self.encode, context)
        if isinstance(tokens, Fault):
            return Failure(tokens)
        longest = self._plan.sampling.max_tokens or context
        answers = [Answer(tokens, min(longest, context - len(tokens))) for _ in range(num_generations)]
        try:
            if seed is not None:
                self.model.reset()  # what was read in another order is the same only but for rounding
            for place, answer in enumerate(answers):
                self.model.set_seed(_RANDOM if seed is None else seed + place)
                self._generate(answer)
        except Exception as error:
            return Failure(Fault.of(error))
        return self._plan.reader.row(answers)

    def _generate(self, answer: Answer) -> None:
        for token in self.model.generate(answer.prompt, **self._plan.sampled):
            self._plan.reader.take(answer, token)
            if answer.finish_reason is not None:
                return


class _Plan(NamedTuple):
    """What follows from the parameters and the model."""

    sampling: Sampling
    context: int
    """The most tokens of a prompt and its answer: no more than the model was trained with, as llama-server has it."""
    sampled: Mapping[str, object]
    """The arguments of `Llama.generate`."""
    reader: Reader


def _piece(vocabulary: object, token: int) -> bytes:
    """The bytes of a token, none of a special one. Llama.detokenize is wrong for a token of more than 32."""
    write: Callable[..., int] = import_module("llama_cpp").llama_token_to_piece
    size = 32
    while True:
        buffer = (ctypes.c_char * size)()
        written = write(vocabulary, token, buffer, size, 0, False)
        if written >= 0:
            return buffer.raw[:written]
        size = -written
