"""Input of the command line: JSON Lines, read as records with a prompt each, or with the reason why there is none.

A line that cannot be used costs no other line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple, TypeAlias, final

from returns.result import Failure, Result, Success
from typing_extensions import TypeIs

from distgen.errors import NotParsed
from distgen.journal import replace_surrogates
from distgen.prompt import Exchange, Prompt

MAX_LINE: Final = 64 * 2**20
"""Bytes of a line, its line break included; a longer one has no prompt."""

RESERVED: Final = ("row", "model", "error", "error_message", "generations")
"""Names of our own fields in output rows."""

_PANDAS: Final = "python -c \"import pandas; pandas.read_{}('{}').to_json('rows.jsonl', orient='records', lines=True)\""
_JSON_TYPES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
}

Fields: TypeAlias = dict[str, object]


class UsageError(Exception):
    """One sentence that says why a command cannot begin or go on."""


@final
class BadRow(NamedTuple):
    """The reason why a record has no prompt."""

    kind: Literal["missing_field", "invalid_row"]
    message: str


@final
@dataclass(frozen=True, slots=True)
class Record:
    """An input record: its number, from 1, its fields as they are written, and its prompt.

    Records are compared by the JSON of their fields: 1, 1.0 and true are different inputs.
    """

    number: int = field(compare=False)
    fields: Fields = field(compare=False)
    written: str
    prompt: Prompt | BadRow = field(compare=False)


@final
@dataclass(frozen=True, slots=True)
class PromptFields:
    """The places of a prompt's texts in a record: the options of the command line that say so."""

    user_field: str | None = None
    system: str | None = None
    template: str | None = None


@contextmanager
def open_lines(name: str) -> Generator[Iterator[bytes], None, None]:
    """Open the lines of a file, or of stdin for "-"; raise UsageError if it is not JSON Lines."""
    try:
        source = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}.") from error
    try:
        lines = read_lines(source)
        first = next(lines, b"")
        _check_kind(name, first)
        yield chain([first] if first else [], lines)
    finally:
        if name != "-":
            source.close()


