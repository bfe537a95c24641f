"""Rows of the command line: lines of JSON read as prompts, and answers written as lines; a line that is none says why.

Nothing here raises for what a line holds, and one line costs no other. It reads no file: bytes come in line by line.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import BinaryIO, Final, TypeAlias, final

from returns.result import Failure, Result, Success
from typing_extensions import TypeIs

from distgen.completion import Completion, TokenLogprob
from distgen.errors import Raised, GenerateError, NotParsed, explain, fold, kind
from distgen.llm import RowResult
from distgen.prompt import Exchange, Prompt

LONGEST_LINE: Final = 64 * 2**20
"""Bytes of a line that is read as a row, its line break included; a longer one is an error row."""

_OUTPUT_FIELDS: Final = ("generations", "model", "error")
# Source: OpenAI API reference, "The chat completion object": -9999.0 signifies that a token is very unlikely.
_NEVER: Final = -9999.0  # JSON has no -Infinity
_DEEPEST = 500  # lists and objects in each other; json's own limit is Python's stack, 1,000 calls
_TOO_DEEP: Final = f"nested deeper than {_DEEPEST} lists and objects"

Fields: TypeAlias = dict[str, object]


class BadLine(ValueError):
    """A line of the input that is no row."""


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: its number from 1, its fields, and the prompt in them or the reason why there is none.

    The fields have their names in the output row, and they alone are compared: they are what an output row keeps of it.
    """

    number: int = field(compare=False)
    fields: Fields
    prompt: Result[Prompt, str] = field(compare=False)


