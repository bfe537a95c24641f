"""Options of the command line: one frozen value, made once from the arguments and the environment."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, NoReturn, final

from distgen.backends.params import Params
from distgen.cli.rows import PromptFields
from distgen.journal import Mode, to_json_line


class UsageError(Exception):
    """One sentence that says why a command cannot begin or go on."""


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
    base_url: str = ""
    hf: str = ""
    batch_size: int = 8
    arguments: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, object]:
        """What must not change when a file is resumed."""
        where = self.fields
        asked = {"model": self.model, "format": self.format, "no_bos": self.no_bos, "system": where.system}
        return {**asked, "user_field": where.user_field, "template": where.template, "hf": self.hf}


def read_options(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Read arguments; raise UsageError for what argparse cannot know to be wrong.

    >>> read_options(["run", "in.jsonl", "-o", "out.jsonl"], {}).model
    'echo'
    """
    given = vars(PARSER.parse_args(arguments))
    if given["command"] in ("help", "formats"):
        return Options(command=given["command"])
    fields = PromptFields(given.pop("user_field"), given.pop("system"), given.pop("template"))
    if fields.template is not None and fields.user_field is not None:
        raise UsageError("--template and --user-field exclude each other.")
    if given["command"] == "render":
        return Options(fields=fields, **given)
    if given.pop("overwrite"):
        mode: Mode = "overwrite"
    else:
        mode = "resume" if given["resume"] else "new"
    del given["resume"]
    for name in ("params", "extra"):
        given[name] = dict(given[name])
    url = given.pop("base_url")
    url = environ.get("OPENAI_BASE_URL", "") if url is None and not given["hf"] else url or ""
    model = _model(given.pop("model"), url, given["hf"], environ)
    if given["hf"] and given["format"] is None:
        raise UsageError("--hf needs --format, the chat format of the model; `distgen formats` lists them.")
    given["format"] = given["format"] or "openai"
    return Options(fields=fields, mode=mode, base_url=url, model=model, arguments=tuple(arguments), **given)


def _model(model: str | None, url: str, hf: str, environ: Mapping[str, str]) -> str:
    if hf:
        return model or Path(hf).name
    if not url and model:
        raise UsageError("--model needs a server: add --base-url http://127.0.0.1:8000/v1, or set OPENAI_BASE_URL.")
    if not url:
        return "echo"
    model = model or environ.get("OPENAI_MODEL", "")
    if not model:
        raise UsageError("--base-url needs --model, the name of a model on that server, or OPENAI_MODEL.")
    return model


@final
class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _utf8(text: str) -> str:
    """Read an argument that the locale could not decode as UTF-8, as files are."""
    try:
        return os.fsencode(text).decode() if any("\udc80" <= char <= "\udcff" for char in text) else text  # PEP 383
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None


def _pair(text: str) -> tuple[str, object]:
    name, _, value = _utf8(text).partition("=")
    try:
        read: object = json.loads(value)
        to_json_line({name: read})  # refuses NaN
    except (ValueError, RecursionError):
        hint = f"{name}={json.dumps(value)}" if value else "temperature=0.7"
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON, such as {hint!r}") from None
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON, such as 'temperature=0.7'")
    return name, read


def _param(text: str) -> tuple[str, object]:
    name, value = _pair(text)
    if name not in Params.__annotations__:
        nearest = get_close_matches(name, Params.__annotations__, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "what only this server takes goes into --extra"
        raise argparse.ArgumentTypeError(f"the protocol has no parameter {name!r}; {hint}")
    return name, value


_DESCRIPTION: Final = "Generate data with language models: one answered row for each row of JSON Lines."
_EPILOG: Final = """\
An input row is a JSON object with "user" (and, optionally, "system" and
"history": [[user, assistant], ...]), or with OpenAI-style "messages", or with
the fields that --user-field or --template name. The output row has all fields
of the input, and "row", "model", "error", "error_message" and "generations".

Each row is written as soon as it is answered, so a run may be killed at any
time; --resume asks the rest. Press Ctrl-C once to finish the requests under
way, twice to end at once.

  distgen render rows.jsonl --format llama3        show what would be sent
  distgen run rows.jsonl -o try.jsonl              rehearse, offline
  distgen run rows.jsonl -o out.jsonl --base-url http://127.0.0.1:8000/v1 \\
    --model my-model --param max_tokens=256 --limit 20

Environment: OPENAI_API_KEY is the key, OPENAI_BASE_URL and OPENAI_MODEL stand
for --base-url and --model (--base-url '' rehearses); NO_COLOR: no colours.

Exit status: 0 all rows answered, 1 some failed, 2 it could not begin or go on,
3 --max-total-tokens are spent, 130 interrupted. Written rows always stay.
"""


def _make_parser() -> argparse.ArgumentParser:
    from distgen import __version__

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
    add("--format", metavar="NAME", default=None, help="chat format of the model, see `distgen formats` [openai]")
    add("--system", type=_utf8, metavar="TEXT", help="system text of rows that have none")
    add("--user-field", type=_utf8, metavar="NAME", help="field with the user's text")
    add("--template", type=_utf8, metavar="TEXT", help="user's text made of fields: 'Rate this: {question} -> {text}'")
    add("--each-generation", action="store_true", help="read an answers file: one row for each generation with text")
    add("--no-bos", action="store_true", help="leave out the BOS token, for servers that add it")
    add("--limit", type=_positive, metavar="N", help="only the first N rows")


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUTPUT.jsonl", help="output file; - is stdout")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--resume", action="store_true", help="keep the answered rows of the output and ask the rest")
    modes.add_argument("--overwrite", action="store_true", help="delete what the output holds")
    add("--max-total-tokens", type=_positive, metavar="N", help="ask no more once this run took N tokens")
    failures = "end after N failures in a row that no other row can escape, such as a wrong key [100]"
    add("--max-failures", type=_positive, default=100, metavar="N", help=failures)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--num-generations", type=_positive, default=1, metavar="N", help="answers a row [1]")
    param = "a sampling parameter, such as temperature=0.7 or stop='[\"END\"]'; may be repeated"
    add("--param", dest="params", type=_param, action="append", default=[], metavar="KEY=JSON", help=param)
    extra = "a field of the request that only this server takes, such as top_k=20; may be repeated"
    add("--extra", type=_pair, action="append", default=[], metavar="KEY=JSON", help=extra)
    add("--concurrency", type=_positive, default=32, metavar="N", help="requests at once [32]")
    add("--timeout", type=_seconds, default=600.0, metavar="SECONDS", help="deadline of each request [600]")
    add("--retries", type=_count, default=5, metavar="N", help="further attempts of a failed request [5]")
    add("--model", metavar="NAME", help="name of the model on the server")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--base-url", metavar="URL", help="OpenAI-compatible server: http://127.0.0.1:8000/v1")
    models.add_argument("--hf", default="", metavar="NAME", help="transformers model to load, by folder or name")
    add("--batch-size", type=_positive, default=8, metavar="N", help="with --hf: rows generated together [8]")


PARSER: Final = _make_parser()
