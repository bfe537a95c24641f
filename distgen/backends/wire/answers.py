"""Answers: bytes of a server in, completions or the reason why there are none out; no bytes raise."""

from __future__ import annotations

import codecs
import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias, TypeGuard

from returns.result import Failure, Result, Success

from distgen.backends.wire.errors import BadChoice, BadStatus, NoChoices, NoText, NotJSON, ServerError, WireError
from distgen.completion import Completion, TokenLogprob, Usage

Answer: TypeAlias = Result[tuple[Completion, ...], WireError]
"""At least one completion, or why there is none."""

_LARGEST: Final = sys.float_info.max  # JSON has integers beyond it


# Source: OpenAI API reference, "The chat completion object" and "The completion object".
#   chat        = {"choices": [{"index": integer, "message": message, "finish_reason": string}, ...], "usage"?: usage}
#   message     = {"role": "assistant", "content": string | null, "refusal"?: string | null}
#   completion  = {"choices": [{"index": integer, "text": string, "finish_reason": string}, ...], "usage"?: usage}
#   usage       = {"prompt_tokens": integer, "completion_tokens": integer, "total_tokens": integer}
# Seen besides in servers: finish_reason null or absent, index absent, equal or out of order.


def read_chat(body: bytes) -> Answer:
    """The completions of a chat answer, in the order of `index` where that is 0, 1, 2 ..., else as they stand.

    `usage` counts a whole answer, so its first completion carries it and the others None: a sum over completions is
    what was billed. A usage that is absent or malformed is None, and so are logprobs.

    >>> read_chat(b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}')
    <Success: (Completion(text='Hi', finish_reason='stop', usage=None),)>
    >>> read_chat(b'{"choices": null}')
    <Failure: NoChoices(reason="'choices' is null")>
    """
    return _read(body, "content")


def read_completions(body: bytes) -> Answer:
    """The completions of a text answer, by the rules of `read_chat`."""
    return _read(body, "text")


def read_error(status: int, body: bytes) -> WireError:
    """Reads the body of a refusal; where it holds no message in a known place, the body is the message.

    >>> read_error(429, b'{"error": {"message": "No quota left.", "code": "insufficient_quota"}}')
    BadStatus(status=429, message='No quota left. (insufficient_quota)')
    """
    return BadStatus(status, _complaint(_parse(body), body))


def _read(body: bytes, key: Literal["content", "text"]) -> Answer:
    root = _parse(body)
    if isinstance(root, NotJSON):
        return Failure(root)
    if not _is_object(root):
        return Failure(NoChoices(f"the answer is {_json_type(root)}"))
    if root.get("error"):
        return Failure(ServerError(_complaint(root, body)))
    choices = root.get("choices")
    if not _is_array(choices) or not choices:
        return Failure(NoChoices("'choices' is empty" if choices == [] else f"'choices' is {_json_type(choices)}"))
    read: list[Completion] = []
    for position, choice in enumerate(_in_order(choices)):
        completion = _completion(position, choice, key, None if position else _usage(root.get("usage")))
        if not isinstance(completion, Completion):
            return Failure(completion)
        read.append(completion)
    return Success(tuple(read))


def _parse(body: bytes) -> object | NotJSON:
    try:
        value: object = json.loads(body.removeprefix(codecs.BOM_UTF8).decode())
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, an integer of more than 4,300 digits
        return NotJSON(str(error), body.decode(errors="replace"))
    except RecursionError:
        return NotJSON("nested too deeply", body.decode(errors="replace"))
    return value


def _in_order(choices: list[object]) -> list[object]:
    """By index where the indexes are 0 to n - 1, each once; else as given."""
    if len(choices) == 1:
        return choices
    places = [choice.get("index") if _is_object(choice) else None for choice in choices]
    by_index = {place: choice for place, choice in zip(places, choices, strict=True) if type(place) is int}
    ranks = range(len(choices))
    return [by_index[rank] for rank in ranks] if by_index.keys() == set(ranks) else choices


