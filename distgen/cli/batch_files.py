"""The commands `batch write` and `batch read`: request files for a batch service, and its results as rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, tee
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar, final

from returns.result import Failure

from distgen import batch, journal
from distgen.cli.options import Options, UsageError, add_flags
from distgen.cli.rows import NO_PROMPT, Record, decode, open_lines, parse_records
from distgen.cli.run import OK, Asks, ServerLLM, run, settings_of, usage_errors, with_server
from distgen.llm import RowResult

_P = TypeVar("_P")
_Row: TypeAlias = RowResult[str]

_STORED: Final = (
    *("format", "system", "user_field", "template", "each_generation", "no_bos", "limit"),
    *("base_url", "model", "num_generations", "param", "extra", "no_n"),
)


def write_batch(options: Options) -> int:
    """Write the requests of the rows, and beside the first file the settings with which their results are read."""
    first, n, number = Path(options.output), options.num_generations, 0
    takes_n, most = not options.no_n, options.max_lines
    if first.exists():
        raise UsageError(f"{first} already exists; choose another output.")
    with open_lines(options.input) as lines:
        records = _fill_gaps(_unanswered(options, islice(parse_records(lines, options), options.limit)))
        with usage_errors():
            files = with_server(options, lambda llm: batch.write(llm, records, n, takes_n=takes_n, max_lines=most))
        with Path(f"{first}.distgen.json").open("x", encoding="utf-8") as sidecar:
            json.dump({name: getattr(options, name) for name in _STORED}, sidecar)
        for number, requests in enumerate(files, 1):
            path = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
            with path.open("xb") as file:
                file.writelines(requests)
            print(f"distgen: wrote {path}", file=sys.stderr)
    if not number:
        raise UsageError("no row has a request; `distgen render` says why.")
    to = f"{options.unanswered_in} --resume" if options.unanswered_in else "ANSWERS.jsonl"
    again = f"distgen batch read {options.input} RESULTS.jsonl --requests {first} -o {to}"
    print(f"distgen: once the service has answered: {again}", file=sys.stderr)
    return OK


def _unanswered(options: Options, records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records that the answers file lacks, if one is named."""
    if not options.unanswered_in:
        yield from records
        return
    path, n, (settings, params) = Path(options.unanswered_in), options.num_generations, settings_of(options)
    if not path.is_file():
        raise UsageError(f"{path} is no file; without --unanswered-in all rows are written.")
    for found in journal.missing(records, path, decode, n, settings, params):
        if isinstance(found, Failure):
            raise UsageError(add_flags(found.failure().reason, found.failure().message))
        yield found.unwrap()


def _fill_gaps(records: Iterable[Record]) -> Iterator[Record]:
    """Yield each record at the place that it has in the input, since requests are numbered by their place."""
    place = 1
    for record in records:
        for number in range(place, record.number):
            yield Record(number, {}, "")
        yield record
        place = record.number + 1


def read_batch(options: Options) -> int:
    """Write the results as `run` writes answers, with the settings that the requests were written with."""
    path = Path(f"{options.requests}.distgen.json")
    if not path.is_file():
        raise UsageError(f"{path} is no file; --requests names the first file of `distgen batch write`.")
    stored = json.loads(path.read_text("utf-8"))
    # A row of a batch says nothing about the rows after it.
    options = replace(options, **stored, concurrency=sys.maxsize, max_failures=sys.maxsize)

    def read(llm: ServerLLM[_P]) -> Asks:
        return _Answers(llm, options)

    return run(options, lambda options, _, __: with_server(options, read))


@final
@dataclass(frozen=True)
class _Answers(Generic[_P]):
    """Answers records from result files, as an LLM does from a server."""

    llm: ServerLLM[_P]
    options: Options

    def generate(self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None) -> list[_Row]:
        return [*self.stream(inputs, num_generations)]

    def as_completed(
        self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None
    ) -> Iterator[tuple[int, _Row]]:
        return enumerate(self.stream(inputs, num_generations))

    def stream(self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None) -> Iterator[_Row]:
        records, kept = tee(_fill_gaps(inputs))
        takes_n = not self.options.no_n
        answers = batch.read(self.llm, records, _open_all(self.options.results), num_generations, takes_n=takes_n)
        return (answer for answer, record in zip(answers, kept, strict=False) if record.prompt is not NO_PROMPT)


def _open_all(names: Sequence[str]) -> Iterator[Iterator[bytes]]:
    for name in names:
        with open_lines(name) as lines:
            yield lines
