"""The OpenAI-compatible protocol as pure functions: request bytes out, a Result of completions in.

No socket is opened and no clock is read here; transports (`distgen.backends.http`) do that. No answer raises, whatever its
bytes: each way in which servers were seen to break the protocol is a class of `WireError`. The texts of a server are kept
whole in them; `fault` hides the API key and only then cuts, so that no half of a key can remain.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeGuard, TypeVar, assert_never, final

from returns.result import Failure, Result, Success

from distgen.completion import Completion, Usage
from distgen.errors import Fault
from distgen.prompt import Messages

P = TypeVar("P")
_P_contra = TypeVar("_P_contra", contravariant=True)

_LONGEST_MESSAGE = 1_000  # characters of a Fault; an error page may hold megabytes
_OURS = ("model", "messages", "prompt", "n", "stream")


@final
@dataclass(frozen=True, slots=True)
class NotJSON:
    """The body is no JSON text: HTML from a proxy, an answer cut short, bytes that are no UTF-8, nesting without end."""

    reason: str
    body: str


@final
@dataclass(frozen=True, slots=True)
class ServerError:
    """An answer of status 200 that is an error object."""

    message: str


@final
@dataclass(frozen=True, slots=True)
class NoChoices:
    """An answer without one single choice."""

    reason: str


@final
@dataclass(frozen=True, slots=True)
class BadChoice:
    """The choice at position `index` has a value of a wrong type."""

    index: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class NoText:
    """The choice at position `index` holds null for its text: a refusal, a content filter, a tool call."""

    index: int
    finish_reason: str | None
    refusal: str | None


@final
@dataclass(frozen=True, slots=True)
class BadStatus:
    """The server refused, with an HTTP status and its own message."""

    status: int
    message: str


@final
@dataclass(frozen=True, slots=True)
class Redirected:
    """The server pointed elsewhere. It is not followed there: the prompt and the API key were meant for this server."""

    status: int
    location: str


@final
@dataclass(frozen=True, slots=True)
class TimedOut:
    """The answer was not whole `seconds` after its request began."""

    seconds: float


@final
@dataclass(frozen=True, slots=True)
class TooLong:
    """The answer was cut off after `limit` bytes."""

    limit: int


@final
@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """No connection, or one that broke, or what came over it was no HTTP."""

    reason: str


_FromServer: TypeAlias = NotJSON | ServerError | NoChoices | BadChoice | NoText | BadStatus | Redirected
WireError: TypeAlias = _FromServer | TimedOut | TooLong | ConnectionFailed
Answer: TypeAlias = Result[tuple[Completion, ...], WireError]


class Request(Protocol[_P_contra]):
    """Writes the body of a request for `n` choices."""

    def __call__(self, prompt: _P_contra, /, *, model: str, n: int, params: Mapping[str, object]) -> bytes:
        """Never raises for a prompt of its type and parameters from `json_params`."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Endpoint(Generic[P]):
    """One call of the protocol: its path below the base URL, and both directions of it."""

    path: str
    request: Request[P]
    read: Callable[[bytes], Answer]

    def answer(self, status: int, body: bytes, location: str = "") -> Answer:
        """Reads a whole HTTP answer; a Success holds at least one completion."""
        if 200 <= status < 300:
            return self.read(body)
        return Failure(Redirected(status, location) if 300 <= status < 400 else read_error(status, body))


def json_params(params: Mapping[str, object]) -> dict[str, object]:
    """A deep copy of request parameters as JSON has them; a ValueError names the one that cannot be sent.

    >>> json_params({"temperature": 0.7, "stop": ("END",)})
    {'temperature': 0.7, 'stop': ['END']}
    """
    copy: dict[str, object] = {}
    for name, value in params.items():
        if name in _OURS:
            raise ValueError(f"params[{name!r}] is set by the backend itself; leave it out.")
        try:
            copy[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"params[{name!r}] is no JSON value: {error}.") from None
    return copy


def seeded(params: Mapping[str, object], done: int) -> Mapping[str, object]:
    """The parameters of a request for the rest of a row: with one seed for both, it would get the same texts again.

    >>> seeded({"seed": 42}, 3)
    {'seed': 45}
    """
    seed = params.get("seed")
    return {**params, "seed": seed + done} if isinstance(seed, int) and done else params


# Source: OpenAI API reference, "Create chat completion" and "Create completion", request body.
#   chat        = {"model": string, "messages": [{"role": string, "content": string}, ...], "n"?: integer, ...}
#   completion  = {"model": string, "prompt": string, "n"?: integer, ...}
# "n" is 1 unless given, and left out then: some servers refuse the key itself.


def chat_request(messages: Messages, *, model: str, n: int, params: Mapping[str, object]) -> bytes:
    r"""The body of a request for `n` answers to messages; ASCII, so that a lone surrogate is sent as JSON escapes it.

    >>> chat_request([{"role": "user", "content": "Hi \ud800"}], model="m", n=2, params={"temperature": 0})
    b'{"temperature": 0, "model": "m", "messages": [{"role": "user", "content": "Hi \\ud800"}], "n": 2}'
    """
    return _encode({**params, "model": model, "messages": messages}, n)


def completions_request(prompt: str, *, model: str, n: int, params: Mapping[str, object]) -> bytes:
    """The body of a request for `n` continuations of a text.

    >>> completions_request("Once", model="m", n=1, params={})
    b'{"model": "m", "prompt": "Once"}'
    """
    return _encode({**params, "model": model, "prompt": prompt}, n)