def _completion(
    position: int, choice: object, key: Literal["content", "text"], usage: Usage | None
) -> Completion | BadChoice | NoText:
    if not _is_object(choice):
        return BadChoice(position, f"it is {_json_type(choice)}")
    holder = choice.get("message") if key == "content" else choice
    if not _is_object(holder):
        return BadChoice(position, f"'message' is {_json_type(holder)}")
    text, finish_reason, refusal = holder.get(key), choice.get("finish_reason"), holder.get("refusal")
    if not isinstance(finish_reason, str | None):
        return BadChoice(position, f"'finish_reason' is {_json_type(finish_reason)}")
    if text is None:
        return NoText(position, finish_reason, refusal if isinstance(refusal, str) else None)
    if not isinstance(text, str):
        return BadChoice(position, f"{key!r} is {_json_type(text)}")
    return Completion(text, finish_reason, usage, _logprobs(choice.get("logprobs")))


def _usage(value: object) -> Usage | None:
    if not _is_object(value):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    # type() and not isinstance: true is an int to Python, not to JSON
    if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
        return None
    return Usage(prompt, completion)


# Source: OpenAI API reference, as above; "logprobs" of a choice is null where it was not asked for.
#   chat        = {"content": [{"token": string, "logprob": number, "top_logprobs": [top, ...]}, ...] | null}
#   top         = {"token": string, "logprob": number}
#   completion  = {"tokens": [string, ...], "token_logprobs": [number, ...], "top_logprobs": [{string: number}, ...]}
# Seen besides in servers: null for the first token of an echoed prompt (vLLM), the chat shape from the completions endpoint
# (llama.cpp), no "top_logprobs", and NaN and -Infinity, which Python writes though JSON has neither.
def _logprobs(value: object) -> tuple[TokenLogprob, ...] | None:
    if not _is_object(value):
        return None
    content, tokens, logprobs = value.get("content"), value.get("tokens"), value.get("token_logprobs")
    if _is_array(content):
        return _whole(_token(token, logprob, _tops(tops)) for token, logprob, tops in map(_entry, content))
    if not _is_array(tokens) or not _is_array(logprobs):
        return None
    tops = value.get("top_logprobs") or [None] * len(tokens)
    if not _is_array(tops) or not len(tokens) == len(logprobs) == len(tops):
        return None
    return _whole(
        _token(token, logprob, _tops(top)) for token, logprob, top in zip(tokens, logprobs, tops, strict=True)
    )


def _entry(value: object) -> tuple[object, object, object]:
    return (
        (value.get("token"), value.get("logprob"), value.get("top_logprobs"))
        if _is_object(value)
        else (None, None, None)
    )


def _tops(value: object) -> tuple[TokenLogprob, ...] | None:
    if _is_object(value):
        return _whole(_token(token, logprob, ()) for token, logprob in value.items())
    if _is_array(value):
        return _whole(_token(token, logprob, ()) for token, logprob, _ in map(_entry, value))
    return () if value is None else None


def _token(token: object, logprob: object, tops: tuple[TokenLogprob, ...] | None) -> TokenLogprob | None:
    if not isinstance(token, str) or not _is_logprob(logprob) or tops is None:
        return None
    return TokenLogprob(token, logprob, tops)


def _is_logprob(value: object) -> TypeGuard[float | None]:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return False
    return value is None or -_LARGEST <= value <= _LARGEST or value == -math.inf  # NaN is in no range


def _whole(tokens: Iterable[TokenLogprob | None]) -> tuple[TokenLogprob, ...] | None:
    """All of them, or None where one is malformed: a list with holes would be shifted against its text."""
    found = tuple(tokens)
    whole = tuple(token for token in found if token is not None)
    return whole if len(whole) == len(found) else None


# Seen in servers, besides OpenAI's {"error": {"message": string, "type": string, "code": string | null}}:
#   {"error": string}    {"object": "error", "message": string, "code": integer}    {"detail": string | array}
def _complaint(value: object, body: bytes) -> str:
    """The message of an error object with its code; the whole body where there is none."""
    error = value.get("error") or value if _is_object(value) else None
    if isinstance(error, str):
        return error
    if _is_object(error):
        message, code = error.get("message") or error.get("detail"), error.get("code") or error.get("type")
        if isinstance(message, str):
            return f"{message} ({code})" if isinstance(code, str | int) else message
    return body.decode(errors="replace")


# The keys of a JSON object are text, and a TypeGuard says so where isinstance(value, dict) cannot.
def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _json_type(value: object) -> str:
    names: Mapping[type[object], str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
