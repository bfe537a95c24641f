"""The command line, `python -m distgen`: rows of JSON Lines in, answered rows out; a thin edge over the library.

It reads, asks through one `LLM.stream`, and writes. What it prints for people goes to stderr, rows go to the output.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TextIO, TypeAlias

from returns.result import Failure, Result, Success

from distgen.asking import Unusable, answering, format_of, say
from distgen.errors import explain, fold
from distgen.formats import FAMILIES, ChatMessages, ChatTemplate
from distgen.journal import (
    Answers,
    IfExists,
    Journal,
    JournalError,
    Kept,
    Recorded,
    Step,
    explain_journal,
    paired,
    record,
    row,
)
from distgen.llm import RowResult
from distgen.prompt import Prompt, Segment
from distgen.report import Figures, Meter, status, summary, table
from distgen.rows import Line, decode, encode, error_type, lines, read, reason

ANSWERED, SOME_FAILED, UNUSABLE, SPENT, INTERRUPTED = 0, 1, 2, 3, 130
"""The exit statuses: every row answered; some row failed; it could not begin or go on; no tokens left; Ctrl-C."""

_SHOWN_FAILURES: Final = 5
_REDRAWN, _LOGGED = 0.2, 30.0  # seconds
_STOPPING: Final = b"\ndistgen: stopping, once the rows that are being asked are written; Ctrl-C again ends at once\n"

_EPILOG = """\
An input row is a JSON object with "user" (and, if wanted, "system" and
"history": [[user, assistant], ...]), or with OpenAI-style "messages", or with
the field named by --user-field. All its fields are kept in the output row,
which gains "generations" (text, finish_reason, usage in tokens) and "model", or
"error" (type, message); an input field that already has one of these names is
kept as "input_generations", "input_model" or "input_error".

Rows are written in the order of the input as they are answered, and a run may
be killed anywhere: --resume goes on with its file. Ctrl-C once waits for the
rows that are being asked, and says how to go on; twice ends at once.

What would be sent, before anything is paid; a rehearsal, offline; twenty rows,
and why any of them failed; the rest of them, and what failed again:
  python -m distgen render rows.jsonl --format llama3
  python -m distgen run rows.jsonl -o try.jsonl --format llama3
  python -m distgen run rows.jsonl -o out.jsonl --format openai \\
    --base-url http://127.0.0.1:8000/v1 --model my-model \\
    --param temperature=0.7 --param max_tokens=256 --limit 20 -v
  python -m distgen run ... --resume, without --limit
A model that is loaded here, and no server:
  python -m distgen run rows.jsonl -o out.jsonl --format llama3 --hf MODEL

Environment: OPENAI_API_KEY is the key, printed nowhere; OPENAI_BASE_URL and
OPENAI_MODEL stand in for --base-url and --model (--base-url '' rehearses all
the same); NO_COLOR turns colours off.

