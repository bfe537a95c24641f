"""Failures as plain data: frozen classes in closed unions.

Each error records which part failed. `explain` returns one sentence and, when distgen knows one, a fix. No error holds an
exception, a traceback or a frame, so that errors can be compared and pickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, TypeVar, assert_never, final

from returns.result import Result, Success

from distgen.completion import Completion, Usage

_A = TypeVar("_A")
_B = TypeVar("_B")
_E = TypeVar("_E")

Stage: TypeAlias = Literal["prompt", "format", "backend", "parser", "progress"]
"""The function that raised: the task's prompt function or parser, the format, the backend, the progress callback."""

Feature: TypeAlias = Literal["system", "history", "no system", "thinking", "no thinking", "training"]
"""A feature of a prompt, or of an answer to train on, that a format cannot render."""

_NoAnswer: TypeAlias = Literal["not_sent", "prompt_too_long", "stopped", "timeout", "connection", "other"]
_BadAnswer: TypeAlias = Literal[
    "status", "error_object", "redirect", "too_long", "not_json", "no_choices", "bad_choice"
]
_BadLine: TypeAlias = Literal["no_line", "cut_line", "doubled_line", "other_batch"]
RequestReason: TypeAlias = Literal[_NoAnswer, _BadAnswer, _BadLine]
"""Why a request failed; see `RequestFailed`."""

NoTextReason: TypeAlias = Literal["max_tokens", "tool_call", "refusal", "filter", "error", "empty"]
"""Why a generation has no text; see `NoText`."""

_MAX_MESSAGE = 2_000  # characters; an exception may hold a whole response body
_MAX_CAUSES = 3
_MAX_FRAMES = 12  # the innermost are kept


@final
@dataclass(frozen=True, slots=True)
class Raised:
    """An exception of a user's own function, as plain data: its class name, its message, and the function (`stage`).

    `trace` has one line a frame, innermost last; it is not compared. `completions` are those that came before the exception.

    >>> Raised.of(KeyError("name"), "prompt")
    Raised(kind='KeyError', message="'name'", stage='prompt', completions=())
    """

    kind: str
    message: str
    stage: Stage = "backend"
    trace: str = field(default="", compare=False, repr=False)
    completions: tuple[Completion, ...] = ()

    @staticmethod
    def of(error: object, stage: Stage = "backend", completions: tuple[Completion, ...] = ()) -> Raised:
        """Return an exception as plain data, or any other value by its type and text. A message is cut after 2,000 characters.

        Raise nothing, even if `__str__` of the error raises.
        """
        message, trace = _message(error), ""
        if isinstance(error, BaseException):
            trace, cause = _trace(error), error.__cause__
            for _ in range(_MAX_CAUSES):
                if cause is not None:
                    message += f" (caused by {_kind(cause)}: {_message(cause)})"
                    cause = cause.__cause__
        return Raised(_kind(error), message, stage, trace, completions)


@final
@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request to a server failed. `reason` says how:

    - "status": the server answered with an HTTP status that is an error; `status` is that status.
    - "error_object": the answer has status 200 and holds an error.
    - "timeout": no whole answer came in time. "connection": there was no connection, or it broke.
    - "redirect": the server names another address. It is not followed, since the API key would be sent there.
    - "too_long": the answer is too large. "not_json", "no_choices", "bad_choice": it does not follow the protocol.
    - "not_sent": the request could not be made. "prompt_too_long": the prompt leaves no room for an answer.
    - "stopped": the run ended while this row waited for a request. "other": for a user's own backend.
    - "no_line", "cut_line", "doubled_line", "other_batch": a batch's result files have no line for the request, a part of
      one, several, or one for another request; see `distgen.batch`.

    `code` is the service's own error code. For "connection" it is "refused", "reset", "cut", "tls" or "proxy", and for an empty
    body "empty". `retry_after` is the wait that the server asks for, in seconds. `completions` are those that came before the
    failure, and `usage` counts the tokens that `completions` do not already count.

    >>> explain(RequestFailed("status", "No key given", status=401))
    'status 401: No key given; pass api_key, or set OPENAI_API_KEY.'
    """

    reason: RequestReason
    message: str
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    usage: Usage | None = None
    completions: tuple[Completion, ...] = ()
    request_id: str | None = None
    """The id of the request in the server's headers, for a support ticket."""


