"""Answers: the bytes of a server as completions, or as the reason why there are none."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Final

from returns.result import Failure, Result, Success

from distgen.backends.redact import redact, redact_json, redact_whole, short_message
from distgen.backends.wire.decoding import MAX_ANSWER, TooLong, inflate, is_array, is_object, json_type, parse_json
from distgen.backends.wire.failures import ServiceError, read_error, retry_hint
from distgen.backends.wire.logprobs import read_logprobs
from distgen.completion import Completion, ToolCall, Usage
from distgen.errors import RequestFailed, RequestReason

# OpenAI and vLLM, Anthropic, AWS, Azure.
_REQUEST_ID: Final = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
# "error": OpenRouter, "Errors"; vLLM, vllm/v1/engine/__init__.py, which has "abort" too. "insufficient_system_resource":
# DeepSeek API, "Create chat completion". "network_error": docs.bigmodel.cn, the answer of a chat completion.
_BROKEN_OFF: Final = frozenset({"error", "abort", "insufficient_system_resource", "network_error"})
# OpenAI; llama.cpp's server; and the message of vLLM and SGLang, whose code is only "BadRequestError" or 400.
_PROMPT_TOO_LONG: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_PROMPT_TOO_LONG_MESSAGE: Final = "maximum context length"


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, secrets: tuple[str, ...] = (), words: tuple[str, ...] = ()
) -> Result[tuple[Completion, ...], RequestFailed]:
    """Read a whole HTTP answer; a Success holds at least one completion.

    `secrets` are removed in pieces from all but the texts of the model, `words` are removed from these too.

    >>> read_answer(200, {}, b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}').unwrap()
    (Completion(text='Hi', finish_reason='stop', usage=None, reasoning=None, refusal=None, tool_calls=(), \
served_model=None, error=None),)
    >>> read_answer(404, {}, b'{"error": {"message": "No such model"}}').failure().message
    'No such model'
    """
    fields = {name.lower(): value for name, value in headers.items()}
    answer = _read(status, fields, body)
    if isinstance(answer, RequestFailed):
        return Failure(_redact_failure(answer, secrets))
    # Most answers hold no piece of a secret: one look at the whole is cheaper than one at each field. A backslash or an
    # encoding may hide a piece.
    is_hidden = b"\\" in body or "content-encoding" in fields
    said = f"{body.decode(errors='replace')} {_request_id(fields)}"
    if not is_hidden and redact(said, secrets) is said:
        return Success(answer)
    return Success(tuple(_redact_completion(completion, secrets, words) for completion in answer))


def _read(status: int, headers: Mapping[str, str], body: bytes) -> tuple[Completion, ...] | RequestFailed:
    if 300 <= status < 400:
        location = headers.get("location") or "nowhere"
        return _failure("redirect", f"status {status} points to {location}", status, headers)
    try:
        root = parse_json(inflate(body, headers.get("content-encoding", "").strip().lower()))
    except TooLong:
        return _failure("too_long", f"the answer is longer than {MAX_ANSWER:,} bytes", status, headers)
    except ValueError as error:
        said = body[:4_000].decode(errors="replace").strip()
        if not 200 <= status < 300:
            return _failure("status", said, status, headers)
        return _failure("not_json", f"{error}; it begins: {said}" if said else "the body is empty", status, headers)
    return _read_choices(root, headers) if 200 <= status < 300 else _read_status(status, headers, root)


def _read_status(status: int, headers: Mapping[str, str], root: object) -> RequestFailed:
    nested = read_error(root.get("error")) if is_object(root) else None
    message, code = nested or read_error(root) or ServiceError("", None)
    is_long = code in _PROMPT_TOO_LONG or _PROMPT_TOO_LONG_MESSAGE in message
    usage = _usage(root.get("usage")) if is_object(root) else None
    return _failure(
        "prompt_too_long" if is_long and status < 500 else "status",
        message or json.dumps(root)[:4_000],
        status,
        headers,
        code,
        usage,
    )


def _failure(
    reason: RequestReason,
    message: str,
    status: int,
    headers: Mapping[str, str],
    code: str | None = None,
    usage: Usage | None = None,
) -> RequestFailed:
    hint = retry_hint(headers, message, time.time())
    return RequestFailed(reason, message, status, code, hint, usage, request_id=_request_id(headers))


def _request_id(headers: Mapping[str, str]) -> str | None:
    return next((headers[name] for name in _REQUEST_ID if name in headers), None)


# Source: OpenAI API reference, "The chat completion object" and "The completion object".
#   chat        = {"choices": [{"index": integer, "message": message, "finish_reason": string}, ...], "usage"?: usage}
#   message     = {"role": "assistant", "content": string | null, "refusal"?: string | null, "tool_calls"?: [...]}
#   completion  = {"choices": [{"index": integer, "text": string, "finish_reason": string}, ...], "usage"?: usage}
# Seen besides in servers: finish_reason null or absent, index absent, equal or out of order, an empty error object.
def _read_choices(root: object, headers: Mapping[str, str]) -> tuple[Completion, ...] | RequestFailed:
    if not is_object(root):
        return _failure("no_choices", f"the answer is {json_type(root)}", 200, headers)
    error, usage = read_error(root.get("error")), _usage(root.get("usage"))
    choices = root.get("choices")
    found = _in_order(choices) if is_array(choices) else []
    completions = tuple(
        _completion(choice, root, error, headers, None if place else usage, place) for place, choice in enumerate(found)
    )
    if error and not any(map(_says_something, completions)):
        return _failure("error_object", error.message, 200, headers, error.code, usage)
    if not completions:
        said = "'choices' is empty" if choices == [] else f"'choices' is {json_type(choices)}"
        return _failure("no_choices", said, 200, headers, usage=usage)
    if not any(is_object(choice) for choice in found):
        return _failure("bad_choice", f"choice 0 is {json_type(found[0])}", 200, headers, usage=usage)
    return completions


def _says_something(completion: Completion) -> bool:
    return bool(completion.text or completion.reasoning or completion.tool_calls or completion.refusal)


def _in_order(choices: list[object]) -> list[object]:
    """Sort by index if the indexes are 0 to n - 1, each once; else keep the order."""
    places = [choice.get("index") if is_object(choice) else None for choice in choices]
    by_index = {place: choice for place, choice in zip(places, choices, strict=True) if type(place) is int}
    ranks = range(len(choices))
    return [by_index[rank] for rank in ranks] if by_index.keys() == set(ranks) else choices


def _completion(
    choice: object,
    root: Mapping[str, object],
    error: ServiceError | None,
    headers: Mapping[str, str],
    usage: Usage | None,
    place: int,
) -> Completion:
    """Read a choice; what is not read into a field of its own, or is malformed, goes into `extra`."""
    if not is_object(choice):
        return Completion("", error=f"the choice is {json_type(choice)}", usage=usage)
    rest = _flat(choice)
    finish_reason, refusal = _take_text(rest, "finish_reason"), _take_text(rest, "refusal")
    text, reasoning = _content(rest)
    logprobs, calls = read_logprobs(rest.get("logprobs")), _tool_calls(rest.get("tool_calls"))
    own = read_error(rest.get("error")) or error
    broken = (
        f"the service broke the answer off: {finish_reason}" if (finish_reason or "").lower() in _BROKEN_OFF else None
    )
    read = {"index", "role", "error", *(("logprobs",) if logprobs else ()), *(("tool_calls",) if calls else ())}
    extra = {name: value for name, value in rest.items() if value is not None and name not in read}
    return Completion(
        text,
        finish_reason,
        usage,
        reasoning,
        refusal,
        calls,
        model if isinstance(model := root.get("model"), str) else None,
        (own.message or own.code) if own else broken,
        logprobs,
        {**_rest_of_answer(root, headers, place), **extra},
    )


def _flat(choice: Mapping[str, object]) -> dict[str, object]:
    """Put the fields of a choice and of its message side by side."""
    message = choice.get("message")
    if not is_object(message):
        return dict(choice)
    return {**message, **{name: value for name, value in choice.items() if name != "message"}}


def _take_text(rest: dict[str, object], name: str) -> str | None:
    value = rest.get(name)
    if isinstance(value, str):
        del rest[name]
        return value or None
    return None


# "reasoning": vLLM since 0.16, OpenRouter. "reasoning_content": DeepSeek, vLLM before. "thinking": Ollama.
_REASONING: Final = ("reasoning", "reasoning_content", "thinking")


def _content(rest: dict[str, object]) -> tuple[str, str | None]:
    """Take the text and the reasoning out of a message or choice."""
    key = "content" if rest.get("content") is not None else "text"
    content = rest.get(key)
    text, thought = _parts(content) if is_array(content) else (content, "")
    if isinstance(text, str):
        del rest[key]
    named = [rest[name] for name in _REASONING if isinstance(rest.get(name), str) and rest[name]]
    for name in _REASONING:
        if rest.get(name) == "" or (named and rest.get(name) == named[0]):
            del rest[name]
    reasoning = thought or (str(named[0]) if named else None)
    if thought and named and named[0] != thought:
        rest["reasoning"] = named[0]
    return text if isinstance(text, str) else "", reasoning


# Sources: OpenAI API reference, content parts {"type": "text", "text": string}; Mistral API, "Reasoning":
# {"type": "thinking", "thinking": [{"type": "text", "text": string}]}.
def _parts(parts: list[object]) -> tuple[str | None, str]:
    """Join the text and the thinking of content parts; the text is None if a part is of another kind."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        inner = part if not is_object(part) else part.get("thinking", part.get("text"))
        said = "".join(filter(None, (_parts(inner)[0],))) if is_array(inner) else inner
        if isinstance(said, str):
            (thoughts if is_object(part) and "thinking" in part else texts).append(said)
    return ("".join(texts) if texts or thoughts or not parts else None), "".join(thoughts)


