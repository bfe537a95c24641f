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
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import islice, takewhile, tee
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Final, Protocol, TypeAlias, TypeVar, final
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

_P = TypeVar("_P")
_T_co = TypeVar("_T_co", covariant=True)

OK, SOME_FAILED, UNUSABLE, SPENT, INTERRUPTED = 0, 1, 2, 3, 130

_STOPPING: Final = b"\ndistgen: finishing the requests under way; press Ctrl-C again to end at once\n"
_REDRAW, _LOG = 0.2, 30.0  # seconds between two lines of progress, on a terminal and in a log
_ERASE: Final = "\r\x1b[K"
_SETTINGS: Final = ("model", "format", "no_bos", "hf", "system", "user_field", "template")
_TASK: Final = Task[rows.Record, str](lambda record: record.prompt, Success)
Asks: TypeAlias = SupportsGenerate[rows.Record, str]
ServerLLM: TypeAlias = LLM[rows.Record, str, _P, Awaitable[Batch]]
MakeLLM: TypeAlias = Callable[[Options, Event, Callable[[float], object]], Asks]
_Events: TypeAlias = Generator[Result[journal.RunEvent[rows.Record, str], journal.JournalError], None, None]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of the rows of a run, and of what their answers took."""

    answered_before: int = 0
    rows: Counter[str] = field(default_factory=Counter[str])
    """Rows of this run by the kind of their failure; "" is for answered rows."""
    answers: Counter[str] = field(default_factory=Counter[str])
    tokens: Counter[str] = field(default_factory=Counter[str])
    fatal_rows: int = 0
    """Failures since the last answer that every other row would have too."""

    def add(self, kind: str, completions: Sequence[Completion], is_fatal: bool) -> Counts:
        """Return the counts with one more row; `kind` is the kind of its failure, or ""."""
        usages = [completion.usage or Usage() for completion in completions]
        cut = sum(completion.finish_reason == "length" for completion in completions)
        without_text = sum(not completion.text and completion.error is None for completion in completions)
        of_prompts = sum(usage.prompt_tokens or 0 for usage in usages)
        of_completions = sum(usage.completion_tokens or 0 for usage in usages)
        return Counts(
            answered_before=self.answered_before,
            rows=self.rows + Counter([kind]),
            answers=self.answers + Counter({"cut at max_tokens": cut, "without text": without_text}),
            tokens=self.tokens + Counter({"of prompts": of_prompts, "of completions": of_completions}),
            fatal_rows=self.fatal_rows + is_fatal if kind else 0,
        )


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
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.rows.items() if kind)
    return f"{counts.rows.total() - counts.rows['']:,} failed{f' ({kinds})' if kinds else ''}"


def run(options: Options, make_llm: MakeLLM) -> int:
    """Answer each row of the input, write the answers, print a summary, and return the exit status."""
    if options.input != "-" and os.path.realpath(options.input) == os.path.realpath(options.output):
        raise UsageError("the output is the input; choose another output.")
    started, stop, latencies = time.monotonic(), Event(), deque[float](maxlen=100_000)
    try:
        llm = make_llm(options, stop, latencies.append)
    except (ImportError, OSError, ValueError) as error:  # a library that is missing, or a wrong argument of the backend
        raise UsageError(add_flags("", str(error))) from error
    with rows.open_lines(options.input) as lines, _listen_to_signals(stop):
        records = islice(rows.parse_records(lines, options), options.limit)
        asked = takewhile(lambda _: not stop.is_set(), records)
        with closing(_write_answers(options, llm, asked)) as events:
            counts, end = _count_rows(options, events, stop)
    if end is None and stop.is_set():
        end = INTERRUPTED, "interrupted"
    if options.command != "batch write":
        print(*summary(counts, time.monotonic() - started, latencies), sep="\n", file=sys.stderr)
    if end is None:
        return SOME_FAILED if counts.rows.total() > counts.rows[""] else OK
    status, reason = end
    again = ""
    if options.output != "-" and status != UNUSABLE:
        rest = [argument for argument in options.arguments if argument not in ("--overwrite", "--resume")]
        again = f"; to go on: {shlex.join(['distgen', *rest, '--resume'])}"
    print(f"distgen: {reason}{again or '.'}", file=sys.stderr)
    return status


def _count_records(options: Options) -> int | None:
    """Count the lines of the input that are not blank; return None for an input that can be read only once."""
    if options.each_generation or not Path(options.input).is_file():
        return None
    with Path(options.input).open("rb") as source:
        return sum(1 for _ in islice(filter(bytes.strip, source), options.limit))


def _count_rows(options: Options, events: _Events, stop: Event) -> tuple[Counts, tuple[int, str] | None]:
    """Count the rows as they come, and show progress. To end the run early, set `stop` and return the status and the reason."""
    is_drawn = _can_redraw(options)
    erase = _ERASE if is_drawn else ""
    counts, total, started = Counts(), _count_records(options), time.monotonic()
    end, due = None, started if is_drawn else started + _LOG
    for event in events:
        if isinstance(event, Failure):
            print(erase, end="", file=sys.stderr)
            raise UsageError(add_flags(event.failure().reason, event.failure().message))
        found = event.unwrap()
        if isinstance(found, journal.Opened):
            counts = Counts(answered_before=found.answered)
            if found.answered and settings_of(options)[1] not in found.params[-1:]:
                print("distgen: the rows so far were asked with other parameters, and are kept", file=sys.stderr)
        else:
            kind, message = rows.error_of(found.answer)
            if kind and kind not in counts.rows:
                text = f"{kind}: {add_flags(kind, message).removeprefix(f'{kind}: ')}"
                print(f"{erase}distgen: row {found.row}: {text}", file=sys.stderr)
            completions = rows.completions_of(found.answer, options.num_generations)
            counts = counts.add(kind, completions, _is_fatal(found.answer))
            end = end or _find_end(options, counts, kind)
        if end:
            stop.set()
        now = time.monotonic()
        if now >= due:
            due = now + (_REDRAW if is_drawn else _LOG)
            _show(progress_line(counts, total, now - started), is_drawn)
    print(erase, end="", file=sys.stderr)
    if end is None and 0 < counts.rows.total() == counts.fatal_rows and not counts.answered_before:
        end = UNUSABLE, f"every row failed with {' or '.join(counts.rows)}"
    return counts, end


def _can_redraw(options: Options) -> bool:
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return is_terminal and not (options.output == "-" and sys.stdout.isatty())


def _show(line: str, is_drawn: bool) -> None:
    """Redraw the line of progress on a terminal, or write a line to a log."""
    if not is_drawn:
        print(f"distgen: {line}", file=sys.stderr)
        return
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # a terminal that does not know its width says 0
    print(f"{_ERASE}{line[: columns - 1]}", end="", file=sys.stderr, flush=True)


def _is_fatal(answer: RowResult[str]) -> bool:
    """Return True for a failure that every other row would have too."""
    match answer:
        case Failure(RequestFailed(reason, status=status, code=code)):
            # Parts of the codes of services; their sources are in backends/retry.py.
            is_quota = any(word in (code or "").lower() for word in ("quota", "billing", "balance", "arrearage"))
            return is_quota or status in (401, 402, 403, 404) or (reason, code) == ("connection", "refused")
        case _:
            return rows.error_of(answer)[0] == "missing_field"


def _find_end(options: Options, counts: Counts, kind: str) -> tuple[int, str] | None:
    """Return the exit status and the reason, if nothing more is to be asked after a row with this kind of failure."""
    most = options.max_failures if counts.rows[""] else min(options.concurrency, options.max_failures)
    if counts.fatal_rows >= most:
        return UNUSABLE, f"{counts.fatal_rows} rows in a row failed with {kind}, so the run ended"
    if options.max_total_tokens is None:
        return None
    spent = counts.tokens.total()
    if counts.rows[""] and not spent:
        return UNUSABLE, "the server does not count tokens, so --max-total-tokens cannot be kept; leave it out"
    if spent >= options.max_total_tokens:
        return SPENT, f"the {options.max_total_tokens:,} tokens of --max-total-tokens are spent"
    return None


def _write_answers(options: Options, llm: Asks, records: Iterator[rows.Record]) -> _Events:
    """Write the answers to a file as they come, or to a pipe or a device in the order of the input."""
    path, n, to_row = Path(options.output), options.num_generations, partial(rows.encode, options)
    if options.output != "-" and (path.is_file() or not path.exists()):
        mode: journal.Mode = "overwrite" if options.overwrite else "resume" if options.resume else "new"
        settings, params = settings_of(options)
        yield from journal.run(
            llm, records, path, to_row, rows.decode, mode, num_generations=n, settings=settings, params=params
        )
        return
    if options.resume:
        raise UsageError(f"--resume needs a file, and {options.output} is not one; name one with --output.")
    asked, kept = tee(records)
    with rows.open_output(options.output) as output:
        for answer, record in zip(llm.stream(asked, n), kept, strict=False):
            if rows.error_of(answer)[0] != "stopped":
                print(journal.to_json_line(to_row(record, answer)).decode(), end="", file=output, flush=True)
                yield Success(journal.Written(record.number, record, answer))


def settings_of(options: Options) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return the settings of an answers file, which a resumed run must have too, and the parameters, which may change."""
    return {name: getattr(options, name) for name in _SETTINGS}, dict([*options.param, *options.extra])


