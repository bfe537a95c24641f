"""What can go wrong, as plain data: one frozen class a failure, gathered in closed unions.

Every error says whose fault it is and where; `explain` turns any of them into one sentence that ends with the way out.
Nothing here raises, and nothing here holds an exception, a traceback or a frame: what was raised outside becomes a
`Fault` where it was caught, so that errors compare equal, pickle, and cost no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar, assert_never, final

from returns.result import Result, Success

_A = TypeVar("_A")
_B = TypeVar("_B")
_E = TypeVar("_E")

_LONGEST_MESSAGE = 2_000  # characters; an exception may hold a whole response body
_DEEPEST_CAUSE = 3
_DEEPEST_TRACE = 12  # frames, innermost kept


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """An exception from outside, as plain data: its `kind` (dotted class name), `message` and `trace`.

    The trace has one line a frame, innermost last, without distgen's own; it takes no part in comparisons.

    >>> Fault.of(KeyError("name"))
    Fault(kind='KeyError', message="'name'")
    """

    kind: str
    message: str
    trace: str = field(default="", compare=False, repr=False)

    @staticmethod
    def of(error: BaseException) -> Fault:
        """Reads an exception; total, whatever its `__str__` does. A message longer than 2,000 characters is cut."""
        causes: list[BaseException] = []
        cause = error.__cause__
        while cause is not None and len(causes) < _DEEPEST_CAUSE:
            causes.append(cause)
            cause = cause.__cause__
        message = _message(error) + "".join(f" (caused by {_kind(each)}: {_message(each)})" for each in causes)
        return Fault(_kind(error), message, _trace(error))


@final
@dataclass(frozen=True, slots=True)
class ControlToken:
    """A text holds `token`, which `format` uses as markup: rendering it would forge a turn.

    `where` is the field ("system", "user", "history[0].assistant"), `offset` the token's index in it, in characters.
    """

    format: str
    token: str
    where: str
    offset: int


@final
@dataclass(frozen=True, slots=True)
class NoSystemRole:
    """The prompt has a system text and `format`, as its model's own template, has no place for one."""

    format: str


@final
@dataclass(frozen=True, slots=True)
class NoHistory:
    """The prompt has earlier exchanges and `format`, as its model's own template, has no place for them."""

    format: str


@final
@dataclass(frozen=True, slots=True)
class NotRendered:
    """A text given to `parse` that `format` cannot have rendered."""

    format: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class BadMessages:
    """A list of messages that is no conversation; `index` is the message at fault, None when it is the list itself."""

    index: int | None
    reason: str


@final
@dataclass(frozen=True, slots=True)
class UnknownFormat:
    """No format of the registry has that `name`; `nearest` are the names closest to it, best first."""

    name: str
    nearest: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class FormatterFailed:
    """A formatter raised instead of answering."""

    fault: Fault


@final
@dataclass(frozen=True, slots=True)
class PromptFailed:
    """The prompt function of the task raised on this input."""

    fault: Fault


@final
@dataclass(frozen=True, slots=True)
class FormatFailed:
    """The format refused this prompt; `error` says why."""

    error: FormatError


@final
@dataclass(frozen=True, slots=True)
class BackendFailed:
    """The backend, or the pool that ran it, gave no answer for this input."""

    fault: Fault


@final
@dataclass(frozen=True, slots=True)
class WrongShape:
    """The backend answered `got` of `what` where `expected` were asked for."""

    what: Literal["rows", "generations"]
    expected: int
    got: int


@final
@dataclass(frozen=True, slots=True)
class InvalidArgument:
    """An argument of the call itself, the same for every row, is out of its range."""

    name: str
    value: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class ParseFailed:
    """The parser of the task found no value in the text: `error` is what it answered, a `Fault` for an exception."""

    error: object


FormatError: TypeAlias = (
    ControlToken | NoSystemRole | NoHistory | NotRendered | BadMessages | UnknownFormat | FormatterFailed
)
GenerateError: TypeAlias = PromptFailed | FormatFailed | BackendFailed | WrongShape | InvalidArgument


