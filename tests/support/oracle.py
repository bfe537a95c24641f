"""Writes the expected texts of tests/data, by running the models' published chat templates as transformers does.

    python -m tests.support.oracle FOLDER

FOLDER holds published templates, one subfolder a source. An entry of oracle.json is rendered anew if FOLDER holds its
`template`, and so are the entries of its format in edges.json and dated.json. Every other entry stays as it is. A new
format needs an entry in oracle.json with `"cases": []`: it gets the prompts of the first entry, and entries in
edges.json and, if it has `dated`, in dated.json. The program lays the files out. Nothing of distgen is imported here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal, NotRequired, TypeAlias, TypedDict

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Case(TypedDict):
    name: str
    system: str | None
    history: list[list[str]]
    user: str
    expected: str | list[dict[str, str]] | None  # None: the template raises
    error: NotRequired[str | None]  # the exception that it raises
    contested: NotRequired[bool]  # two sources differ


class Entry(TypedDict):
    format: str
    cases: list[Case]


class Dated(Entry):
    date: str
    reasoning: Literal["low", "medium", "high"] | None


# What the expected texts rest on: the template of the model's repository, copied unchanged; a copy of it in a project that
# adapts templates, or in a GGUF file; code that the maker itself published; code of another project; a description of an API.
Authority: TypeAlias = Literal["hub-copy", "secondary-copy", "vendor", "peer-code", "api"]


class Source(Entry):
    source: str
    authority: Authority
    bos: str  # as in the record, and so are these two
    stop: list[str]
    special_tokens: list[str]
    template: NotRequired[str]  # the file in FOLDER
    variables: NotRequired[Mapping[str, object]]  # special tokens, and what apply_chat_template is given besides
    today: NotRequired[str]  # the day that the cases are rendered on
    dated: NotRequired[Mapping[str, str]]  # variables that print a day; {} where the template asks for the day itself


REQUIRED: Final = frozenset({"format", "source", "authority", "bos", "stop", "special_tokens", "cases"})
DATA: Final = Path(__file__).parent.parent / "data"
ORACLE: Final[list[Source]] = json.loads((DATA / "oracle.json").read_text("utf-8"))
EDGES: Final[list[Entry]] = json.loads((DATA / "edges.json").read_text("utf-8"))  # empty and blank texts, everywhere
DATED: Final[list[Dated]] = json.loads((DATA / "dated.json").read_text("utf-8"))
# A leap day, days of one digit, the last day of a year, and days that templates name.
DAYS: Final = (
    *("2024-02-29", "2024-07-26", "2025-01-05", "2025-03-10"),
    *("2025-05-01", "2025-08-05", "2025-12-31", "2026-09-09"),
)


class Generation(Extension):
    """Writes the body of `{% generation %}`, which marks the answers in a template for training."""

    tags = {"generation"}  # noqa: RUF012 (a variable of the class in jinja2 too)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> str:
    raise TemplateError(message)


def messages_of(case: Case) -> list[dict[str, str]]:
    """Return the prompt of a case as the messages that a chat template takes."""
    system = [] if case["system"] is None else [("system", case["system"])]
    turns = [turn for user, answer in case["history"] for turn in (("user", user), ("assistant", answer))]
    return [{"role": role, "content": text} for role, text in (*system, *turns, ("user", case["user"]))]


def compile_template(template: str, today: str, generation: type[Extension]) -> Template:
    """Return the template in the environment of transformers.

    https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/utils/chat_template_utils.py
    """
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[generation, loopcontrols])
    jinja.filters["tojson"] = to_json
    names = {"raise_exception": raise_exception, "strftime_now": datetime.fromisoformat(today).strftime}
    return jinja.from_string(template, globals=names)


def render(template: str, variables: Mapping[str, object], today: str, cases: Sequence[Case]) -> list[Case]:
    """Return each case with the text that the template renders on that day, or with the exception that it raises."""
    compiled = compile_template(template, today, Generation)
    given = {"tools": None, "documents": None, "add_generation_prompt": True, **variables}
    rendered: list[Case] = []
    for case in cases:
        try:
            text = compiled.render(given, messages=messages_of(case))
            rendered.append({**case, "expected": text, "error": None})
        except Exception as error:  # a template may raise any exception of Python's
            rendered.append({**case, "expected": None, "error": f"{type(error).__name__}: {error}"})
    return rendered


def edges_of(source: Source) -> Entry:
    """Return the format's entry in edges.json, or a new one."""
    known = next((entry for entry in EDGES if entry["format"] == source["format"]), None)
    return known or {"format": source["format"], "cases": EDGES[0]["cases"]}


def days_of(source: Source) -> list[Dated]:
    """Return the format's entries in dated.json, or new ones."""
    known = [day for day in DATED if day["format"] == source["format"]]
    new: Dated = {"format": source["format"], "date": "", "reasoning": None, "cases": DATED[0]["cases"]}
    return known or [{**new, "date": day} for day in DAYS if "dated" in source]


def render_day(source: Source, template: str, day: Dated) -> Dated:
    printed = {name: date.fromisoformat(day["date"]).strftime(form) for name, form in source.get("dated", {}).items()}
    effort = {} if day["reasoning"] is None else {"reasoning_effort": day["reasoning"]}
    variables = {**source.get("variables", {}), **printed, **effort}
    return {**day, "cases": render(template, variables, day["date"], day["cases"])}


def find_mistake(folder: Path) -> str | None:
    """Return what is wrong with the folder or with an entry that has no cases yet."""
    if not folder.is_dir():
        return f"{folder}: no such folder"
    for source in ORACLE:
        missing = sorted(REQUIRED - source.keys())
        if missing:
            return f"oracle.json: the entry of {source.get('format', '?')} lacks {', '.join(missing)}"
        template = source.get("template")
        if not source["cases"] and (template is None or not (folder / template).is_file()):
            return f"oracle.json: {source['format']} has no cases, and {folder} has no template {template!r} to render them"
    if not any((folder / source["template"]).is_file() for source in ORACLE if "template" in source):
        return f"{folder} has none of the templates that oracle.json names, such as {ORACLE[0].get('template')}"
    return None


def main(folder: Path) -> None:
    """Render every format whose template is in the folder, and write the three files."""
    oracle = {entry["format"]: entry for entry in ORACLE}
    edges = {entry["format"]: entry for entry in EDGES}
    dated = {(day["format"], day["date"], day["reasoning"]): day for day in DATED}
    for name, source in oracle.items():
        if "template" not in source or not (folder / source["template"]).is_file():
            continue
        template = (folder / source["template"]).read_text("utf-8")
        variables, today, edge = source.get("variables", {}), source.get("today", DAYS[0]), edges_of(source)
        cases = render(template, variables, today, source["cases"] or ORACLE[0]["cases"])
        edge_cases = render(template, variables, today, edge["cases"])
        oracle[name] = {**source, "cases": cases}
        edges[name] = {**edge, "cases": edge_cases}
        for day in days_of(source):
            dated[name, day["date"], day["reasoning"]] = render_day(source, template, day)
        count, raised = len(cases) + len(edge_cases), sum(case["expected"] is None for case in (*cases, *edge_cases))
        print(f"{name:24} {source['template']:60} {count} cases, {raised} refused by the template")
    for file, entries in (("oracle", oracle), ("edges", edges), ("dated", dated)):
        (DATA / f"{file}.json").write_text(to_json([*entries.values()], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.support.oracle", description="Write the expected texts.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="published templates, one subfolder a source")
    folder: Path = parser.parse_args().folder
    mistake = find_mistake(folder)
    if mistake:
        raise SystemExit(mistake)
    main(folder)
