"""The commands `render` and `formats`: what would be sent, and in which formats."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from itertools import islice

from returns.result import Failure, Result

from distgen.cli.build import find_format
from distgen.cli.files import open_lines, write_stdout
from distgen.cli.options import Options
from distgen.cli.rows import parse_records
from distgen.errors import FormatError, explain
from distgen.formats import FORMATS
from distgen.formats.messages import ChatMessages
from distgen.formats.registry import AnyFormat
from distgen.prompt import Prompt, Segment


def render(options: Options) -> int:
    """Print what each row would send: the text, or the messages as JSON, and a line break."""
    format, is_terminal = find_format(options), sys.stdout.isatty()
    failed = 0
    with open_lines(options.input) as lines:
        for record in islice(parse_records(lines, options.fields, options.each_generation), options.limit):
            if isinstance(record.prompt, Failure):
                failed += 1
                print(f"row {record.number}: {record.prompt.failure().message}", file=sys.stderr, flush=True)
                continue
            text = _render(format, record.prompt.unwrap(), is_terminal)
            failed += isinstance(text, Failure)
            why = f" {explain(text.failure())}" if isinstance(text, Failure) else ""
            print(f"row {record.number}:{why}", file=sys.stderr, flush=True)
            write_stdout(f"{text.unwrap()}\n".encode(errors="backslashreplace") if not why else b"")
    return 1 if failed else 0


def _render(format: AnyFormat, prompt: Prompt, is_terminal: bool) -> Result[str, FormatError]:
    if isinstance(format, ChatMessages):
        return format(prompt).map(lambda messages: json.dumps(messages, ensure_ascii=is_terminal))
    rendered = format(prompt)
    if isinstance(rendered, Failure) or not is_terminal:
        return rendered
    has_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"  # source: no-color.org
    return format.segments(prompt).map(lambda segments: "".join(_show(segment, has_colour) for segment in segments))


def _show(segment: Segment, has_colour: bool) -> str:
    """Colour the format's own literals, and escape control characters of texts, which a terminal would obey."""
    if segment.is_control:
        return f"\x1b[36m{segment.text}\x1b[0m" if has_colour else segment.text
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in segment.text)


def list_formats() -> int:
    """Print the formats: name, what ends an answer, models."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    print(f"{'name':23}{'stop':25}models")
    for name, format in FORMATS.items():
        if isinstance(format, ChatMessages):
            stop, models = "the server's", "any, on a server"
        else:
            stop, models = " ".join(format.stop), ", ".join(format.models)
        line = textwrap.fill(
            f"{name:22} {stop:24} {models}".rstrip(),
            width,
            subsequent_indent=" " * 23,
            break_long_words=False,
            break_on_hyphens=False,
        )
        write_stdout(f"{line}\n".encode())
    return 0
