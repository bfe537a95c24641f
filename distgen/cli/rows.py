"""Rows of the command line: JSON Lines read as records, answers as output rows, and output rows read back.

A line that cannot be used costs no other line.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final, Literal, NamedTuple, TextIO, TypeAlias, TypeGuard, final

from returns.result import Failure, Result, Success

from distgen.backends.wire import is_array, is_object
from distgen.cli.options import Options, UsageError
from distgen.completion import Completion, TokenLogprob, Usage
from distgen.errors import BackendError, NotParsed, RequestFailed, error_kind, explain
from distgen.journal import replace_surrogates
from distgen.llm import RowResult
from distgen.prompt import Exchange, Prompt

RESERVED: Final = ("row", "model", "error", "error_message", "generations")
"""Names of our own fields in output rows."""

_BOM: Final = b"\xef\xbb\xbf"
_PANDAS: Final = "python -c \"import pandas; pandas.read_{}('{}').to_json('rows.jsonl', orient='records', lines=True)\""

Fields: TypeAlias = dict[str, object]


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


@contextmanager
def open_lines(name: str) -> Generator[Iterator[bytes], None, None]:
    """Open the lines of a file, or of stdin for "-"; raise UsageError if it is not JSON Lines."""
    with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as source:
        first = next(source, b"")
        _check_kind(name, first)
        yield chain([first], source)


def _check_kind(name: str, first: bytes) -> None:
    # Sources: RFC 1952, 2.3.1 (gzip); Apache Parquet, "File format" (PAR1).
    text = first.removeprefix(_BOM).strip()
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


def parse_records(lines: Iterable[bytes], options: Options) -> Iterator[Record]:
    """Read records lazily. Blank lines are skipped.

    >>> [record.prompt for record in parse_records([b'{"user": "Hi"}', b'{"user": null}'], Options())]
    [Prompt(user='Hi', system=None, history=()), BadRow(kind='invalid_row', message='"user" is null, not text')]
    """
    number = 0
    for index, line in enumerate(lines):
        raw = line.removeprefix(_BOM) if index == 0 else line
        if raw.strip():
            for fields, prompt in _read(raw.rstrip(b"\r\n"), options):
                number += 1
                yield Record(number, fields, json.dumps(fields, ensure_ascii=False), prompt)


def to_prompt(record: Record) -> Result[Prompt, NotParsed]:
    """Return the prompt of a record, for a Task."""
    if isinstance(record.prompt, BadRow):
        return Failure(NotParsed("JSON Lines", record.prompt.message))
    return Success(record.prompt)


def _read(raw: bytes, options: Options) -> Iterator[tuple[Fields, Prompt | BadRow]]:
    """Yield the records of a line: one, or one for each generation."""
    try:
        fields = _parse_object(raw)
        parts = _split_generations(fields) if options.each_generation else [fields]
    except (ValueError, RecursionError) as error:
        yield {}, BadRow("invalid_row", f"not a JSON row: {error}")
        return
    for part in parts:
        yield _rename(part, RESERVED), _prompt(part, options)


def _parse_object(raw: bytes) -> Fields:
    """Return a JSON object that can be written again."""
    value: object = json.loads(raw.decode())
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)  # refuses NaN, 1e999 and what is nested too deep
    if (clean := replace_surrogates(text)) != text:  # as output rows have it
        value = json.loads(clean)
    if not is_object(value):
        raise ValueError(f"it is {_json_type(value)}, not an object")
    return value


def _split_generations(fields: Fields) -> list[Fields]:
    """Make a record of each generation with text of an answers file: its input fields, text, generation, source_row."""
    own = {name: value for name, value in fields.items() if name not in RESERVED}
    inputs = _rename(own, ("text", "generation", "source_row"))
    generations = fields.get("generations")
    if not is_array(generations):
        raise ValueError('it has no "generations", which --each-generation reads')
    return [
        {**inputs, "text": each["text"], "generation": number, "source_row": fields.get("row", 0)}
        for number, each in enumerate(generations, 1)
        if is_object(each) and has_text(each)
    ]


def _rename(fields: Fields, reserved: Sequence[str]) -> Fields:
    """Keep fields with a reserved name as `input_NAME`."""
    renamed: Fields = {}
    for name, value in fields.items():
        free = name
        while free in reserved or free in renamed:
            free = f"input_{free}"
        renamed[free] = value
    return renamed


def _prompt(fields: Fields, options: Options) -> Prompt | BadRow:
    """Make the prompt of a record: of the template, the field that was named, "messages", or "user"."""
    try:
        if options.template is not None:
            prompt = _from_texts(_fill(options.template, fields), fields)
        elif options.user_field is None and "messages" in fields:
            prompt = _from_messages(fields)
        else:
            name = options.user_field or "user"
            prompt = _from_texts(_text(name, _field(name, fields)), fields)
    except LookupError as error:
        return BadRow("missing_field", str(error))
    except ValueError as error:
        return BadRow("invalid_row", str(error))
    return prompt if prompt.system is not None else replace(prompt, system=options.system)


def _from_messages(fields: Fields) -> Prompt:
    messages = fields["messages"]
    if "user" in fields:
        raise ValueError('it has both "user" and "messages"; choose one with --user-field')
    if not _is_messages(messages):
        raise ValueError(f'"messages" is {_json_type(messages)}, not an array')
    found = Prompt.from_messages(messages)
    if isinstance(found, Failure):
        error = found.failure()
        where = "" if error.index is None else f" at {error.index}"
        raise ValueError(f'"messages" is not a conversation{where}: {error.reason}')
    return found.unwrap()


def _from_texts(user: str, fields: Fields) -> Prompt:
    system, history = fields.get("system"), fields.get("history") or list[object]()
    exchanges: list[Exchange] = []
    for pair in history if is_array(history) else [history]:
        match pair:
            case [str(asked), str(answered)]:
                exchanges.append(Exchange(asked, answered))
            case _:
                raise ValueError('"history" is not a list of [user, assistant] pairs of texts')
    return Prompt(user, None if system is None else _text("system", system), tuple(exchanges))


def _field(name: str, fields: Fields) -> object:
    if name in fields:
        return fields[name]
    names = f"its fields are {', '.join(map(json.dumps, fields))}" if fields else "it is empty"
    message = f"it has no field {json.dumps(name)}; {names}; --user-field or --template names another"
    raise LookupError(message)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        hint = f"; --template '{{{name}}}' takes numbers" if isinstance(value, int | float) else ""
        raise ValueError(f"{json.dumps(name)} is {_json_type(value)}, not text{hint}")
    return value


def _fill(template: str, fields: Fields) -> str:
    """Replace each {field} by its value; {{ and }} are braces."""

    def fill(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        value = _field(found[1], fields)
        return json.dumps(value) if isinstance(value, bool | int | float) else _text(found[1], value)

    return re.sub(r"\{\{|\}\}|\{([^{}]+)\}", fill, template)


def has_text(generation: Mapping[str, object]) -> bool:
    """Return True if a generation of an output row has text and no error."""
    return bool(generation.get("text")) and not generation.get("error")


def _is_messages(value: object) -> TypeGuard[list[Fields]]:
    return isinstance(value, list)  # from_messages checks its items


# Source: OpenAI API reference, "The chat completion object": -9999.0 signifies that a token is very unlikely.
_NEVER: Final = -9999.0  # JSON has no -Infinity


def encode(options: Options, record: Record, answer: RowResult[str]) -> Fields:
    """Return the output row: the fields of the input, and the same keys for an answer and for a failure.

    >>> (record,) = parse_records([b'{"user": "Hi"}'], Options())
    >>> row = encode(Options(), record, Failure(RequestFailed("timeout", "no whole answer in 60 s")))
    >>> row["user"], row["row"], row["error"], len(row["generations"])
    ('Hi', 1, 'timeout', 1)
    """
    kind, message = error_of(record, answer)
    came = completions_of(answer)[: options.num_generations]
    lost = [Completion("", error=kind)] * (options.num_generations - len(came))
    if is_answered(answer):
        kind = message = ""
    return {
        **record.fields,
        "row": record.number,
        "model": options.model,
        "error": kind,
        "error_message": message,
        "generations": [_generation(completion) for completion in (*came, *lost)],
    }


def decode(row: Mapping[str, object]) -> Result[tuple[Record, int], str]:
    """Read an output row for a journal: its record, and the number of its texts.

    >>> decode({"user": "Hi", "generations": [{"text": "Hello", "error": ""}]}).map(lambda found: found[1])
    <Success: 1>
    """
    generations = row.get("generations")
    if not is_array(generations):
        return Failure('it has no "generations"')
    texts = sum(is_object(each) and has_text(each) for each in generations)
    fields = {name: value for name, value in row.items() if name not in RESERVED}
    written = json.dumps(fields, ensure_ascii=False)
    return Success((Record(0, fields, written, BadRow("invalid_row", "it is an output row")), texts))


def error_of(record: Record, answer: RowResult[str]) -> tuple[str, str]:
    """Return the kind and the message of the first failure in a row; two empty texts if there is none."""
    if isinstance(record.prompt, BadRow):
        return record.prompt
    if isinstance(answer, Failure):
        return error_kind(answer.failure()), explain(answer.failure())
    for generation in answer.unwrap():
        if isinstance(generation.parsed, Failure):
            return error_kind(generation.parsed.failure()), explain(generation.parsed.failure())
    return "", ""


def is_answered(answer: RowResult[str]) -> bool:
    """Return True if a completion has text and no error."""
    return any(completion.text and completion.error is None for completion in completions_of(answer))


def completions_of(answer: RowResult[str]) -> tuple[Completion, ...]:
    """Return all completions that came, those before a failure too."""
    if isinstance(answer, Success):
        return tuple(generation.completion for generation in answer.unwrap())
    error = answer.failure()
    return error.completions if isinstance(error, BackendError) else ()


def usages_of(answer: RowResult[str]) -> list[Usage]:
    """Return the tokens of a row as the server counted them, those of failed requests too."""
    usages = [completion.usage for completion in completions_of(answer)]
    if isinstance(answer, Failure) and isinstance(error := answer.failure(), RequestFailed):
        usages.append(error.usage)
    return [usage for usage in usages if usage is not None]


def _generation(completion: Completion) -> Fields:
    usage = completion.usage or Usage()
    calls = [asdict(call) for call in completion.tool_calls]
    tokens = completion.logprobs
    listed = [{**_logprob(each), "top_logprobs": [*map(_logprob, each.top_logprobs)]} for each in tokens or ()]
    return {
        "text": completion.text,
        "reasoning": completion.reasoning or "",
        "finish_reason": completion.finish_reason or "",
        "refusal": completion.refusal or "",
        "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else "",
        "logprobs": "" if tokens is None else json.dumps(listed, ensure_ascii=False),
        "served_model": completion.served_model or "",
        "error": completion.error or "",
        "prompt_tokens": usage.prompt_tokens or 0,
        "completion_tokens": usage.completion_tokens or 0,
        "cached_tokens": usage.cached_tokens or 0,
        "reasoning_tokens": usage.reasoning_tokens or 0,
    }


def _logprob(token: TokenLogprob) -> Fields:
    return {"token": token.token, "logprob": _NEVER if token.logprob == -math.inf else token.logprob}


@contextmanager
def open_output(name: str) -> Generator[TextIO, None, None]:
    """Open a pipe or a device, or stdout for "-"; print to it with flush=True."""
    target: int | str = name
    if name == "-":
        try:
            target = sys.stdout.fileno()
        except (AttributeError, OSError):  # captured
            yield sys.stdout
            return
        sys.stdout.flush()
    # sys.stdout itself would meet a closed pipe again at exit, and it may have another encoding.
    with open(target, "w", encoding="utf-8", newline="\n", closefd=name != "-") as file:
        yield file


def _json_type(value: object) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
