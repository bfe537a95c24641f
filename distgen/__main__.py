"""The command line, `python -m distgen`: rows of JSON Lines in, answered rows out; a thin edge over the library.

It reads, asks through one `LLM.stream`, and writes. What it prints for people goes to stderr, rows go to the output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, final

from returns.result import Failure, Result, Success

from distgen.backends.echo import echo
from distgen.completion import Batch, Generate
from distgen.errors import explain, fold
from distgen.executors import Threads
from distgen.formats import FAMILIES, ChatMessages, ChatTemplate, lookup
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
from distgen.llm import LLM, Answered
from distgen.prompt import Messages, Prompt, Segment
from distgen.rows import Line, ask, decode, encode, error_type, read
from distgen.task import Task

ANSWERED, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
"""The exit statuses: every row answered; some row failed; nothing was asked; Ctrl-C."""

if TYPE_CHECKING:
    from rich.progress import Progress

_EPILOG = """\
An input row is a JSON object with "user" (and, if wanted, "system" and "history": [[user, assistant], ...]), or with
OpenAI-style "messages", or with the field named by --user-field. All its fields are kept in the output row, which gains
"generations" (text, finish_reason, usage in tokens) and "model", or "error" (type, message); an input field that already
has one of these names is kept as "input_generations", "input_model" or "input_error".

Exit status: 0 every row was answered, 1 some row failed, 2 nothing was asked, 130 interrupted; rows written stay.
The API key is taken from OPENAI_API_KEY and printed nowhere.
"""


@final
class Unusable(Exception):
    """A reason to end before anything is asked: one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    >>> main(["formats"])  # doctest: +ELLIPSIS
    name ...
    0
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Unusable as error:
        _say(str(error))
        return UNUSABLE
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED


def run(options: argparse.Namespace) -> int:
    """Answers each row of the input."""
    answers = _answers(options)
    counts: Counter[str] = Counter()
    with _reading(options.input) as source:
        lines = read(source, options.user_field, options.system)
        show = not (options.output == "-" and sys.stdout.isatty())
        with _bar(_count(options), show) as advance:
            try:
                with closing(_steps(options, lines, lambda asked: answers(asked, advance))) as steps:
                    for step in steps:
                        counts.update(fold(step, _counted, _ended))
            except KeyboardInterrupt:
                _say(f"interrupted; {counts.total()} rows are written")
                return INTERRUPTED
            except BrokenPipeError:
                raise
            except OSError as error:
                raise Unusable(f"after {counts.total()} rows: {error.strerror or error}") from error
    _say(_summary(counts))
    return SOME_FAILED if counts.total() > counts[""] else ANSWERED


def _counted(step: Step[Line, str]) -> Mapping[str, int]:
    if isinstance(step, Kept):
        return {"": step.rows - step.failed, "kept failures": step.failed}
    return {fold(step.answer, lambda _: "", error_type): 1}


def _ended(error: JournalError) -> Mapping[str, int]:
    raise Unusable(explain_journal(error))


_Steps: TypeAlias = Generator[Result[Step[Line, str], JournalError], None, None]


def _steps(options: argparse.Namespace, lines: Iterable[Line], answers: Answers[Line, Answered[str]]) -> _Steps:
    """Rows into a file, which is a journal, or into what is no file and is written as it comes."""
    path = Path(options.output)
    if options.output != "-" and (path.is_file() or not path.exists()):
        journal = Journal(path, _settings(options), encode, decode)
        yield from record(journal, lines, answers, _if_exists(options))
        return
    if options.resume:
        raise Unusable(f"--resume needs a file to go on with, and {options.output} is none")
    with _writing(options.output) as sink, closing(paired(lines, answers)) as pairs:
        for line, answer in pairs:
            sink.write(row(encode(line, answer)))
            sink.flush()
            yield Success(Recorded(line, answer))