@contextmanager
def _listen_to_signals(stop: Event) -> Generator[None, None, None]:
    """Set `stop` at the first Ctrl-C or SIGTERM; a second one raises KeyboardInterrupt."""

    def end_run(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        stop.set()
        os.write(2, _STOPPING)  # not print, which the signal may have interrupted

    # Only the main thread receives signals.
    numbers = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()
    with ExitStack() as stack:
        for number in numbers:
            stack.callback(signal.signal, number, signal.signal(number, end_run))
        yield


class _Use(Protocol[_T_co]):
    """A function of an LLM that asks a server, by messages or by texts."""

    def __call__(self, llm: ServerLLM[_P], /) -> _T_co: ...


def find_format(options: Options) -> TextFormat | ChatMessages:
    """Return the format that the options name."""
    found = lookup(options.format)
    if isinstance(found, Failure):
        raise UsageError(add_flags("unknown_format", explain(found.failure())))
    format = found.unwrap()
    return replace(format, bos="") if options.no_bos and isinstance(format, ChatTemplate) else format


def build_llm(options: Options, stop: Event, add_latency: Callable[[float], object]) -> Asks:
    """Return the LLM of the options."""
    if options.hf:
        return _local(options)
    if options.base_url:
        return with_server(options, lambda llm: _time(llm, add_latency), stop)
    format: Formatter[str | Messages] = find_format(options)
    print("distgen: no --base-url, so this is a rehearsal: each prompt is its own answer", file=sys.stderr)
    return LLM(_TASK, format, echo, Sequential(), options.model)


def with_server(options: Options, use: _Use[_T_co], stop: Event | None = None) -> _T_co:
    """Call `use` with the LLM that asks the server, and return its result."""
    from distgen.backends.server import Server, chat, completions

    format, executor, url = find_format(options), Asyncio(options.concurrency), urlsplit(options.base_url)
    proxy = None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)

    def connect(make: Callable[..., Server[_P]], **params: object) -> Server[_P]:
        return make(
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

    if isinstance(format, ChatMessages):
        return use(LLM(_TASK, format, connect(chat), executor, options.model))
    stops = {"stop": format.stop} if format.stop else {}
    return use(LLM(_TASK, format, connect(completions, **stops), executor, options.model))


def _time(llm: ServerLLM[_P], add_latency: Callable[[float], object]) -> Asks:
    async def ask(prompts: Sequence[_P], num_generations: int) -> Batch:
        started = time.monotonic()
        answer = await llm.backend(prompts, num_generations)
        add_latency(time.monotonic() - started)
        return answer

    return replace(llm, backend=ask)


def _local(options: Options) -> Asks:
    from distgen.backends.hf import LocalModel, load

    format = find_format(options)
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
