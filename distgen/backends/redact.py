"""Removes the API key and the user's own headers from the texts of a server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

_PIECE: Final = 8  # characters of a secret that are not shown; a shorter value, such as "EMPTY", is no secret
_CREDENTIAL_NAMES: Final = ("auth", "key", "token", "secret", "cookie", "password")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([/\"\\]))")  # of JSON


class Secrets(NamedTuple):
    """Texts that must not be shown. `lines` are all of them; `words` are those that are removed from a model's text too."""

    lines: str = ""
    words: tuple[str, ...] = ()


def find_secrets(api_key: str, headers: Mapping[str, str]) -> Secrets:
    r"""Return the key and all headers as lines, and the words of the key and of headers with names such as Authorization.

    >>> find_secrets("sk-12345678", {"X-Title": "My data", "Authorization": "Bearer abcdefgh"})
    Secrets(lines='sk-12345678\nMy data\nBearer abcdefgh', words=('sk-12345678', 'abcdefgh'))
    """
    named = [value for name, value in headers.items() if any(hint in name.lower() for hint in _CREDENTIAL_NAMES)]
    words = [word for value in (api_key, *named) for word in value.split() if len(word) >= _PIECE]
    escaped = [word.replace("\\", r"\\").replace('"', r"\"") for word in words]  # in the arguments of a tool call
    return Secrets("\n".join((api_key, *headers.values())), tuple(dict.fromkeys(words + escaped)))


def may_hold(body: bytes, secrets: Secrets) -> bool:
    r"""Return False if no text in this JSON can hold a piece of a secret; True if one may, so that it must be redacted.

    >>> [may_hold(body, Secrets("sk-12345678")) for body in (b'"It is 1234."', b'"No such key: 12345678"')]
    [False, True]
    """
    # An ordinary character may be escaped too: "\u002b" for "+", "\/" for "/", and "%2b" in an address.
    is_escaped = b"\\u" in body or b"\\/" in body or (b"%" in body and re.search(rb"%[2-7][0-9a-fA-F]", body))
    return bool(is_escaped) or any(part in body for part in _parts(secrets.lines))


@lru_cache
def _parts(lines: str) -> list[bytes]:
    """Return pieces of 5 characters, from each multiple of 4, as JSON bytes: any 8 characters of a secret hold one of them."""
    parts = [line[at : at + 5] for line in lines.split("\n") for at in range(0, len(line) - 4, 4)]
    return [json.dumps(part, ensure_ascii=False)[1:-1].encode(errors="replace") for part in parts]


def redact(text: str, secrets: Secrets) -> str:
    """Replace each piece of a secret of 8 or more characters; a server may quote a secret in part, or escape it.

    >>> redact("no such key: sk-12345... (Bearer sk-12345678, sk%2D12345678)", Secrets("sk-12345678"))
    'no such key: ***... (Bearer ***, ***)'
    >>> redact("of 100%25", Secrets("sk-12345678"))
    'of 100%25'
    """
    # Without escapes only if a secret shows then; other texts stay as they came.
    plain = unquote(_ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text))
    shown = _replace_pieces(plain, secrets)
    return _replace_pieces(text, secrets) if shown == plain else shown


def _replace_pieces(text: str, secrets: Secrets) -> str:
    shown, end = "", 0
    for start in range(len(text) - _PIECE + 1):
        if text[start : start + _PIECE] in secrets.lines:
            if start >= end:
                shown += f"{text[end:start]}***"
            end = start + _PIECE
    return shown + text[end:]


def redact_words(text: str, secrets: Secrets) -> str:
    """Replace only whole words, for texts of the model: a piece of a header may be an ordinary word.

    >>> redact_words("sk-12345 is cut, sk-12345678 is not", Secrets(words=("sk-12345678",)))
    'sk-12345 is cut, *** is not'
    """
    for word in secrets.words:
        text = text.replace(word, "***")
    return text