def lines(source: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than `LONGEST_LINE` only that much and a byte more.

    >>> import io
    >>> list(lines(io.BytesIO(b'{"user": "Hi"}\\n{}')))
    [b'{"user": "Hi"}\\n', b'{}']
    """
    while line := source.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = source.readline(LONGEST_LINE + 1)


def read(source: Iterable[bytes], user_field: str | None, system: str | None) -> Iterator[Line]:
    """The rows of JSON Lines, as they are read; a line that is none keeps its number and the reason. Blank lines are none.

    >>> [line.prompt for line in read([b'{"user": "Hi"}', b'{"user": 7}'], None, None)]
    [<Success: Prompt(user='Hi', system=None, history=())>, <Failure: "user" is a number, not text>]
    """
    for number, raw in enumerate(source, 1):
        if raw.strip():
            fields = _fields((raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).rstrip(b"\r\n"))
            prompt = fold(fields, lambda found: _prompt(found, user_field, system), _no_prompt)
            yield Line(number, fold(fields, _renamed, _no_fields), prompt)


def ask(line: Line) -> Prompt:
    """The prompt of a line, for a Task; a BadLine says why there is none.

    >>> [*map(ask, read([b'{"user": "Hi"}'], None, None))]
    [Prompt(user='Hi', system=None, history=())]
    """
    if isinstance(line.prompt, Failure):
        raise BadLine(f"line {line.number}: {line.prompt.failure()}")
    return line.prompt.unwrap()


def encode(line: Line, answer: RowResult[str]) -> Fields:
    """The output row: all fields of the input, and what became of it.

    >>> (line,) = read([b'{"user": "Hi", "id": 7}'], None, None)
    >>> encode(line, Failure(Raised("TimedOut", "no answer")))
    {'user': 'Hi', 'id': 7, 'error': {'type': 'TimedOut', 'message': 'no answer'}}
    """
    if isinstance(answer, Failure):
        error = answer.failure()
        return {**line.fields, "error": {"type": error_type(error), "message": reason(error)}}
    generations = answer.unwrap()
    said = [_said(generation.completion) for generation in generations]
    return {**line.fields, "generations": said, "model": generations[0].model}


def _said(completion: Completion) -> Fields:
    usage = None if completion.usage is None else asdict(completion.usage)
    said: Fields = {"text": completion.text, "finish_reason": completion.finish_reason, "usage": usage}
    if completion.logprobs is None:
        return said
    return {**said, "logprobs": [_scored(each) for each in completion.logprobs]}


def _scored(token: TokenLogprob) -> Fields:
    return {**_named(token), "top_logprobs": [_named(top) for top in token.top_logprobs]}


def _named(token: TokenLogprob) -> Fields:
    logprob = _NEVER if token.logprob == -math.inf else token.logprob
    return {"token": token.token, "logprob": logprob}


def decode(row: Mapping[str, object]) -> Result[tuple[Line, RowResult[str]], str]:
    """What a journal has to know of an output row: its line, and whether it was answered.

    >>> decode({"user": "Hi", "generations": []}).map(lambda read: (read[0].fields, read[1]))
    <Success: ({'user': 'Hi'}, <Success: ()>)>
    """
    answers: list[RowResult[str]] = [Success(())] if "generations" in row else []
    if _is_object(error := row.get("error")):
        answers = [Failure(Raised(str(error.get("type")), str(error.get("message"))))]
    if not answers:
        return Failure('it has neither "generations" nor an "error"')
    fields = {name: value for name, value in row.items() if name not in _OUTPUT_FIELDS}
    return Success((Line(0, fields, Failure("it was read from an output row")), answers[0]))


def error_type(error: GenerateError) -> str:
    """The short name of an error, to count failures by.

    >>> error_type(Raised("urllib3.exceptions.HTTPError", ""))
    'HTTPError'
    """
    return kind(error).rpartition(".")[2]


def reason(error: GenerateError) -> str:
    """What went wrong, and the way out."""
    return error.message if isinstance(error, Raised) and error.part in ("prompt", "backend") else explain(error)


def _renamed(fields: Fields) -> Fields:
    return {_free(name, fields): value for name, value in fields.items()}


def _free(name: str, taken: Mapping[str, object]) -> str:
    """The name under which an input field is kept, beside those of the output."""
    free = f"input_{name}" if name in _OUTPUT_FIELDS else name
    while free != name and free in taken:
        free = f"input_{free}"
    return free


def _no_fields(_: str) -> Fields:
    return {}


def _no_prompt(reason: str) -> Result[Prompt, str]:
    return Failure(reason)


def _fields(raw: bytes) -> Result[Fields, str]:
    if len(raw) > LONGEST_LINE:
        return Failure(f"longer than {LONGEST_LINE:,} bytes")
    try:
        value: object = json.loads(
            raw.decode(), parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        return Failure(f"byte {error.start} ({raw[error.start : error.start + 4]!r}) is not UTF-8")
    except ValueError as error:
        return Failure(f"not JSON: {error}")
    except RecursionError:
        return Failure(_TOO_DEEP)
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _is_deep(value):
        return Failure(_TOO_DEEP)
    return Success({str(key): each for key, each in value.items()}) if _is_object(value) else Failure("not an object")


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # it would be written as Infinity, which is no JSON
        raise ValueError(f"{digits:.20} is too large a number")
    return number


def _unique(pairs: list[tuple[str, object]]) -> Fields:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{json.dumps(twice)} stands twice in an object")
    return found


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    return value if _is_list(value) else value.values() if _is_object(value) else ()


def _is_object(value: object) -> TypeIs[Mapping[object, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeIs[list[object]]:
    return isinstance(value, list)


def _prompt(fields: Fields, user_field: str | None, system: str | None) -> Result[Prompt, str]:
    """The prompt of a row: the field that was named, or "messages", or "user"; `system` where the row has none."""
    name = user_field or "user"
    if user_field is None and "messages" in fields:
        if "user" in fields:
            return Failure('it has both "user" and "messages"; say which with --user-field')
        prompt = _from_messages(fields["messages"])
    elif name in fields:
        prompt = _from_texts(name, fields)
    else:
        names = f"its fields are {', '.join(map(json.dumps, fields))}" if fields else "it is empty"
        return Failure(f"it has no field {json.dumps(name)}; {names}")
    return prompt.map(lambda found: replace(found, system=system) if found.system is None else found)


def _from_messages(value: object) -> Result[Prompt, str]:
    if not _is_list(value):
        return Failure(f'"messages" is {_json_type(value)}, not a list')
    messages = [each for each in value if _is_object(each)]
    if len(messages) < len(value):
        return Failure('"messages" holds something that is no message object')
    named = [{str(key): each for key, each in message.items()} for message in messages]
    return Prompt.from_messages(named).alt(_why_no_conversation)


def _why_no_conversation(error: NotParsed) -> str:
    return f'"messages" is no conversation at {error.index}: {error.reason}'


def _from_texts(name: str, fields: Fields) -> Result[Prompt, str]:
    user, system, history = fields[name], fields.get("system"), _history(fields.get("history"))
    if not isinstance(user, str):
        return Failure(f"{json.dumps(name)} is {_json_type(user)}, not text")
    if not isinstance(system, str | None):
        return Failure(f'"system" is {_json_type(system)}, not text')
    if history is None:
        return Failure('"history" is not a list of [user, assistant] pairs of texts')
    return Success(Prompt(user, system, history))


def _history(value: object) -> tuple[Exchange, ...] | None:
    exchanges: list[Exchange] = []
    for pair in value if _is_list(value) else [] if value is None else [value]:
        match pair:
            case [str(user), str(assistant)]:
                exchanges.append(Exchange(user, assistant))
            case _:
                return None
    return tuple(exchanges)


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"
