"""Removes what must not be shown, the API key and the user's own headers, from what a server says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final, TypeGuard

_PIECE: Final = 8  # characters of a secret that are not shown; a shorter value, such as "EMPTY", is no secret
_MAX_MESSAGE: Final = 1_000  # characters; an error page may hold megabytes


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace each piece of a secret of 8 or more characters: a server may quote it cut short, broken or escaped.

    >>> redact("no such key: sk-12345... (Bearer sk-12345678)", ["sk-12345678"])
    'no such key: ***... (Bearer ***)'
    """
    starts = [
        start
        for secret in secrets
        for at in range(len(secret) - _PIECE + 1)
        if (piece := secret[at : at + _PIECE]) in text
        for start in range(len(text))
        if text.startswith(piece, start)
    ]
    if not starts:
        return text
    hidden = {place for start in starts for place in range(start, start + _PIECE)}
    runs = groupby(enumerate(text), key=lambda each: each[0] in hidden)
    return "".join("***" if is_hidden else "".join(letter for _, letter in run) for is_hidden, run in runs)


def redact_whole(text: str, secrets: Iterable[str]) -> str:
    """Replace the secrets, and nothing else, in a text of the model.

    >>> redact_whole("sk-12345 is cut, sk-12345678 is not", ["sk-12345678"])
    'sk-12345 is cut, *** is not'
    """
    for secret in secrets:
        if len(secret) >= _PIECE and secret in text:
            text = text.replace(secret, "***")
    return text


def redact_json(value: object, secrets: tuple[str, ...]) -> object:
    """Redact every text and key in a JSON value."""
    if isinstance(value, str):
        return redact(value, secrets) if len(value) >= _PIECE else value
    if _is_object(value):
        return {redact(name, secrets): redact_json(inner, secrets) for name, inner in value.items()}
    if _is_array(value):
        return [redact_json(inner, secrets) for inner in value]
    return value


def short_message(text: str, secrets: tuple[str, ...]) -> str:
    """Return a message of one line, redacted and then cut, so that no half of a secret is left at its end."""
    line = " ".join(text[: 4 * _MAX_MESSAGE].split())
    shown = redact(line, secrets)
    rest = len(text) - _MAX_MESSAGE
    return shown if len(shown) <= _MAX_MESSAGE else f"{shown[:_MAX_MESSAGE]} ... ({rest} more characters)"


def credentials(api_key: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words of the key and of those headers that hold one by their names.

    >>> credentials("sk-1", {"X-Title": "My data", "Authorization": "Bearer abc"})
    ('sk-1', 'Bearer', 'abc')
    """
    named = [value for name, value in headers.items() if any(hint in name.lower() for hint in _CREDENTIAL_NAMES)]
    return tuple(word for value in (api_key, *named) for word in value.split())


_CREDENTIAL_NAMES: Final = ("auth", "key", "token", "secret", "cookie", "password")


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