def _if_exists(options: argparse.Namespace) -> IfExists:
    return "keep failures" if options.keep_failures else "resume" if options.resume else "refuse"


def _settings(options: argparse.Namespace) -> Mapping[str, object]:
    """What would change an answer."""
    names = ("format", "no_bos", "model", "num_generations", "system", "user_field")
    known: Mapping[str, object] = vars(options)
    return {**{name: known[name] for name in names}, "rehearsal": options.base_url is None}


def render(options: argparse.Namespace) -> int:
    """Writes what each row would send: the string itself, a line break after it, or the messages as JSON.

    On a terminal the format's own literals are coloured, and control characters in the texts are written as escapes.
    """
    template = _format(options)
    written = _coloured if _is_colourful() else _rendered
    failed = 0
    with _reading(options.input) as source:
        for line in read(source, options.user_field, options.system):
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
    print(f"{'name':23}{'system':10}{'stops':25}models")
    for family, members in FAMILIES.items():
        print(f"\n{family}")
        for each in members:
            place, stops, models = _described(each)
            row = f"  {each.name:21}{place:10}{stops:24} {models}".rstrip()
            print(textwrap.fill(row, width, subsequent_indent=" " * 33, break_long_words=False, break_on_hyphens=False))
    return ANSWERED


def _described(template: ChatTemplate | ChatMessages) -> tuple[str, str, str]:
    if not isinstance(template, ChatTemplate):
        return "first", "the server's", "any, on a server that writes its own"
    return template.system_place, " ".join(template.stops), ", ".join(template.models)


def _no_text(reason: str) -> Result[str, str]:
    return Failure(reason)


_Answers: TypeAlias = Callable[[Iterable[Line], Callable[[int], object]], Generator[Answered[str], None, None]]


def _answers(options: argparse.Namespace) -> _Answers:
    """The LLM that the options describe, as a stream over lines."""
    template, task, threads = _format(options), Task(ask, Success), Threads(options.threads)
    if options.base_url is None:
        _say("no --base-url, so this is a rehearsal: each prompt is answered with itself, offline")
        options.model = options.model or "echo"
    elif not options.model:
        raise Unusable("--base-url needs --model, the name under which the server knows its model")
    if isinstance(template, ChatTemplate):
        text = LLM(task, template, _completions(options, template), threads, options.model)
        return lambda lines, advance: text.stream(lines, options.num_generations, advance)
    chat = LLM(task, template, _chat(options), threads, options.model)
    return lambda lines, advance: chat.stream(lines, options.num_generations, advance)


def _chat(options: argparse.Namespace) -> Generate[Messages, Batch]:
    if options.base_url is None:
        return echo
    with _usable():
        from distgen.backends import http

        return http.chat(options.base_url, model=options.model, connections=options.threads)


def _completions(options: argparse.Namespace, template: ChatTemplate) -> Generate[str, Batch]:
    if options.base_url is None:
        return echo
    if template.bos:
        _say(f"prompts begin with {template.bos}; if the server adds that itself, as vLLM and llama.cpp do: --no-bos")
    with _usable():
        from distgen.backends import http

        stops = {"stop": list(template.stops)} if template.stops else None
        return http.completions(options.base_url, model=options.model, connections=options.threads, params=stops)


@contextmanager
def _usable() -> Generator[None, None, None]:
    try:
        yield
    except ImportError as error:
        raise Unusable(f"--base-url needs the http extra: pip install 'distgen[http]' ({error})") from error
    except ValueError as error:
        raise Unusable(str(error)) from error


def _say(note: str) -> None:
    print(f"distgen: {note}", file=sys.stderr)


def _format(options: argparse.Namespace) -> ChatTemplate | ChatMessages:
    template = lookup(str(options.format))
    if isinstance(template, Failure):
        raise Unusable(f"{explain(template.failure())} On the command line: python -m distgen formats.")
    found = template.unwrap()
    return replace(found, bos="") if options.no_bos and isinstance(found, ChatTemplate) else found


