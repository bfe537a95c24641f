"""Removes what must not be shown, the API key and the user's own headers, from what a server says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_PIECE: Final = 8  # characters of a secret that are not shown; a shorter value, such as "EMPTY", is no secret
_CREDENTIAL_NAMES: Final = ("auth", "key", "token", "secret", "cookie", "password")


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
