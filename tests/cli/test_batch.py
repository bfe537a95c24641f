"""The commands `batch write` and `batch read`, with a double of a service that answers the requests through a real server."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distgen import batch
from distgen.cli import main
from tests.support.batches import BatchServiceDouble
from tests.support.servers import Act, Server, response

pytestmark = pytest.mark.usefixtures("clean")


def write_rows(*rows: Mapping[str, object]) -> None:
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def users(count: int) -> list[dict[str, object]]:
    return [{"user": f"u{number}", "id": number} for number in range(count)]


def write(*more: str, output: str = "requests.jsonl") -> int:
    return main(["batch", "write", "rows.jsonl", "-o", output, "--model", "tiny", *more])


def read(*more: str, results: Sequence[str] = ("output.jsonl", "errors.jsonl")) -> int:
    return main(["batch", "read", "rows.jsonl", *results, "-o", "answers.jsonl", *more])


def run(server: Server, *more: str) -> int:
    to = ["--base-url", server.url, "--model", "tiny"]
    return main(["run", "rows.jsonl", "-o", "answers.jsonl", *to, *more])


def serve(server: Server, *requests: str, keep: Callable[[bytes], bool] = lambda _: True) -> None:
    """Answer the request files, and write the result lines to keep to two files, shuffled."""
    files = [Path(name).read_bytes().splitlines() for name in requests or ("requests.jsonl",)]
    for name, lines in zip(
        ("output.jsonl", "errors.jsonl"), BatchServiceDouble(server).serve(files, seed=1), strict=True
    ):
        Path(name).write_bytes(b"".join(line for line in lines if keep(line)))


def rows_of(name: str = "answers.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def texts(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [[generation["text"] for generation in row["generations"]] for row in rows]


@pytest.mark.parametrize("more", [(), ("-n", "2"), ("--format", "chatml", "--system", "Be brief.")])
def test_the_answers_file_is_the_one_that_a_run_writes(server: Server, more: Sequence[str]) -> None:
    write_rows(*users(9), {"user": None}, {"user": "bad"})
    server.script(to={"bad": [Act(response(400, b'{"error": {"message": "no"}}'))] * 9})
    given = [*more, "--param", "max_tokens=9", "--extra", "top_k=5"]
    assert write(*given) == 0
    serve(server)
    assert read() == 1
    Path("answers.jsonl").rename("by_batch.jsonl")
    Path("answers.jsonl.distgen.json").rename("by_batch.json")
    assert run(server, *given) == 1
    assert Path("by_batch.jsonl").read_bytes() == Path("answers.jsonl").read_bytes()
    assert Path("by_batch.json").read_bytes() == Path("answers.jsonl.distgen.json").read_bytes()


def test_the_requests_are_split_and_their_files_are_named(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distgen.batch.write", partial(batch.write, max_lines=3))
    write_rows(*users(7))
    assert write() == 0
    names = ["requests.jsonl", "requests-2.jsonl", "requests-3.jsonl"]
    assert [len(rows_of(name)) for name in names] == [3, 3, 1]
    said = capsys.readouterr().err
    assert [f"distgen: wrote {name}\n" in said for name in names] == [True] * 3
    serve(server, *names)
    assert read() == 0
    assert texts(rows_of()) == [[f"u{number}"] for number in range(7)]


def test_each_answer_may_have_a_request_of_its_own(server: Server) -> None:
    write_rows(*users(3))
    assert write("-n", "2", "--no-n", "--param", "seed=7") == 0
    assert [row["body"]["seed"] for row in rows_of("requests.jsonl")] == [7, 8] * 3
    serve(server)
    assert read() == 0
    assert texts(rows_of()) == [[f"u{number}"] * 2 for number in range(3)]


def test_rows_that_failed_are_asked_by_a_run(server: Server) -> None:
    write_rows(*users(9))
    assert write() == 0
    serve(server, keep=lambda line: random.Random(line).random() < 0.5)
    assert read() == 1
    failed = [row["user"] for row in rows_of() if row["error"] == "no_line"]
    assert 0 < len(failed) < 9
    server.script()
    assert run(server, "--resume") == 0
    assert sorted(json.loads(seen.body)["messages"][-1]["content"] for seen in server.seen()) == failed
    assert texts(rows_of()) == [[f"u{number}"] for number in range(9)]


def test_rows_that_failed_go_into_a_next_batch(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(9))
    assert write() == 0
    serve(server, keep=lambda line: random.Random(line).random() < 0.5)
    assert read() == 1
    failed = [row["user"] for row in rows_of() if row["error"] == "no_line"]
    assert write(output="next.jsonl") == 2
    assert "answers.jsonl already exists; resume it" in capsys.readouterr().err
    assert write("--resume", "--param", "max_tokens=99", output="next.jsonl") == 0
    assert [row["body"]["messages"][0]["content"] for row in rows_of("next.jsonl")] == failed
    assert {row["body"]["max_tokens"] for row in rows_of("next.jsonl")} == {99}
    serve(server, "next.jsonl")
    assert read("--resume") == 0
    assert texts(rows_of()) == [[f"u{number}"] for number in range(9)]
    assert f"rows: {len(failed)} answered (and {9 - len(failed)} before), 0 failed" in capsys.readouterr().err


def test_a_batch_goes_on_where_a_run_ended(server: Server) -> None:
    write_rows(*users(5))
    assert run(server, "--limit", "2") == 0
    assert write("--resume") == 0
    assert [row["custom_id"].partition("-")[0] for row in rows_of("requests.jsonl")] == ["3", "4", "5"]
    serve(server)
    assert read("--resume") == 0
    assert texts(rows_of()) == [[f"u{number}"] for number in range(5)]


def test_all_results_are_read_whatever_failed_before(server: Server) -> None:
    write_rows(*[{"user": "bad"}] * 120, {"user": "u"})
    server.script(to={"bad": [Act(response(401, b'{"error": {"message": "no key"}}'))] * 120})
    assert write() == 0
    serve(server)
    assert read() == 1
    assert [row["error"] for row in rows_of()] == ["status 401"] * 120 + [""]


def test_equal_rows_have_answers_of_their_own(server: Server) -> None:
    write_rows({"user": "same", "id": 1}, {"user": "same", "id": 2})
    assert write() == 0
    answers = BatchServiceDouble(server).serve([Path("requests.jsonl").read_bytes().splitlines()], seed=1)
    first, second = sorted(line for lines in answers for line in lines)
    Path("output.jsonl").write_bytes(first)
    Path("errors.jsonl").write_bytes(second.replace(b"same", b"other"))
    assert read(results=["output.jsonl"]) == 1
    assert read("--resume") == 0
    assert texts(rows_of()) == [["same"], ["other"]]


def test_rows_may_be_limited_and_be_generations(server: Server) -> None:
    write_rows(*({"user": f"u{number}", "generations": [{"text": "a"}, {"text": "b"}]} for number in range(3)))
    more = ["--each-generation", "--limit", "3"]
    assert write(*more, "--template", "{user}{text}") == 0
    serve(server)
    assert read(*more) == 0
    assert texts(rows_of()) == [["u0a"], ["u0b"], ["u1a"]]


def test_results_that_came_later_are_read_into_the_same_file(server: Server) -> None:
    write_rows(*users(6))
    assert write() == 0
    serve(server)
    assert read(results=["output.jsonl"]) == 1
    assert read("--resume", results=["errors.jsonl"]) == 0
    assert texts(rows_of()) == [[f"u{number}"] for number in range(6)]


def test_results_of_other_rows_are_refused_by_row(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(3))
    assert write() == 0
    serve(server)
    write_rows({"user": "u0", "id": 0}, {"user": "edited"}, {"user": "u2", "id": 2})
    assert read() == 1
    assert [row["error"] for row in rows_of()] == ["", "other_batch", ""]
    assert "row 2: other_batch: the result files have 0 of 1 answers; the files are for" in capsys.readouterr().err


def test_an_answers_file_without_settings_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(2))
    assert write("--answers", "other.jsonl") == 0
    assert read() == 2
    said = capsys.readouterr().err
    assert "answers.jsonl.distgen.json is no file; `distgen batch write --answers answers.jsonl` writes it." in said
    assert not Path("answers.jsonl").exists()


def test_results_of_another_batch_answer_no_row(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(2))
    assert write() == 0
    assert write("--param", "temperature=0.5", output="other.jsonl") == 0
    serve(server)
    assert read() == 1
    assert [row["error"] for row in rows_of()] == ["other_batch"] * 2
    assert "0 of 1 answers; the files are for other inputs or parameters: read with" in capsys.readouterr().err
    assert write(output="again.jsonl") == 0
    assert read() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "old.jsonl", "--model", "m"], "distgen: old.jsonl: File exists."),
        (["-o", "new.jsonl"], "--model is missing: name a model"),
        (["-o", "-", "--model", "m"], "distgen: the batch commands need files, and - is none; name one."),
        (["-o", "new.jsonl", "--model", "m", "--answers", "-"], "the batch commands need files"),
        (["-o", "new.jsonl", "--model", "m", "--user-field", "no"], "so there are no requests; see `distgen render`."),
        (["-o", "new.jsonl", "--model", "m", "--answers", "old.jsonl"], "old.jsonl already exists; resume it"),
        (["-o", "new.jsonl", "--model", "m", "--extra", "n=2"], "'n' is set by the backend itself"),
        (
            ["-o", "new.jsonl", "--model", "m", "--timeout", "5"],
            "unknown argument '--timeout'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_batch_that_cannot_be_written_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    write_rows(*users(2))
    Path("old.jsonl").write_text("mine\n")
    assert main(["batch", "write", "rows.jsonl", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert Path("old.jsonl").read_text() == "mine\n"
    assert write() == 0


def test_an_answers_file_of_other_settings_gives_no_batch(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(2))
    assert run(server) == 0
    assert write("--system", "Be brief.", "--resume") == 2
    assert "system was None and is now 'Be brief.'" in capsys.readouterr().err
