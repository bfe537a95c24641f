"""What templates do to texts and to the literals between them: pure functions of strings, which know no format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MARKUP: Final = "<>[]|"
"""The characters of which all markup has one; a token without them is plain words."""


def strip_spaces_after(text: str) -> str:
    """The text without spaces at its end.

    >>> strip_spaces_after(" a  ")
    ' a'
    """
    return text.rstrip(" ")


def strip_newlines_before(text: str) -> str:
    """The text without line feeds at its start.

    >>> strip_newlines_before("\\n\\n a\\n")
    ' a\\n'
    """
    return text.lstrip("\n")


def is_markup(token: str) -> bool:
    """Whether a tokenizer maps a token to an id of its own; plain words, such as "USER: ", are prose to it.

    >>> is_markup("</s>"), is_markup("USER: ")
    (True, False)
    """
    return any(char in MARKUP for char in token)


def between(before: str, text: str, after: str) -> str | None:
    """The system text that `text` is written for when there is none, if it is one: it then stands between the two.

    >>> between("<sys>", "<sys>Be kind.</sys>", "</sys>")
    'Be kind.'
    """
    if text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text):
        return text[len(before) : len(text) - len(after)]
    return None


def portions(marks: Iterable[str], befores: tuple[str, ...], afters: tuple[str, ...]) -> set[str]:
    """What a text would have to hold, at least, for one of the marks to stand where it is not meant, the text's
    neighbours helping: whole, or without the start that one of `befores` ends with, the end that one of `afters` begins with.

    >>> sorted(portions(["<s>"], ("a<",), ("b",)))
    ['<s>', 's>']
    """
    return {
        mark[start:end]
        for mark in marks
        for start in range(len(mark))
        if start == 0 or any(before.endswith(mark[:start]) for before in befores)
        for end in range(start + 1, len(mark) + 1)
        if end == len(mark) or any(after.startswith(mark[end:]) for after in afters)
    }


def guards(portions: set[str]) -> tuple[str, ...]:
    """Few characters, of which every portion holds one: signs before letters and spaces, since prose has fewer of them.

    >>> guards({"<s>", "s>"})
    ('>',)
    """
    chars = sorted({char for portion in portions for char in portion})
    if not chars:
        return ()

    def worth(char: str) -> tuple[bool, int, bool]:
        return not (char.isalnum() or char.isspace()), sum(char in portion for portion in portions), char in MARKUP

    best = max(chars, key=worth)
    return (best, *guards({portion for portion in portions if best not in portion}))


def longest_first(tokens: set[str]) -> tuple[str, ...]:
    """The tokens, longest first: of two at one place the longer is found.

    >>> longest_first({"a", "ab", "b"})
    ('ab', 'a', 'b')
    """
    return tuple(sorted(tokens, key=lambda token: (-len(token), token)))


def holds(literal: str, markup: set[str]) -> bool:
    """Whether some markup stands in the literal.

    >>> holds("Hi</s>", {"</s>"})
    True
    """
    return any(token in literal for token in markup)


def cut(text: str, mark: str) -> tuple[str, str, str]:
    """`str.partition`, in which an empty mark, too, is one that is not found.

    >>> cut("a:b", ":"), cut("a:b", "")
    (('a', ':', 'b'), ('a:b', '', ''))
    """
    return text.partition(mark) if mark else (text, "", "")


def first_difference(one: str, other: str) -> int:
    """The index at which two texts part.

    >>> first_difference("abc", "abd"), first_difference("ab", "abc")
    (2, 2)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def after_prefix(text: str, prefix: str) -> str:
    """What follows the prefix; nothing where it is none.

    >>> after_prefix("abc", "ab"), after_prefix("abc", "b")
    ('c', '')
    """
    return text[len(prefix) :] if text.startswith(prefix) else ""