Exit status: 0 every row was answered, 1 some row failed, 2 it could not begin
or go on, 3 the tokens of --max-total-tokens are spent and rows are left, 130
interrupted. Rows that were written stay, whatever happens.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    >>> main(["formats"])  # doctest: +ELLIPSIS
    name ...
    0
    """
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else arguments
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Unusable as error:
        say(str(error))
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would try it again
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, as `head` does
            return SOME_FAILED
        say(f"cannot write the output: {error.strerror or error}")
        return UNUSABLE


def run(options: argparse.Namespace) -> int:
    """Answers each row of the input."""
    meter, early = Meter(), list[int]()
    answers = answering(options, meter)
    with _reading(options.input) as source, _interrupts() as is_interrupted:
        asked = read(lines(source), options.user_field, options.system)
        wanted = _wanted(asked, options, meter, is_interrupted, early)
        try:
            with (
                _progress(meter, _count(options), _redraws(options)) as say,
                closing(_steps(options, wanted, answers)) as steps,
            ):
                for step in steps:
                    _heed(fold(step, _as_it_is, _ended), meter, say if options.verbose else _in_silence)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unusable(f"after {meter.figures().written} rows: {error.strerror or error}") from error
    return _closed(options, meter.figures(), early)


def _wanted(
    asked: Iterable[Line],
    options: argparse.Namespace,
    meter: Meter,
    is_interrupted: Callable[[], bool],
    early: list[int],
) -> Iterator[Line]:
    """The lines up to the limit, the budget or Ctrl-C; the exit status of what ended them early is left in `early`."""
    budget: int | None = options.max_total_tokens
    for line in islice(asked, options.limit):
        meter.looked()
        if is_interrupted():
            early.append(INTERRUPTED)
            return
        if budget is not None and meter.uncounted:
            raise Unusable(
                "the server does not say how many tokens an answer took, so --max-total-tokens cannot be kept"
            )
        if budget is not None and meter.tokens >= budget:
            early.append(SPENT)
            return
        yield line


def _heed(step: Step[Line, str], meter: Meter, say: Callable[[str], object]) -> None:
    if isinstance(step, Kept):
        meter.kept(step.rows, step.failed)
        return
    failure = fold(step.answer, lambda _: "", error_type)
    failures = meter.wrote(failure)
    if isinstance(step.answer, Failure) and failures <= _SHOWN_FAILURES:
        where = "" if failure == "BadLine" else f"line {step.input.number}: "
        say(f"{where}{failure}: {reason(step.answer.failure())}")
        if failures == _SHOWN_FAILURES:
            say("further failures are only counted here; each row says its own")


def _closed(options: argparse.Namespace, figures: Figures, early: Sequence[int]) -> int:
    """Says what came of it all, and gives the exit status."""
    say(summary(figures))
    for line in table(figures):
        print(line, file=sys.stderr)
    for ended in early:
        why = "interrupted" if ended == INTERRUPTED else f"{options.max_total_tokens:,} tokens are spent"
        say(f"{why}; rows are left" if options.output == "-" else f"{why}; to go on: {_again(options)}")
        return ended
    return SOME_FAILED if figures.failed else ANSWERED


def _again(options: argparse.Namespace) -> str:
    return shlex.join(["python", "-m", "distgen", *options.arguments, *([] if options.resume else ["--resume"])])


def _as_it_is(step: Step[Line, str]) -> Step[Line, str]:
    return step


def _ended(error: JournalError) -> Step[Line, str]:
    raise Unusable(explain_journal(error))


_Steps: TypeAlias = Generator[Result[Step[Line, str], JournalError], None, None]


def _steps(options: argparse.Namespace, asked: Iterable[Line], answers: Answers[Line, RowResult[str]]) -> _Steps:
    """Rows into a file, which is a journal, or into what is no file and is written as it comes."""
    path = Path(options.output)
    if options.output != "-" and (path.is_file() or not path.exists()):
        journal = Journal(path, _settings(options), encode, decode)
        yield from record(journal, asked, answers, _if_exists(options))
        return
    if options.resume:
        raise Unusable(f"--resume needs a file to go on with, and {options.output} is none")
    with _writing(options.output) as sink, closing(paired(asked, answers)) as pairs:
        for line, answer in pairs:
            sink.write(row(encode(line, answer)))
            sink.flush()
            yield Success(Recorded(line, answer))


def _if_exists(options: argparse.Namespace) -> IfExists:
    if not options.resume:
        return "refuse"
    return "keep failures" if options.keep_failures else "resume"


def _settings(options: argparse.Namespace) -> Mapping[str, object]:
    """What would change an answer."""
    names = ("format", "no_bos", "model", "num_generations", "system", "user_field")
    known: Mapping[str, object] = vars(options)
    asked = {name: known[name] for name in names}
    asked |= {name: known[name] for name in ("hf", "gguf", "batch_size") if options.hf or options.gguf}
    rehearsal = not (options.base_url or options.hf or options.gguf)
    return {**asked, "params": dict(options.param), "rehearsal": rehearsal}


def render(options: argparse.Namespace) -> int:
    """Writes what each row would send: the string itself, a line break after it, or the messages as JSON.

    On a terminal control characters in the texts are written as escapes, and the format's own literals are coloured.
    """
    template = format_of(options)
    colour = ("\x1b[36m", "\x1b[0m") if _is_colourful() else ("", "")
    written = partial(_shown, colour) if sys.stdout.isatty() else partial(_rendered)
    failed = 0
    with _reading(options.input) as source:
        for line in read(lines(source), options.user_field, options.system):
            text = fold(line.prompt, partial(written, template), _no_text)
            why = fold(text, lambda _: "", " {}".format)
            print(f"line {line.number}:{why}", file=sys.stderr, flush=True)
            sys.stdout.buffer.write(fold(text, "{}\n".format, lambda _: "").encode(errors="backslashreplace"))
            sys.stdout.buffer.flush()
            failed += isinstance(text, Failure)
    return SOME_FAILED if failed else ANSWERED


def formats(_: argparse.Namespace) -> int:
    """Lists the formats by family: where each writes the system text, what ends an answer, whose models it is."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    encoding = sys.stdout.encoding
    print(f"{'name':23}{'system':10}{'stops':25}models")
    for family, members in FAMILIES.items():
        print(f"\n{family}")
        for each in members:
            place, stops, models = _described(each)
            row = f"  {each.name:21}{place:10}{stops:24} {models}".rstrip()
            row = textwrap.fill(row, width, subsequent_indent=" " * 33, break_long_words=False, break_on_hyphens=False)
            print(row.encode(encoding, "backslashreplace").decode(encoding))  # the locale may lack a letter
    sys.stdout.flush()
    return ANSWERED


