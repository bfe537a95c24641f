"""Log probabilities of tokens, in the two shapes of the protocol."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Final, TypeGuard

from distgen.backends.wire.decoding import is_array, is_object
from distgen.completion import TokenLogprob

_LARGEST: Final = sys.float_info.max  # JSON has integers beyond it


# Source: OpenAI API reference, "The chat completion object" and "The completion object".
#   chat        = {"content": [{"token": string, "logprob": number, "top_logprobs": [top, ...]}, ...] | null}
#   top         = {"token": string, "logprob": number}
#   completion  = {"tokens": [string, ...], "token_logprobs": [number, ...], "top_logprobs": [{string: number}, ...]}
# Seen besides in servers: null for the first token of an echoed prompt (vLLM), the chat shape from the completions endpoint
# (llama.cpp), no "top_logprobs", and NaN and -Infinity, which Python writes though JSON has neither.
def read_logprobs(value: object) -> tuple[TokenLogprob, ...] | None:
    """Return the log probabilities of a choice; None if they are absent or malformed.

    >>> read_logprobs({"tokens": ["a"], "token_logprobs": [-0.5]})
    (TokenLogprob(token='a', logprob=-0.5, top_logprobs=()),)
    """
    if not is_object(value):
        return None
    content, tokens, logprobs = value.get("content"), value.get("tokens"), value.get("token_logprobs")
    if is_array(content):
        return _all(_token(token, logprob, _tops(tops)) for token, logprob, tops in map(_entry, content))
    if not is_array(tokens) or not is_array(logprobs):
        return None
    tops = value.get("top_logprobs") or [None] * len(tokens)
    if not is_array(tops) or not len(tokens) == len(logprobs) == len(tops):
        return None
    return _all(_token(token, logprob, _tops(top)) for token, logprob, top in zip(tokens, logprobs, tops, strict=True))


def _entry(value: object) -> tuple[object, object, object]:
    if not is_object(value):
        return None, None, None
    return value.get("token"), value.get("logprob"), value.get("top_logprobs")


def _tops(value: object) -> tuple[TokenLogprob, ...] | None:
    if is_object(value):
        return _all(_token(token, logprob, ()) for token, logprob in value.items())
    if is_array(value):
        return _all(_token(token, logprob, ()) for token, logprob, _ in map(_entry, value))
    return () if value is None else None


def _token(token: object, logprob: object, tops: tuple[TokenLogprob, ...] | None) -> TokenLogprob | None:
    if not isinstance(token, str) or not _is_logprob(logprob) or tops is None:
        return None
    return TokenLogprob(token, logprob, tops)


def _is_logprob(value: object) -> TypeGuard[float | None]:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return False
    return value is None or -_LARGEST <= value <= _LARGEST or value == -math.inf  # NaN is in no range


def _all(tokens: Iterable[TokenLogprob | None]) -> tuple[TokenLogprob, ...] | None:
    """Return all of them, or None if one is malformed: a list with holes would be shifted against its text."""
    found = tuple(tokens)
    whole = tuple(token for token in found if token is not None)
    return whole if len(whole) == len(found) else None
