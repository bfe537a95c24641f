"""The OpenAI-compatible protocol as pure functions: they write parameters, and read answers as completions or a RequestFailed.

Nothing here opens a socket. `read_answer` never raises, whatever bytes a server sends.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias, TypeGuard

from returns.result import Failure, Result, Success

from distgen.backends.params import Params
from distgen.backends.redact import Secrets, may_hold, redact, redact_words
from distgen.completion import Completion, TokenLogprob, ToolCall, Usage
from distgen.errors import RequestFailed, RequestReason

Answer: TypeAlias = Result[tuple[Completion, ...], RequestFailed]
"""A whole HTTP answer: its completions, at least one, or the reason why there are none."""

_OURS: Final = ("model", "messages", "prompt", "n", "stream")
_MAX_MESSAGE: Final = 1_000  # characters; an error page may hold megabytes

# OpenAI and vLLM, Anthropic, AWS, Azure.
_REQUEST_ID: Final = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
# "error": OpenRouter, "Errors"; vLLM, vllm/v1/engine/__init__.py, which has "abort" too. "insufficient_system_resource":
# DeepSeek API, "Create chat completion". "network_error": docs.bigmodel.cn, the answer of a chat completion.
_BROKEN_OFF: Final = frozenset({"error", "abort", "insufficient_system_resource", "network_error"})
# OpenAI's and llama.cpp's codes, and the messages of vLLM, SGLang and Anthropic, whose codes say no more than "bad request".
_PROMPT_TOO_LONG: Final = re.compile("context_length_exceeded|exceed_context_size|maximum context|prompt is too long")


def _read_int(digits: str) -> float:
    # An int has at most 4,300 digits (sys.set_int_max_str_digits); the float of more is infinite.
    return int(digits) if len(digits) <= 4_300 else float(digits)


_JSON: Final = json.JSONDecoder(strict=False, parse_int=_read_int)  # not strict: raw control characters in strings


def json_params(params: Params | None, extra_body: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return both as one copy of JSON values; `extra_body` wins. A ValueError names a parameter that cannot be sent.

    >>> json_params({"temperature": 0.7, "stop": ("END",)}, {"top_k": 20})
    {'temperature': 0.7, 'stop': ['END'], 'top_k': 20}
    >>> json_params({"temprature": 0.7})
    Traceback (most recent call last):
        ...
    ValueError: params has no 'temprature': put it into extra_body, or did you mean 'temperature'?
    """
    copy: dict[str, object] = {}
    for name, value in {**(params or {}), **(extra_body or {})}.items():
        if name in _OURS:
            raise ValueError(f"{name!r} is set by the backend itself; leave it out (see num_generations and model).")
        if params and name in params and name not in Params.__annotations__:
            near = get_close_matches(name, Params.__annotations__, 1)
            hint = f", or did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"params has no {name!r}: put it into extra_body{hint}")
        try:
            copy[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{name!r} is no JSON value: {error}.") from None
    return copy


def read_answer(status: int, headers: Mapping[str, str], body: bytes, secrets: Secrets = Secrets()) -> Answer:  # noqa: B008
    """Read a whole HTTP answer, and remove the secrets.

    >>> read_answer(200, {}, b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}').unwrap()
    (Completion(text='Hi', finish_reason='stop', usage=None, reasoning=None, refusal=None, tool_calls=(), \
served_model=None, error=None),)
    >>> read_answer(404, {}, b'{"error": {"message": "No such model"}}').failure().message
    'No such model'
    """
    fields = {name.lower(): value for name, value in headers.items()}
    request_id = next((redact(fields[name], secrets) for name in _REQUEST_ID if fields.get(name)), None)
    try:
        answer = _read_body(status, fields, body, request_id)
        if not isinstance(answer, RequestFailed):
            is_clean = not may_hold(body, secrets)
            return Success(answer if is_clean else tuple(_redact(completion, secrets) for completion in answer))
    except RecursionError:
        answer = RequestFailed("not_json", "the JSON is nested too deeply")
    message, code = _shorten(answer.message, secrets), answer.code and _shorten(answer.code, secrets)
    hint = retry_hint(fields, answer.message, time.time())
    failed = replace(answer, status=status, message=message, code=code, retry_after=hint, request_id=request_id)
    return Failure(failed)


def _redact(completion: Completion, secrets: Secrets) -> Completion:
    """Remove the secrets: their words from the texts of the model, their pieces from all that the service says."""
    reasoning, refusal, finish_reason = completion.reasoning, completion.refusal, completion.finish_reason
    served_model, error, extra = completion.served_model, completion.error, _redact_json(completion.extra, secrets)
    calls = [[redact_words(text, secrets) for text in (c.id, c.name, c.arguments)] for c in completion.tool_calls]
    return Completion(
        redact_words(completion.text, secrets),
        finish_reason and redact(finish_reason, secrets),
        completion.usage,
        reasoning and redact_words(reasoning, secrets),
        refusal and redact_words(refusal, secrets),
        tuple(ToolCall(*call) for call in calls),
        served_model and redact(served_model, secrets),
        error and redact(error, secrets),
        completion.logprobs and _redact_tokens(completion.logprobs, secrets),
        extra if is_object(extra) else {},
    )


def _redact_tokens(logprobs: tuple[TokenLogprob, ...], secrets: Secrets) -> tuple[TokenLogprob, ...]:
    """Cover the letters of the secrets: one may stand in several tokens. Such a token has no others beside it."""
    text = "".join(entry.token for entry in logprobs)
    for word in secrets.words:
        text = text.replace(word, "*" * len(word))
    covered, at = list[TokenLogprob](), 0
    for token, logprob, others in logprobs:
        shown = text[at : at + len(token)]
        at += len(token)
        covered.append(TokenLogprob(shown, logprob, _redact_tokens(others, secrets) if shown == token else ()))
    return tuple(covered)


def _redact_json(value: object, secrets: Secrets) -> object:
    """Redact every text and key in a JSON value."""
    if isinstance(value, str):
        return redact(value, secrets)
    if is_object(value):
        return {redact(name, secrets): _redact_json(inner, secrets) for name, inner in value.items()}
    if is_array(value):
        return [_redact_json(inner, secrets) for inner in value]
    return value


def _shorten(text: str, secrets: Secrets) -> str:
    """Return a message of one line, redacted and then cut, so that no half of a secret is left at its end.

    A body that is not JSON may be in UTF-16.
    """
    shown = redact(" ".join(text[: 4 * _MAX_MESSAGE].replace("\0", "").split()), secrets)
    return shown if len(shown) <= _MAX_MESSAGE else f"{shown[:_MAX_MESSAGE]} ... (cut)"


def _read_body(
    status: int, headers: Mapping[str, str], body: bytes, request_id: str | None
) -> tuple[Completion, ...] | RequestFailed:
    if 300 <= status < 400:
        return RequestFailed("redirect", f"status {status} points to {headers.get('location') or 'no address'}")
    is_error = not 200 <= status < 300
    try:
        root = parse_json(body)
    except ValueError as error:
        said = body[: 4 * _MAX_MESSAGE].decode(errors="replace").strip()
        if is_error:
            return RequestFailed("status", said)
        if not said:
            return RequestFailed("not_json", "the body is empty", code="empty")
        return RequestFailed("not_json", f"{error}; it begins: {said}")
    return _read_error_status(status, root) if is_error else _read_choices(root, request_id)


def parse_json(body: bytes) -> object:
    r"""Return the JSON value of an answer; raise ValueError if there is none. A byte that is not UTF-8 becomes U+FFFD.

    >>> parse_json(b'{"text": "a\nb\xff"}\ndata: [DONE]\n\n')
    {'text': 'a\nb\ufffd'}
    """
    text = body.removeprefix(codecs.BOM_UTF8).decode(errors="replace").strip()
    value, end = _JSON.raw_decode(text)
    if text[end:].replace("data: [DONE]", "").strip():
        raise ValueError(f"more follows the JSON value, at character {end}")
    return value


# A TypeGuard tells type checkers that the keys of a JSON object are text; isinstance(value, dict) does not.
def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Return True if a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Return True if a JSON value is an array."""
    return isinstance(value, list)


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# Seen in servers, beside OpenAI's {"error": {"message": string, "type": string, "code": string | null}}:
#   {"error": string}    {"object": "error", "message": string, "code": integer}    {"detail": string | array}
#   [{"error": {...}}] (Gemini)
def _read_error(value: object) -> RequestFailed | None:
    """Read an error, or an object or an array that holds one; return None if it is empty."""
    if is_array(value):
        return _read_error(value[0]) if value else None
    if not is_object(value):
        return RequestFailed("error_object", _to_text(value)) if value else None
    if is_object(inner := value.get("error")) and any(inner.values()):
        return _read_error(inner)
    message = next((value[key] for key in ("message", "detail", "msg", "error") if value.get(key)), value)
    codes = [str(value[key]) for key in ("code", "type") if isinstance(value.get(key), str | int) and value[key]]
    error = RequestFailed("error_object", _to_text(message), code=codes[0] if codes else None)
    return error if any(value.values()) else None


def _read_error_status(status: int, root: object) -> RequestFailed:
    text = _to_text(root)
    reason: RequestReason = "prompt_too_long" if status < 500 and _PROMPT_TOO_LONG.search(text) else "status"
    usage = _read_usage(root.get("usage")) if is_object(root) else None
    return replace(_read_error(root) or RequestFailed(reason, text), reason=reason, usage=usage)


# Source: OpenAI API reference, "The chat completion object" and "The completion object".
#   chat        = {"choices": [{"index": integer, "message": message, "finish_reason": string}, ...], "usage"?: usage}
#   message     = {"role": "assistant", "content": string | null, "refusal"?: string | null, "tool_calls"?: [...]}
#   completion  = {"choices": [{"index": integer, "text": string, "finish_reason": string}, ...], "usage"?: usage}
# Also seen in servers: finish_reason null or absent, index absent, equal or out of order, an empty error object.
def _read_choices(root: object, request_id: str | None) -> tuple[Completion, ...] | RequestFailed:
    if not is_object(root):
        return RequestFailed("no_choices", f"the answer is not a JSON object: {_to_text(root)}")
    shared = {**root, "choices": None, "error": None, "usage": None, "request_id": request_id or root.get("request_id")}
    choices, error, usage = root.get("choices"), _read_error(root.get("error")), _read_usage(root.get("usage"))
    if is_object(choices):  # SGLang, python/sglang/srt/openai_api/adapter.py, process_batch
        choices = [choices]
    if not is_array(choices) or not choices:
        kind = "empty" if choices == [] else "not an array"
        return replace(error or RequestFailed("no_choices", f"'choices' is {kind}: {_to_text(root)}"), usage=usage)
    first, *others = sorted(choices, key=_index)
    completions = [_read_choice(first, {**shared, "usage": root.get("usage")}, error, usage)]
    completions += [_read_choice(choice, shared, error) for choice in others]
    if error and not any(c.text or c.reasoning or c.refusal or c.tool_calls for c in completions):
        return replace(error, usage=usage)
    if not any(map(is_object, choices)):
        return RequestFailed("bad_choice", "the choice is not a JSON object", usage=usage)
    return tuple(completions)


def _index(choice: object) -> float:
    index = choice.get("index") if is_object(choice) else 0
    return index if isinstance(index, int | float) else 0


def _read_choice(
    choice: object, shared: Mapping[str, object], error: RequestFailed | None, usage: Usage | None = None
) -> Completion:
    """Read a choice. A value without a field of its own, or a malformed one, goes into `extra`."""
    if not is_object(choice):
        return Completion("", usage=usage, error="the choice is not a JSON object")
    message = choice.get("message")
    rest = {**message, **choice, "message": None} if is_object(message) else {**choice}
    finish_reason, refusal = _take_text(rest, "finish_reason"), _take_text(rest, "refusal")
    text, thinking = _read_parts(rest.get("content"))
    text = text or _take_text(rest, "content") or _take_text(rest, "text") or ""
    # "reasoning": vLLM since 0.16, OpenRouter. "reasoning_content": DeepSeek, vLLM before.
    reasoning = thinking or _take_text(rest, "reasoning") or _take_text(rest, "reasoning_content")
    # "function_call": the form before "tool_calls".
    calls = _read_tool_calls(rest.get("tool_calls") or [{"function": rest.get("function_call")}])
    logprobs = read_logprobs(rest.get("logprobs"))
    error = _read_error(rest.get("error")) or error
    broken_off = f"finish_reason is {finish_reason!r}" if finish_reason in _BROKEN_OFF else None
    is_read = ("index", "role", "error", "tool_calls" if calls else "", "logprobs" if logprobs else "")
    rest = {name: value for name, value in rest.items() if name not in is_read}
    extra = {name: value for name, value in {**shared, **rest}.items() if value is not None}
    return Completion(
        text,
        finish_reason,
        usage,
        reasoning=reasoning,
        refusal=refusal,
        tool_calls=calls,
        served_model=_take_text(extra, "model"),
        error=error.message if error else broken_off,
        logprobs=logprobs,
        extra=extra,
    )


def _take_text(rest: dict[str, object], name: str) -> str | None:
    value = rest.get(name)
    if not isinstance(value, str):
        return None
    del rest[name]
    return value or None


# Sources: OpenAI API reference, content parts {"type": "text", "text": string}; Mistral API, "Reasoning":
# {"type": "thinking", "thinking": [{"type": "text", "text": string}]}.
def _read_parts(parts: object) -> tuple[str, str]:
    """Return the text and the reasoning of content parts, each joined."""
    text = thinking = ""
    for part in parts if is_array(parts) else []:
        fields = part if is_object(part) else {"text": part}
        said, thought = fields.get("text"), fields.get("thinking")
        if fields.get("type") == "reasoning":
            said, thought = None, said
        text += said if isinstance(said, str) else ""
        thinking += thought if isinstance(thought, str) else _read_parts(thought)[0]
    return text, thinking


# Source: OpenAI API reference, "The chat completion object": a function call, or a custom call with an "input".
def _read_tool_calls(value: object) -> tuple[ToolCall, ...]:
    """Read all tool calls, or none if one is malformed."""
    calls: list[ToolCall] = []
    for call in value if is_array(value) else []:
        function = (call.get("function") or call.get("custom")) if is_object(call) else None
        if not is_object(call) or not is_object(function) or not isinstance(name := function.get("name"), str):
            return ()
        arguments = function.get("arguments", function.get("input"))  # Ollama sends an object
        calls.append(ToolCall(str(call.get("id") or ""), name, "" if arguments is None else _to_text(arguments)))
    return tuple(calls)


# Source: OpenAI API reference, "The chat completion object" and "The completion object".
#   chat        = {"content": [{"token": string, "logprob": number, "top_logprobs": [top, ...]}, ...] | null}
#   top         = {"token": string, "logprob": number}
#   completion  = {"tokens": [string, ...], "token_logprobs": [number, ...], "top_logprobs": [{string: number}, ...]}
# Also seen in servers: null for the first token of an echoed prompt (vLLM), the chat shape from the completions endpoint
# (llama.cpp), no "top_logprobs", and NaN and -Infinity, which Python writes though JSON has neither.
def read_logprobs(value: object) -> tuple[TokenLogprob, ...] | None:
    """Return the log probabilities of a choice; None if they are absent, or if one is malformed.

    >>> read_logprobs({"tokens": ["a"], "token_logprobs": [-0.5]})
    (TokenLogprob(token='a', logprob=-0.5, top_logprobs=()),)
    """
    if not is_object(value):
        return None
    content, tokens, logprobs = value.get("content"), value.get("tokens"), value.get("token_logprobs")
    try:
        if not is_array(content) and is_array(tokens) and is_array(logprobs):
            tops = value.get("top_logprobs") or [None] * len(tokens)
            columns = zip(tokens, logprobs, tops if is_array(tops) else (), strict=True)
            content = [{"token": token, "logprob": logprob, "top_logprobs": top} for token, logprob, top in columns]
        return tuple(map(_read_token, content)) if is_array(content) else None
    except ValueError:
        return None


def _read_token(entry: object) -> TokenLogprob:
    if not is_object(entry):
        raise ValueError
    token, logprob, tops = entry.get("token"), entry.get("logprob"), entry.get("top_logprobs")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float | None) or not isinstance(token, str):
        raise ValueError
    if logprob is not None and not logprob < math.inf:  # NaN is not
        raise ValueError
    if is_object(tops):
        tops = [{"token": name, "logprob": number} for name, number in tops.items()]
    return TokenLogprob(token, logprob, tuple(map(_read_token, tops)) if is_array(tops) else ())


def _read_usage(value: object) -> Usage | None:
    if not is_object(value):
        return None
    prompt, completion = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    cached = prompt.get("cached_tokens") if is_object(prompt) else None
    reasoning = completion.get("reasoning_tokens") if is_object(completion) else None
    counts = [*map(_count, (value.get("prompt_tokens"), value.get("completion_tokens"), cached, reasoning))]
    return None if counts == [None] * 4 else Usage(*counts)


def _count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():  # some servers send 9.0
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


# Sources: RFC 9110, 10.2.3 (Retry-After: seconds or a date; servers send fractions too); OpenAI API, "Rate limits"
# (x-ratelimit-reset-requests "1s", -tokens "6m0s", beside x-ratelimit-remaining-...; retry-after-ms); LLM Gateway, "Rate
# Limits" (x-ratelimit-reset in Unix time); the messages of OpenAI ("Please try again in 7.3s.") and of Gemini ("Please
# retry in 34.07s.").
def retry_hint(headers: Mapping[str, str], message: str, now: float) -> float | None:
    """Return the seconds that a server asks to wait; `headers` have names in lower case, `now` is in Unix time.

    >>> retry_hint({"retry-after": "2.5"}, "", 0), retry_hint({}, "Please try again in 1m30s.", 0)
    (2.5, 90.0)
    """
    if (milliseconds := _duration(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    after = headers.get("retry-after", "")
    try:
        date = parsedate_to_datetime(after)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        pass
    if (seconds := _duration(after)) is not None:
        return seconds
    resets = [_reset(name, headers, now) for name in headers if name.startswith("x-ratelimit-reset")]
    if known := [seconds for seconds in resets if seconds is not None]:
        return max(known)
    said = re.search(r"(?:try again|retry) in ((?:[\d.]+\s?(?:ms|s|m|h))+)", message, re.IGNORECASE)
    return _duration(said[1]) if said else None


def _reset(name: str, headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds until a limit is reset; None if the limit is not used up."""
    remaining, seconds = headers.get(name.replace("reset", "remaining"), "0"), _duration(headers[name])
    if seconds is None or _duration(remaining) != 0:
        return None
    return seconds if seconds < 1e9 else max(0.0, seconds - now)  # a longer time is a date


def _duration(text: str) -> float | None:
    """Return the seconds of "7.3s", "6m0s", "20ms" or a bare number; None for any other text."""
    text = text.strip().lower()
    if not text or _DURATION.sub("", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


_DURATION: Final = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)\s?(ms|s|m|h|d|$)", re.ASCII)
_UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400}
