"""What a server or the way to it can do wrong, one frozen class each, and the one sentence that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never, final

from distgen.errors import Raised

_LONGEST_MESSAGE = 1_000  # characters of a Raised; an error page may hold megabytes
_SHORTEST_PIECE = 8  # characters of a key that are not shown; a shorter key, such as "EMPTY", is no secret


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


def fault(error: WireError, secret: str = "") -> Raised:
    """A WireError as the Failure of a row: its class name and explanation, at most 1,000 characters, `secret` hidden.

    >>> fault(BadStatus(400, "Bearer sk-12345 is unknown"), "sk-12345")
    Raised(kind='BadStatus', message='Status 400: Bearer *** is unknown; the request is at fault.', part='backend')
    """
    message = " ".join(explain_wire(error).split())
    shown = message[: _LONGEST_MESSAGE + len(secret)]  # so that no part of it is left by the cut
    rest = len(message) - len(shown)
    pieces = (secret[at : at + _SHORTEST_PIECE] for at in range(len(secret) - _SHORTEST_PIECE + 1))
    if any(piece in shown for piece in pieces):
        shown = _hidden(shown, secret)
    rest += max(0, len(shown) - _LONGEST_MESSAGE)
    return Raised(type(error).__name__, f"{shown[:_LONGEST_MESSAGE]} ... ({rest} more characters)" if rest else shown)


def _hidden(text: str, secret: str) -> str:
    """Every piece of the secret that the text holds: a server may quote it cut short, broken or escaped."""
    shown: list[str] = []
    at = 0
    while at < len(text):
        end = at + _SHORTEST_PIECE
        is_piece = end <= len(text) and text[at:end] in secret
        while is_piece and end < len(text) and text[at : end + 1] in secret:
            end += 1
        shown.append("***" if is_piece else text[at])
        at = end if is_piece else at + 1
    return "".join(shown)
