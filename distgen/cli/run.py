"""The commands `run`, `render` and `formats`.

`run` answers each row of a file, shows its progress, and ends early if no other row can be answered.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import islice, tee
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Final, Protocol, TypeAlias, final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from returns.result import Failure, Result, Success

from distgen import LLM, Asyncio, Batch, Messages, RowResult, Sequential, SupportsGenerate, Task, journal
from distgen.backends.echo import echo
from distgen.backends.retry import Retry
from distgen.cli import rows
from distgen.cli.options import Options, UsageError, add_flags
from distgen.completion import Completion, Usage
from distgen.errors import RequestFailed, explain
from distgen.formats import FORMATS, ChatMessages, ChatTemplate, Formatter, TextFormat, lookup, segment_if_needed
from distgen.llm import P

OK, SOME_FAILED, UNUSABLE, SPENT, INTERRUPTED = 0, 1, 2, 3, 130

_STOPPING: Final = b"\ndistgen: finishing the requests under way; press Ctrl-C to end at once\n"
_REDRAW, _LOG = 0.2, 30.0  # seconds between two lines of progress, on a terminal and in a log
# Source of the codes: xterm, "Control Sequences" (EL; DECAWM, so that the terminal cuts a line that is too long for it).
_ERASE, _DRAW = "\r\x1b[K", "\r\x1b[K\x1b[?7l{}\x1b[?7h"
_SETTINGS: Final = ("model", "format", "no_bos", "hf", "system", "user_field", "template")
_TASK: Final = Task[rows.Record, str](lambda record: record.prompt, Success)
Asks: TypeAlias = SupportsGenerate[rows.Record, str]
ServerLLM: TypeAlias = LLM[rows.Record, str, P, Awaitable[Batch]]
_Events: TypeAlias = Generator[Result[journal.RunEvent[rows.Record, str], journal.JournalError], None, None]


class _Use(Protocol):
    """A function of an LLM that asks a server, by messages or by texts. `add_latency` takes the seconds of each call."""

    def __call__(self, llm: ServerLLM[P], add_latency: Callable[[float], object], /) -> Asks: ...


@final
@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the rows of a run, and of what their answers took."""

    answered_before: int = 0
    rows: Counter[str] = field(default_factory=Counter[str])
    """Rows of this run by the kind of their failure; "" is for answered rows, "stopped" for rows that were not asked."""
    answers: Counter[str] = field(default_factory=Counter[str])
    tokens: Counter[str] = field(default_factory=Counter[str])
    fatal_rows: int = 0
    """Failures since the last answer that every other row would have too."""

    def add(self, kind: str, completions: Sequence[Completion], is_fatal: bool) -> Counts:
        """Return the counts with one more row; `kind` is the kind of its failure, or ""."""
        answers, tokens = Counter(self.answers), Counter(self.tokens)
        for completion in completions:
            usage = completion.usage or Usage()
            answers["cut at max_tokens"] += completion.finish_reason == "length"
            answers["without text"] += not completion.text and completion.error is None
            tokens["of prompts"] += usage.prompt_tokens or 0
            tokens["of completions"] += usage.completion_tokens or 0
        rows, fatal = self.rows + Counter([kind]), self.fatal_rows + is_fatal if kind else 0
        return Counts(self.answered_before, rows, +answers, +tokens, fatal)  # + leaves out what is 0


def progress_line(counts: Counts, total: int | None, seconds: float) -> str:
    """Describe a run after some seconds; `total` is its number of rows, or None if unknown.

    >>> counts = Counts(rows=Counter({"": 900, "timeout": 100}))
    >>> progress_line(counts, 4000, 10.0)
    '1,000/4,000 rows, 100.0 rows/s, 0:00:30 left, 100 failed (timeout 100)'
    """
    done, rate = counts.answered_before + counts.rows.total(), counts.rows.total() / max(seconds, 1e-3)
    of = "" if total is None else f"/{total:,}"
    left = f"{timedelta(seconds=round(max(0, total - done) / rate))} left, " if total and rate else ""
    return f"{done:,}{of} rows, {rate:,.1f} rows/s, {left}{_failures(counts)}"


