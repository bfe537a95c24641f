"""What a server or the way to it can do wrong, one frozen class each, and the one sentence that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never, final

from distgen.errors import Fault

_LONGEST_MESSAGE = 1_000  # characters of a Fault; an error page may hold megabytes


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


@final
@dataclass(frozen=True, slots=True)
class NotSent:
    """The client could not make the request: its own authentication, a hook, a text that it cannot encode."""

    reason: str


_FromServer: TypeAlias = NotJSON | ServerError | NoChoices | BadChoice | NoText | BadStatus | Redirected
WireError: TypeAlias = _FromServer | TimedOut | TooLong | ConnectionFailed | NotSent


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
        case NotSent(reason):
            return f"The client could not make the request: {reason}"
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
