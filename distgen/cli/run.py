"""The command `run`: answer each row of a file."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, final

from returns.result import Failure, Result, Success

from distgen import journal
from distgen.cli.build import build_llm
from distgen.cli.files import count_records, open_lines, write_stdout
from distgen.cli.options import Options, UsageError
from distgen.cli.progress import RunStats, show_progress, summary
from distgen.cli.rows import Record, decode, encode, error_of, is_answered, parse_records
from distgen.errors import RequestFailed
from distgen.journal import JournalError, Opened, RunEvent, Written, to_json_line
from distgen.llm import RowResult, SupportsGenerate

OK, SOME_FAILED, UNUSABLE, SPENT, INTERRUPTED = 0, 1, 2, 3, 130

_STOPPING: Final = b"\ndistgen: finishing the requests under way; press Ctrl-C again to end at once\n"
_FATAL_STATUSES: Final = (401, 402, 403, 404)
_QUOTA_WORDS: Final = ("quota", "billing", "balance", "arrearage")  # in the codes of services, see backends/retry.py
_FLAGS: Final = {
    "status 401": "set the environment variable OPENAI_API_KEY",
    "status 404": "check --model, and --base-url, which usually ends in /v1",
    "status 429": "lower --concurrency",
    "timeout": "raise --timeout, or lower --param max_tokens=N",
    "connection": "check that the server is up, and --base-url",
    "redirect": "check --base-url",
    "not_json": "check --base-url",
    "too_long": "lower --param max_tokens=N",
    "no_text": "raise --param max_tokens=N if it is too low",
    "injected_token": "--format openai refuses no text",
    "missing_field": "--user-field NAME or --template names the fields",
}

_Events = Iterator[Result[RunEvent[Record, str], JournalError]]


def run(options: Options) -> int:
    """Ask about each row of the input, write the answers and print what came of it."""
    stats, stop = RunStats(), threading.Event()
    watch = _Watch(options, stats, stop)
    llm = build_llm(options, stats, stop)
    total = None if options.each_generation else count_records(options.input, options.limit)
    shows_rows = options.output == "-" and sys.stdout.isatty()
    redraw = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not shows_rows
    with open_lines(options.input) as lines, _listen_to_interrupts(watch.interrupt):
        if not (options.base_url or options.hf):
            print("distgen: no --base-url, so this is a rehearsal: each prompt is its own answer", file=sys.stderr)
        records = parse_records(lines, options.fields, options.each_generation)
        with (
            show_progress(stats, total, sys.stderr, redraw) as log,
            closing(_ask(options, llm, watch.take(records))) as events,
        ):
            for event in events:
                if isinstance(event, Failure):
                    watch.end(UNUSABLE, _explain(options, event.failure()))
                else:
                    watch.handle(event.unwrap(), log)
    for line in summary(stats, time.monotonic() - stats.started):
        print(line, file=sys.stderr)
    return watch.report()


@final
class _Watch:
    """Decides when a run ends, and keeps its exit status and the reason."""

    def __init__(self, options: Options, stats: RunStats, stop: threading.Event) -> None:
        self._options, self._stats, self._stop = options, stats, stop
        self._status, self._reason = OK, ""
        self._shown: set[str] = set()
        self._fatal_kind, self._fatal = "", 0

    def end(self, status: int, reason: str) -> None:
        """Ask nothing more; the first reason counts."""
        self._stop.set()
        if not self._reason:
            self._status, self._reason = status, reason

    def interrupt(self) -> None:
        """End the run after the requests under way."""
        self.end(INTERRUPTED, "interrupted")

    def take(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield records until the limit, a spent budget, or the end of the run."""
        budget = self._options.max_total_tokens
        for record in islice(records, self._options.limit):
            if budget is not None and self._stats.uncounted:
                self.end(UNUSABLE, "the server does not count tokens, so --max-total-tokens cannot be kept")
            elif budget is not None and self._stats.tokens >= budget:
                self.end(SPENT, f"{budget:,} tokens are spent")
            if self._stop.is_set():
                return
            yield record

    def handle(self, event: RunEvent[Record, str], log: Callable[[str], None]) -> None:
        """Count a row, and print the first failure of each kind."""
        if isinstance(event, Opened):
            self._stats.answered_before = event.answered
            return
        self._stats.count_row(event.input, event.answer)
        if is_answered(event.answer):
            self._fatal_kind, self._fatal = "", 0
            return
        kind, message = error_of(event.input, event.answer) or ("", "")
        if kind not in self._shown:
            self._shown.add(kind)
            hint = f" On the command line: {_FLAGS[kind]}." if kind in _FLAGS else ""
            log(f"row {event.row}: {kind}: {message.removesuffix('.')}.{hint}")
        if _is_fatal(kind, event.answer):
            self._count_fatal(kind)

    def _count_fatal(self, kind: str) -> None:
        self._fatal = self._fatal + 1 if kind == self._fatal_kind else 1
        self._fatal_kind = kind
        is_first = not self._stats.answered and self._fatal >= self._options.concurrency
        if is_first or self._fatal >= self._options.max_failures:
            self.end(UNUSABLE, f"{self._fatal} rows in a row failed with {kind}, so the run ended")

    def report(self) -> int:
        """Print why the run ended early, if it did, and return the exit status."""
        if self._reason:
            is_file = self._options.output != "-"
            again = f"; to go on: {_resume_command(self._options)}" if is_file and self._status != UNUSABLE else ""
            print(f"distgen: {self._reason.removesuffix('.')}{again or '.'}", file=sys.stderr)
            return self._status
        return SOME_FAILED if self._stats.failures else OK


