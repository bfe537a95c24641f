"""Counts of a run, shown as one line while it goes on and a few lines at its end. All text is ASCII, without colour."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Final, TextIO, TypeVar, final

from distgen.backends.generate import Batch, Generate
from distgen.cli.rows import Record, completions_of, error_of, is_answered, usage_of
from distgen.llm import RowResult

_P = TypeVar("_P")

_CLASSES: Final = 64  # classes of latency to each doubling: about 1 % wide
_REDRAW, _LOG = 0.2, 30.0  # seconds between two lines, on a terminal and in a log


@final
class RunStats:
    """Counts what a run does. Rows are counted by the thread that reads them, calls by any thread."""

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        self.started = time.monotonic()
        self.answered_before = 0
        self.answered = 0
        self.cut = 0
        self.without_text = 0
        self.failures: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.uncounted = 0
        self.latencies: Counter[int] = Counter()

    def count_row(self, record: Record, answer: RowResult[str]) -> None:
        """Count a row that was written."""
        completions = completions_of(answer)
        self.cut += sum(completion.finish_reason == "length" for completion in completions)
        self.without_text += sum(not completion.text for completion in completions)
        if is_answered(answer):
            self.answered += 1
        elif failed := error_of(record, answer):
            self.failures[failed[0]] += 1
        usage = usage_of(answer)
        self.uncounted += bool(completions) and usage is None
        prompt_tokens, completion_tokens = usage or (0, 0)
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def count_call(self, seconds: float) -> None:
        """Count a call of the backend."""
        self.latencies[round(math.log2(max(seconds, 1e-6)) * _CLASSES)] += 1

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def rows(self) -> int:
        """Rows of this run."""
        return self.answered + self.failures.total()

    def percentile(self, percent: int) -> float:
        """Return the latency in seconds, to 1 %, that so many percent of the calls did not exceed.

        >>> stats = RunStats()
        >>> for seconds in (1.0, 1.0, 2.0): stats.count_call(seconds)
        >>> stats.percentile(50), stats.percentile(90)
        (1.0, 2.0)
        """
        left = math.ceil(self.latencies.total() * percent / 100)
        for step, calls in sorted(self.latencies.items()):
            left -= calls
            if left <= 0:
                return float(2 ** (step / _CLASSES))
        return math.nan


def timed(backend: Generate[_P, Awaitable[Batch]], stats: RunStats) -> Generate[_P, Awaitable[Batch]]:
    """Return the same backend, its calls timed."""

    async def ask(prompts: Sequence[_P], num_generations: int) -> Batch:
        started = time.monotonic()
        answer = await backend(prompts, num_generations)
        stats.count_call(time.monotonic() - started)
        return answer

    return ask


def progress_line(stats: RunStats, total: int | None, seconds: float) -> str:
    """Describe a run over `total` rows, None if unknown, after so many seconds.

    >>> stats = RunStats()
    >>> stats.answered, stats.prompt_tokens, stats.failures = 900, 7000, Counter(timeout=100)
    >>> progress_line(stats, 4000, 10.0)
    '1,000/4,000 rows, 100.0 rows/s, 0:30 left, 7,000 tokens, 100 failed (timeout 100)'
    """
    done, rate = stats.answered_before + stats.rows, stats.rows / max(seconds, 1e-3)
    parts = [f"{done:,} rows" if total is None else f"{done:,}/{total:,} rows", f"{rate:,.1f} rows/s"]
    if total is not None and rate:
        parts.append(f"{_clock((total - done) / rate)} left")
    if stats.tokens:
        parts.append(f"{stats.tokens:,} tokens")
    if stats.failures:
        parts.append(_failures(stats))
    return ", ".join(parts)


def summary(stats: RunStats, seconds: float) -> Iterator[str]:
    """Describe a run that ended, in a few lines.

    >>> stats = RunStats()
    >>> stats.answered, stats.answered_before, stats.failures = 8, 5, Counter(timeout=2)
    >>> stats.prompt_tokens, stats.completion_tokens, stats.cut = 90, 400, 3
    >>> for _ in range(10): stats.count_call(0.5)
    >>> print(*summary(stats, 4.0), sep="\\n")
    8 rows answered (and 5 before), 2 failed (timeout 2), in 0:04
    3 answers cut at max_tokens
    tokens: 90 of prompts, 400 of completions
    latency p50 0.50 s, p90 0.50 s (10 calls, retries included)
    """
    before = f" (and {stats.answered_before:,} before)" if stats.answered_before else ""
    yield f"{stats.answered:,} rows answered{before}, {_failures(stats)}, in {_clock(seconds)}"
    cut = f"{stats.cut:,} answers cut at max_tokens" if stats.cut else ""
    empty = f"{stats.without_text:,} answers without text" if stats.without_text else ""
    if cut or empty:
        yield ", ".join(filter(None, (cut, empty)))
    if stats.tokens:
        yield f"tokens: {stats.prompt_tokens:,} of prompts, {stats.completion_tokens:,} of completions"
    if calls := stats.latencies.total():
        p50, p90 = stats.percentile(50), stats.percentile(90)
        yield f"latency p50 {p50:.2f} s, p90 {p90:.2f} s ({calls:,} calls, retries included)"


def _failures(stats: RunStats) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in stats.failures.most_common())
    return f"{stats.failures.total():,} failed{f' ({kinds})' if kinds else ''}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def show_progress(
    stats: RunStats, total: int | None, stderr: TextIO, redraw: bool
) -> Generator[Callable[[str], None], None, None]:
    """Show the progress on stderr: one line that is redrawn, or a line every half minute. Yield a function that logs."""
    erase, end = ("\r\x1b[K", "") if redraw else ("", "\n")
    ended, lock = Event(), Lock()

    def log(message: str) -> None:
        with lock:
            print(f"{erase}distgen: {message}", file=stderr, flush=True)

    def draw() -> None:
        while not ended.wait(_REDRAW if redraw else _LOG):
            line = progress_line(stats, total, time.monotonic() - stats.started)
            columns = _columns(stderr) if redraw else sys.maxsize
            with lock:
                print(
                    f"{erase}{line if len(line) < columns else f'{line[: columns - 4]}...'}",
                    file=stderr,
                    end=end,
                    flush=True,
                )

    thread = Thread(target=draw, name="distgen-progress", daemon=True)
    thread.start()
    try:
        yield log
    finally:
        ended.set()
        thread.join()
        print(erase, file=stderr, end="", flush=True)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # a terminal that does not know its width says 0
    except OSError:
        return 80