def _described(template: ChatTemplate | ChatMessages) -> tuple[str, str, str]:
    if not isinstance(template, ChatTemplate):
        return "first", "the server's", "any, on a server that writes its own"
    return template.system_place, " ".join(template.stops), ", ".join(template.models)


def _no_text(reason: str) -> Result[str, str]:
    return Failure(reason)


def _is_colourful() -> bool:
    """Whether stdout shows colours and nobody asked for none. Source: no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _shown(colour: tuple[str, str], template: ChatTemplate | ChatMessages, prompt: Prompt) -> Result[str, str]:
    """As `_rendered`, with the format's literals in that colour, and what a text could do to a terminal as escapes."""
    rendered = _rendered(template, prompt)
    if isinstance(template, ChatMessages) or isinstance(rendered, Failure):
        return rendered
    on, off = colour

    def painted(segment: Segment) -> str:
        if segment.is_control:
            return f"{on}{segment.text}{off}"
        return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in segment.text)

    return template.segments(prompt).map(lambda segments: "".join(map(painted, segments))).alt(explain)


def _rendered(template: ChatTemplate | ChatMessages, prompt: Prompt) -> Result[str, str]:
    if isinstance(template, ChatTemplate):
        return template(prompt).alt(explain)
    return template(prompt).map(lambda messages: json.dumps(messages, ensure_ascii=False)).alt(explain)


@contextmanager
def _reading(name: str) -> Generator[BinaryIO, None, None]:
    try:
        source = nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise Unusable(f"cannot read {name}: {error.strerror}") from error
    with source as opened:
        yield opened


@contextmanager
def _writing(name: str) -> Generator[BinaryIO, None, None]:
    try:
        sink = nullcontext(sys.stdout.buffer) if name == "-" else Path(name).open("wb")  # noqa: SIM115
    except OSError as error:
        raise Unusable(f"cannot write {name}: {error.strerror}") from error
    with sink as opened:
        yield opened


@contextmanager
def _interrupts() -> Generator[Callable[[], bool], None, None]:
    """Tells whether Ctrl-C was pressed, once. Twice ends the process as if nothing heard it: what was written stays."""
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        heard.append(number)
        os.write(2, _STOPPING)  # and not print, which it may have interrupted

    if threading.current_thread() is not threading.main_thread():  # where signals are not heard
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield lambda: bool(heard)
    finally:
        signal.signal(signal.SIGINT, before)


def _redraws(options: argparse.Namespace) -> bool:
    """Whether stderr is a terminal that can draw a line anew, and the rows are not shown on one too."""
    shows_rows = options.output == "-" and sys.stdout.isatty()
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not shows_rows


