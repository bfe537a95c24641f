"""What models in this process have in common: the prompts they take, the parameters they heed, how an answer is read.

Nothing here loads or calls a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Final, Literal, TypeGuard, final

from distgen.completion import Completion, Usage
from distgen.errors import Raised
from distgen.prompt import Rendered, Segment

ONE_AT_A_TIME: Final = RLock()
"""Held while a model answers: torch seeds all sampling of a process at once, tokenizers keep in one place what each call
tells them, a llama.cpp context is one conversation, and one model keeps all cores busy."""

_HEEDED: Final = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed")
_SEEDS: Final = 2**31
_MARGIN: Final = 8  # tokens


@final
@dataclass(frozen=True, slots=True)
class Sampling:
    """The parameters that every model in process heeds; None where the model itself decides."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None


def sampling(params: Mapping[str, object] | None, also: Collection[str] = ()) -> Sampling:
    """Reads `Params`; a ValueError names one that cannot be heeded (`also` are more that can) or is out of its range.

    >>> sampling({"temperature": 0, "max_completion_tokens": 20, "stop": "END"})
    Sampling(temperature=0, top_p=None, max_tokens=20, stops=('END',), seed=None)
    >>> sampling({"logprobs": True})
    Traceback (most recent call last):
        ...
    ValueError: params['logprobs'] cannot be heeded by this backend; leave it out.
    """
    given: Mapping[str, object] = params or {}
    for name in given:
        if name not in _HEEDED and name not in also:
            raise ValueError(f"params[{name!r}] cannot be heeded by this backend; leave it out.")
    if "max_tokens" in given and "max_completion_tokens" in given:
        raise ValueError("params holds both 'max_tokens' and 'max_completion_tokens', which mean the same; give one.")
    most = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    return Sampling(
        _number(given, "temperature", lambda value: value >= 0, "a number, 0 or more"),
        _number(given, "top_p", lambda value: 0 < value <= 1, "a number above 0, at most 1"),
        _whole(given, most, lambda value: value >= 1, "a whole number, 1 or more"),
        _stops(given.get("stop", ())),
        _whole(given, "seed", lambda value: 0 <= value < _SEEDS, "a whole number from 0 to 2,147,483,647"),
    )


def encoded(prompt: Rendered, encode: Callable[[str, bool], list[int]], context: int) -> list[int] | Raised:
    """The tokens of a prompt, or why a model with room for `context` of them cannot answer it; never raises.

    `encode(text, is_control)` gives the tokens of a piece. A prompt of no token is an `EmptyPrompt`, one that leaves no
    room for an answer is `PromptTooLong`; what `encode` raises is its Raised, as a UnicodeEncodeError for a lone surrogate.

    >>> encoded((Segment("ab", True), Segment("c", False)), lambda text, is_control: [*map(ord, text)], 4)
    [97, 98, 99]
    >>> encoded("abcd", lambda text, is_control: [*map(ord, text)], 4).kind
    'PromptTooLong'
    """
    tokens: list[int] = []
    try:
        for text, is_control in (Segment(prompt, True),) if isinstance(prompt, str) else prompt:
            tokens += encode(text, is_control)
    except Exception as error:
        return Raised.of(error)
    if not tokens:
        return Raised("EmptyPrompt", "the prompt is no token at all, and a model needs one to go on from")
    if len(tokens) >= context:
        reason = f"its {len(tokens):,} tokens leave no room for an answer in the {context:,} that the model takes"
        return Raised("PromptTooLong", f"{reason}; shorten the prompt")
    return tokens


@final
@dataclass(slots=True)
class Answer:
    """An answer while it is made: at most `room` tokens, which go on from those of the prompt."""

    prompt: list[int]
    room: int
    tokens: list[int] = field(default_factory=list[int])
    finish_reason: Literal["stop", "length"] | None = None


@final
@dataclass(frozen=True, slots=True)
class Reader:
    """Reads answers token by token, by what ends them: a token that `is_end`, one of `stops` in the text, or lack of room."""

    decode: Callable[[list[int]], str]
    is_end: Callable[[int], bool]
    stops: tuple[str, ...]

    def take(self, answer: Answer, token: int) -> None:
        """Adds a token to an answer; one that is finished takes no more."""
        if answer.finish_reason is not None:
            return
        answer.tokens.append(token)
        if self.is_end(token) or self._is_stopped(answer.tokens):
            answer.finish_reason = "stop"
        elif len(answer.tokens) == answer.room:
            answer.finish_reason = "length"

    def row(self, answers: Sequence[Answer]) -> list[Completion]:
        """The completions of one prompt. The usage of the first counts the prompt, so that a sum counts it once.

        >>> reader = Reader(lambda tokens: bytes(tokens).decode(), (0).__eq__, ("END",))
        >>> answer = Answer([1, 2], room=9)
        >>> for token in b"Hi END, and more":
        ...     reader.take(answer, token)
        >>> reader.row([answer])
        [Completion(text='Hi ', finish_reason='stop', usage=Usage(prompt_tokens=2, completion_tokens=6))]
        """
        return [self._completion(each, len(each.prompt) if each is answers[0] else 0) for each in answers]

    def _completion(self, answer: Answer, prompt_tokens: int) -> Completion:
        said = [token for token in answer.tokens if not self.is_end(token)]
        usage = Usage(prompt_tokens, len(answer.tokens))
        return Completion(_cut(self.decode(said), self.stops)[0], answer.finish_reason, usage)

    def _is_stopped(self, tokens: list[int]) -> bool:
        if not self.stops:
            return False
        # A token is a byte or more, save the special ones: those are no text, and a margin is left for them.
        longest = max(len(stop.encode()) for stop in self.stops)
        return _cut(self.decode(tokens[-longest - _MARGIN :]), self.stops)[1]


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop in it, and whether there is one."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def _stops(value: object) -> tuple[str, ...]:
    stops: Sequence[object] = [value] if isinstance(value, str) else value if _is_sequence(value) else [None]
    texts = tuple(stop for stop in stops if isinstance(stop, str) and stop)
    if len(texts) < len(stops):
        raise ValueError(f"params['stop'] is {value!r}; it must be a text or several, none of them empty.")
    return texts


def _number(params: Mapping[str, object], name: str, is_in_range: Callable[[float], bool], due: str) -> float | None:
    value = params.get(name)
    if value is None:
        return None
    # type() and not isinstance: to Python, True is a number
    if not isinstance(value, int | float) or type(value) is bool or not math.isfinite(value) or not is_in_range(value):
        raise ValueError(f"params[{name!r}] is {value!r}; it must be {due}.")
    return value


def _whole(params: Mapping[str, object], name: str, is_in_range: Callable[[float], bool], due: str) -> int | None:
    value = _number(params, name, is_in_range, due)
    if isinstance(value, float):
        raise ValueError(f"params[{name!r}] is {value!r}; it must be {due}.")
    return value


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)
