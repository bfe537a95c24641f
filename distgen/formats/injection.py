"""Finds special tokens in the literals of a format, and in the texts of a prompt."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from distgen.errors import InjectedToken

_MARKUP: Final = frozenset("<>[]|")  # every special token with an id of its own has one of these characters
# <|im_end|>, </s>, <<SYS>>, <｜User｜>, [INST], [|user|], but not an address or a comparison.
_TOKEN: Final = re.compile(r"<{1,2}[^\s<>]{1,80}>{1,2}|\[/?[A-Z][A-Z0-9_]+\]|\[\|[^\s\[\]|]{1,80}\|\]")


def is_markup(token: str) -> bool:
    """Return True for a special token, False for plain words, which a tokenizer encodes as prose.

    >>> is_markup("</s>"), is_markup("USER: ")
    (True, False)
    """
    return not _MARKUP.isdisjoint(token)


def find_markup(literal: str) -> list[str]:
    """Return the strings in a literal that look like special tokens.

    >>> find_markup("<|im_end|>\\n<s>[INST] Hi [1]")
    ['<|im_end|>', '<s>', '[INST]']
    """
    return [found[0] for found in _TOKEN.finditer(literal)]


def find_token(format: str, texts: Iterable[tuple[str, str]], tokens: Collection[str]) -> InjectedToken | None:
    """Return the first of the tokens in the texts, in reading order; at equal positions the longest wins."""
    for where, text in texts:
        held = [token for token in tokens if token and token in text]
        if held:
            token = min(held, key=lambda token: (text.find(token), -len(token)))
            return InjectedToken(format, token, where, text.find(token))
    return None


def find_parts(tokens: Iterable[str], befores: Sequence[str], afters: Sequence[str]) -> frozenset[str]:
    """Return the tokens, and those parts of them that the literals before or after a text complete to a whole token.

    >>> sorted(find_parts(["<s>"], ["a<"], ["b"]))
    ['<s>', 's>']
    """
    return frozenset(
        token[start:end]
        for token in tokens
        for start in range(len(token))
        if start == 0 or any(before.endswith(token[:start]) for before in befores)
        for end in range(start + 1, len(token) + 1)
        if end == len(token) or any(after.startswith(token[end:]) for after in afters)
    )


def choose_guards(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the character of each part that is rarest in prose; "" is for an empty part.

    >>> choose_guards(["<s>", "</s>", "USER: "])
    (':', '<')
    """

    def commonness(char: str) -> tuple[bool, bool, bool]:
        return char.isspace(), char.isalnum(), char not in _MARKUP

    return tuple(sorted({min(part, key=commonness, default="") for part in parts}))