def read_lines(source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is longer than MAX_LINE, only that much and a byte more."""
    while line := source.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = source.readline(MAX_LINE + 1)


def _check_kind(name: str, first: bytes) -> None:
    # Sources: RFC 1952, 2.3.1 (gzip); Apache Parquet, "File format" (PAR1).
    text = first.removeprefix(b"\xef\xbb\xbf").strip()
    if first.startswith(b"\x1f\x8b"):
        kind, convert = "gzip", f"gzip -dc {name} > rows.jsonl"
    elif first.startswith(b"PAR1"):
        kind, convert = "Parquet", _PANDAS.format("parquet", name)
    elif text.startswith(b"["):
        kind, convert = "a JSON array", f"jq -c '.[]' {name} > rows.jsonl"
    elif name.lower().endswith((".csv", ".tsv")) or (b"," in text and not text.startswith(b"{")):
        kind, convert = "CSV", _PANDAS.format("csv", name)
    else:
        return
    raise UsageError(f"{name} is {kind}, not JSON Lines; convert it: {convert}")


def parse_records(lines: Iterable[bytes], where: PromptFields, each_generation: bool = False) -> Iterator[Record]:
    """Read records lazily. Blank lines are skipped.

    >>> [record.prompt for record in parse_records([b'{"user": "Hi"}', b'{"user": null}'], PromptFields())]
    [Prompt(user='Hi', system=None, history=()), BadRow(kind='invalid_row', message='"user" is null, not text')]
    """
    number = 0
    for index, line in enumerate(lines):
        raw = line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line
        if not raw.strip():
            continue
        parsed = _parse_object(raw.rstrip(b"\r\n"))
        for found in _split_generations(parsed) if each_generation else [parsed]:
            number += 1
            fields = {} if isinstance(found, BadRow) else _rename_reserved(found)
            prompt = found if isinstance(found, BadRow) else _prompt(found, where)
            yield Record(number, fields, json.dumps(fields, ensure_ascii=False), prompt)


def to_prompt(record: Record) -> Result[Prompt, NotParsed]:
    """Return the prompt of a record, for a Task."""
    if isinstance(record.prompt, BadRow):
        return Failure(NotParsed("JSON Lines", record.prompt.message))
    return Success(record.prompt)


def _parse_object(raw: bytes) -> Fields | BadRow:
    """Return a JSON object that can be written again."""
    if len(raw) > MAX_LINE:
        return BadRow("invalid_row", f"the line is longer than {MAX_LINE:,} bytes")
    try:
        value: object = json.loads(raw.decode())
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)  # refuses NaN, 1e999 and what is nested too deep
    except UnicodeDecodeError as error:
        return BadRow("invalid_row", f"byte {error.start} ({raw[error.start : error.start + 4]!r}) is not UTF-8")
    except ValueError as error:
        return BadRow("invalid_row", f"not JSON: {error}")
    except RecursionError:
        return BadRow("invalid_row", "lists and objects are nested too deep")
    if b"\\u" in raw:  # only an escape brings a lone surrogate here; written rows hold U+FFFD in its place
        value = json.loads(replace_surrogates(text))
    return value if is_object(value) else BadRow("invalid_row", f"it is {_json_type(value)}, not an object")


def _split_generations(fields: Fields | BadRow) -> list[Fields | BadRow]:
    """Make a record of each generation with text of an answers file: its input fields, text, generation, source_row."""
    if isinstance(fields, BadRow):
        return [fields]
    inputs: Fields = {name: value for name, value in fields.items() if name not in RESERVED}
    generations = fields.get("generations")
    if not is_list(generations):
        return [BadRow("invalid_row", '--each-generation needs rows with "generations"')]
    return [
        {**inputs, "text": each["text"], "generation": number, "source_row": fields.get("row")}
        for number, each in enumerate(generations, 1)
        if is_object(each) and has_text(each)
    ]


def _rename_reserved(fields: Fields) -> Fields:
    """Keep input fields that have the name of an output field as `input_NAME`."""
    renamed: Fields = {}
    for name, value in fields.items():
        free = f"input_{name}" if name in RESERVED else name
        while free != name and free in fields:
            free = f"input_{free}"
        renamed[free] = value
    return renamed


def _prompt(fields: Fields, where: PromptFields) -> Prompt | BadRow:
    """Make the prompt of a record: of the template, the field that was named, "messages", or "user"."""
    if where.template is None and where.user_field is None and "messages" in fields:
        if "user" in fields:
            return BadRow("invalid_row", 'it has both "user" and "messages"; choose one with --user-field')
        prompt = _from_messages(fields["messages"])
    else:
        name = where.user_field or "user"
        user = _field(name, fields) if where.template is None else _fill(where.template, fields)
        prompt = user if isinstance(user, BadRow) else _from_texts(name, user, fields)
    if isinstance(prompt, Prompt) and prompt.system is None:
        return replace(prompt, system=where.system)
    return prompt


def _from_messages(value: object) -> Prompt | BadRow:
    if not is_list(value):
        return BadRow("invalid_row", f'"messages" is {_json_type(value)}, not a list')
    messages = [each for each in value if is_object(each)]
    if len(messages) < len(value):
        return BadRow("invalid_row", '"messages" holds something that is not a message object')
    found = Prompt.from_messages(messages)
    return _bad_messages(found.failure()) if isinstance(found, Failure) else found.unwrap()


def _bad_messages(error: NotParsed) -> BadRow:
    where = "" if error.index is None else f" at {error.index}"
    return BadRow("invalid_row", f'"messages" is not a conversation{where}: {error.reason}')


def _from_texts(name: str, user: object, fields: Fields) -> Prompt | BadRow:
    system, exchanges = fields.get("system"), list[Exchange]()
    if not isinstance(user, str):
        return BadRow("invalid_row", f"{json.dumps(name)} is {_json_type(user)}, not text")
    if not isinstance(system, str | None):
        return BadRow("invalid_row", f'"system" is {_json_type(system)}, not text')
    history: object = fields.get("history") or list[object]()
    for pair in history if is_list(history) else [history]:
        match pair:
            case [str(asked), str(answered)]:
                exchanges.append(Exchange(asked, answered))
            case _:
                return BadRow("invalid_row", '"history" is not a list of [user, assistant] pairs of texts')
    return Prompt(user, system, tuple(exchanges))


def _field(name: str, fields: Fields) -> object | BadRow:
    if name in fields:
        return fields[name]
    names = f"its fields are {', '.join(map(json.dumps, fields))}" if fields else "it is empty"
    return BadRow(
        "missing_field", f"it has no field {json.dumps(name)}; {names}; --user-field or --template names another"
    )


def _fill(template: str, fields: Fields) -> str | BadRow:
    """Replace each {field} by its value; {{ and }} are braces."""
    filled: list[str] = []
    for brace, name, text in re.findall(r"(\{\{|\}\})|\{([^{}]+)\}|([^{}]+|[{}])", template):
        match _field(name, fields) if name else brace[:1] or text:
            case BadRow() as missing:
                return missing
            case str(value):
                filled.append(value)
            case bool() | int() | float() as value:
                filled.append(json.dumps(value))
            case value:
                return BadRow("invalid_row", f"{json.dumps(name)} is {_json_type(value)}, not text or a number")
    return "".join(filled)


def has_text(generation: Mapping[str, object]) -> bool:
    """Return True if a generation of an output row has text and no error."""
    return bool(generation.get("text")) and not generation.get("error")


def is_object(value: object) -> TypeIs[Fields]:
    """Return True for a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeIs[list[object]]:
    """Return True for a JSON list."""
    return isinstance(value, list)


def _json_type(value: object) -> str:
    return "null" if value is None else _JSON_TYPES.get(type(value), "an object")
