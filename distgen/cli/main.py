"""The entry of the command line: its commands and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from distgen.cli.batch_files import read_batch, write_batch
from distgen.cli.options import Options, UsageError, read_options
from distgen.cli.run import INTERRUPTED, OK, SOME_FAILED, UNUSABLE, build_llm, list_formats, render, run


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


_COMMANDS: Final[Mapping[str, Callable[[Options], int]]] = {
    "run": lambda options: run(options, build_llm),
    "render": render,
    "formats": list_formats,
    "batch write": write_batch,
    "batch read": read_batch,
}
