"""What a run has come to, in figures, and how they are shown to people: a line while it goes on, a table at its end.

Pure but for `Meter`, to which the threads of a run add. All text is ASCII and without colour, so that it reads alike in
any terminal, in a file and in any locale; nothing is written here.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, TypeVar, final

from returns.result import Result

from distgen.backends.generate import Batch, Generate, Row
from distgen.completion import Completion

_P = TypeVar("_P")

_STEPS = 64  # latencies are counted in classes, 64 to each doubling: about 1 % wide
_SHOWN: Final = (50, 90, 99)


@final
@dataclass(frozen=True, slots=True)
class Figures:
    """`rows` were written, by the type of their failure, "" for answered ones; `kept` stayed of an earlier run.

    `calls` were made and `seconds` went by; `latencies` counts the calls by class; `looked_at` are lines of the input.
    """

    rows: Mapping[str, int]
    seconds: float
    kept: int = 0
    kept_failures: int = 0
    calls: int = 0
    latencies: Mapping[int, int] = field(default_factory=dict[int, int])
    prompt_tokens: int = 0
    completion_tokens: int = 0
    looked_at: int = 0

    @property
    def tokens(self) -> int:
        """Of prompts and completions together, which is what is paid for."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def written(self) -> int:
        """Rows of this run."""
        return sum(self.rows.values())

    @property
    def failed(self) -> int:
        """Rows in the output that are failures, kept ones too."""
        return self.written - self.rows.get("", 0) + self.kept_failures


@final
class Meter:
    """Counts what a run does; its calls may come from any thread."""

    __slots__ = ("_calls", "_kept", "_latencies", "_lock", "_looked_at", "_rows", "_started")

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        self._lock = Lock()
        self._started = time.monotonic()
        self._rows: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._latencies: Counter[int] = Counter()
        self._looked_at = 0

    def looked(self) -> None:
        """A line of the input was read, to be asked or to stay."""
        self._looked_at += 1

    def wrote(self, failure: str) -> int:
        """A row was written: "" for an answered one, or the type of its failure. Gives the failures of this run so far."""
        self._rows[failure] += 1
        return self._rows.total() - self._rows[""]

    def kept(self, rows: int, failed: int) -> None:
        """Rows of an earlier run stay."""
        self._kept.update(rows=rows, failed=failed)

    def called(self, seconds: float, answer: Batch) -> None:
        """A call was answered."""
        said = [completion for row in answer for completion in _completions(row)]
        usages = [completion.usage for completion in said if completion.usage]
        with self._lock:
            self._latencies[round(math.log2(max(seconds, 1e-6)) * _STEPS)] += 1
            self._calls.update(
                prompt=sum(usage.prompt_tokens for usage in usages),
                completion=sum(usage.completion_tokens for usage in usages),
                uncounted=int(bool(said) and not usages),
                all=1,
            )

    @property
    def tokens(self) -> int:
        """Of prompts and completions together, until now."""
        return self._calls["prompt"] + self._calls["completion"]

    @property
    def uncounted(self) -> int:
        """Calls of which the server told no tokens."""
        return self._calls["uncounted"]

    def figures(self) -> Figures:
        """All that was counted until now."""
        with self._lock:
            calls, latencies = Counter(self._calls), Counter(self._latencies)
        return Figures(
            rows=dict(self._rows),
            seconds=time.monotonic() - self._started,
            kept=self._kept["rows"],
            kept_failures=self._kept["failed"],
            calls=calls["all"],
            latencies=latencies,
            prompt_tokens=calls["prompt"],
            completion_tokens=calls["completion"],
            looked_at=self._looked_at,
        )


def metered(backend: Generate[_P, Batch], meter: Meter) -> Generate[_P, Batch]:
    """The same backend, its calls timed and its tokens counted.

    >>> from distgen.backends.generate import each
    >>> meter = Meter()
    >>> _ = metered(each(str.upper), meter)(["a"], 2)
    >>> meter.figures().calls
    1
    """

    def ask(prompts: Sequence[_P], num_generations: int) -> Batch:
        start = time.monotonic()
        answer = backend(prompts, num_generations)
        meter.called(time.monotonic() - start, answer)
        return answer

    return ask


def _completions(row: Row) -> Sequence[Completion]:
    return row.value_or(()) if isinstance(row, Result) else row


