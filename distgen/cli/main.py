"""The entry of the command line: its commands and exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fileinput import FileInput
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, final

from distgen import batch
from distgen.cli import run
from distgen.cli.options import NO_SERVER, Options, UsageError, read_options
from distgen.cli.rows import Record
from distgen.llm import P, RowResult

_Row: TypeAlias = RowResult[str]


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
        return run.UNUSABLE
    except SystemExit:  # --help and --version, which are printed
        return run.OK
    except KeyboardInterrupt:
        print("\ndistgen: interrupted; rows already written are kept.", file=sys.stderr)
        return run.INTERRUPTED
    except BrokenPipeError:  # the reader of the output is gone, as after `head`
        return run.SOME_FAILED
    except OSError as error:
        print(f"distgen: {error.filename or 'cannot read or write'}: {error.strerror or error}.", file=sys.stderr)
        return run.UNUSABLE


@final
class _ByBatch(NamedTuple):
    """A `SupportsGenerate` over batch files. `answer` gets the records, their numbers, and the number of answers a row."""

    answer: Callable[[Iterable[Record], Iterator[int], int], Iterator[_Row]]

    def generate(self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None) -> list[_Row]:
        return [*self.stream(inputs, num_generations)]

    def stream(self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None) -> Iterator[_Row]:
        records, kept = tee(inputs)
        return self.answer(records, (record.number for record in kept), num_generations)

    def as_completed(
        self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None
    ) -> Iterator[tuple[int, _Row]]:
        return enumerate(self.stream(inputs, num_generations))


def _write_batch(options: Options) -> int:
    """Write requests for the rows that have no answer in the answers file, and store the settings of the batch beside it."""
    first, options = Path(options.output), replace(options, output=options.answers)

    def write(llm: run.ServerLLM[P], records: Iterable[Record], rows: Iterator[int], n: int) -> Iterator[_Row]:
        files = batch.write(llm, records, n, rows, takes_n=not options.no_n)
        for number, requests in enumerate(files, 1):
            path = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
            with path.open("xb") as file:
                file.writelines(requests)
            print(f"distgen: wrote {path}", file=sys.stderr)
        if not first.exists():
            raise UsageError("each row has an answer or no prompt, so there are no requests; see `distgen render`.")
        return iter(())

    return run.run(options, lambda llm, _: _ByBatch(partial(write, llm)))


def _read_batch(options: Options) -> int:
    """Write the results as `run` writes answers, with the settings that the requests were written with."""
    path = Path(f"{options.output}.distgen.json")
    if not path.is_file():
        raise UsageError(f"{path} is no file; `distgen batch write --answers {options.output}` writes it.")
    stored = json.loads(path.read_text("utf-8"))
    # A failed row of a batch says nothing about the rows after it, so failures do not end the reading.
    options = replace(options, base_url=NO_SERVER, concurrency=sys.maxsize, max_failures=sys.maxsize)
    options = replace(options, **stored["settings"], extra=[*stored["params"][-1].items()])

    def read(llm: run.ServerLLM[P], records: Iterable[Record], rows: Iterator[int], n: int) -> Iterator[_Row]:
        with FileInput(options.results, mode="rb") as lines:
            yield from batch.read(llm, records, [lines], n, rows)

    return run.run(options, lambda llm, _: _ByBatch(partial(read, llm)))


_COMMANDS: Final[Mapping[str, Callable[[Options], int]]] = {
    "run": run.run,
    "render": run.render,
    "formats": run.list_formats,
    "batch write": _write_batch,
    "batch read": _read_batch,
}
