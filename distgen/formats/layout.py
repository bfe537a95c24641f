"""`Layout`: a ChatTemplate as rendering, parsing and refusing read it, with the facts that follow from its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
@dataclass(frozen=True, slots=True)
class Layout:
    """The literals and rules of a ChatTemplate, whose fields explain them; `complete` fills in the last fields."""

    name: str
    opening: str
    """BOS and the user prefix."""
    system_opening: str
    """BOS and the literal before the system text."""
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
    """By role: the parts of the literals before and after it that an empty text drops."""
    empty_is_absent: bool
    strip_joined: bool
    system_position: SystemPosition
    folds_system: bool
    default_system: str | None
    """The system text in the user prefix, if there is one: giving it is the same as giving none."""
    takes_history: bool = True
    markup: tuple[str, ...] = ()
    """The tokens that are refused in any text, longest first: of two at one place the longer is reported."""
    openings: tuple[str, ...] = ()
    """The literals of plain words that open an answer or a system text; refused in any text."""
    junctions: tuple[Junction, ...] = ()
    """The places of empty texts that drop a part of a literal."""
    restorations: tuple[tuple[re.Pattern[str], str], ...] = ()
    """For each junction, the pattern of its place, and the replacement that was dropped there."""
    delimiters: tuple[str, ...] = ()
    """The literals between turns, those that empty texts leave included."""
    guards: str = ""
    """Characters, few and rare in prose, of which each refused literal holds one: a text without them is safe."""
    is_ambiguous: bool = False
    """Texts without markup can still render like another conversation, so that each rendering is read back."""


def complete(layout: Layout) -> Layout:
    """Return the layout with the fields that follow from the others."""
    markup = _longest_first({token for token in layout.tokens if is_markup(token)})
    takes_history = layout.before_assistant + layout.after_assistant != ""
    layout = replace(layout, markup=markup, takes_history=takes_history, junctions=_find_junctions(layout))
    openings = _find_openings(layout)
    left = (junction.before + junction.after for junction in layout.junctions)
    delimiters = (layout.before_assistant, layout.after_assistant, layout.after_system, *left)
    return replace(
        layout,
        openings=openings,
        delimiters=tuple(filter(None, delimiters)),
        guards=_choose_guards((*markup, *openings)),
        restorations=tuple(map(_restoration, layout.junctions)),
        is_ambiguous=_is_ambiguous(layout),
    )


def _longest_first(tokens: set[str]) -> tuple[str, ...]:
    return tuple(sorted(tokens, key=lambda token: (-len(token), token)))


def _find_openings(layout: Layout) -> tuple[str, ...]:
    words = {each for each in (layout.before_assistant, layout.generation_prompt) if _is_plain(layout, each)}
    if words and _is_plain(layout, layout.before_system):
        words.add(layout.before_system)
    return _longest_first(words)


def _choose_guards(literals: tuple[str, ...]) -> str:
    guards = ""
    for literal in literals:
        if not any(char in guards for char in literal):
            guards += min(literal, key=lambda char: (char.isspace(), char.isalnum(), char not in _MARKUP))
    return guards


def _find_junctions(layout: Layout) -> tuple[Junction, ...]:
    (user, after_user), (assistant, after_assistant), (system, after_system) = (
        layout.drop[role] for role in ("user", "assistant", "system")
    )
    to_assistant = layout.before_assistant.removeprefix(after_user).removesuffix(assistant)
    to_end = layout.generation_prompt.removeprefix(after_user)
    next_user = layout.after_assistant.removeprefix(after_assistant).removesuffix(user)
    first_user = layout.after_system.removesuffix(user)
    to_user = {layout.opening.removesuffix(user), next_user}
    if not layout.folds_system:
        to_user.add(first_user)
    found = (
        Junction(layout.system_opening.removesuffix(system), system + after_system, first_user),
        *(Junction(before, user + after_user, after) for before in to_user for after in (to_assistant, to_end)),
        Junction(to_assistant, assistant + after_assistant, next_user),
    )
    return tuple(junction for junction in found if junction.dropped)


def _restoration(junction: Junction) -> tuple[re.Pattern[str], str]:
    place = f"(?<={re.escape(junction.before)})(?={re.escape(junction.after)})"
    return re.compile(place), junction.dropped.replace("\\", r"\\")


def _is_ambiguous(layout: Layout) -> bool:
    """Tell whether a delimiter, or a part of one that the neighbouring literals complete, has no markup in it."""
    turns = {layout.before_assistant, layout.after_assistant} if layout.takes_history else set[str]()
    ends = set[str]() if layout.system_position == "refused" or layout.folds_system else {layout.after_system}
    afters = (layout.after_system, layout.before_assistant, layout.after_assistant, layout.generation_prompt)
    befores = (layout.opening, layout.system_opening, *afters[:3])
    needed = _needed_parts({*layout.markup} | turns, befores, afters)
    needed |= _needed_parts(ends, (layout.system_opening,), (layout.after_system,))
    return "" in turns | ends or any(_holds_no_markup(layout, part) for part in needed)


def _is_plain(layout: Layout, literal: str) -> bool:
    return literal.strip() != "" and _holds_no_markup(layout, literal)


def _holds_no_markup(layout: Layout, text: str) -> bool:
    return not any(token in text for token in layout.markup)


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