def summary(counts: Counts, seconds: float, latencies: Sequence[float]) -> Iterator[str]:
    """Yield the lines that describe a run that ended.

    >>> counts = Counts(answered_before=5, rows=Counter({"": 8, "timeout": 2}), tokens=Counter({"of prompts": 90}))
    >>> print(*summary(counts, 4.0, [0.5] * 10), sep="\\n")
    rows: 8 answered (and 5 before), 2 failed (timeout 2), in 0:00:04
    tokens: 90 of prompts
    latency: p50 0.50 s, p90 0.50 s (retries included)
    """
    before = f" (and {counts.answered_before:,} before)" if counts.answered_before else ""
    yield f"rows: {counts.rows['']:,} answered{before}, {_failures(counts)}, in {timedelta(seconds=round(seconds))}"
    for name, counter in (("answers", counts.answers), ("tokens", counts.tokens)):
        if counter:
            yield f"{name}: {', '.join(f'{count:,} {what}' for what, count in counter.items())}"
    if latencies:
        p50, p90 = (sorted(latencies)[len(latencies) * share // 100] for share in (50, 90))
        yield f"latency: p50 {p50:.2f} s, p90 {p90:.2f} s (retries included)"


def _failures(counts: Counts) -> str:
    failed = {kind: count for kind, count in counts.rows.items() if kind not in ("", "stopped")}
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in failed.items())
    return f"{sum(failed.values()):,} failed{f' ({kinds})' if kinds else ''}"


def time_requests(llm: ServerLLM[P], add_latency: Callable[[float], object]) -> Asks:
    """Return the LLM with a backend that tells the seconds of each call, retries included."""

    async def ask(prompts: Sequence[P], num_generations: int) -> Batch:
        started = time.monotonic()
        answer = await llm.backend(prompts, num_generations)
        add_latency(time.monotonic() - started)
        return answer

    return replace(llm, backend=ask)


def run(options: Options, use: _Use = time_requests) -> int:
    """Answer each row of the input, write the answers, print a summary, and return the exit status."""
    if options.input != "-" and os.path.realpath(options.input) == os.path.realpath(options.output):
        raise UsageError("the output is the input; choose another output.")
    is_file = options.output != "-" and (Path(options.output).is_file() or not Path(options.output).exists())
    if options.resume and not is_file:
        raise UsageError(f"--resume needs a file, and {options.output} is not one; name one with --output.")
    started, stop, ctrl_c, latencies = time.monotonic(), Event(), Event(), deque[float](maxlen=100_000)
    try:
        llm = _build_llm(options, stop, use, latencies.append)
    except (ImportError, OSError, ValueError) as error:  # a library that is missing, or a wrong argument of the backend
        raise UsageError(add_flags(str(error))) from error
    with rows.open_lines(options.input) as lines, _listen_to_signals(stop, ctrl_c):
        records = islice(rows.parse_records(lines, options), options.limit)
        asked = iter(lambda: None if stop.is_set() else next(records, None), None)  # takewhile would drop a record
        events = _write_file(options, llm, asked, ctrl_c) if is_file else _write_pipe(options, llm, asked)
        with closing(events):
            counts, end = _count_rows(options, events, stop)
        if end and end[0] == SPENT and not counts.rows["stopped"] and next(records, None) is None:
            end = None  # no row is left to ask
    if end is None and ctrl_c.is_set():
        end = INTERRUPTED, "interrupted"
    if options.command != "batch write":
        print(*summary(counts, time.monotonic() - started, latencies), sep="\n", file=sys.stderr)
    if end is None:
        return SOME_FAILED if counts.rows.total() > counts.rows[""] else OK
    status, reason = end
    if is_file and status != UNUSABLE:
        rest = [argument for argument in options.arguments if argument not in ("--overwrite", "--resume")]
        reason += f"; to go on: {shlex.join(['distgen', *rest, '--resume'])}"
    print(f"distgen: {reason}", file=sys.stderr)
    return status


def _count_records(options: Options) -> int | None:
    """Count the lines of the input that are not blank; return None for an input that can be read only once."""
    if options.each_generation or not Path(options.input).is_file():
        return None
    with Path(options.input).open("rb") as source:
        return sum(1 for _ in islice(filter(bytes.strip, source), options.limit))


def _count_rows(options: Options, events: _Events, stop: Event) -> tuple[Counts, tuple[int, str] | None]:
    """Count the rows as they come, and show progress. To end the run early, set `stop` and return the status and the reason."""
    is_drawn = sys.stderr.isatty() and not (options.output == "-" and sys.stdout.isatty())
    erase, draw, pause = (_ERASE, _DRAW, _REDRAW) if is_drawn else ("", "distgen: {}\n", _LOG)
    counts, total, started = Counts(), _count_records(options), time.monotonic()
    end, due = None, started if is_drawn else started + pause
    for event in events:
        if isinstance(event, Failure):
            print(erase, end="", file=sys.stderr)
            raise UsageError(add_flags(event.failure().message))
        found = event.unwrap()
        if isinstance(found, journal.Opened):
            counts = Counts(answered_before=found.answered)
        else:
            kind, message = rows.error_of(found.answer)
            if kind not in ("", "stopped", *counts.rows):
                text = f"{kind}: {add_flags(message).removeprefix(f'{kind}: ')}"
                print(f"{erase}distgen: row {found.row}: {text}", file=sys.stderr)
            completions = rows.completions_of(found.answer, options.num_generations)
            counts = counts.add(kind, completions, _is_fatal(found.answer))
            end = end or _find_end(options, counts, kind, total)
        if end:
            stop.set()
        now = time.monotonic()
        if now >= due:
            due = now + pause
            print(draw.format(progress_line(counts, total, now - started)), end="", file=sys.stderr, flush=True)
    print(erase, end="", file=sys.stderr)
    return counts, end


def _is_fatal(answer: RowResult[str]) -> bool:
    """Return True for a failure that every other row would have too."""
    match answer:
        case Failure(RequestFailed(reason, status=status, code=code)):
            # Parts of the codes of services; their sources are in backends/retry.py.
            is_quota = any(word in (code or "").lower() for word in ("quota", "billing", "balance", "arrearage"))
            return is_quota or status in (401, 402, 403, 404) or (reason, code) == ("connection", "refused")
        case _:
            return rows.error_of(answer)[0] == "missing_field"


def _find_end(options: Options, counts: Counts, kind: str, total: int | None) -> tuple[int, str] | None:
    """Return the exit status and the reason, if nothing more is to be asked after a row with this kind of failure."""
    at_first = min(options.max_failures, options.concurrency, total or options.concurrency)
    if counts.fatal_rows >= (options.max_failures if counts.rows[""] else at_first):
        return (
            UNUSABLE,
            f"stopped: {counts.fatal_rows} consecutive rows failed ({kind}); mend the cause above and run again.",
        )
    budget, spent = options.max_total_tokens, counts.tokens.total()
    if budget and counts.rows[""] and not spent:
        return UNUSABLE, "the server does not count tokens, so --max-total-tokens cannot be kept; leave it out."
    if budget and spent >= budget:
        return SPENT, f"the budget of --max-total-tokens ({budget:,}) is spent"
    return None


def _write_file(options: Options, llm: Asks, records: Iterator[rows.Record], ctrl_c: Event) -> _Events:
    """Write the answers to a file as they come."""
    mode: journal.Mode = "overwrite" if options.overwrite else "resume" if options.resume else "new"
    settings, params = {name: getattr(options, name) for name in _SETTINGS}, dict([*options.param, *options.extra])
    write = partial(journal.run, llm, records, Path(options.output), partial(rows.encode, options), rows.decode, mode)
    return write(num_generations=options.num_generations, settings=settings, params=params, interrupted=ctrl_c.is_set)


def _write_pipe(options: Options, llm: Asks, records: Iterator[rows.Record]) -> _Events:
    """Write the answers to a pipe or a device, in the order of the input."""
    asked, kept = tee(records)
    with rows.open_output(options.output) as output:
        for answer, record in zip(llm.stream(asked, options.num_generations), kept, strict=False):
            if rows.error_of(answer)[0] != "stopped":
                line = journal.to_json_line(rows.encode(options, record, answer))
                print(line.decode(), end="", file=output, flush=True)
            yield Success(journal.RowDone(record.number, record, answer))


@contextmanager
def _listen_to_signals(stop: Event, ctrl_c: Event) -> Generator[None, None, None]:
    """Set both events at the first Ctrl-C or SIGTERM; a second signal, of either kind, raises KeyboardInterrupt."""
    # Only the main thread receives signals.
    numbers = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()

    def end_run(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
        ctrl_c.set()
        stop.set()
        os.write(2, _STOPPING)  # not print, which the signal may have interrupted

    with ExitStack() as stack:
        for number in numbers:
            stack.callback(signal.signal, number, signal.signal(number, end_run))
        yield


def find_format(options: Options) -> TextFormat | ChatMessages:
    """Return the format that the options name."""
    found = lookup(options.format)
    if isinstance(found, Failure):
        raise UsageError(add_flags(explain(found.failure())))
    format = found.unwrap()
    return replace(format, bos="") if options.no_bos and isinstance(format, ChatTemplate) else format


def _build_llm(options: Options, stop: Event, use: _Use, add_latency: Callable[[float], object]) -> Asks:
    """Return the LLM of the options; `use` makes it from one that asks a server."""
    format = find_format(options)
    if options.hf:
        return _load_model(options, format)
    if not options.base_url:
        print("distgen: no --base-url, so this is a rehearsal: each prompt is its own answer", file=sys.stderr)
        return LLM[rows.Record, str, str | Messages, Batch](_TASK, format, echo, Sequential(), options.model)
    from distgen.backends.server import Server, chat, completions

    url = urlsplit(options.base_url)
    proxy = None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)

    def ask(make: Callable[..., Server[P]], format: Formatter[P], **params: object) -> Asks:
        server = make(
            options.base_url,
            model=options.model,
            params={**params, **dict(options.param)},
            extra_body=dict(options.extra),
            timeout=options.timeout,
            retry=Retry(attempts=options.retries + 1),
            max_connections=options.concurrency,
            proxy=f"http://{proxy}" if proxy and "://" not in proxy else proxy,
            stop=stop,
        )
        return use(LLM(_TASK, format, server, Asyncio(options.concurrency), options.model), add_latency)

    if isinstance(format, ChatMessages):
        return ask(chat, format)
    return ask(completions, format, **({"stop": format.stop} if format.stop else {}))


def _load_model(options: Options, format: TextFormat | ChatMessages) -> Asks:
    from distgen.backends.hf import LocalModel, load

    if isinstance(format, ChatMessages):
        raise UsageError("--hf needs --format, the chat format of the model; `distgen formats` lists them.")
    make: Callable[..., LocalModel] = load
    model = make(options.hf, params={"stop": format.stop, **dict(options.param)}, options=dict(options.extra))
    print(f"distgen: running on {model.device} ({model.dtype})", file=sys.stderr)
    formatter = segment_if_needed(format, model.is_special_token, model.has_special_token)
    return LLM(_TASK, formatter, model, Sequential(), options.model, options.batch_size)


def render(options: Options) -> int:
    """Print what each row would send: the text, or the messages as JSON, and a line break."""
    format, status = find_format(options), OK
    with rows.open_lines(options.input) as lines, rows.open_output("-") as output:
        for record in islice(rows.parse_records(lines, options), options.limit):
            found = record.prompt if isinstance(record.prompt, Failure) else format(record.prompt.unwrap())
            if isinstance(found, Failure):
                status, (_, message) = SOME_FAILED, rows.error_of(Failure(found.failure()))
                print(f"row {record.number}: {message}", file=sys.stderr)
            else:
                sent = found.unwrap()
                print(f"row {record.number}:", file=sys.stderr)
                print(sent if isinstance(sent, str) else json.dumps(sent, ensure_ascii=False), file=output, flush=True)
    return status


def list_formats(_: Options) -> int:
    """Print the formats and the models that they are for."""
    with rows.open_output("-") as output:
        for name, format in FORMATS.items():
            models = "any, on a server" if isinstance(format, ChatMessages) else ", ".join(format.models)
            print(f"{name:22} {models}".rstrip(), file=output)
    return OK
