"""Rows of the command line: lines of JSON read as prompts, and answers written as output rows.

Nothing here raises for what a line holds: an unusable line is a row with the reason, and costs no other row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Literal, TypeAlias, final

from returns.result import Failure, Result, Success
from typing_extensions import TypeIs

from distgen.completion import Completion, TokenLogprob, Usage
from distgen.errors import GenerateError, NotParsed, Raised, RequestFailed, WrongCount, error_kind, explain
from distgen.journal import replace_surrogates
from distgen.llm import RowResult
from distgen.prompt import Exchange, Prompt

MAX_LINE: Final = 64 * 2**20
"""Bytes of a line, its line break included; a longer one is an error row."""

_RESERVED: Final = ("row", "model", "error", "error_message", "generations")
# Source: OpenAI API reference, "The chat completion object": -9999.0 signifies that a token is very unlikely.
_NEVER: Final = -9999.0  # JSON has no -Infinity

Fields: TypeAlias = dict[str, object]


@final
@dataclass(frozen=True, slots=True)
class BadRow:
    """The reason why an input record has no prompt."""

    kind: Literal["missing_field", "invalid_row"]
    message: str


@final
@dataclass(frozen=True, slots=True)
class Record:
    """An input record: its number, from 1, its fields, and its prompt or the reason why there is none.

    Records are compared by the JSON of their fields: 1, 1.0 and true are different inputs.
    """

    number: int = field(compare=False)
    fields: Fields = field(compare=False)
    written: str
    prompt: Result[Prompt, BadRow] = field(compare=False)


@final
@dataclass(frozen=True, slots=True)
class PromptFields:
    """Where the texts of a prompt are in a record: the options of the command line that say so."""

    user_field: str | None = None
    system: str | None = None
    template: str | None = None


def read_lines(source: BinaryIO) -> Iterator[bytes]:
    r"""Yield the lines of a file; of one that is longer than `MAX_LINE`, only that much and a byte more.

    >>> import io
    >>> list(read_lines(io.BytesIO(b'{"user": "Hi"}\n{}')))
    [b'{"user": "Hi"}\n', b'{}']
    """
    while line := source.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = source.readline(MAX_LINE + 1)


def parse_records(lines: Iterable[bytes], where: PromptFields, each_generation: bool = False) -> Iterator[Record]:
    """Read JSON Lines lazily. Blank lines are skipped; a line that is not a record keeps its number and the reason.

    >>> [record.prompt for record in parse_records([b'{"user": "Hi"}', b'{"user": null}'], PromptFields())]
    [<Success: Prompt(user='Hi', system=None, history=())>, <Failure: BadRow(kind='invalid_row', message='"user" is null, not text')>]
    """
    number = 0
    for index, line in enumerate(lines):
        raw = line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line
        if not raw.strip():
            continue
        parsed = _parse_object(raw.rstrip(b"\r\n"))
        for found in _split_generations(parsed) if each_generation else [parsed]:
            number += 1
            fields, prompt = _read_fields(found, where)
            yield Record(number, fields, json.dumps(fields, ensure_ascii=False), prompt)


def _read_fields(found: Result[Fields, BadRow], where: PromptFields) -> tuple[Fields, Result[Prompt, BadRow]]:
    if isinstance(found, Failure):
        return {}, Failure(found.failure())
    return _rename_reserved(found.unwrap()), _prompt(found.unwrap(), where)


def to_prompt(record: Record) -> Result[Prompt, GenerateError]:
    """Return the prompt of a record, for a Task."""
    return record.prompt.alt(lambda bad: NotParsed("JSON Lines", bad.message))


def encode(model: str, num_generations: int, record: Record, answer: RowResult[str]) -> Fields:
    """Return the output row: the fields of the input, and the same keys for an answer and for a failure.

    >>> (record,) = parse_records([b'{"user": "Hi"}'], PromptFields())
    >>> row = encode("m", 1, record, Failure(RequestFailed("timeout", "no whole answer in 60 s")))
    >>> row["user"], row["row"], row["error"], len(row["generations"])
    ('Hi', 1, 'timeout', 1)
    """
    completions = completions_of(answer)
    failed = error_of(record, answer)
    generations = [_generation(completion) for completion in completions[:num_generations]]
    missing = failed or ("wrong_count", "")
    generations += [_generation(Completion("", error=missing[0]))] * (num_generations - len(generations))
    kind, message = failed if failed and not any(map(_has_text, completions)) else ("", "")
    own = {"row": record.number, "model": model, "error": kind, "error_message": message, "generations": generations}
    return {**record.fields, **own}


def decode(row: Mapping[str, object]) -> Result[tuple[Record, int], str]:
    """Read an output row for a journal: its record, and the number of its texts.

    >>> decode({"user": "Hi", "generations": [{"text": "Hello", "error": ""}]}).map(lambda found: found[1])
    <Success: 1>
    """
    generations = row.get("generations")
    if not _is_list(generations):
        return Failure('it has no "generations"')
    texts = sum(_is_object(each) and bool(each.get("text")) and not each.get("error") for each in generations)
    fields = {name: value for name, value in row.items() if name not in _RESERVED}
    written = json.dumps(fields, ensure_ascii=False)
    return Success((Record(0, fields, written, Failure(BadRow("invalid_row", "it is an output row"))), texts))


def error_of(record: Record, answer: RowResult[str]) -> tuple[str, str] | None:
    """Return the kind and the message of a row that failed, or of one without any text; else None."""
    if isinstance(record.prompt, Failure):
        bad = record.prompt.failure()
        return bad.kind, bad.message
    if isinstance(answer, Failure):
        error = answer.failure()
        return error_kind(error), explain(error)
    for generation in answer.unwrap():
        if not _has_text(generation.completion) and isinstance(generation.parsed, Failure):
            error = generation.parsed.failure()
            return error_kind(error), explain(error)
    return None


def is_answered(answer: RowResult[str]) -> bool:
    """Return True if a completion has text and no error."""
    return any(map(_has_text, completions_of(answer)))


def completions_of(answer: RowResult[str]) -> tuple[Completion, ...]:
    """Return all completions that came, those before a failure too."""
    if isinstance(answer, Success):
        return tuple(generation.completion for generation in answer.unwrap())
    match answer.failure():
        case Raised(completions=came) | RequestFailed(completions=came) | WrongCount(completions=came):
            return came
        case _:
            return ()


def usage_of(answer: RowResult[str]) -> tuple[int, int] | None:
    """Return the prompt and completion tokens of a row, failed requests included; None if the server counted none."""
    usages = [completion.usage for completion in completions_of(answer)]
    match answer:
        case Failure(RequestFailed(usage=spent)):
            usages.append(spent)
        case _:
            pass
    counted = [usage for usage in usages if usage is not None]
    if not counted:
        return None
    return sum(usage.prompt_tokens or 0 for usage in counted), sum(usage.completion_tokens or 0 for usage in counted)


def _has_text(completion: Completion) -> bool:
    return bool(completion.text) and completion.error is None


def _generation(completion: Completion) -> Fields:
    usage = completion.usage or Usage()
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in completion.tool_calls]
    return {
        "text": completion.text,
        "reasoning": completion.reasoning or "",
        "finish_reason": completion.finish_reason or "",
        "refusal": completion.refusal or "",
        "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else "",
        "logprobs": _logprobs(completion.logprobs),
        "served_model": completion.served_model or "",
        "error": completion.error or "",
        "prompt_tokens": usage.prompt_tokens or 0,
        "completion_tokens": usage.completion_tokens or 0,
        "cached_tokens": usage.cached_tokens or 0,
        "reasoning_tokens": usage.reasoning_tokens or 0,
    }


def _logprobs(tokens: tuple[TokenLogprob, ...] | None) -> str:
    if tokens is None:
        return ""
    listed = [{**_logprob(each), "top_logprobs": [_logprob(top) for top in each.top_logprobs]} for each in tokens]
    return json.dumps(listed, ensure_ascii=False)


def _logprob(token: TokenLogprob) -> Fields:
    return {"token": token.token, "logprob": _NEVER if token.logprob == -math.inf else token.logprob}


def _rename_reserved(fields: Fields) -> Fields:
    """Keep input fields that have the name of an output field as `input_NAME`."""
    renamed: Fields = {}
    for name, value in fields.items():
        free = f"input_{name}" if name in _RESERVED else name
        while free != name and free in fields:
            free = f"input_{free}"
        renamed[free] = value
    return renamed


def _split_generations(parsed: Result[Fields, BadRow]) -> list[Result[Fields, BadRow]]:
    """Make a record of each generation with text of an answers file: its input fields, text, generation, source_row."""
    if isinstance(parsed, Failure):
        return [parsed]
    fields = parsed.unwrap()
    generations = fields.get("generations")
    if not _is_list(generations):
        return [_bad('--each-generation needs rows with "generations"')]
    inputs = {name: value for name, value in fields.items() if name not in _RESERVED}
    records: list[Result[Fields, BadRow]] = []
    for number, each in enumerate(generations, 1):
        if _is_object(each) and each.get("text") and not each.get("error"):
            own = {"text": each["text"], "generation": number, "source_row": fields.get("row")}
            records.append(Success({**inputs, **own}))
    return records


def _parse_object(raw: bytes) -> Result[Fields, BadRow]:
    try:
        value = _parse_json(raw)
    except UnicodeDecodeError as error:
        return _bad(f"byte {error.start} ({raw[error.start : error.start + 4]!r}) is not UTF-8")
    except ValueError as error:
        return _bad(f"not JSON: {error}")
    except RecursionError:
        return _bad("lists and objects are nested too deep")
    return Success(value) if _is_object(value) else _bad(f"it is {_json_type(value)}, not an object")


def _parse_json(raw: bytes) -> object:
    """Return a JSON value that can be written again; raise ValueError or RecursionError for any other text."""
    if len(raw) > MAX_LINE:
        raise ValueError(f"the line is longer than {MAX_LINE:,} bytes")
    value: object = json.loads(raw.decode())
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)  # refuses NaN, 1e999 and what is nested too deep
    # Written rows hold U+FFFD in place of a lone surrogate, which only an escape can bring here.
    return json.loads(replace_surrogates(text)) if b"\\u" in raw else value


def _prompt(fields: Fields, where: PromptFields) -> Result[Prompt, BadRow]:
    """Make the prompt of a record: of the template, the field that was named, "messages", or "user"."""
    if where.template is None and where.user_field is None and "messages" in fields:
        prompt = _bad(_BOTH) if "user" in fields else _from_messages(fields["messages"])
    else:
        name = where.user_field or "user"
        user: Result[object, BadRow] = _field(name, fields)
        if where.template is not None:
            user = _fill(where.template, fields)
        if isinstance(user, Failure):
            return Failure(user.failure())
        prompt = _from_texts(name, user.unwrap(), fields)
    return prompt.map(lambda found: replace(found, system=where.system) if found.system is None else found)


_BOTH: Final = 'it has both "user" and "messages"; choose one with --user-field'


def _field(name: str, fields: Fields) -> Result[object, BadRow]:
    if name in fields:
        return Success(fields[name])
    names = f"its fields are {', '.join(map(json.dumps, fields))}" if fields else "it is empty"
    return Failure(BadRow("missing_field", f"it has no field {json.dumps(name)}; {names}"))


def _fill(template: str, fields: Fields) -> Result[str, BadRow]:
    """Replace each {field} by its value; {{ and }} are braces."""
    filled: list[str] = []
    for brace, name, text in re.findall(r"(\{\{|\}\})|\{([^{}]*)\}|([^{}]+|[{}])", template):
        if not name:
            filled.append(brace[:1] or text)
            continue
        value = _field(name, fields)
        if isinstance(value, Failure):
            return Failure(value.failure())
        match value.unwrap():
            case str(found):
                filled.append(found)
            case bool() | int() | float() as found:
                filled.append(json.dumps(found))
            case found:
                return _bad(f"{json.dumps(name)} is {_json_type(found)}, not text or a number")
    return Success("".join(filled))


def _from_messages(value: object) -> Result[Prompt, BadRow]:
    if not _is_list(value):
        return _bad(f'"messages" is {_json_type(value)}, not a list')
    messages = [each for each in value if _is_object(each)]
    if len(messages) < len(value):
        return _bad('"messages" holds something that is not a message object')
    return Prompt.from_messages(messages).alt(_bad_messages)


def _bad_messages(error: NotParsed) -> BadRow:
    where = "" if error.index is None else f" at {error.index}"
    return BadRow("invalid_row", f'"messages" is not a conversation{where}: {error.reason}')


def _from_texts(name: str, user: object, fields: Fields) -> Result[Prompt, BadRow]:
    system, history = fields.get("system"), _history(fields.get("history"))
    if not isinstance(user, str):
        return _bad(f"{json.dumps(name)} is {_json_type(user)}, not text")
    if not isinstance(system, str | None):
        return _bad(f'"system" is {_json_type(system)}, not text')
    if history is None:
        return _bad('"history" is not a list of [user, assistant] pairs of texts')
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


def _bad(message: str) -> Failure[BadRow]:
    return Failure(BadRow("invalid_row", message))


def _is_object(value: object) -> TypeIs[Fields]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeIs[list[object]]:
    return isinstance(value, list)


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
