"""The entry of the command line: its commands and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from distgen.cli.options import PARSER, read_options
from distgen.cli.records import UsageError
from distgen.cli.render import list_formats, render
from distgen.cli.run import INTERRUPTED, OK, SOME_FAILED, UNUSABLE, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    >>> main(["formats"])  # doctest: +ELLIPSIS
    name ...
    0
    """
    try:
        options = read_options(sys.argv[1:] if arguments is None else arguments, os.environ)
        match options.command:
            case "run":
                return run(options)
            case "render":
                return render(options)
            case "formats":
                return list_formats()
            case _:
                PARSER.print_help()
                return OK
    except UsageError as error:
        print(f"distgen: {error}", file=sys.stderr)
        return UNUSABLE
    except SystemExit:  # --help and --version, which are printed
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output is gone, as after `head`
        return SOME_FAILED
    except OSError as error:
        print(f"distgen: cannot read or write: {error.strerror or error}.", file=sys.stderr)
        return UNUSABLE