def explain(error: FormatError | GenerateError | ParseFailed | Fault) -> str:
    """One sentence that says what is wrong and the way out.

    >>> explain(UnknownFormat("chatlm", ("chatml",)))
    "No format is named 'chatlm'; did you mean 'chatml'? FORMATS lists them all."
    """
    match error:
        case Fault(kind, message):
            return f"{kind}: {message}" if message else kind
        case ControlToken(format_name, token, where, offset):
            return (
                f"{where} holds {token!r} at character {offset}, which {format_name} would read as markup and not as "
                "text; take it out of the text, or choose a format whose markup differs ('openai' has none)."
            )
        case NoSystemRole(format_name):
            return f"{format_name} has no system role; put the instructions in the user text, or choose another format."
        case NoHistory(format_name):
            return f"{format_name} takes a single turn; ask without history, or choose another format."
        case NotRendered(format_name, reason):
            return f"This text is no rendering of {format_name}: {reason}; parse it with the format that rendered it."
        case BadMessages(index, reason):
            return f"{'The messages' if index is None else f'Message {index}'}: {reason}."
        case UnknownFormat(name, nearest):
            hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else "."
            return f"No format is named {name!r}{hint} FORMATS lists them all."
        case FormatterFailed(fault):
            return f"The formatter raised {explain(fault)}; a formatter answers Failure(...) instead of raising."
        case PromptFailed(fault):
            return f"The prompt function raised {explain(fault)}."
        case FormatFailed(inner):
            return explain(inner)
        case BackendFailed(fault):
            return f"The backend failed with {explain(fault)}."
        case WrongShape(what, expected, got):
            return (
                f"The backend answered {got} {what} where {expected} were asked for; "
                "a Generate answers one row a prompt and num_generations completions a row."
            )
        case InvalidArgument(name, value, reason):
            return f"{name}={value!r}: {reason}."
        case ParseFailed(inner):
            reason = explain(inner) if isinstance(inner, Fault) else str(inner)
            return f"The answer does not parse: {reason}; its text is in generation.completion.text."
        case _:
            assert_never(error)


def kind(error: FormatError | GenerateError | ParseFailed | Fault) -> str:
    """The innermost name of an error, to count failures by.

    >>> kind(BackendFailed(Fault("TimeoutError", "no answer in 30 s")))
    'TimeoutError'
    """
    match error:
        case Fault(name):
            return name
        case PromptFailed(inner) | BackendFailed(inner) | FormatterFailed(inner) | FormatFailed(inner):
            return kind(inner)
        case _:
            return type(error).__name__


def fold(result: Result[_A, _E], on_success: Callable[[_A], _B], on_failure: Callable[[_E], _B]) -> _B:
    """Leaves a Result by naming both ways out; typed where a `match` over Success and Failure is not.

    >>> from returns.result import Failure
    >>> [fold(r, str.upper, str.lower) for r in (Success("Yes"), Failure("NO"))]
    ['YES', 'no']
    """
    return on_success(result.unwrap()) if isinstance(result, Success) else on_failure(result.failure())


def _kind(error: BaseException) -> str:
    module, name = type(error).__module__, type(error).__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # an exception's own __str__ may raise
        return f"<its __str__ raised {type(broken).__name__}>"
    cut = len(text) - _LONGEST_MESSAGE
    return text if cut <= 0 else f"{text[:_LONGEST_MESSAGE]} ... ({cut} more characters)"


def _trace(error: BaseException) -> str:
    # Not the traceback module: it reads source files, about 100 microseconds a failure; a million rows may fail.
    frames: list[str] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not step.tb_frame.f_globals.get("__name__", "").startswith("distgen."):
            frames.append(f"{code.co_filename}:{step.tb_lineno} in {code.co_name}")
        step = step.tb_next
    return "\n".join(frames[-_DEEPEST_TRACE:])
