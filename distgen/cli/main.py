"""The entry of the command line: its commands and exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from returns.result import Failure, Result

from distgen.cli.options import Options, UsageError, read_options
from distgen.cli.rows import BadRow, Record, open_lines, open_output, parse_records
from distgen.cli.run import INTERRUPTED, OK, SOME_FAILED, UNUSABLE, build_llm, find_format, read_batch, run, write_batch
from distgen.errors import explain
from distgen.formats import FORMATS
from distgen.formats.messages import ChatMessages
from distgen.formats.registry import AnyFormat


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    >>> main(["--version"])  # doctest: +ELLIPSIS
    distgen ...
    0
    """
    try:
        options = read_options(sys.argv[1:] if arguments is None else arguments, os.environ)
        return _COMMANDS[options.command](options)
    except UsageError as error:
        print(f"distgen: {error}", file=sys.stderr)
        return UNUSABLE
    except SystemExit:  # --help and --version, which are printed
        return OK
    except KeyboardInterrupt:
        print("distgen: interrupted; rows already written are kept.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output is gone, as after `head`
        return SOME_FAILED
    except OSError as error:
        print(f"distgen: {error.filename or 'cannot read or write'}: {error.strerror or error}.", file=sys.stderr)
        return UNUSABLE


def _render(options: Options) -> int:
    """Print what each row would send: the text, or the messages as JSON, and a line break."""
    format, status = find_format(options), OK
    with open_lines(options.input) as lines, open_output("-") as output:
        for record in islice(parse_records(lines, options), options.limit):
            rendered = _render_record(format, record)
            if isinstance(rendered, Failure):
                status = SOME_FAILED
                print(f"row {record.number}: {rendered.failure()}", file=sys.stderr, flush=True)
            else:
                print(f"row {record.number}:", file=sys.stderr, flush=True)
                print(rendered.unwrap(), file=output, flush=True)
    return status


def _render_record(format: AnyFormat, record: Record) -> Result[str, str]:
    if isinstance(record.prompt, BadRow):
        return Failure(record.prompt.message)
    if isinstance(format, ChatMessages):
        return format(record.prompt).map(lambda messages: json.dumps(messages, ensure_ascii=False)).alt(explain)
    return format(record.prompt).alt(explain)


def _list_formats(_: Options) -> int:
    """Print the formats and the models that they are for."""
    with open_output("-") as output:
        for name, format in FORMATS.items():
            models = "any, on a server" if isinstance(format, ChatMessages) else ", ".join(format.models)
            print(f"{name:22} {models}".rstrip(), file=output)
    return OK


_COMMANDS: Final[Mapping[str, Callable[[Options], int]]] = {
    "run": lambda options: run(options, build_llm),
    "render": _render,
    "formats": _list_formats,
    "batch write": write_batch,
    "batch read": read_batch,
}