def _is_colourful() -> bool:
    """Whether stdout shows colours and nobody asked for none. Source: no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _coloured(template: ChatTemplate | ChatMessages, prompt: Prompt) -> Result[str, str]:
    """As `_rendered`, with the format's literals in cyan, and what a text could do to a terminal written as escapes."""
    rendered = _rendered(template, prompt)
    if isinstance(template, ChatMessages) or isinstance(rendered, Failure):
        return rendered
    return template.segments(prompt).map(lambda segments: "".join(map(_painted, segments))).alt(explain)


def _painted(segment: Segment) -> str:
    if segment.is_control:
        return f"\x1b[36m{segment.text}\x1b[0m"
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in segment.text)


def _rendered(template: ChatTemplate | ChatMessages, prompt: Prompt) -> Result[str, str]:
    if isinstance(template, ChatTemplate):
        return template(prompt).alt(explain)
    return template(prompt).map(lambda messages: json.dumps(messages, ensure_ascii=False)).alt(explain)


def _summary(counts: Counter[str]) -> str:
    failed = counts.total() - counts[""]
    by_type = ", ".join(f"{name} {count}" for name, count in counts.most_common() if name)
    return f"{counts.total()} rows: {counts['']} answered, {failed} failed{f' ({by_type})' if failed else ''}"


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
def _bar(total: int | None, show: bool) -> Generator[Callable[[int], object], None, None]:
    """A progress bar on a terminal, where rich is installed; elsewhere nothing."""
    progress = _progress() if show and sys.stderr.isatty() else None
    if progress is None:
        yield _no_bar
        return
    with progress:
        task = progress.add_task("generations", total=total)
        yield lambda done: progress.advance(task, done)


def _progress() -> Progress | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (TextColumn("generations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _no_bar(_: int) -> None: ...


def _count(options: argparse.Namespace) -> int | None:
    """How many generations are asked of a file; None for what can be read only once."""
    path = Path(options.input)
    if options.input == "-" or not path.is_file():
        return None
    with path.open("rb") as source:
        rows = sum(1 for line in source if line.strip())
    return rows * int(options.num_generations)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m distgen",
        description="Generates data with language models: one answered row for each row of JSON Lines.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rows = argparse.ArgumentParser(add_help=False)
    rows.add_argument("input", metavar="INPUT.jsonl", help="rows as JSON Lines in UTF-8; - is stdin")
    rows.add_argument("--format", required=True, metavar="NAME", help="the model's prompt format; see `formats`")
    rows.add_argument("--system", metavar="TEXT", help="the system text of rows that have none")
    rows.add_argument("--user-field", metavar="NAME", help="the field that holds the user's text")
    rows.add_argument(
        "--no-bos", action="store_true", help="leave out the BOS text, for servers that add it themselves"
    )
    asking = commands.add_parser(
        "run", parents=[rows], help=run.__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asking.add_argument("-o", "--output", required=True, metavar="OUTPUT.jsonl", help="a new file; - is stdout")
    asking.add_argument(
        "--resume", action="store_true", help="go on with a file that is there; failed rows are asked again"
    )
    asking.add_argument("--keep-failures", action="store_true", help="with --resume: leave failed rows as they are")
    asking.add_argument("-n", "--num-generations", type=_positive, default=1, metavar="N", help="answers a row [1]")
    asking.add_argument("--threads", type=_positive, default=8, metavar="N", help="requests at once [8]")
    asking.add_argument("--model", default="", metavar="NAME", help="the model's name on the server, kept in each row")
    asking.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server, as http://127.0.0.1:8000/v1")
    asking.set_defaults(command=run)
    showing = commands.add_parser("render", parents=[rows], help=render.__doc__)
    showing.set_defaults(command=render)
    listing = commands.add_parser("formats", help=formats.__doc__)
    listing.set_defaults(command=formats)
    return parser


if __name__ == "__main__":
    sys.exit(main())
