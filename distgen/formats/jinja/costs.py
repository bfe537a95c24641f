"""What a template may do and what each thing costs, in steps: sizes of plain values, found without reading further than paid.

A step is about a microsecond and at most about 100 bytes. Nothing here knows Jinja, save that its Undefined is plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, ItemsView, Iterator, KeysView, Sequence, Sized, ValuesView
from typing import Final, TypeAlias, TypeGuard, final

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

STEPS: Final = 1_000_000
"""What a rendering may do at most, in steps;"""
STEPS_A_CHARACTER: Final = 4
"""more of them for each character of the prompt,"""
STEPS_A_MESSAGE: Final = 1_000
"""and for each of its messages."""
STEPS_A_CALL: Final = 8
"""What the call of a macro takes, before what is done in it."""
CHARACTERS_A_STEP: Final = 32
"""Text that is read, copied or written in one step, in characters."""
NODES_A_STEP: Final = 16
"""Nodes of the template's syntax tree that are run through in one step."""
LONGEST_NUMBER: Final = 1_024
"""Of a whole number, in bits."""
LONGEST_SOURCE: Final = 65_536
"""Of a template, in characters; the longest of 101 published ones has 17,149."""


@final
class Budget:
    """The steps that are left: the one thing here that changes, and it lives as long as one rendering."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        """With so many steps to spend."""
        self.left: int = left

    def spend(self, steps: int) -> None:
        """At least one step; jinja2's SecurityError where more is spent than there is."""
        self.left -= steps if steps > 0 else 1
        if self.left < 0:
            raise SecurityError("the template does more than a template may do for a prompt of this size")

    def read(self, *values: object) -> None:
        """What it takes to read each value with all that is in it."""
        for value in values:
            self.spend(weight(value, self.left + 1))


Cost: TypeAlias = Callable[[Budget, object, Sequence[object]], None]
"""Spends what a filter or a method costs, by its value and its arguments, before it is run."""


def weight(value: object, limit: int) -> int:
    """The steps it takes to read a value with all that is in it; from `limit` on it is not read further.

    >>> weight(["a" * 64, {"k": 1}], 100), weight(["a"] * 1_000_000, 100)
    (8, 1000001)
    """
    if isinstance(value, str):  # as it is nearly always
        return 1 + len(value) // CHARACTERS_A_STEP
    total, rest = 1, [value]
    while rest and total < limit:
        one = rest.pop()
        if isinstance(one, str):
            total += len(one) // CHARACTERS_A_STEP
        elif isinstance(one, int):
            total += size(one)
        elif is_dict(one):
            total += 2 * len(one)
            rest += [*one, *one.values()] if total < limit else []
        elif is_items(one):
            total += len(one)
            rest += one if total < limit else []
        elif not isinstance(one, float | Undefined | None):
            raise SecurityError(f"a {type(one).__name__} is no text and no data")
    return total


def common_weight(one: object, other: object) -> Iterator[int]:
    """The steps that it takes to compare two values, a few at a time."""
    rest = [(one, other)]
    while rest:
        left, right = rest.pop()
        if left is right:
            continue
        yield 1
        if isinstance(left, str) and isinstance(right, str):
            yield min(len(left), len(right)) // CHARACTERS_A_STEP
        elif is_items(left) and is_items(right):
            yield min(len(left), len(right))
            rest += zip(left, right, strict=False)
        elif is_dict(left) and is_dict(right) and len(left) == len(right):
            yield len(left)
            rest += [(left[key], right[key]) for key in left if key in right]


def magnitude(value: object, limit: int) -> int:
    """How many times over an argument may make a filter write its value: a width, or the length of a filling."""
    if isinstance(value, int):
        return abs(value)
    return len(value) if isinstance(value, str) else weight(value, limit)


def size(value: object) -> int:
    """The steps that it takes to copy a value, without what is in it; SecurityError for too large a number."""
    if isinstance(value, str):
        return 1 + len(value) // CHARACTERS_A_STEP
    if isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
        raise SecurityError(f"a number of {value.bit_length()} bits is not for chat templates")
    return 1 + len(value) if is_items(value) else 1


def is_dict(value: object) -> TypeGuard[dict[object, object]]:
    """Whether it is a dict."""
    return isinstance(value, dict)


def is_items(value: object) -> TypeGuard[Collection[object]]:
    """Whether it holds other values one after another."""
    return isinstance(value, list | tuple | range | KeysView | ValuesView | ItemsView)


def is_lazy(value: object) -> TypeGuard[Iterator[object]]:
    """Whether its items come about only as they are asked for."""
    return isinstance(value, Iterator)


def by_nothing(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what looks at no value."""
    budget.spend(1)


def by_arguments(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what looks values up in another."""
    budget.spend(1)
    budget.read(*args)


def by_weight(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what reads or copies its value."""
    budget.read(value, *args)


def by_items(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what does something with each item, such as to follow "a.b.c" in it."""
    length = len(value) if isinstance(value, Sized) else 1
    times = sum(size(each) + 2 * each.count(".") if isinstance(each, str) else size(each) for each in args)
    budget.read(*args)
    budget.spend(length * (1 + times))


def by_product(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what may write its arguments at each place of its value."""
    times = 1 + sum(magnitude(each, budget.left + 1) for each in args)
    budget.spend(weight(value, budget.left + 1) * times)


def by_order(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what sorts."""
    total = weight(value, budget.left + 1)
    budget.spend(total * total.bit_length())
    budget.read(*args)


def by_pieces(budget: Budget, value: object, args: Sequence[object]) -> None:
    """For what cuts a text up."""
    budget.read(value, *args)
    text, mark = str(value), args[0] if args else None
    budget.spend(text.count(mark) if isinstance(mark, str) and mark else len(text) // 2)
