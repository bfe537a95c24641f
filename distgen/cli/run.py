"""The command `run`: answer each row of a file."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from array import array
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile, tee
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from returns.result import Failure, Result, Success

from distgen import journal
from distgen.cli.build import build_llm, to_flags
from distgen.cli.options import Options
from distgen.cli.progress import Counts, draw, progress_line, summary
from distgen.cli.records import Record, UsageError, open_lines, parse_records, read_lines
from distgen.cli.rows import decode, encode, error_of, is_answered, open_output
from distgen.errors import RequestFailed
from distgen.journal import JournalError, Opened, RunEvent, Written, to_json_line
from distgen.llm import RowResult, SupportsGenerate

OK, SOME_FAILED, UNUSABLE, SPENT, INTERRUPTED = 0, 1, 2, 3, 130

_STOPPING: Final = b"\ndistgen: finishing the requests under way; press Ctrl-C again to end at once\n"
_REDRAW, _LOG = 0.2, 30.0  # seconds between two lines of progress, on a terminal and in a log
_FATAL_STATUSES: Final = (401, 402, 403, 404)
_QUOTA_WORDS: Final = ("quota", "billing", "balance", "arrearage")  # in the codes of services, see backends/retry.py
_Events: TypeAlias = Generator[Result[RunEvent[Record, str], JournalError], None, None]


class _End(NamedTuple):
    """The reason why a run ends early, and its exit status."""

    status: int
    reason: str


class _Streak(NamedTuple):
    """Rows in a row that failed with the same kind, one that every other row will meet too."""

    kind: str = ""
    rows: int = 0


class _State(NamedTuple):
    """A run so far. `shown` are the kinds of failures that were shown, `message` is what is to be shown now."""

    counts: Counts = Counts()
    streak: _Streak = _Streak()
    shown: frozenset[str] = frozenset()
    end: _End | None = None
    message: str = ""


def run(options: Options) -> int:
    """Ask about each row of the input, write the answers and print what came of it."""
    started, stop, latencies = time.monotonic(), threading.Event(), array("d")
    llm = build_llm(options, stop, latencies.append)
    total = _count_records(options)
    with open_lines(options.input) as lines, _listen_to_interrupts(stop):
        records = islice(parse_records(lines, options.fields, options.each_generation), options.limit)
        asked = takewhile(lambda _: not stop.is_set(), records)
        with closing(_ask(options, llm, asked)) as events:
            counts, end = _watch(options, events, stop, total)
    if end is None and stop.is_set():
        end = _End(INTERRUPTED, "interrupted")
    for line in summary(counts, time.monotonic() - started, latencies):
        print(line, file=sys.stderr)
    if end is None:
        return SOME_FAILED if counts.failures else OK
    again = ""
    if options.output != "-" and end.status != UNUSABLE:
        rest = [argument for argument in options.arguments if argument not in ("--overwrite", "--resume")]
        again = f"; to go on: {shlex.join(['distgen', *rest, '--resume'])}"
    print(f"distgen: {end.reason.removesuffix('.')}{again or '.'}", file=sys.stderr)
    return end.status


def _count_records(options: Options) -> int | None:
    """Count the lines of the input that are not blank; None for what can be read only once."""
    if options.each_generation or not Path(options.input).is_file():
        return None
    with Path(options.input).open("rb") as source:
        return sum(1 for _ in islice((line for line in read_lines(source) if line.strip()), options.limit))


def _watch(options: Options, events: _Events, stop: threading.Event, total: int | None) -> tuple[Counts, _End | None]:
    """Count the rows as they come, show them, and set `stop` when the run is to end early."""
    is_drawn = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    is_drawn = is_drawn and not (options.output == "-" and sys.stdout.isatty())
    state, started = _State(), time.monotonic()
    drawn = started - _REDRAW if is_drawn else started
    for event in events:
        state = _follow(options, state, event)
        if state.message:
            if is_drawn:
                draw("")
            print(f"distgen: {state.message}", file=sys.stderr)
        if state.end:
            stop.set()
        now = time.monotonic()
        if now - drawn >= (_REDRAW if is_drawn else _LOG):
            drawn = now
            line = progress_line(state.counts, total, now - started)
            draw(line) if is_drawn else print(f"distgen: {line}", file=sys.stderr)
    if is_drawn:
        draw("")
    return state.counts, state.end or _end_of_failures(state)


def _follow(options: Options, state: _State, event: Result[RunEvent[Record, str], JournalError]) -> _State:
    """Return the state after an event; the first failure of each kind is its message."""
    if isinstance(event, Failure):
        return state._replace(message="", end=state.end or _End(UNUSABLE, to_flags(event.failure().message)))
    found = event.unwrap()
    if isinstance(found, Opened):
        return state._replace(message="", counts=replace(state.counts, answered_before=found.answered))
    counts, streak, shown, text = state.counts.add(found.input, found.answer), _Streak(), state.shown, ""
    if not is_answered(found.answer):
        kind, message = error_of(found.input, found.answer) or ("unknown", "")
        if kind not in shown:
            text = f"row {found.row}: {kind}: {to_flags(message).removesuffix('.')}."
            shown |= {kind}
        streak = state.streak
        if _is_fatal(kind, found.answer):
            streak = _Streak(kind, streak.rows + 1 if kind == streak.kind else 1)
    return _State(counts, streak, shown, state.end or _end(options, counts, streak), text)


def _is_fatal(kind: str, answer: RowResult[str]) -> bool:
    """Return True for a failure that every other row will meet too."""
    match answer:
        case Failure(RequestFailed("connection", message=message)):
            return message.startswith("ClientConnector")  # aiohttp: no connection was made; see backends/transport.py
        case Failure(RequestFailed(status=status, code=code)):
            return status in _FATAL_STATUSES or any(word in (code or "").lower() for word in _QUOTA_WORDS)
        case _:
            return kind == "missing_field"


def _end(options: Options, counts: Counts, streak: _Streak) -> _End | None:
    """Return why nothing more is to be asked, if so."""
    is_first = not counts.answered and streak.rows >= options.concurrency
    if is_first or streak.rows >= options.max_failures:
        return _End(UNUSABLE, f"{streak.rows} rows in a row failed with {streak.kind}, so the run ended")
    if options.max_total_tokens is None:
        return None
    if not counts.is_counted:
        return _End(UNUSABLE, "the server does not count tokens, so --max-total-tokens cannot be kept")
    if counts.tokens >= options.max_total_tokens:
        return _End(SPENT, f"{options.max_total_tokens:,} tokens are spent")
    return None


def _end_of_failures(state: _State) -> _End | None:
    """Return why a run of few rows has answered none of them, if all failed alike."""
    kind, rows = state.streak
    if not rows or rows < state.counts.rows or (kind == "missing_field" and state.counts.answered_before):
        return None
    return _End(UNUSABLE, f"every row failed with {kind}")


def _ask(options: Options, llm: SupportsGenerate[Record, str], records: Iterator[Record]) -> _Events:
    """Write the answers to a file as they come, or to a pipe or a device in the order of the input."""
    path = Path(options.output)
    to_row = partial(encode, options.model, options.num_generations)
    if options.output != "-" and (path.is_file() or not path.exists()):
        yield from journal.run(
            llm,
            records,
            path,
            to_row,
            decode,
            options.mode,
            num_generations=options.num_generations,
            settings=_settings(options),
            params={**options.params, **options.extra},
        )
        return
    if options.mode == "resume":
        raise UsageError(f"--resume needs a file, and {options.output} is not one.")
    asked, kept = tee(records)
    with open_output(options.output) as write:
        for answer, record in zip(llm.stream(asked, options.num_generations), kept, strict=False):
            if (error_of(record, answer) or ("",))[0] != "stopped":
                write(to_json_line(to_row(record, answer)).decode())
                yield Success(Written(record.number, record, answer))


def _settings(options: Options) -> Mapping[str, object]:
    """Return the options that must stay the same when a file is resumed."""
    return {
        "model": options.model,
        "format": options.format,
        "no_bos": options.no_bos,
        "hf": options.hf,
        "system": options.fields.system,
        "user_field": options.fields.user_field,
        "template": options.fields.template,
    }


@contextmanager
def _listen_to_interrupts(stop: threading.Event) -> Generator[None, None, None]:
    """Set `stop` at the first Ctrl-C; a second one raises KeyboardInterrupt."""

    def hear(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        stop.set()
        os.write(2, _STOPPING)  # not print, which it may have interrupted

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
