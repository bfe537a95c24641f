"""Rows of the command line: JSON Lines read as records, answers as output rows, and output rows read back.

A line that cannot be read fails alone.
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
from typing import Final, TextIO, TypeAlias, TypeGuard, final

from returns.result import Failure, Result, Success, safe

from distgen import Completion, Exchange, Prompt, RowResult, error_kind, explain
from distgen.backends.wire import is_array, is_object
from distgen.cli.options import Options, UsageError
from distgen.completion import TokenLogprob, Usage
from distgen.errors import BackendError, FormatError, Raised, RequestFailed
from distgen.journal import to_json_line

RESERVED: Final = ("row", "model", "error", "error_message", "generations")
"""Fields that an output row adds to those of its input."""

_PANDAS: Final = "python -c \"import pandas; pandas.read_{}('{}').to_json('rows.jsonl', orient='records', lines=True)\""

Fields: TypeAlias = dict[str, object]


@final
@dataclass(frozen=True, slots=True)
class Record:
    """An input record: its number, from 1, its fields, their JSON as it is written, and its prompt.

    Records are compared by the JSON of their fields: 1, 1.0 and true are different inputs.
    """

    number: int = field(compare=False)
    fields: Fields = field(compare=False)
    written: bytes
    prompt: Result[Prompt, FormatError] = field(compare=False)


@contextmanager
def open_lines(name: str) -> Generator[Iterator[bytes], None, None]:
    """Open the lines of a file, or of stdin for "-"; raise UsageError if it is not JSON Lines."""
    with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as source:
        first = next(source, b"")
        _check_kind(name, first)
        yield chain([first], source)


def _check_kind(name: str, first: bytes) -> None:
    # Sources: RFC 1952, 2.3.1 (gzip); Apache Parquet, "File format" (PAR1); RFC 2781, 3.2 (UTF-16).
    text = first.removeprefix(b"\xef\xbb\xbf").strip()  # a byte order mark
    if first.startswith(b"\x1f\x8b"):
        kind, convert = "gzip", f"gzip -dc {name} > rows.jsonl"
    elif first.startswith(b"PAR1"):
        kind, convert = "Parquet", _PANDAS.format("parquet", name)
    elif first.startswith((b"\xff\xfe", b"\xfe\xff")):
        kind, convert = "UTF-16", f"iconv -f UTF-16 -t UTF-8 {name} > rows.jsonl"
    elif text.startswith(b"["):
        kind, convert = "a JSON array", f"jq -c '.[]' {name} > rows.jsonl"
    elif name.lower().endswith((".csv", ".tsv")) or (b"," in text and not text.startswith(b"{")):
        kind, convert = "CSV", _PANDAS.format("csv", name)
    else:
        return
    raise UsageError(f"{name} is {kind}, not JSON Lines in UTF-8; convert it: {convert}")


def parse_records(lines: Iterable[bytes], options: Options) -> Iterator[Record]:
    """Read records lazily. Blank lines are skipped.

    >>> [record.prompt for record in parse_records([b'{"user": "Hi"}'], Options())]
    [<Success: Prompt(user='Hi', system=None, history=())>]
    """
    found = chain.from_iterable(_read_line(line, options) for line in filter(bytes.strip, lines))
    for number, (fields, prompt) in enumerate(found, 1):
        yield Record(number, fields, to_json_line(fields), prompt)


def _read_line(line: bytes, options: Options) -> Iterator[tuple[Fields, Result[Prompt, FormatError]]]:
    """Yield the records of a line: one, or one for each generation."""
    try:
        fields: object = json.loads(to_json_line(json.loads(line.strip())))  # the values that an output row will have
        if not is_object(fields):
            raise ValueError(f"it is {_json_type(fields)}, not an object")
        parts = _split_generations(fields) if options.each_generation else [fields]
    except (ValueError, RecursionError) as error:
        yield {}, Failure(Raised("invalid_row", f"not a JSON row: {error}", "prompt"))
        return
    for part in parts:
        yield _rename(part, RESERVED), _prompt(part, options)


def _split_row(row: Mapping[str, object]) -> tuple[Fields, list[Fields]]:
    """Return the input fields and the generations of an output row."""
    generations = row.get("generations")
    if not is_array(generations):
        raise ValueError('it has no "generations", as the rows of an answers file have')
    inputs = {name: value for name, value in row.items() if name not in RESERVED}
    return inputs, [each for each in generations if is_object(each)]


def _split_generations(row: Fields) -> list[Fields]:
    """Return a record for each generation with text: the input fields, text, generation, source_row."""
    inputs, generations = _split_row(row)
    renamed = _rename(inputs, ("text", "generation", "source_row"))
    return [
        {**renamed, "text": generation["text"], "generation": number, "source_row": row.get("row", 0)}
        for number, generation in enumerate(generations, 1)
        if _has_text(generation)
    ]


def _rename(fields: Fields, reserved: Sequence[str]) -> Fields:
    """Keep fields with a reserved name as `input_NAME`."""
    renamed: Fields = {}
    for name, value in fields.items():
        while name in reserved or name in renamed:
            name = f"input_{name}"
        renamed[name] = value
    return renamed


def _prompt(fields: Fields, options: Options) -> Result[Prompt, FormatError]:
    """Make the prompt of a record from --template, the field that --user-field names, "messages", or "user"."""
    try:
        if options.template is not None:
            prompt = _from_texts(_fill(options.template, fields), fields)
        elif options.user_field is None and "messages" in fields:
            prompt = _from_messages(fields)
        else:
            prompt = _from_texts(_text(options.user_field or "user", fields), fields)
    except LookupError as error:
        return Failure(Raised("missing_field", str(error), "prompt"))
    except ValueError as error:
        return Failure(Raised("invalid_row", str(error), "prompt"))
    return Success(prompt if prompt.system is not None else replace(prompt, system=options.system))


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
    return Prompt(user, None if system is None else _text("system", fields), tuple(exchanges))


def _text(name: str, fields: Fields, *, of_template: bool = False) -> str:
    """Return the text of a field, or raise why it has none; a template takes numbers and booleans too."""
    if name not in fields:
        names = f"its fields are {', '.join(map(json.dumps, fields))}" if fields else "it is empty"
        raise LookupError(f"it has no field {json.dumps(name)}; {names}; name another with --user-field or --template")
    value = fields[name]
    if of_template and isinstance(value, int | float):  # or a boolean
        return json.dumps(value)
    if not isinstance(value, str):
        hint = f"; --template '{{{name}}}' takes numbers" if isinstance(value, int | float) else ""
        raise ValueError(f"{json.dumps(name)} is {_json_type(value)}, not text{hint}")
    return value


def _fill(template: str, fields: Fields) -> str:
    """Replace each {field} by its value, and {{ and }} by single braces."""

    def fill(found: re.Match[str]) -> str:
        return found[0][0] if found[1] is None else _text(found[1], fields, of_template=True)

    return re.sub(r"\{\{|\}\}|\{([^{}]+)\}", fill, template)


def _has_text(generation: Fields) -> bool:
    """Return True if a generation of an output row has text and no error."""
    return bool(generation.get("text")) and not generation.get("error")


def _is_messages(value: object) -> TypeGuard[list[Fields]]:
    return isinstance(value, list)  # from_messages checks its items


def encode(options: Options, record: Record, answer: RowResult[str]) -> Fields:
    """Return the output row: the fields of the input, and the same keys for an answer and for a failure.

    >>> (record,) = parse_records([b'{"user": "Hi"}'], Options())
    >>> row = encode(Options(), record, Failure(RequestFailed("timeout", "no whole answer in 60 s")))
    >>> row["user"], row["row"], row["error"], len(row["generations"])
    ('Hi', 1, 'timeout', 1)
    """
    kind, message = error_of(answer)
    n = options.num_generations
    return {
        **record.fields,
        "row": record.number,
        "model": options.model,
        "error": kind,
        "error_message": message,
        "generations": [_generation(each) for each in completions_of(answer, n)[:n]],
    }


@safe
def decode(row: Mapping[str, object]) -> tuple[Record, int]:
    """Read an output row for a journal: its record, and the number of its texts.

    >>> decode({"user": "Hi", "generations": [{"text": "Hello", "error": ""}]}).map(lambda found: found[1])
    <Success: 1>
    """
    fields, generations = _split_row(row)
    return Record(0, fields, to_json_line(fields), Success(Prompt(""))), sum(map(_has_text, generations))


def error_of(answer: RowResult[str]) -> tuple[str, str]:
    """Return the kind and the message of a row's failure; two empty texts if a completion has text and no error."""
    if any(completion.text and completion.error is None for completion in completions_of(answer)):
        return "", ""
    error = answer.failure() if isinstance(answer, Failure) else answer.unwrap()[0].parsed.failure()
    if isinstance(error, Raised) and error.stage == "prompt":
        return error.kind, error.message
    return error_kind(error), explain(error)