@final
@dataclass(frozen=True, slots=True)
class WrongCount:
    """The backend answered `got` rows or generations where `expected` were asked for.

    `completions` are those that it answered to this prompt.
    """

    what: Literal["rows", "generations"]
    expected: int
    got: int
    completions: tuple[Completion, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class InjectedToken:
    """A text holds `token`, which `format` uses as markup: rendering it would forge a turn.

    `where` is the field ("system", "user", "history[0].assistant"), `offset` the token's index in it, in characters.
    """

    format: str
    token: str
    where: str
    offset: int


@final
@dataclass(frozen=True, slots=True)
class Unsupported:
    """The format cannot render this prompt: `what` names the feature that its model's template does not have.

    "no system" is a prompt without a system text for a format that needs one, "thinking" the reasoning of an answer, "no
    thinking" an answer to train on without reasoning, "training" any answer to train on.
    """

    format: str
    what: Feature


@final
@dataclass(frozen=True, slots=True)
class NotParsed:
    """`parse` was given what this format cannot have rendered.

    `index` is the message of a list that is wrong, from 0. It is None for a text, and for a list that is wrong as a whole.
    """

    format: str
    reason: str
    index: int | None = None


@final
@dataclass(frozen=True, slots=True)
class UnknownFormat:
    """No format has that `name`; `nearest` are the closest names, best first."""

    name: str
    nearest: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class InvalidArgument:
    """An argument of the call itself is out of its range: every row fails with this error."""

    name: str
    value: object
    reason: str


@final
@dataclass(frozen=True, slots=True)
class ParseFailed:
    """The parser of the task found no value in the text. `error` is the parser's own Failure, or a `Raised` of its exception."""

    error: object


@final
@dataclass(frozen=True, slots=True)
class NoText:
    """A generation has nothing to parse. `reason` says why:

    - "max_tokens": the answer was cut before any text, mostly in its reasoning. "tool_call": the model asked for a tool.
    - "refusal", "filter": the model refused, or the service's content filter took the text.
    - "error": the service broke the answer off, and the text is incomplete. "empty": the model wrote nothing.
    """

    reason: NoTextReason
    message: str


FormatError: TypeAlias = InjectedToken | Unsupported | NotParsed | UnknownFormat | Raised
BackendError: TypeAlias = Raised | RequestFailed | WrongCount
GenerateError: TypeAlias = FormatError | BackendError | InvalidArgument


_FUNCTIONS: Final[Mapping[Stage, str]] = {"prompt": "prompt function", "progress": "progress callback"}
_UNSUPPORTED: Final[Mapping[Feature, str]] = {
    "system": "has no system role; put the instructions in the user text, or choose another format",
    "no system": "needs a system text, which may be empty",
    "history": "takes a single turn; ask without history, or choose another format",
    "thinking": "cannot write this reasoning; leave it out, or choose a format that thinks",
    "no thinking": "opens an answer with its reasoning; give it, or choose a format that does not think",
    "training": "has no training text: the answer is empty, or the template does not write it after the generation prompt",
}
# By `error_kind` of a RequestFailed; other kinds have no fix.
_FIXES: Final[Mapping[str, str]] = {
    "status 401": "pass api_key, or set OPENAI_API_KEY",
    "status 403": "check that the key has access to this model",
    "status 404": "check the model's name, and base_url, which usually ends in /v1",
    "status 429": "ask with less concurrency, or check your quota",
    "timeout": "raise timeout, or ask for fewer tokens",
    "connection": "check that the server is up, and base_url",
    "redirect": "if you trust that address, change base_url to it, without the path of the request",
    "too_long": "ask for fewer tokens",
    "not_json": "check base_url",
    "prompt_too_long": "shorten the prompt, or ask for fewer tokens",
    "no_line": "put this row into the next batch",
    "cut_line": "download the file again",
    "doubled_line": "give each result file once",
    "other_batch": "the files are for other inputs or parameters: read with those of write",
}


def explain(error: GenerateError | ParseFailed | NoText) -> str:
    """Return one sentence that says what is wrong and, when distgen knows one, a fix.

    >>> explain(UnknownFormat("chatlm", ("chatml",)))
    "no format is named 'chatlm'; did you mean 'chatml'? FORMATS lists them all."
    """
    match error:
        case Raised(stage=stage):
            return _sentence(f"the {_FUNCTIONS.get(stage, stage)} raised {_describe(error)}")
        case RequestFailed(message=message):
            kind = error_kind(error)
            fix = f"; {_FIXES[kind]}." if kind in _FIXES else "."
            return f"{kind}: {message.strip().removesuffix('.') or '(no message)'}{fix}"
        case WrongCount(what, expected, got):
            due = "one row a prompt" if what == "rows" else "num_generations completions a row"
            return f"the backend answered {got} {what} where {expected} were asked for; it must answer {due}."
        case InjectedToken(name, token, where, offset):
            return (
                f"{where} holds {token!r} at character {offset}, which is markup in {name}; "
                "remove it from the text, or choose a format with other markup ('openai' has none)."
            )
        case Unsupported(name, what):
            return f"{name} {_UNSUPPORTED[what]}."
        case NotParsed(name, reason, index):
            where = "" if index is None else f", at message {index}"
            return f"this is not a prompt in {name}{where}: {_sentence(reason)}"
        case UnknownFormat(name, nearest):
            hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else "."
            return f"no format is named {name!r}{hint} FORMATS lists them all."
        case InvalidArgument(name, value, reason):
            return f"{name}={value!r}: {_sentence(reason)}"
        case ParseFailed(inner):
            return f"the answer does not parse: {_sentence(_describe(inner))}"
        case NoText(_, message):
            return _sentence(message)
        case _:
            assert_never(error)


def _describe(error: object) -> str:
    if isinstance(error, Raised):
        return f"{error.kind}: {error.message}" if error.message else error.kind
    return str(error)


def _sentence(text: str) -> str:
    return f"{text.strip().removesuffix('.')}."


def error_kind(error: GenerateError | ParseFailed | NoText) -> str:
    """Return a short name of an error, to count failures by.

    >>> error_kind(RequestFailed("status", "", status=429)), error_kind(RequestFailed("timeout", "no answer in 60 s"))
    ('status 429', 'timeout')
    >>> error_kind(NoText("empty", "")), error_kind(Raised("KeyError", "'name'"))
    ('no_text', 'KeyError')
    """
    match error:
        case Raised(kind):
            return kind
        case RequestFailed("status", status=status):
            return f"status {status}"
        case RequestFailed(reason):
            return reason
        case _:
            return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def fold(result: Result[_A, _E], on_success: Callable[[_A], _B], on_failure: Callable[[_E], _B]) -> _B:
    """Apply one of two functions, depending on whether the Result is a Success or a Failure.

    >>> from returns.result import Failure
    >>> [fold(r, str.upper, str.lower) for r in (Success("Yes"), Failure("NO"))]
    ['YES', 'no']
    """
    return on_success(result.unwrap()) if isinstance(result, Success) else on_failure(result.failure())


def _kind(error: object) -> str:
    module, name = type(error).__module__, type(error).__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _message(error: object) -> str:
    try:
        text = str(error)
    except Exception as broken:  # an exception's own __str__ may raise
        return f"<its __str__ raised {type(broken).__name__}>"
    cut = len(text) - _MAX_MESSAGE
    return text if cut <= 0 else f"{text[:_MAX_MESSAGE]} ... ({cut} more characters)"


def _trace(error: BaseException) -> str:
    # Not the traceback module: it reads source files, about 100 microseconds a failure; a million rows may fail.
    frames: list[str] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        frames.append(f"{code.co_filename}:{step.tb_lineno} in {code.co_name}")
        step = step.tb_next
    return "\n".join(frames[-_MAX_FRAMES:])
