"""Removes what must not be shown, the API key and the user's own headers, from what a server says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

_PIECE: Final = 8  # characters of a secret that are not shown; a shorter value, such as "EMPTY", is no secret
_CREDENTIAL_NAMES: Final = ("auth", "key", "token", "secret", "cookie", "password")
_STRIDE: Final = 4  # each piece of 8 characters holds 5 that begin at a multiple of 4


class Secrets(NamedTuple):
    """Texts that must not be shown: `lines` are all of them, `words` those that a model's text may not hold either."""

    lines: str = ""
    words: tuple[str, ...] = ()


def find_secrets(api_key: str, headers: Mapping[str, str]) -> Secrets:
    r"""Return the key and all headers as lines, and the words of the key and of headers that hold one by their names.

    >>> find_secrets("sk-12345678", {"X-Title": "My data", "Authorization": "Bearer abcdefgh"})
    Secrets(lines='sk-12345678\nMy data\nBearer abcdefgh', words=('sk-12345678', 'abcdefgh'))
    """
    named = [value for name, value in headers.items() if any(hint in name.lower() for hint in _CREDENTIAL_NAMES)]
    words = [word for value in (api_key, *named) for word in value.split() if len(word) >= _PIECE]
    return Secrets("\n".join((api_key, *headers.values())), tuple(words))


def may_hold(body: bytes, secrets: Secrets) -> bool:
    r"""Return False if no text in this JSON can hold a piece of a secret; True if one may: it is then to be redacted.

    >>> [may_hold(body, Secrets("sk-12345678")) for body in (b'"It is 1234."', b'"No such key: 12345678"')]
    [False, True]
    """
    # JSON may also escape an ordinary character: "\u002b" for "+", "\/" for "/".
    return any(part in body for part in _parts(secrets.lines)) or b"\\u" in body or b"\\/" in body


@lru_cache
def _parts(lines: str) -> list[bytes]:
    """Return bytes, as JSON has them, of which each piece of a secret holds one."""
    parts = [
        line[start : start + _STRIDE + 1]
        for line in lines.split("\n")
        if len(line) >= _PIECE
        for start in range(0, len(line) - _STRIDE, _STRIDE)
    ]
    return [json.dumps(part, ensure_ascii=False)[1:-1].encode(errors="replace") for part in parts]


def redact(text: str, secrets: Secrets) -> str:
    """Replace each piece of a secret of 8 or more characters: a server may quote it cut short, broken or escaped.

    >>> redact("no such key: sk-12345... (Bearer sk-12345678)", Secrets("sk-12345678"))
    'no such key: ***... (Bearer ***)'
    """
    shown, end = "", 0
    for start in range(len(text) - _PIECE + 1):
        if text[start : start + _PIECE] in secrets.lines:
            if start >= end:
                shown += f"{text[end:start]}***"
            end = start + _PIECE
    return shown + text[end:]


def redact_words(text: str, secrets: Secrets) -> str:
    """Replace whole words alone, in a text of the model: a piece of a header may be an ordinary word.

    >>> redact_words("sk-12345 is cut, sk-12345678 is not", Secrets(words=("sk-12345678",)))
    'sk-12345 is cut, *** is not'
    """
    for word in secrets.words:
        text = text.replace(word, "***")
    return text
