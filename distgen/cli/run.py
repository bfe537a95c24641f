"""The command `run`: answer each row of a file, show how far it is, and end early if no other row can be answered.

`batch write` and `batch read` are runs whose requests a batch service answers.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fileinput import FileInput
from functools import partial
from itertools import islice, takewhile, tee
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar, final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from returns.result import Failure, Result, Success

from distgen import batch, journal
from distgen.backends.echo import echo
from distgen.backends.generate import Batch
from distgen.backends.retry import Retry
from distgen.cli import rows
from distgen.cli.options import NO_SERVER, Options, UsageError, add_flags
from distgen.cli.rows import Record
from distgen.errors import RequestFailed, explain
from distgen.executors import Asyncio, Sequential
from distgen.formats import ChatTemplate, lookup, segment_if_needed
from distgen.formats.messages import ChatMessages
from distgen.formats.registry import AnyFormat
from distgen.journal import JournalError, Opened, RunEvent, Written, to_json_line
from distgen.llm import LLM, RowResult, SupportsGenerate
from distgen.task import Task

_P = TypeVar("_P")
_T_co = TypeVar("_T_co", covariant=True)

OK, SOME_FAILED, UNUSABLE, SPENT, INTERRUPTED = 0, 1, 2, 3, 130

_STOPPING: Final = b"\ndistgen: finishing the requests under way; press Ctrl-C again to end at once\n"
_REDRAW, _LOG = 0.2, 30.0  # seconds between two lines of progress, on a terminal and in a log
_ERASE: Final = "\r\x1b[K"
_FATAL_STATUSES: Final = (401, 402, 403, 404)
_QUOTA_WORDS: Final = ("quota", "billing", "balance", "arrearage")  # in the codes of services, see backends/retry.py
_SETTINGS: Final = ("model", "format", "no_bos", "hf", "system", "user_field", "template")
_TASK: Final = Task(rows.to_prompt, Success)
_Row: TypeAlias = RowResult[str]
Asks: TypeAlias = SupportsGenerate[Record, str]
ServerLLM: TypeAlias = LLM[Record, str, _P, Awaitable[Batch]]
MakeLLM: TypeAlias = Callable[[Options, Event, Callable[[float], object]], Asks]
_Events: TypeAlias = Generator[Result[RunEvent[Record, str], JournalError], None, None]


_End: TypeAlias = tuple[int, str]
"""The exit status of a run that ends early, and the reason."""


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
    fatal_rows: int = 0
    """Failures since the last answer that every other row will meet too."""

    @property
    def rows(self) -> int:
        """Rows of this run."""
        return self.answered + sum(self.failures.values())

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions together."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, kind: str, answer: RowResult[str]) -> Counts:
        """Return the counts with one more row; `kind` is that of its failure, or ""."""
        completions, usages = rows.completions_of(answer), rows.usages_of(answer)
        return replace(
            self,
            answered=self.answered + (not kind),
            failures={**self.failures, kind: self.failures.get(kind, 0) + 1} if kind else self.failures,
            cut=self.cut + sum(completion.finish_reason == "length" for completion in completions),
            without_text=self.without_text + sum(not completion.text for completion in completions),
            prompt_tokens=self.prompt_tokens + sum(usage.prompt_tokens or 0 for usage in usages),
            completion_tokens=self.completion_tokens + sum(usage.completion_tokens or 0 for usage in usages),
            fatal_rows=self.fatal_rows + _is_fatal(kind, answer) if kind else 0,
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
        parts.append(f"{timedelta(seconds=round(max(0, total - done) / rate))} left")
    if counts.tokens:
        parts.append(f"{counts.tokens:,} tokens")
    if counts.failures:
        parts.append(_failures(counts))
    return ", ".join(parts)


def summary(counts: Counts, seconds: float, latencies: Sequence[float]) -> Iterator[str]:
    """Describe a run that ended, in a few lines.

    >>> counts = Counts(answered=8, answered_before=5, failures={"timeout": 2}, prompt_tokens=90, cut=3)
    >>> print(*summary(counts, 4.0, [0.5] * 10), sep="\\n")
    rows: 8 answered (and 5 before), 2 failed (timeout 2), in 0:00:04
    answers: 3 cut at max_tokens, 0 without text
    tokens: 90 of prompts, 0 of completions
    latency: p50 0.50 s, p90 0.50 s (retries included)
    """
    before = f" (and {counts.answered_before:,} before)" if counts.answered_before else ""
    yield f"rows: {counts.answered:,} answered{before}, {_failures(counts)}, in {timedelta(seconds=round(seconds))}"
    if counts.cut or counts.without_text:
        yield f"answers: {counts.cut:,} cut at max_tokens, {counts.without_text:,} without text"
    if counts.tokens:
        yield f"tokens: {counts.prompt_tokens:,} of prompts, {counts.completion_tokens:,} of completions"
    if latencies:
        p50, p90 = statistics.quantiles([*latencies, latencies[-1]], n=10, method="inclusive")[4::4]
        yield f"latency: p50 {p50:.2f} s, p90 {p90:.2f} s (retries included)"


def _failures(counts: Counts) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.failures.items())
    return f"{sum(counts.failures.values()):,} failed{f' ({kinds})' if kinds else ''}"


def run(options: Options, make_llm: MakeLLM) -> int:
    """Ask about each row of the input, write the answers and print what came of it."""
    if options.input != "-" and os.path.realpath(options.input) == os.path.realpath(options.output):
        raise UsageError("the output is the input; choose another output.")
    started, stop, latencies = time.monotonic(), Event(), array("d")
    with usage_errors():
        llm = make_llm(options, stop, latencies.append)
    total = _count_records(options)
    with rows.open_lines(options.input) as lines, _listen_to_interrupts(stop):
        records = islice(rows.parse_records(lines, options), options.limit)
        asked = takewhile(lambda _: not stop.is_set(), records)
        with closing(_ask(options, llm, asked)) as events:
            counts, end = _follow(options, events, stop, total)
    if end is None and stop.is_set():
        end = INTERRUPTED, "interrupted"
    print(*summary(counts, time.monotonic() - started, latencies), sep="\n", file=sys.stderr)
    if end is None:
        return SOME_FAILED if counts.failures else OK
    status, reason = end
    again = ""
    if options.output != "-" and status != UNUSABLE:
        rest = [argument for argument in options.arguments if argument not in ("--overwrite", "--resume")]
        again = f"; to go on: {shlex.join(['distgen', *rest, '--resume'])}"
    print(f"distgen: {reason}{again or '.'}", file=sys.stderr)
    return status


def _count_records(options: Options) -> int | None:
    """Count the lines of the input that are not blank; None for what can be read only once."""
    if options.each_generation or not Path(options.input).is_file():
        return None
    with Path(options.input).open("rb") as source:
        return sum(1 for _ in islice(filter(bytes.strip, source), options.limit))


def _follow(options: Options, events: _Events, stop: Event, total: int | None) -> tuple[Counts, _End | None]:
    """Count the rows as they come, show them, and set `stop` when the run is to end early."""
    is_drawn = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    is_drawn = is_drawn and not (options.output == "-" and sys.stdout.isatty())
    erase, interval = (_ERASE, _REDRAW) if is_drawn else ("", _LOG)
    counts, started, shown = Counts(), time.monotonic(), -_LOG if is_drawn else time.monotonic()
    end: _End | None = None
    for event in events:
        if isinstance(event, Failure):
            print(erase, end="", file=sys.stderr)
            raise UsageError(add_flags(event.failure().reason, event.failure().message))
        found = event.unwrap()
        if isinstance(found, Opened):
            counts = Counts(answered_before=found.answered)
            if found.answered and settings_of(options)[1] not in found.params[-1:]:
                print("distgen: the rows so far were asked with other parameters, and are kept", file=sys.stderr)
        else:
            kind, message = ("", "") if rows.is_answered(found.answer) else rows.error_of(found.input, found.answer)
            if kind and kind not in counts.failures:
                text = f"{kind}: {add_flags(kind, message).removeprefix(f'{kind}: ')}"
                print(f"{erase}distgen: row {found.row}: {text}", file=sys.stderr)
            counts = counts.add(kind, found.answer)
            end = end or _find_end(options, counts, kind)
        if end:
            stop.set()
        if time.monotonic() - shown >= interval:
            shown = time.monotonic()
            _show(progress_line(counts, total, shown - started), is_drawn)
    print(erase, end="", file=sys.stderr)
    if end is None and 0 < counts.rows == counts.fatal_rows and not counts.answered_before:
        end = UNUSABLE, f"every row failed with {' or '.join(counts.failures)}"
    return counts, end


def _show(line: str, is_drawn: bool) -> None:
    """Redraw the one line of progress on a terminal, or write a line to a log."""
    if not is_drawn:
        print(f"distgen: {line}", file=sys.stderr)
        return
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # a terminal that does not know its width says 0
    line = line if len(line) < columns else f"{line[: columns - 4]}..."
    print(f"{_ERASE}{line}", end="", file=sys.stderr, flush=True)


def _is_fatal(kind: str, answer: RowResult[str]) -> bool:
    """Return True for a failure that every other row will meet too."""
    match answer:
        case Failure(RequestFailed("connection", code=code)):
            return code == "refused"
        case Failure(RequestFailed(status=status, code=code)):
            return status in _FATAL_STATUSES or any(word in (code or "").lower() for word in _QUOTA_WORDS)
        case _:
            return kind == "missing_field"


def _find_end(options: Options, counts: Counts, kind: str) -> _End | None:
    """Return why nothing more is to be asked after a failure of this kind, or an answer, if so."""
    most = options.max_failures if counts.answered else min(options.concurrency, options.max_failures)
    if counts.fatal_rows >= most:
        return UNUSABLE, f"{counts.fatal_rows} rows in a row failed with {kind}, so the run ended"
    if options.max_total_tokens is None:
        return None
    if counts.answered and not counts.tokens:
        return UNUSABLE, "the server does not count tokens, so --max-total-tokens cannot be kept"
    if counts.tokens >= options.max_total_tokens:
        return SPENT, f"{counts.tokens:,} of {options.max_total_tokens:,} tokens are spent"
    return None


def _ask(options: Options, llm: Asks, records: Iterator[Record]) -> _Events:
    """Write the answers to a file as they come, or to a pipe or a device in the order of the input."""
    path, n, to_row = Path(options.output), options.num_generations, partial(rows.encode, options)
    if options.output != "-" and (path.is_file() or not path.exists()):
        settings, params = settings_of(options)
        yield from journal.run(
            llm, records, path, to_row, rows.decode, options.mode, num_generations=n, settings=settings, params=params
        )
        return
    if options.mode == "resume":
        raise UsageError(f"--resume needs a file, and {options.output} is not one.")
    asked, kept = tee(records)
    with rows.open_output(options.output) as output:
        for answer, record in zip(llm.stream(asked, n), kept, strict=False):
            if rows.error_of(record, answer)[0] != "stopped":
                print(to_json_line(to_row(record, answer)).decode(), end="", file=output, flush=True)
                yield Success(Written(record.number, record, answer))


def settings_of(options: Options) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return the settings of an answers file, which stay the same when it is resumed, and the parameters, which need not."""
    return {name: getattr(options, name) for name in _SETTINGS}, dict([*options.param, *options.extra])