def _is_fatal(kind: str, answer: RowResult[str]) -> bool:
    """Return True for a failure that every other row will meet too."""
    match answer:
        case Failure(RequestFailed(reason, status=status, code=code)):
            is_quota = any(word in (code or "").lower() for word in _QUOTA_WORDS)
            return reason == "connection" or status in _FATAL_STATUSES or is_quota
        case _:
            return kind == "missing_field"


def _explain(options: Options, error: JournalError) -> str:
    if error.reason == "exists":
        return f"{options.output} already exists; add --resume to go on with it, or --overwrite to delete it"
    return error.message


def _resume_command(options: Options) -> str:
    rest = [argument for argument in options.arguments if argument != "--overwrite"]
    return shlex.join(["distgen", *rest, *([] if "--resume" in rest else ["--resume"])])


def _ask(
    options: Options, llm: SupportsGenerate[Record, str], records: Iterable[Record]
) -> Generator[Result[RunEvent[Record, str], JournalError], None, None]:
    path = Path(options.output)
    encode_row = partial(encode, options.model, options.num_generations)
    if options.output != "-" and (path.is_file() or not path.exists()):
        yield from journal.run(
            llm,
            records,
            path,
            encode_row,
            decode,
            options.mode,
            num_generations=options.num_generations,
            settings=options.settings,
            params={**options.params, **options.extra},
        )
        return
    if options.mode == "resume":
        raise UsageError(f"--resume needs a file, and {options.output} is not one.")
    waiting: deque[Record] = deque()
    for answer in llm.stream(_remember(records, waiting), options.num_generations):
        record = waiting.popleft()
        if (error_of(record, answer) or ("",))[0] != "stopped":
            _write(options.output, to_json_line(encode_row(record, answer)))
            yield Success(Written(record.number, record, answer))


def _remember(records: Iterable[Record], waiting: deque[Record]) -> Iterator[Record]:
    for record in records:
        waiting.append(record)
        yield record


def _write(name: str, line: bytes) -> None:
    if name == "-":
        write_stdout(line)
        return
    with Path(name).open("ab", buffering=0) as pipe:
        pipe.write(line)


@contextmanager
def _listen_to_interrupts(interrupt: Callable[[], None]) -> Generator[None, None, None]:
    """Call `interrupt` at the first Ctrl-C; a second one raises KeyboardInterrupt."""

    def hear(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        interrupt()
        os.write(2, _STOPPING)  # not print, which it may have interrupted

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