def status(figures: Figures, total: int | None, columns: int) -> str:
    """One line, at most so many columns wide, of a run over `total` rows; None where nobody knows how many.

    >>> status(Figures({"": 900, "TimedOut": 100}, 10.0, prompt_tokens=7000), 4000, 79)
    '1,000/4,000 rows, 100.0 rows/s, 0:30 left, 7,000 tokens, 100 failed (TimedO...'
    """
    asked = max(figures.written, figures.calls)
    done, rate = figures.kept + asked, asked / max(figures.seconds, 1e-3)
    if not done and figures.looked_at:  # a long file is resumed
        return f"{figures.looked_at:,} rows looked at, none to ask yet"[:columns]
    parts = [f"{done:,} rows" if total is None else f"{done:,}/{total:,} rows", f"{rate:,.1f} rows/s"]
    if total is not None and rate:
        parts.append(f"{_clock((total - done) / rate)} left")
    if figures.tokens:
        parts.append(f"{figures.tokens:,} tokens")
    line = ", ".join([*parts, _failures(figures)])
    return line if len(line) <= columns else f"{line[: columns - 3]}..."


def summary(figures: Figures) -> str:
    """The outcome in one line.

    >>> summary(Figures({"": 8, "TimedOut": 2}, 1.0, kept=5))
    '15 rows: 13 answered (5 before), 2 failed (TimedOut 2)'
    """
    total = figures.kept + figures.written
    before = f" ({figures.kept - figures.kept_failures:,} before)" if figures.kept else ""
    return f"{total:,} rows: {total - figures.failed:,} answered{before}, {_failures(figures)}"


def table(figures: Figures) -> Iterator[str]:
    """Lines of at most 80 columns: failures by type, tokens, throughput, latency.

    >>> latencies = {0: 98, 64: 1, 128: 1}
    >>> figures = Figures({"": 97, "TimedOut": 3}, 10.0, calls=100, latencies=latencies, completion_tokens=500)
    >>> print(*table(figures), sep="\\n")
      failed      3  TimedOut
      tokens      0  of prompts
                500  of completions, 50.0 a second
      rate     10.0  rows a second, for 0:10
      latency 1.000  seconds of half of the 100 calls, retries included
              1.000  of 90 %
              2.000  of 99 %
    """
    lines = [("failed", f"{count:,}", name) for name, count in _by_type(figures)]
    seconds = max(figures.seconds, 1e-3)
    if figures.tokens:
        lines.append(("tokens", f"{figures.prompt_tokens:,}", "of prompts"))
        a_second = f"{figures.completion_tokens / seconds:,.1f} a second"
        lines.append(("", f"{figures.completion_tokens:,}", f"of completions, {a_second}"))
    lines.append(("rate", f"{figures.written / seconds:,.1f}", f"rows a second, for {_clock(figures.seconds)}"))
    if figures.calls:
        median, *others = (f"{percentile(figures, percent):.3f}" for percent in _SHOWN)
        lines.append(("latency", median, f"seconds of half of the {figures.calls:,} calls, retries included"))
        lines += [("", value, f"of {percent} %") for value, percent in zip(others, _SHOWN[1:], strict=True)]
    width = max(5, *(len(number) for _, number, _ in lines))
    names = [name if index == 0 or name != lines[index - 1][0] else "" for index, (name, _, _) in enumerate(lines)]
    for name, (_, number, what) in zip(names, lines, strict=True):
        yield f"  {name:8}{number:>{width}}  {what}"[:80]


def percentile(figures: Figures, percent: float) -> float:
    """The latency, in seconds and to 1 %, that so many percent of the calls did not exceed.

    >>> percentile(Figures({}, 1.0, calls=3, latencies={0: 2, 64: 1}), 99)
    2.0
    """
    ahead = math.ceil(figures.calls * percent / 100)
    for step, count in sorted(figures.latencies.items()):
        ahead -= count
        if ahead <= 0:
            return float(2 ** (step / _STEPS))
    return math.nan


def _failures(figures: Figures) -> str:
    by_type = ", ".join(f"{name} {count:,}" for name, count in _by_type(figures))
    return f"{figures.failed:,} failed{f' ({by_type})' if by_type else ''}"


def _by_type(figures: Figures) -> list[tuple[str, int]]:
    """The types of failures, the most frequent first."""
    counts = Counter({name: count for name, count in figures.rows.items() if name})
    counts.update({"kept from before": figures.kept_failures} if figures.kept_failures else {})
    return counts.most_common()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
