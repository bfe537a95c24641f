"""The words of chat templates: filters, tests, methods and functions, each of which pays before it is done.

They are those that published chat templates use; Jinja has more. Where Jinja or Python has the word, it is theirs that is
run, so that the text is the same; here stands what it costs. Each takes the rendering's context, and in it the budget,
under a name that no template can write.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from datetime import date
from typing import Any, Final

from jinja2 import pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from distgen.formats.jinja.costs import (
    CHARACTERS_A_STEP,
    Budget,
    Cost,
    by_arguments,
    by_items,
    by_nothing,
    by_order,
    by_pieces,
    by_product,
    by_weight,
    common_weight,
    is_dict,
    is_items,
    is_lazy,
    size,
)

BUDGET: Final = "<budget>"
TODAY: Final = "<today>"

METHODS: Final[tuple[tuple[type, Mapping[str, Cost]], ...]] = (
    (
        str,
        {
            **dict.fromkeys(("strip", "lstrip", "rstrip", "replace", "join"), by_product),
            **dict.fromkeys(("split", "rsplit"), by_pieces),
            **dict.fromkeys(("splitlines",), by_items),
            **dict.fromkeys(("startswith", "endswith", "removeprefix", "removesuffix"), by_weight),
            **dict.fromkeys(("partition", "rpartition", "find", "rfind", "index", "count"), by_weight),
            **dict.fromkeys(("upper", "lower", "title", "capitalize"), by_weight),
            **dict.fromkeys(("isdigit", "isnumeric", "isalpha", "isalnum", "isspace"), by_weight),
        },
    ),
    (dict, dict.fromkeys(("get", "items", "keys", "values"), by_arguments)),
    (LoopContext, dict.fromkeys(("cycle", "changed"), by_arguments)),
)
LOOP: Final = ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem")

_FILTERS: Final[Mapping[str, Cost]] = {
    **dict.fromkeys(("length", "count", "first", "last", "default", "d"), by_nothing),
    **dict.fromkeys(("list", "items", "map", "select", "selectattr", "reject", "rejectattr", "reverse"), by_items),
    **dict.fromkeys(("string", "safe", "upper", "lower", "title", "capitalize", "int", "float", "abs"), by_weight),
    **dict.fromkeys(("trim", "replace", "join", "indent", "round"), by_product),
    **dict.fromkeys(("sort", "unique", "dictsort"), by_order),
}
# These look at what kind a value is, and no further.
_TESTS: Final = (
    *("defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "float"),
    *("boolean", "true", "false", "sameas", "callable"),
)
_PLAIN: Final = ImmutableSandboxedEnvironment()


def _is_in(left: Any, right: Any) -> bool:
    return left in right


def _is_not_in(left: Any, right: Any) -> bool:
    return left not in right


_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], object]]] = {
    **dict.fromkeys(("eq", "equalto", "=="), operator.eq),
    **dict.fromkeys(("ne", "!="), operator.ne),
    **dict.fromkeys(("lt", "lessthan", "<"), operator.lt),
    **dict.fromkeys(("gt", "greaterthan", ">"), operator.gt),
    **dict.fromkeys(("lteq", "le", "<="), operator.le),
    **dict.fromkeys(("gteq", "ge", ">="), operator.ge),
    "in": _is_in,
    "notin": _is_not_in,
}


def budget_of(context: Context) -> Budget:
    """The budget of a rendering."""
    budget: Budget = context.parent[BUDGET]
    return budget


# What stands in the place of syntax.


@pass_context
def stepped(context: Context, toll: int) -> None:
    """Pays for the nodes of a macro, or of the template, which are about to be run through."""
    budget_of(context).spend(toll)


@pass_context
def each(context: Context, items: Iterable[object], toll: int) -> Iterable[object]:
    """What a loop runs over, paid for with `toll` an item."""
    known: Sized = items if isinstance(items, Sized) else list(items)
    budget_of(context).spend(len(known) * toll)
    return known if isinstance(known, list) else items


@pass_context
def concatenated(context: Context, *parts: object) -> str:
    """`a ~ b`."""
    budget_of(context).read(*parts)
    return "".join(map(str, parts))


@pass_context
def compared(context: Context, left: object, name: str, right: object) -> object:
    """`a == b`, `a in b`."""
    return _compared(budget_of(context), name, left, right)


def _compared(budget: Budget, name: str, left: object, right: object) -> object:
    if name in ("in", "notin"):
        budget.read(left if is_dict(right) else right)
    else:
        for steps in common_weight(left, right):
            budget.spend(steps)
    return _COMPARISONS[name](left, right)


@pass_context
def sliced(context: Context, value: Sequence[object], *ends: int | None) -> object:
    """`a[1:]`."""
    budget_of(context).spend(size(value))
    return value[slice(*ends)]


def key(value: object) -> object:
    """A key of a dict: no tuple, which takes as long to hash as it takes to read with all that is in it."""
    if isinstance(value, tuple):
        raise SecurityError("a tuple is no key of a dict")
    return value


@pass_context
def read(context: Context, value: object) -> object:
    """`{{ a }}`, and each of `a < b < c`."""
    budget_of(context).read(value)
    return value


def pay_operator(budget: Budget, name: str, left: object, right: object) -> None:
    """Pays for a binary operator; SecurityError for the one of them that formats."""
    if name == "%" and isinstance(left, str):
        raise SecurityError("'%' of a text is not for chat templates")
    steps = size(left) + size(right) if name in ("+", "-") else size(left) * size(right)
    for items, times in ((left, right), (right, left)) if name == "*" else ():
        if isinstance(times, int) and isinstance(items, str):
            steps = len(items) * times // CHARACTERS_A_STEP
        elif isinstance(times, int) and is_items(items):
            steps = len(items) * times
    budget.spend(steps)


# Filters and tests.


def _paid(name: str, cost: Cost) -> Callable[..., object]:
    """Jinja's filter of this name, paid for first."""

    @pass_context
    def paid(context: Context, value: object, /, *args: object, **kwargs: object) -> object:
        if is_lazy(value) and cost not in (by_nothing, by_items):
            value = list(value)
        cost(budget_of(context), value, (*args, *kwargs.values()))
        answer: object = _PLAIN.call_filter(name, value, args, kwargs, context)
        size(answer)  # a text may have been read as too large a number
        return answer

    return paid


