"""Generate data with language models: one answered row for each row of JSON Lines.

  distgen run rows.jsonl -o out.jsonl --base-url http://127.0.0.1:8000/v1 \\
    --model my-model --param max_tokens=256 --limit 20

An input row has "user" (and "system", "history"), or OpenAI-style "messages".
Each row is written as it is answered, so a run may be killed; --resume asks the
rest. Ctrl-C once finishes the requests under way, twice ends at once.

Environment: OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL.
Exit status: 0 all rows answered, 1 some failed, 2 usage error, or stopped early,
3 --max-total-tokens are spent and rows remain, 130 interrupted. Rows that are
written stay.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar, final

from distgen import __version__
from distgen.backends.params import Params

_T = TypeVar("_T")


class UsageError(Exception):
    """An error whose message is one sentence: why a command cannot begin or go on."""


def _whole_number(least: int, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
    return int(text)


def _pair(names: Collection[str], text: str) -> tuple[str, object]:
    """Read KEY=JSON. The key must be one of the names; an empty list allows any key."""
    name, _, value = text.partition("=")
    if names and name not in names:
        hint = "".join(f"; did you mean {nearest!r}?" for nearest in get_close_matches(name, names, 1)) or "."
        message = f"the protocol has no parameter {name!r}{hint} Other fields of a request: --extra {text}"
        raise argparse.ArgumentTypeError(message)
    try:
        return name, json.loads(value)
    except ValueError:
        message = f"{text!r} is not KEY=JSON, such as temperature=0.7 or stop='[\"END\"]'"
        raise argparse.ArgumentTypeError(message) from None


def _template(text: str) -> str:
    found = re.findall(r"\{\{|\}\}|\{[^{}]+\}|[{}]", text)
    if "{" in found or "}" in found or not any(len(part) > 2 for part in found):
        raise argparse.ArgumentTypeError(f"{text!r} has no {{field}}, or a brace that is not {{{{ or }}}}")
    return text


def _option(group: str, default: _T, metavar: str, help: str, *flags: str, **more: object) -> _T:
    """Return a field of Options: an option of each command that has the group. `more` goes to add_argument."""
    return field(default=default, metadata={"group": group, "flags": flags, "metavar": metavar, "help": help, **more})


def _flag(group: str, help: str) -> bool:
    return field(default=False, metadata={"group": group, "action": "store_true", "help": help})


def _number(group: str, default: _T, help: str, *flags: str, least: int = 1) -> _T:
    return _option(group, default, "N", help, *flags, type=partial(_whole_number, least))


def _pairs(names: Collection[str], help: str) -> Sequence[tuple[str, object]]:
    kind = partial(_pair, names)
    return _option("model", (), "KEY=JSON", f"{help}; may be repeated", type=kind, action="append")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of all commands. The model is at `base_url`, or is loaded as `hf`; without both, the run is a rehearsal."""

    command: str = "run"
    arguments: tuple[str, ...] = ()
    input: str = _option("input", "-", "INPUT.jsonl", "JSON Lines in UTF-8; - is stdin", "input")
    each_generation: bool = _flag("input", "read an answers file: one row for each generation with text")
    limit: int | None = _number("input", None, "only the first N rows")
    output: str = _option("output", "-", "OUTPUT.jsonl", "file; `run`: - is stdout", "-o", "--output", required=True)
    resume: bool = _flag("answers", "keep the rows answered so far and ask the rest")
    overwrite: bool = _flag("answers", "delete the rows answered so far and begin anew")
    format: str = _option("prompt", "openai", "NAME", "chat format of the model, see `distgen formats` [openai]")
    system: str | None = _option("prompt", None, "TEXT", "system text of rows that have none")
    user_field: str | None = _option("prompt", None, "NAME", "field with the user's text")
    template: str | None = _option("prompt", None, "TEXT", "user text with {fields}; {{ is a brace", type=_template)
    no_bos: bool = _flag("prompt", "leave out the BOS token, for servers that add it")
    base_url: str = _option("ask", "", "URL", "OpenAI-compatible server: http://127.0.0.1:8000/v1")
    model: str = _option("model", "", "NAME", "name of the model on the server")
    num_generations: int = _number("model", 1, "answers a row [1]", "-n", "--num-generations")
    param: Sequence[tuple[str, object]] = _pairs(Params.__annotations__, "sampling parameter, such as temperature=0.7")
    extra: Sequence[tuple[str, object]] = _pairs((), "field that only this server takes, such as top_k=20")
    concurrency: int = _number("ask", 32, "requests at once [32]")
    timeout: float = _option("ask", 600.0, "SECONDS", "deadline of each request [600]", type=float)
    retries: int = _number("ask", 5, "further attempts of a failed request [5]", least=0)
    max_failures: int = _number("ask", 100, "stop after N consecutive failures that every row would have [100]")
    max_total_tokens: int | None = _number("ask", None, "stop once this run has used N tokens")
    hf: str = _option("ask", "", "NAME", "transformers model to load, by folder or name")
    batch_size: int = _number("ask", 8, "with --hf: rows generated together [8]")
    answers: str = _option("requests", "answers.jsonl", "ANSWERS.jsonl", "output of `batch read` [answers.jsonl]")
    no_n: bool = _flag("requests", "a request for each answer, for services that do not take n")
    results: Sequence[str] = _option("results", (), "RESULTS.jsonl", "files of the service", "results", nargs="+")