# Source: OpenAI API reference, "The chat completion object": a function call, or a custom call with an "input".
def _tool_calls(value: object) -> tuple[ToolCall, ...]:
    """Read all tool calls, or none if one is malformed."""
    calls: list[ToolCall] = []
    for call in value if is_array(value) else []:
        function = (call.get("function") or call.get("custom")) if is_object(call) else None
        if not is_object(call) or not is_object(function) or not isinstance(name := function.get("name"), str):
            return ()
        identity, arguments = call.get("id"), function.get("arguments", function.get("input"))
        if not isinstance(arguments, str):  # Ollama sends an object
            arguments = "" if arguments is None else json.dumps(arguments)
        calls.append(ToolCall(identity if isinstance(identity, str) else "", name, arguments))
    return tuple(calls)


def _rest_of_answer(root: Mapping[str, object], headers: Mapping[str, str], place: int) -> dict[str, object]:
    ours = (
        "choices",
        "error",
        *(("model",) if isinstance(root.get("model"), str) else ()),
        *(("usage",) if place else ()),
    )
    rest = {name: value for name, value in root.items() if name not in ours and value is not None}
    request_id = _request_id(headers)
    return rest if request_id is None else {**rest, "request_id": request_id}


def _usage(value: object) -> Usage | None:
    """Read the counts of an answer. DeepSeek names cached tokens prompt_cache_hit_tokens."""
    if not is_object(value):
        return None
    prompt, completion = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    cached = prompt.get("cached_tokens") if is_object(prompt) else value.get("prompt_cache_hit_tokens")
    reasoning = completion.get("reasoning_tokens") if is_object(completion) else None
    counts = [value.get("prompt_tokens"), value.get("completion_tokens"), cached, reasoning]
    usage = Usage(*map(_count, counts))
    return None if usage == Usage() else usage