@contextmanager
def _progress(meter: Meter, total: int | None, redraws: bool) -> Generator[Callable[[str], object], None, None]:
    """Shows how far the run is, on stderr; gives a function that says something in between.

    That is one line, which it redraws, or else, as in a log, a line every half minute.
    """
    erase, end = ("\r\x1b[K", "") if redraws else ("", "\n")
    ended, writing = threading.Event(), threading.Lock()

    def say(note: str) -> None:
        with writing:
            print(f"{erase}distgen: {note}", file=sys.stderr, flush=True)

    def tick() -> None:
        while not ended.wait(_REDRAWN if redraws else _LOGGED):
            with writing:
                line = status(meter.figures(), total, _columns(sys.stderr) - 1)
                print(f"{erase}{line}", file=sys.stderr, end=end, flush=True)

    ticking = threading.Thread(target=tick, name="distgen-progress", daemon=True)
    ticking.start()
    try:
        yield say
    finally:
        ended.set()
        ticking.join()
        print(erase, file=sys.stderr, end="", flush=True)


def _columns(stream: TextIO) -> int:
    columns = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 200
    return columns or 80  # a terminal that does not know its width says 0


def _in_silence(_: str) -> None: ...


def _count(options: argparse.Namespace) -> int | None:
    """How many rows are asked of a file; None for what can be read only once."""
    path = Path(options.input)
    if options.input == "-" or not path.is_file():
        return None
    with path.open("rb") as source:
        return sum(1 for _ in islice((line for line in lines(source) if line.strip()), options.limit))


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _utf8(text: str) -> str:
    """An argument that the locale could not decode is read as UTF-8, as files are."""
    try:
        return os.fsencode(text).decode() if _is_undecoded(text) else text
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None


def _is_undecoded(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)  # PEP 383


def _param(text: str) -> tuple[str, object]:
    name, _, value = _utf8(text).partition("=")
    try:
        read: object = json.loads(value)
        row({name: read})  # which refuses NaN
        if not name:
            raise ValueError
    except (ValueError, RecursionError):
        hint = f"{name}={json.dumps(value)}" if value else "temperature=0.7"
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON, such as {hint!r}") from None
    return name, read


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    description = "Generates data with language models: an answered row for each row of JSON Lines."
    parser = argparse.ArgumentParser("python -m distgen", description=description, epilog=_EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rows = argparse.ArgumentParser(add_help=False)
    _add_rows(rows)
    asking = commands.add_parser("run", parents=[rows], help=run.__doc__, epilog=_EPILOG, formatter_class=raw)
    _add_output(asking)
    _add_asking(asking)
    asking.set_defaults(command=run)
    showing = commands.add_parser("render", parents=[rows], help=render.__doc__)
    showing.set_defaults(command=render)
    listing = commands.add_parser("formats", help=formats.__doc__)
    listing.set_defaults(command=formats)
    return parser


def _add_rows(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT.jsonl", help="rows as JSON Lines in UTF-8; - is stdin")
    add("--format", required=True, metavar="NAME", help="the model's prompt format; see `formats`")
    add("--system", type=_utf8, metavar="TEXT", help="the system text of rows that have none")
    add("--user-field", type=_utf8, metavar="NAME", help="the field that holds the user's text")
    add("--no-bos", action="store_true", help="leave out the BOS text, for servers that add it themselves")


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUTPUT.jsonl", help="a new file; - is stdout")
    add("--resume", action="store_true", help="go on with a file that is there; failed rows are asked again")
    add("--keep-failures", action="store_true", help="with --resume: leave failed rows as they are")
    add("--limit", type=_positive, metavar="N", help="only the first N rows")
    budget = "ask no further row once this run took N tokens, of prompts and answers; rows being asked are finished"
    add("--max-total-tokens", type=_positive, metavar="N", help=budget)
    add("-v", "--verbose", action="store_true", help="show the first failures in full")


def _add_asking(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--num-generations", type=_positive, default=1, metavar="N", help="answers a row [1]")
    param = "a parameter of every request, as temperature=0.7 or stop='[\"END\"]'; may be repeated"
    add("--param", type=_param, action="append", default=[], metavar="KEY=JSON", help=param)
    add("--threads", type=_positive, default=8, metavar="N", help="requests at once [8]")
    add("--model", metavar="NAME", help="the model's name on the server, kept in each row")
    add("--batch-size", type=_positive, default=8, metavar="N", help="with --hf: rows that are generated together [8]")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server, as http://127.0.0.1:8000/v1")
    models.add_argument("--hf", metavar="PATH_OR_NAME", help="a model to load here, by transformers")
    models.add_argument("--gguf", metavar="PATH", help="a model file to load here, by llama.cpp")


if __name__ == "__main__":
    sys.exit(main())
