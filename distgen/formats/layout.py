"""`Layout`: a ChatTemplate as rendering, parsing and refusing read it, with the facts that follow from its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias, final

Strip: TypeAlias = Callable[[str], str]
"""A function that strips the ends of a text: `str.strip`, `str.lstrip` ...; `str` strips nothing."""

SystemPosition: TypeAlias = Literal["first", "last", "refused", "required"]

_MARKUP: Final = frozenset("<>[]|")  # each special token that a tokenizer maps to one id has one of them


# <|im_end|>, </s>, <<SYS>>, <｜User｜>, [INST], [|user|], but not an address or a comparison.
_TOKEN: Final = re.compile(r"<{1,2}[^\s<>]{1,80}>{1,2}|\[/?[A-Z][A-Z0-9_]+\]|\[\|[^\s\[\]|]{1,80}\|\]")


def find_markup(literal: str) -> list[str]:
    """Return what looks like a special token in a literal of a template.

    >>> find_markup("<|im_end|>\\n<s>[INST] Hi [1]")
    ['<|im_end|>', '<s>', '[INST]']
    """
    return [found[0] for found in _TOKEN.finditer(literal)]


def strip_trailing_spaces(text: str) -> str:
    """Return the text without spaces at its end; other white space stays."""
    return text.rstrip(" ")


def strip_leading_newlines(text: str) -> str:
    """Return the text without line feeds at its start; other white space stays."""
    return text.lstrip("\n")


def is_markup(token: str) -> bool:
    """Tell special tokens from plain words, which a tokenizer reads as prose.

    >>> is_markup("</s>"), is_markup("USER: ")
    (True, False)
    """
    return not _MARKUP.isdisjoint(token)


@final
@dataclass(frozen=True, slots=True)
class Junction:
    """The place of an empty text: the literals on both sides of it, and the part of them that was dropped there."""

    before: str
    dropped: str
    after: str


@final
@dataclass(frozen=True)  # without slots, for cached_property
class Layout:
    """The literals and rules of a ChatTemplate, whose fields explain them; `opening` and `system_opening` include BOS."""

    name: str
    opening: str
    system_opening: str
    before_system: str
    after_system: str
    before_assistant: str
    after_assistant: str
    generation_prompt: str
    tokens: tuple[str, ...]
    """The special tokens and the stop strings."""
    strip_system: Strip
    strip_user: Strip
    strip_assistant: Strip
    drop: Mapping[str, tuple[str, str]]
    """By role: what an empty text drops of the literals before and after it."""
    empty_is_absent: bool
    strip_joined: bool
    system_position: SystemPosition
    folds_system: bool
    default_system: str | None
    """The system text in the user prefix, if there is one: giving it is the same as giving none."""

    @cached_property
    def takes_history(self) -> bool:
        """Whether there are literals around a past answer."""
        return self.before_assistant + self.after_assistant != ""

    @cached_property
    def markup(self) -> tuple[str, ...]:
        """The tokens that are refused in any text, longest first: of two at one place the longer is reported."""
        return tuple(
            sorted({token for token in self.tokens if is_markup(token)}, key=lambda token: (-len(token), token))
        )

    @cached_property
    def openings(self) -> tuple[str, ...]:
        """The literals of plain words that open an answer or a system text; refused in any text."""
        words = {each for each in (self.before_assistant, self.generation_prompt) if self._is_plain(each)}
        if words and self._is_plain(self.before_system):
            words.add(self.before_system)
        return tuple(sorted(words, key=lambda word: (-len(word), word)))

    @cached_property
    def guards(self) -> str:
        """Characters, few and rare in prose, of which each refused literal holds one: a text without them is safe."""
        guards = ""
        for literal in (*self.markup, *self.openings):
            if not any(char in guards for char in literal):
                guards += min(literal, key=lambda char: (char.isspace(), char.isalnum(), char not in _MARKUP))
        return guards

    @cached_property
    def delimiters(self) -> tuple[str, ...]:
        """The literals between turns, those that empty texts leave included."""
        left = (junction.before + junction.after for junction in self.junctions)
        delimiters = (self.before_assistant, self.after_assistant, self.after_system, *left)
        return tuple(each for each in delimiters if each)

    @cached_property
    def junctions(self) -> tuple[Junction, ...]:
        """The places of empty texts that drop a part of a literal."""
        (user, after_user), (assistant, after_assistant), (system, after_system) = (
            self.drop[role] for role in ("user", "assistant", "system")
        )
        to_assistant = self.before_assistant.removeprefix(after_user).removesuffix(assistant)
        to_end = self.generation_prompt.removeprefix(after_user)
        next_user = self.after_assistant.removeprefix(after_assistant).removesuffix(user)
        first_user = self.after_system.removesuffix(user)
        to_user = {self.opening.removesuffix(user), next_user}
        if not self.folds_system:
            to_user.add(first_user)
        found = (
            Junction(self.system_opening.removesuffix(system), system + after_system, first_user),
            *(Junction(before, user + after_user, after) for before in to_user for after in (to_assistant, to_end)),
            Junction(to_assistant, assistant + after_assistant, next_user),
        )
        return tuple(junction for junction in found if junction.dropped)

    @cached_property
    def restorations(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """For each junction, the pattern of its place, and the replacement that was dropped there."""
        return tuple(
            (re.compile(f"(?<={re.escape(each.before)})(?={re.escape(each.after)})"), each.dropped.replace("\\", r"\\"))
            for each in self.junctions
        )

    @cached_property
    def is_ambiguous(self) -> bool:
        """Whether texts without markup can still render like another conversation, so that each is read back.

        That is so if a delimiter, or a part of one that the neighbouring literals complete, has no markup in it.
        """
        turns = {self.before_assistant, self.after_assistant} if self.takes_history else set[str]()
        ends = set[str]() if self.system_position == "refused" or self.folds_system else {self.after_system}
        afters = (self.after_system, self.before_assistant, self.after_assistant, self.generation_prompt)
        befores = (self.opening, self.system_opening, *afters[:3])
        needed = _needed_parts({*self.markup} | turns, befores, afters)
        needed |= _needed_parts(ends, (self.system_opening,), (self.after_system,))
        return "" in turns | ends or any(self._holds_no_markup(part) for part in needed)

    def _is_plain(self, literal: str) -> bool:
        return literal.strip() != "" and self._holds_no_markup(literal)

    def _holds_no_markup(self, text: str) -> bool:
        return not any(token in text for token in self.markup)


def _needed_parts(delimiters: set[str], befores: tuple[str, ...], afters: tuple[str, ...]) -> set[str]:
    """Return the parts of delimiters that a text needs to hold to form one with the literals around it.

    >>> sorted(_needed_parts({"<s>"}, ("a<",), ("b",)))
    ['<s>', 's>']
    """
    return {
        delimiter[start:end]
        for delimiter in delimiters
        for start in range(len(delimiter))
        if start == 0 or any(before.endswith(delimiter[:start]) for before in befores)
        for end in range(start + 1, len(delimiter) + 1)
        if end == len(delimiter) or any(after.startswith(delimiter[end:]) for after in afters)
    }
