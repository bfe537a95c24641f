"""The output file as other libraries read it: late failures and tool calls, failed first rows, lone surrogates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from returns.result import Failure, Success

from distgen.cli.options import Options
from distgen.cli.rows import encode, parse_records
from distgen.completion import Completion, ToolCall
from distgen.errors import NoText, RequestFailed
from distgen.journal import to_json_line
from distgen.llm import Generation, RowResult
from distgen.prompt import Prompt

TIMEOUT: RowResult[str] = Failure(RequestFailed("timeout", "no whole answer in 60 s"))


def answer(completion: Completion) -> RowResult[str]:
    parsed = Success(completion.text) if completion.text else Failure(NoText("tool_call", "the model asked for a tool"))
    return Success((Generation("m", Prompt("Hi"), completion, parsed),))


LONG = answer(Completion("long " * 1_000, finish_reason="stop"))
CALL = answer(Completion("", finish_reason="tool_calls", tool_calls=(ToolCall("1", "f", "{}"),)))
FILES = {
    "late failure": [LONG] * 600 + [TIMEOUT],
    "late tool call": [LONG] * 600 + [CALL],
    "failed first rows": [TIMEOUT] * 600 + [LONG],
    "lone surrogate": [answer(Completion("\ud800"))] * 3,
}


@pytest.fixture(params=list(FILES))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    answers = FILES[request.param]
    records = parse_records([json.dumps({"user": "Hi"}).encode()] * len(answers), Options())
    lines = [
        to_json_line(encode(Options(model="m"), record, each)) for record, each in zip(records, answers, strict=True)
    ]
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def errors(path: Path) -> list[str]:
    return [json.loads(line)["error"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_pyarrow_reads_it(path: Path) -> None:
    reader = pytest.importorskip("pyarrow.json")
    assert reader.read_json(path)["error"].to_pylist() == errors(path)


@pytest.mark.slow
def test_polars_reads_it(path: Path) -> None:
    polars = pytest.importorskip("polars")
    assert polars.read_ndjson(path)["error"].to_list() == errors(path)


@pytest.mark.slow
def test_duckdb_reads_it(path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(f"select error from read_json('{path}') order by row").fetchall()
    assert [error for (error,) in rows] == errors(path)


@pytest.mark.slow
def test_datasets_reads_it(path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = str(path.parent / "cache")
    assert datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=folder)["error"][:] == errors(
        path
    )