@pass_context
def _tojson(
    context: Context,
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, without the escapes for HTML of Jinja's own filter; paid for piece by piece."""
    budget = budget_of(context)
    by_product(budget, value, (indent, separators))
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    pieces: list[str] = []
    for piece in encoder.iterencode(value):
        budget.spend(size(piece))
        pieces.append(piece)
    return "".join(pieces)


def _comparing(name: str) -> Callable[..., object]:
    @pass_context
    def compare(context: Context, value: object, other: object) -> object:
        return _compared(budget_of(context), name, value, other)

    return compare


@pass_context
def _divisible(context: Context, value: Any, number: Any = 2) -> bool:
    pay_operator(budget_of(context), "%", value, number)
    return bool(value % number == 0)


@pass_context
def _odd(context: Context, value: Any) -> bool:
    pay_operator(budget_of(context), "%", value, 2)
    return bool(value % 2 == 1)  # so that 2.5 is neither odd nor even, as Jinja has it


def _jinjas(name: str) -> Callable[..., object]:
    test: Any = _PLAIN.tests[name]
    checked: Callable[..., object] = test
    return checked


# Functions.


def raise_exception(message: object) -> None:
    """What a template calls to turn a conversation away."""
    raise TemplateError(str(message))


@pass_context
def strftime_now(context: Context, format: str) -> str:
    """The day that was given as `today`, named in English whatever the locale of the process."""
    today: date | None = context.parent[TODAY]
    if today is None:
        raise TemplateError("the template writes the date: give it as today=")
    return _DIRECTIVE.sub(lambda found: _dated(today, found[1], found[2]), format)


_DIRECTIVE: Final = re.compile("%(-?)(.?)", re.DOTALL)
_NUMBERS: Final = "dmyYHIMSjUWuwGV"
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def _dated(today: date, dash: str, letter: str) -> str:
    day, month = _DAYS[today.weekday()], _MONTHS[today.month - 1]
    half = "AM" if f"{today:%H}" < "12" else "PM"
    words = {"A": day, "a": day[:3], "B": month, "b": month[:3], "h": month[:3], "p": half, "%": "%"}
    if letter in words:
        return words[letter]
    if letter == "" or letter not in _NUMBERS:
        raise TemplateError(f"strftime_now writes no {'%' + dash + letter!r}")
    number = f"{today:%{letter}}"
    return number.lstrip("0") or "0" if dash else number


def _namespace(*args: Mapping[str, object], **kwargs: object) -> Namespace:
    return Namespace(*args, **kwargs)


def _dict(*args: Mapping[str, object], **kwargs: object) -> dict[str, object]:
    return dict(*args, **kwargs)


def _range(*ends: int) -> range:
    return range(*ends)


# The words by name. Those in angle brackets are what syntax is rewritten to.

FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    "raise_exception": raise_exception,
    "strftime_now": strftime_now,
    "namespace": _namespace,
    "dict": _dict,
    "range": _range,
}
FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    **{name: _paid(name, cost) for name, cost in _FILTERS.items()},
    "tojson": _tojson,
    "<step>": stepped,
    "<each>": each,
    "<concat>": concatenated,
    "<compare>": compared,
    "<slice>": sliced,
    "<key>": key,
    "<read>": read,
}
TESTS: Final[Mapping[str, Callable[..., object]]] = {
    **{name: _jinjas(name) for name in _TESTS},
    **{name: _comparing(name) for name in _COMPARISONS if name != "notin"},
    "divisibleby": _divisible,
    "even": _divisible,
    "odd": _odd,
}