@contextmanager
def _listen_to_interrupts(stop: Event) -> Generator[None, None, None]:
    """Set `stop` at the first Ctrl-C; a second one raises KeyboardInterrupt."""

    def hear(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        stop.set()
        os.write(2, _STOPPING)  # not print, which it may have interrupted

    if current_thread() is not main_thread():  # only the main thread receives signals
        yield
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Use(Protocol[_T_co]):
    """A function of the LLM of a server, which sends messages or texts."""

    def __call__(self, llm: ServerLLM[_P], /) -> _T_co: ...


def find_format(options: Options) -> AnyFormat:
    """Return the format that the options name."""
    found = lookup(options.format)
    if isinstance(found, Failure):
        raise UsageError(add_flags("unknown_format", explain(found.failure())))
    format = found.unwrap()
    return replace(format, bos="") if options.no_bos and isinstance(format, ChatTemplate) else format


@contextmanager
def usage_errors() -> Generator[None, None, None]:
    """Raise what a backend says about its arguments, or about a library that is missing, as a UsageError."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(add_flags("", str(error))) from error


def build_llm(options: Options, stop: Event, add_latency: Callable[[float], object]) -> Asks:
    """Return the LLM of the options."""
    if options.hf:
        return _local(options)
    if options.base_url:
        return with_server(options, lambda llm: _time(llm, stop, add_latency), stop)
    format = find_format(options)
    print("distgen: no --base-url, so this is a rehearsal: each prompt is its own answer", file=sys.stderr)
    if isinstance(format, ChatMessages):
        return LLM(_TASK, format, echo, Sequential(), options.model)
    return LLM(_TASK, format, echo, Sequential(), options.model)


def with_server(options: Options, use: _Use[_T_co], stop: Event | None = None) -> _T_co:
    """Return what `use` makes of the LLM that asks the server."""
    from distgen.backends.server import Server, chat, completions

    format, executor = find_format(options), Asyncio(options.concurrency)

    def connect(make: Callable[..., Server[_P]], **params: object) -> Server[_P]:
        return make(
            options.base_url,
            model=options.model,
            params={**params, **dict(options.param)},
            extra_body=dict(options.extra),
            timeout=options.timeout,
            retry=Retry(attempts=options.retries + 1),
            max_connections=options.concurrency,
            proxy=_find_proxy(options.base_url),
            stop=stop,
        )

    if isinstance(format, ChatMessages):
        return use(LLM(_TASK, format, connect(chat), executor, options.model))
    stops = {"stop": format.stop} if format.stop else {}
    return use(LLM(_TASK, format, connect(completions, **stops), executor, options.model))


def _time(llm: ServerLLM[_P], stop: Event, add_latency: Callable[[float], object]) -> Asks:
    async def ask(prompts: Sequence[_P], num_generations: int) -> Batch:
        started = time.monotonic()
        answer = await llm.backend(prompts, num_generations)
        if not stop.is_set():  # rows that are given up have no latency
            add_latency(time.monotonic() - started)
        return answer

    return replace(llm, backend=ask)


def _find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for this URL, as https_proxy, unless no_proxy excepts its host."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


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


@final
class _ByBatch(NamedTuple):
    """Answers records as an LLM does, by a function of the records, their numbers, and the number of answers a row."""

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


def write_batch(options: Options) -> int:
    """Write the requests of the rows that the answers file lacks; the settings of that file are those of the batch."""

    def write(records: Iterable[Record], rows: Iterator[int], n: int) -> Iterator[_Row]:
        first = Path(options.output)
        with usage_errors():
            files = with_server(options, lambda llm: batch.write(llm, records, n, rows, takes_n=not options.no_n))
        for number, requests in enumerate(files, 1):
            path = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
            with path.open("xb") as file:
                file.writelines(requests)
            print(f"distgen: wrote {path}", file=sys.stderr)
        if not first.exists():
            raise UsageError("no row without an answer has a prompt, so there are no requests; see `distgen render`.")
        return iter(())

    return run(replace(options, output=options.answers), lambda _, __, ___: _ByBatch(write))


def read_batch(options: Options) -> int:
    """Write the results as `run` writes answers, with the settings that the requests were written with."""
    path = Path(f"{options.output}.distgen.json")
    if not path.is_file():
        raise UsageError(f"{path} is no file; `distgen batch write --answers {options.output}` writes it.")
    stored = json.loads(path.read_text("utf-8"))
    # A row of a batch says nothing about the rows after it, so that no failures end the reading.
    options = replace(options, base_url=NO_SERVER, concurrency=sys.maxsize, max_failures=sys.maxsize)
    options = replace(options, **stored["settings"], extra=[*stored["params"][-1].items()])

    def read(records: Iterable[Record], rows: Iterator[int], n: int) -> Iterator[_Row]:
        with FileInput(options.results, mode="rb") as lines:
            yield from with_server(options, lambda llm: batch.read(llm, records, [lines], n, rows))

    return run(options, lambda _, __, ___: _ByBatch(read))
