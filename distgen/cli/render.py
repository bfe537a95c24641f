"""The commands `render` and `formats`: the text of each prompt, and a table of formats."""

from __future__ import annotations

import json
import sys
from itertools import islice

from returns.result import Failure, Result

from distgen.cli.build import find_format
from distgen.cli.options import Options
from distgen.cli.records import BadRow, Record, open_lines, parse_records
from distgen.cli.rows import write_stdout
from distgen.errors import explain
from distgen.formats import FORMATS
from distgen.formats.messages import ChatMessages
from distgen.formats.registry import AnyFormat


def render(options: Options) -> int:
    """Print what each row would send: the text, or the messages as JSON, and a line break."""
    format, failed = find_format(options), 0
    with open_lines(options.input) as lines:
        for record in islice(parse_records(lines, options.fields, options.each_generation), options.limit):
            rendered = _render(format, record)
            if isinstance(rendered, Failure):
                failed += 1
                print(f"row {record.number}: {rendered.failure()}", file=sys.stderr, flush=True)
            else:
                print(f"row {record.number}:", file=sys.stderr, flush=True)
                write_stdout(f"{rendered.unwrap()}\n")
    return 1 if failed else 0


def _render(format: AnyFormat, record: Record) -> Result[str, str]:
    if isinstance(record.prompt, BadRow):
        return Failure(record.prompt.message)
    if isinstance(format, ChatMessages):
        return format(record.prompt).map(lambda messages: json.dumps(messages, ensure_ascii=False)).alt(explain)
    return format(record.prompt).alt(explain)


def list_formats() -> int:
    """Print the formats: name, what ends an answer, models."""
    write_stdout(f"{'name':22} {'stop':24} models\n")
    for name, format in FORMATS.items():
        if isinstance(format, ChatMessages):
            stop, models = "the server's", "any, on a server"
        else:
            stop, models = " ".join(format.stop), ", ".join(format.models)
        write_stdout(f"{name:22} {stop:24} {models}".rstrip() + "\n")
    return 0