def completions_of(answer: RowResult[str], num_generations: int = 0) -> list[Completion]:
    """Return the completions that came, also those before a failure, and for each missing one an empty one with the error.

    The first empty one has the tokens of the failed request.
    """
    if isinstance(answer, Success):
        return [generation.completion for generation in answer.unwrap()]
    error = answer.failure()
    completions = [*error.completions] if isinstance(error, BackendError) else []
    usage = error.usage if isinstance(error, RequestFailed) else None
    while len(completions) < num_generations:
        completions.append(Completion("", usage=usage, error=error_kind(error)))
        usage = None
    return completions


def _generation(completion: Completion) -> Fields:
    calls = [asdict(call) for call in completion.tool_calls]
    tokens = completion.logprobs or ()
    logprobs = [{**_logprob(token), "top_logprobs": [*map(_logprob, token.top_logprobs)]} for token in tokens]
    return {
        "text": completion.text,
        "reasoning": completion.reasoning or "",
        "finish_reason": completion.finish_reason or "",
        "refusal": completion.refusal or "",
        "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else "",
        "logprobs": json.dumps(logprobs, ensure_ascii=False) if logprobs else "",
        "served_model": completion.served_model or "",
        "error": completion.error or "",
        **{name: count or 0 for name, count in asdict(completion.usage or Usage()).items()},
    }


def _logprob(token: TokenLogprob) -> Fields:
    # JSON has no -Infinity. Source of -9999.0: OpenAI API reference, "The chat completion object": a very unlikely token.
    return {"token": token.token, "logprob": -9999.0 if token.logprob == -math.inf else token.logprob}


@contextmanager
def open_output(name: str) -> Generator[TextIO, None, None]:
    """Open a pipe or a device, or stdout for "-". Print with flush=True, so that each row is read at once."""
    print(end="", flush=True)  # what stdout has in its buffer comes first
    try:
        target = sys.stdout.fileno() if name == "-" else name
    except (AttributeError, OSError):  # stdout is captured
        yield sys.stdout
        return
    # Not sys.stdout: at exit it would write to a closed pipe again, and it may have another encoding.
    with open(target, "w", encoding="utf-8", newline="\n", closefd=name != "-") as file:
        yield file


def _json_type(value: object) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