_COMMANDS: Final = (
    ("run", "answer each row of a file", ("input", "output", "answers", "prompt", "model", "ask")),
    ("render", "show what each row would send", ("input", "prompt")),
    ("formats", "list the chat formats", ()),
    ("batch write", "write a batch of requests", ("input", "output", "answers", "prompt", "model", "requests")),
    ("batch read", "read the results of a batch service", ("input", "results", "output", "answers")),
)
NO_SERVER: Final = "http://batch.invalid/v1"  # RFC 2606, 2: no server has such a name


@final
class _Parser(argparse.ArgumentParser):
    """A parser that raises UsageError."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser("distgen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"distgen {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    batch = commands.add_parser("batch", help="write and read the files of a batch service, at half the price")
    batch_commands = batch.add_subparsers(metavar="COMMAND", required=True)
    for name, help, groups in _COMMANDS:
        word, parent = name.removeprefix("batch "), batch_commands if name.startswith("batch") else commands
        # Options that are not given are left out, so that they have the defaults of Options.
        command = parent.add_parser(word, help=help, description=help, argument_default=argparse.SUPPRESS)
        command.set_defaults(command=name)
        for option in fields(Options):
            more = dict(option.metadata)
            if more.pop("group", "") in groups:
                flags = more.pop("flags", ()) or (f"--{option.name.replace('_', '-')}",)
                command.add_argument(*flags, **more)
    return parser


def read_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read arguments; raise UsageError for wrong ones. Without arguments, help is printed.

    >>> read_options(["run", "in.jsonl", "-o", "out.jsonl"], {}).model
    'echo'
    """
    parsed, unknown = _make_parser().parse_known_args(arguments or ["--help"])
    given = vars(parsed)
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]!r}; see `distgen {parsed.command} --help`.")
    for one, other in (("user_field", "template"), ("resume", "overwrite"), ("base_url", "hf")):
        if one in given and other in given:
            raise UsageError(f"--{one} and --{other} exclude each other; give one.".replace("_", "-"))
    options = Options(**given, arguments=tuple(arguments))
    if options.command.startswith("batch") and "-" in (options.output, options.answers):
        raise UsageError("the batch commands need files, and - is none; name one.")
    if options.command not in ("run", "batch write"):
        return options
    if options.each_generation and not (options.template or options.user_field):
        raise UsageError("--each-generation needs --template or --user-field, to say what to ask about each text.")
    if options.hf:
        return replace(options, model=options.model or Path(options.hf).name)
    url = NO_SERVER if options.command == "batch write" else given.get("base_url", environ.get("OPENAI_BASE_URL", ""))
    model = options.model or environ.get("OPENAI_MODEL", "")
    if model and not url:
        raise UsageError(f"model {model} needs a server: name it with --base-url, or set OPENAI_BASE_URL.")
    if url and not model:
        raise UsageError("--model is missing: name a model of the server, or set OPENAI_MODEL.")
    return replace(options, base_url=url, model=model or "echo")


# Messages of errors name what Python has for these options and commands.
_WORDS: Final = {
    "num_generations": "-n",
    "base_url": "--base-url",
    "timeout=": "--timeout ",
    "raise timeout, or ask for fewer tokens": "raise --timeout, or ask for fewer tokens with --param max_tokens=N",
    "pass api_key, or set": "check",
    "FORMATS lists": "`distgen formats` lists",
    "resume it, overwrite it": "resume it with --resume, begin anew with --overwrite",
}


def add_flags(message: str) -> str:
    """Return the message of an error on one line, in the words of the command line.

    >>> add_flags("no whole answer in 60 s; raise timeout, or ask for fewer tokens.")
    'no whole answer in 60 s; raise --timeout, or ask for fewer tokens with --param max_tokens=N.'
    """
    text = " ".join(message.split()).removesuffix(".")
    for word, option in _WORDS.items():
        text = text.replace(word, option)
    return f"{text}."
