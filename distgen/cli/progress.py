"""Counts of a run: one line while it goes on, and a summary of a few lines. All text is ASCII, without colour."""

from __future__ import annotations

import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import final

from distgen.cli.records import Record
from distgen.cli.rows import completions_of, error_of, is_answered, usages_of
from distgen.llm import RowResult


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of the rows of a run, and of what their answers took."""

    answered_before: int = 0
    answered: int = 0
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    cut: int = 0
    without_text: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_counted: bool = True
    """The server has counted the tokens of each row."""

    @property
    def rows(self) -> int:
        """Rows of this run."""
        return self.answered + sum(self.failures.values())

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions together."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, record: Record, answer: RowResult[str]) -> Counts:
        """Return the counts with one more row."""
        completions, usages, is_ok = completions_of(answer), usages_of(answer), is_answered(answer)
        failed = [] if is_ok else [(error_of(record, answer) or ("unknown",))[0]]
        return replace(
            self,
            answered=self.answered + is_ok,
            failures=Counter(self.failures) + Counter(failed) if failed else self.failures,
            cut=self.cut + sum(completion.finish_reason == "length" for completion in completions),
            without_text=self.without_text + sum(not completion.text for completion in completions),
            prompt_tokens=self.prompt_tokens + sum(usage.prompt_tokens or 0 for usage in usages),
            completion_tokens=self.completion_tokens + sum(usage.completion_tokens or 0 for usage in usages),
            is_counted=self.is_counted and (bool(usages) or not completions),
        )


def progress_line(counts: Counts, total: int | None, seconds: float) -> str:
    """Describe a run over `total` rows, None if unknown, after so many seconds.

    >>> counts = Counts(answered=900, prompt_tokens=7000, failures={"timeout": 100})
    >>> progress_line(counts, 4000, 10.0)
    '1,000/4,000 rows, 100.0 rows/s, 0:00:30 left, 7,000 tokens, 100 failed (timeout 100)'
    """
    done, rate = counts.answered_before + counts.rows, counts.rows / max(seconds, 1e-3)
    parts = [f"{done:,} rows" if total is None else f"{done:,}/{total:,} rows", f"{rate:,.1f} rows/s"]
    if total is not None and rate:
        parts.append(f"{_clock(max(0, total - done) / rate)} left")
    if counts.tokens:
        parts.append(f"{counts.tokens:,} tokens")
    if counts.failures:
        parts.append(_failures(counts))
    return ", ".join(parts)


def summary(counts: Counts, seconds: float, latencies: Sequence[float]) -> Iterator[str]:
    """Describe a run that ended, in a few lines.

    >>> counts = Counts(answered=8, answered_before=5, failures={"timeout": 2}, prompt_tokens=90, cut=3)
    >>> print(*summary(counts, 4.0, [0.5] * 10), sep="\\n")
    8 rows answered (and 5 before), 2 failed (timeout 2), in 0:00:04
    3 answers cut at max_tokens
    tokens: 90 of prompts, 0 of completions
    latency p50 0.50 s, p90 0.50 s (10 calls, retries included)
    """
    before = f" (and {counts.answered_before:,} before)" if counts.answered_before else ""
    yield f"{counts.answered:,} rows answered{before}, {_failures(counts)}, in {_clock(seconds)}"
    if counts.cut:
        yield f"{counts.cut:,} answers cut at max_tokens"
    if counts.without_text:
        yield f"{counts.without_text:,} answers without text"
    if counts.tokens:
        yield f"tokens: {counts.prompt_tokens:,} of prompts, {counts.completion_tokens:,} of completions"
    if latencies:
        p50, p90 = statistics.quantiles([*latencies, latencies[-1]], n=10, method="inclusive")[4::4]
        yield f"latency p50 {p50:.2f} s, p90 {p90:.2f} s ({len(latencies):,} calls, retries included)"


def draw(line: str) -> None:
    """Redraw the one line of progress on the terminal of stderr; "" erases it."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # a terminal that does not know its width says 0
    shown = line if len(line) < columns else f"{line[: columns - 4]}..."
    print(f"\r\x1b[K{shown}", file=sys.stderr, end="", flush=True)


def _failures(counts: Counts) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(counts.failures).most_common())
    return f"{sum(counts.failures.values()):,} failed{f' ({kinds})' if kinds else ''}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