def _encode(request: dict[str, object], n: int) -> bytes:
    return json.dumps(request | {"n": n} if n > 1 else request, allow_nan=False).encode("ascii")


# Source: OpenAI API reference, "The chat completion object" and "The completion object".
#   chat        = {"choices": [{"index": integer, "message": message, "finish_reason": string}, ...], "usage"?: usage}
#   message     = {"role": "assistant", "content": string | null, "refusal"?: string | null}
#   completion  = {"choices": [{"index": integer, "text": string, "finish_reason": string}, ...], "usage"?: usage}
#   usage       = {"prompt_tokens": integer, "completion_tokens": integer, "total_tokens": integer}
# Seen besides in servers: finish_reason null or absent, index absent, equal or out of order.


def read_chat(body: bytes) -> Answer:
    """The completions of a chat answer, in the order of `index` where that is 0, 1, 2 ..., else as they stand.

    `usage` counts a whole answer, so its first completion carries it and the others None: a sum over completions is
    what was billed. A usage that is absent or malformed is None.

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
        completion = _completion(position, choice, key)
        if not isinstance(completion, Completion):
            return Failure(completion)
        read.append(completion)
    return Success((replace(read[0], usage=_usage(root.get("usage"))), *read[1:]))


def _parse(body: bytes) -> object | NotJSON:
    try:
        value: object = json.loads(body.decode("utf-8-sig"))
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, an integer of more than 4,300 digits
        return NotJSON(str(error), body.decode(errors="replace"))
    except RecursionError:
        return NotJSON("nested too deeply", body.decode(errors="replace"))
    return value


def _in_order(choices: list[object]) -> list[object]:
    """By index where the indexes are 0 to n - 1, each once; else as given."""
    places = [choice.get("index") if _is_object(choice) else None for choice in choices]
    by_index = {place: choice for place, choice in zip(places, choices, strict=True) if type(place) is int}
    ranks = range(len(choices))
    return [by_index[rank] for rank in ranks] if by_index.keys() == set(ranks) else choices


def _completion(position: int, choice: object, key: Literal["content", "text"]) -> Completion | BadChoice | NoText:
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
    return Completion(text, finish_reason)


def _usage(value: object) -> Usage | None:
    if not _is_object(value):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    # type() and not isinstance: true is an int to Python, not to JSON
    if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
        return None
    return Usage(prompt, completion)


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


_WAY_OUT: Final[Mapping[int, str]] = {
    401: "pass api_key=..., or set OPENAI_API_KEY",
    403: "the key has no access to this model",
    404: "check the model's name, and base_url, which usually ends in /v1",
    429: "use fewer threads, or see to the quota",
}


def explain_wire(error: WireError) -> str:
    """One sentence that says what the server did and the way out, the server's own words in full.

    >>> explain_wire(BadStatus(401, "No key given"))
    'Status 401: No key given; pass api_key=..., or set OPENAI_API_KEY.'
    """
    match error:
        case NotJSON(reason, body):
            return f"The answer is no JSON ({reason}); is base_url that of the API? It begins: {body}"
        case ServerError(message):
            return f"The server answered 200 with an error: {message}"
        case NoChoices(reason):
            return f"The answer has no choices: {reason}; is base_url that of an OpenAI-compatible API?"
        case BadChoice(index, reason):
            return f"Choice {index} breaks the protocol: {reason}."
        case NoText(index, finish_reason, refusal):
            said = f"; the model refused: {refusal}" if refusal else ""
            return f"Choice {index} has no text, finish reason {finish_reason!r}{said}"
        case BadStatus(status, message):
            way_out = _WAY_OUT.get(status, f"the {'server' if status >= 500 else 'request'} is at fault")
            return f"Status {status}: {message or '(no message)'}; {way_out}."
        case Redirected(status, location):
            return f"Status {status} points to {location or 'nowhere'}; if you trust it, make it the base_url."
        case TimedOut(seconds):
            return f"No whole answer within {seconds:g} s; raise timeout, or ask for fewer tokens."
        case TooLong(limit):
            return f"The answer is longer than {limit:,} bytes and was cut off; ask for fewer tokens."
        case ConnectionFailed(reason):
            return f"The connection failed: {reason}; is the server up, and base_url right?"
        case _:
            assert_never(error)


def fault(error: WireError, secret: str = "") -> Fault:
    """A WireError as the Failure of a row: its class name and explanation, `secret` hidden, then at most 1,000 characters.

    >>> fault(BadStatus(400, "Bearer sk-1 is unknown"), "sk-1")
    Fault(kind='BadStatus', message='Status 400: Bearer *** is unknown; the request is at fault.', part='backend')
    """
    message = " ".join(explain_wire(error).split())
    return Fault(type(error).__name__, _cut(message.replace(secret, "***") if secret else message))


def _cut(message: str) -> str:
    rest = len(message) - _LONGEST_MESSAGE
    return message if rest <= 0 else f"{message[:_LONGEST_MESSAGE]} ... ({rest} more characters)"


# The keys of a JSON object are text, and a TypeGuard says so where isinstance(value, dict) cannot.
def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _json_type(value: object) -> str:
    names: Mapping[type[object], str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


CHAT: Final[Endpoint[Messages]] = Endpoint("/chat/completions", chat_request, read_chat)
COMPLETIONS: Final[Endpoint[str]] = Endpoint("/completions", completions_request, read_completions)
