"""Options of the command line: one frozen value, made once from the arguments and the environment."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Final, Literal, NoReturn, final

from distgen import __version__
from distgen.backends.params import Params
from distgen.cli.records import PromptFields, UsageError
from distgen.journal import Mode


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All options of all commands. A model is asked at `base_url`, or loaded as `hf`, or else the run is a rehearsal."""

    command: Literal["run", "render", "formats", "help"] = "help"
    input: str = "-"
    output: str = "-"
    format: str = "openai"
    fields: PromptFields = field(default_factory=PromptFields)
    each_generation: bool = False
    no_bos: bool = False
    mode: Mode = "new"
    limit: int | None = None
    max_total_tokens: int | None = None
    max_failures: int = 100
    num_generations: int = 1
    params: Mapping[str, object] = field(default_factory=dict[str, object])
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    concurrency: int = 32
    timeout: float = 600.0
    retries: int = 5
    model: str = ""
    base_url: str | None = ""
    """None: that of the environment."""
    hf: str = ""
    batch_size: int = 8
    arguments: tuple[str, ...] = ()


def read_options(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Read arguments; raise UsageError for what cannot be meant.

    >>> read_options(["run", "in.jsonl", "-o", "out.jsonl"], {}).model
    'echo'
    """
    given = vars(PARSER.parse_args(arguments))
    if given["command"] in ("run", "render"):
        if given["format"] is None and given.get("hf"):
            raise UsageError("--hf needs --format, the chat format of the model; `distgen formats` lists them.")
        given["format"] = given["format"] or "openai"
        given["fields"] = PromptFields(given.pop("user_field"), given.pop("system"), given.pop("template"))
    if given["command"] != "run":
        return Options(**given)
    given["params"], given["extra"] = dict(given["params"]), dict(given["extra"])
    options = Options(**given, arguments=tuple(arguments))
    if options.hf:
        return replace(options, base_url="", model=options.model or Path(options.hf).name)
    _check_params(options.params)
    return _with_server(options, environ)


def _check_params(params: Mapping[str, object]) -> None:
    for name in params:
        if name not in Params.__annotations__:
            nearest = get_close_matches(name, Params.__annotations__, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"if this server knows it: --extra {name}=..."
            raise UsageError(f"--param: the protocol has no parameter {name!r}; {hint}")


def _with_server(options: Options, environ: Mapping[str, str]) -> Options:
    url = environ.get("OPENAI_BASE_URL", "") if options.base_url is None else options.base_url
    if not url and options.model:
        raise UsageError("--model needs a server: add --base-url http://127.0.0.1:8000/v1, or set OPENAI_BASE_URL.")
    model = (options.model or environ.get("OPENAI_MODEL", "")) if url else "echo"
    if not model:
        raise UsageError("--base-url needs --model, the name of a model on that server, or OPENAI_MODEL.")
    return replace(options, base_url=url, model=model)


@final
class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def _whole(least: int, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
    return int(text)


_positive: Final = partial(_whole, 1)


def _pair(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        read: object = json.loads(value)
        json.dumps(read, allow_nan=False)
    except (ValueError, RecursionError):
        read = None
    if not name or read is None:
        hint = f"{name}={json.dumps(value)}" if name and value else "temperature=0.7"
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON, such as {hint!r}")
    return name, read


_DESCRIPTION: Final = "Generate data with language models: one answered row for each row of JSON Lines."
_EPILOG: Final = """\
An input row has "user" (and "system", "history"), or OpenAI-style "messages".
Each row is written as it is answered, so a run may be killed; --resume asks the
rest. Ctrl-C once finishes the requests under way, twice ends at once.

  distgen run rows.jsonl -o out.jsonl --base-url http://127.0.0.1:8000/v1 \\
    --model my-model --param max_tokens=256 --limit 20

Environment: OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL.
Exit status: 0 all rows answered, 1 some failed, 2 it could not begin or go on,
3 --max-total-tokens are spent, 130 interrupted. Written rows always stay.
"""


def _make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("distgen", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"distgen {__version__}")
    parser.set_defaults(command="help")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    run = commands.add_parser("run", help="answer each row of a file", epilog=_EPILOG, formatter_class=raw)
    render = commands.add_parser("render", help="show what each row would send")
    formats = commands.add_parser("formats", help="list the chat formats")
    for name, command in (("run", run), ("render", render), ("formats", formats)):
        command.set_defaults(command=name)
    for command in (run, render):
        _add_input(command)
    _add_output(run)
    _add_model(run)
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT.jsonl", help="JSON Lines in UTF-8; - is stdin")
    add("--format", metavar="NAME", help="chat format of the model, see `distgen formats` [openai]")
    add("--system", metavar="TEXT", help="system text of rows that have none")
    user = parser.add_mutually_exclusive_group()
    user.add_argument("--user-field", metavar="NAME", help="field with the user's text")
    user.add_argument(
        "--template", metavar="TEXT", help="user's text, made of fields: 'Rate this: {question} -> {text}'"
    )
    add("--each-generation", action="store_true", help="read an answers file: one row for each generation with text")
    add("--no-bos", action="store_true", help="leave out the BOS token, for servers that add it")
    add("--limit", type=_positive, metavar="N", help="only the first N rows")


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUTPUT.jsonl", help="output file; - is stdout")
    modes = parser.add_mutually_exclusive_group()
    parser.set_defaults(mode="new")
    for mode, does in (
        ("resume", "keep the answered rows of the output and ask the rest"),
        ("overwrite", "replace the output"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=does)
    add("--max-total-tokens", type=_positive, metavar="N", help="ask no more once this run took N tokens")
    failures = "end after N failures in a row that no other row can escape, such as a wrong key [100]"
    add("--max-failures", type=_positive, default=100, metavar="N", help=failures)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--num-generations", type=_positive, default=1, metavar="N", help="answers a row [1]")
    param = "a sampling parameter, such as temperature=0.7 or stop='[\"END\"]'; may be repeated"
    add("--param", dest="params", type=_pair, action="append", default=[], metavar="KEY=JSON", help=param)
    extra = "a field of the request that only this server takes, such as top_k=20; may be repeated"
    add("--extra", type=_pair, action="append", default=[], metavar="KEY=JSON", help=extra)
    add("--concurrency", type=_positive, default=32, metavar="N", help="requests at once [32]")
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="deadline of each request [600]")
    add(
        "--retries",
        type=int,
        choices=range(101),
        default=5,
        metavar="N",
        help="further attempts of a failed request [5]",
    )
    add("--model", default="", metavar="NAME", help="name of the model on the server")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--base-url", metavar="URL", help="OpenAI-compatible server: http://127.0.0.1:8000/v1")
    models.add_argument("--hf", default="", metavar="NAME", help="transformers model to load, by folder or name")
    add("--batch-size", type=_positive, default=8, metavar="N", help="with --hf: rows generated together [8]")


PARSER: Final = _make_parser()