def _count(value: object) -> int | None:
    # type() and not isinstance: true is an int to Python, not to JSON
    if type(value) is float and value.is_integer() and value >= 0:
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _redact_failure(error: RequestFailed, secrets: tuple[str, ...]) -> RequestFailed:
    code, request_id = error.code, error.request_id
    return RequestFailed(
        error.reason,
        short_message(error.message, secrets),
        error.status,
        code and short_message(code, secrets),
        error.retry_after,
        error.usage,
        request_id=request_id and short_message(request_id, secrets),
    )


def _redact_completion(completion: Completion, secrets: tuple[str, ...], words: tuple[str, ...]) -> Completion:
    calls = tuple(
        ToolCall(*(redact_whole(part, words) for part in (c.id, c.name, c.arguments))) for c in completion.tool_calls
    )
    logprobs = completion.logprobs
    extra = redact_json(dict(completion.extra), secrets)
    finish_reason, served_model, error = completion.finish_reason, completion.served_model, completion.error
    return Completion(
        redact_whole(completion.text, words),
        finish_reason and redact(finish_reason, secrets),
        completion.usage,
        completion.reasoning and redact_whole(completion.reasoning, words),
        completion.refusal and redact_whole(completion.refusal, words),
        calls,
        served_model and redact(served_model, secrets),
        error and redact(error, secrets),
        logprobs,
        extra if is_object(extra) else {},
    )
