"""What can go wrong, as plain data: one frozen class a failure, gathered in closed unions.

Every error says whose fault it is and where; `explain` turns any of them into one sentence, with the way out where it is
ours to know: what an exception from outside asks for, only its own words say.
Nothing here raises, and nothing here holds an exception, a traceback or a frame: what was raised outside becomes a
`Fault` where it was caught, so that errors compare equal, pickle, and cost no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, TypeVar, assert_never, final

from returns.result import Result, Success

_A = TypeVar("_A")
_B = TypeVar("_B")
_E = TypeVar("_E")

Part: TypeAlias = Literal["prompt", "format", "backend", "parser", "progress"]
"""Whose function raised: the task's prompt function or parser, the format, the backend, the progress callback."""

Lacking: TypeAlias = Literal["system", "history", "no system", "thinking", "no thinking"]
"""What a format has no place for."""

_LONGEST_MESSAGE = 2_000  # characters; an exception may hold a whole response body
_DEEPEST_CAUSE = 3
_DEEPEST_TRACE = 12  # frames, innermost kept


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """An exception from outside, as plain data: its `kind` (dotted class name), its `message`, whose `part` raised it.

    A backend may answer one for a row of its own accord, with a kind of its own; a pool that breaks is the backend's too.
    The `trace` has one line a frame, innermost last, without distgen's own; it takes no part in comparisons.

    >>> Fault.of(KeyError("name"), "prompt")
    Fault(kind='KeyError', message="'name'", part='prompt')
    """

    kind: str
    message: str
    part: Part = "backend"
    trace: str = field(default="", compare=False, repr=False)

    @staticmethod
    def of(error: BaseException, part: Part = "backend") -> Fault:
        """Reads an exception; total, whatever its `__str__` does. A message longer than 2,000 characters is cut."""
        causes: list[BaseException] = []
        cause = error.__cause__
        while cause is not None and len(causes) < _DEEPEST_CAUSE:
            causes.append(cause)
            cause = cause.__cause__
        message = _message(error) + "".join(f" (caused by {_kind(each)}: {_message(each)})" for each in causes)
        return Fault(_kind(error), message, part, _trace(error))


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
class NotSupported:
    """The prompt has a system text, or history, or no system text, and `format` cannot write that, as its model's cannot.

    "no thinking" is an answer to train on without the thinking that the format opens, "thinking" one with some where the
    format says that there is none.
    """

    format: str
    what: Lacking


@final
@dataclass(frozen=True, slots=True)
class NotRendered:
    """What was to be read back is no rendering of `format`: a text of another one, or messages that are no conversation.

    `index` is where it goes wrong, the character of a text or the message of a list; None where that is all of it.
    """

    format: str
    reason: str
    index: int | None = None


@final
@dataclass(frozen=True, slots=True)
class UnknownFormat:
    """No format of the registry has that `name`; `nearest` are the names closest to it, best first."""

    name: str
    nearest: tuple[str, ...]


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
    value: object
    reason: str


@final
@dataclass(frozen=True, slots=True)
class ParseFailed:
    """The parser of the task found no value in the text: `error` is what it answered, a `Fault` for an exception."""

    error: object


FormatError: TypeAlias = ControlToken | NotSupported | NotRendered | UnknownFormat | Fault
GenerateError: TypeAlias = FormatError | WrongShape | InvalidArgument


_PARTS: Final[Mapping[Part, str]] = {
    "prompt": "prompt function",
    "format": "format",
    "backend": "backend",
    "parser": "parser",
    "progress": "progress callback",
}
_NOT_SUPPORTED: Final[Mapping[Lacking, str]] = {
    "system": "has no system role; put the instructions in the user text, or choose another format",
    "no system": "has no fixed text to stand for an absent system text; give one, it may be empty",
    "history": "takes a single turn; ask without history, or choose another format",
    "thinking": "opens an answer with nothing thought; take the thinking out, or choose a format that thinks",
    "no thinking": "opens an answer with <think>; give all that the model wrote, up to its </think> and on",
}


def explain(error: GenerateError | ParseFailed) -> str:
    """One sentence that says what is wrong and, save of a Fault, the way out.

    >>> explain(UnknownFormat("chatlm", ("chatml",)))
    "No format is named 'chatlm'; did you mean 'chatml'? FORMATS lists them all."
    """
    match error:
        case Fault(part=part):
            return f"The {_PARTS[part]} failed with {in_words(error)}."
        case ControlToken(format_name, token, where, offset):
            return (
                f"{where} holds {token!r} at character {offset}, which {format_name} would read as markup and not as "
                "text; take it out of the text, or choose a format whose markup differs ('openai' has none)."
            )
        case NotSupported(format_name, what):
            return f"{format_name} {_NOT_SUPPORTED[what]}."
        case NotRendered(format_name, reason, index):
            where = "" if index is None else f" at {index}"
            return f"This is no rendering of {format_name}{where}: {reason}; read it with the format that it is in."
        case UnknownFormat(name, nearest):
            hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else "."
            return f"No format is named {name!r}{hint} FORMATS lists them all."
        case WrongShape(what, expected, got):
            return (
                f"The backend answered {got} {what} where {expected} were asked for; "
                "a Generate answers one row a prompt and num_generations completions a row."
            )
        case InvalidArgument(name, value, reason):
            return f"{name}={value!r}: {reason}."
        case ParseFailed(inner):
            reason = in_words(inner) if isinstance(inner, Fault) else str(inner)
            return f"The answer does not parse: {reason}; its text is in generation.completion.text."
        case _:
            assert_never(error)


def in_words(fault: Fault) -> str:
    """Its kind and, where there is one, its message, less a full stop: as part of a sentence.

    >>> in_words(Fault("TimedOut", "No answer; wait.")), in_words(Fault("KeyboardInterrupt", ""))
    ('TimedOut: No answer; wait', 'KeyboardInterrupt')
    """
    return f"{fault.kind}: {fault.message.removesuffix('.')}" if fault.message else fault.kind


def kind(error: GenerateError | ParseFailed) -> str:
    """The name of an error, to count failures by: its class, or the `kind` of a Fault.

    >>> kind(Fault("TimeoutError", "no answer in 30 s")), kind(ParseFailed("no number"))
    ('TimeoutError', 'ParseFailed')
    """
    return error.kind if isinstance(error, Fault) else type(error).__name__


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
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # an exception's own __str__ may raise
        return f"<its __str__ raised {type(broken).__name__}>"
    cut = len(text) - _LONGEST_MESSAGE
    return text if cut <= 0 else f"{text[:_LONGEST_MESSAGE]} ... ({cut} more characters)"


def _trace(error: BaseException) -> str:
    # Not the traceback module: it reads source files, about 100 microseconds a failure; a million rows may fail.
    frames: list[str] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        module = str(step.tb_frame.f_globals.get("__name__"))  # what `exec` runs may call itself None
        if not module.startswith("distgen."):
            frames.append(f"{code.co_filename}:{step.tb_lineno} in {code.co_name}")
        step = step.tb_next
    return "\n".join(frames[-_DEEPEST_TRACE:])
