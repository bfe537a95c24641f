"""The command line against a real server: rows, failures, early ends, exit statuses, messages."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pty
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO, TypeAlias

import pytest
from returns.result import Failure, Success

import distgen
from distgen import LLM, Asyncio, Prompt, Task
from distgen.backends.generate import Batch
from distgen.cli import main
from distgen.cli.options import read_options
from distgen.cli.rows import Record, open_output
from distgen.cli.run import Counts, progress_line, summary, time_requests
from distgen.cli.run import run as run_options
from distgen.completion import Completion, Usage
from distgen.errors import RequestFailed
from distgen.formats import default
from distgen.llm import Generation, RowResult
from distgen.prompt import Rendered
from tests.support.parts import mounted
from tests.support.servers import Act, Server, chat_body, response

Row: TypeAlias = RowResult[str]
KEYS = ["row", "model", "error", "error_message", "generations"]


pytestmark = pytest.mark.usefixtures("clean")


def write_rows(*rows: Mapping[str, object]) -> str:
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return "in.jsonl"


def users(count: int) -> list[dict[str, object]]:
    return [{"user": f"u{number}"} for number in range(count)]


def run(server: Server | None, *more: str, output: str = "out.jsonl") -> int:
    to = ["--base-url", server.url, "--model", "tiny"] if server else []
    return main(["run", "in.jsonl", "-o", output, *to, *more])


def written(output: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(output).read_text().splitlines()]


def status(number: int, message: str = "no") -> Act:
    return Act(response(number, json.dumps({"error": {"message": message}}).encode()))


def test_every_row_has_the_same_keys_and_no_null(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "ok", "id": 7}, {"user": "bad"}, {"user": None}, {"other": 1})
    server.script(to={"bad": [status(400, "bad prompt")] * 2})
    assert run(server, "-n", "2") == 1
    rows = written()
    assert [[*row][-5:] for row in rows] == [KEYS] * 4
    assert [row["error"] for row in rows] == ["", "status 400", "invalid_row", "missing_field"]
    assert [len(row["generations"]) for row in rows] == [2] * 4
    types = {
        tuple((key, type(value).__name__) for key, value in each.items()) for row in rows for each in row["generations"]
    }
    assert len(types) == 1
    assert "NoneType" not in dict(types.pop()).values()
    said = capsys.readouterr().err
    assert 'row 3: invalid_row: "user" is null, not text.' in said
    assert "rows: 1 answered, 3 failed (" in said
    assert re.search(r"\nlatency: p50 \d+\.\d\d s, p90 \d+\.\d\d s \(retries included\)\n", said)


def test_reserved_input_names_are_kept(server: Server) -> None:
    write_rows({"user": "ok", "row": 9, "model": "theirs", "input_model": 1})
    assert run(server) == 0
    (row,) = written()
    assert (row["row"], row["input_row"], row["input_input_model"], row["input_model"], row["model"]) == (
        1,
        9,
        1,
        "theirs",
        "tiny",
    )
    assert run(server, "--resume") == 0
    assert len(server.seen()) == 1


def test_a_rehearsal_is_labelled_echo(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "Hi"})
    assert run(None, "--format", "llama3") == 0
    (row,) = written()
    assert row["model"] == "echo"
    assert "<|start_header_id|>" in row["generations"][0]["text"]
    assert "rehearsal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("act", "kind"),
    [(status(401), "status 401"), (status(403), "status 403"), (status(404), "status 404")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_whose_first_rows_all_fail_alike_ends(
    server: Server, capsys: pytest.CaptureFixture[str], act: Act, kind: str
) -> None:
    write_rows(*users(100))
    server.script(then_always=act)
    assert run(server, "--concurrency", "4") == 2
    assert len(server.seen()) < 30
    said = capsys.readouterr().err
    assert f"stopped: 4 consecutive rows failed ({kind}); mend the cause above and run again." in said
    assert said.count("row 1: ") + said.count("row 2: ") + said.count("row 3: ") + said.count("row 4: ") == 1
    server.script()
    assert run(server) == 0  # the failed try does not block this one
    assert len(written()) == 100


def test_a_missing_field_ends_the_run_and_names_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*[{"question": "x"}] * 50)
    assert run(None, "--concurrency", "4") == 2
    assert (
        'it has no field "user"; its fields are "question"; name another with --user-field or --template.'
        in capsys.readouterr().err
    )


def test_failures_in_a_row_end_a_run_that_had_answers(server: Server) -> None:
    write_rows(*users(60))
    server.script(*[Act(response(200, chat_body("x")))] * 5, then_always=status(403))
    assert run(server, "--concurrency", "2", "--max-failures", "10") == 2
    assert len(server.seen()) < 25


def test_a_field_that_goes_missing_later_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(40), *[{"question": "x"}] * 60)
    assert run(None, "--concurrency", "4", "--max-failures", "10") == 2
    assert len(written()) < 55
    assert "stopped: 10 consecutive rows failed (missing_field)" in capsys.readouterr().err


def test_other_failures_never_end_a_run(server: Server) -> None:
    write_rows(*users(20))
    server.script(then_always=status(400))
    assert run(server, "--concurrency", "2", "--max-failures", "3") == 1
    assert len(written()) == 20


def test_a_spent_budget_ends_the_run_and_says_how_to_go_on(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(50))
    server.script(then_always=Act(response(200, chat_body("x"))))
    assert run(server, "--concurrency", "1", "--max-total-tokens", "24") == 3
    assert len(written()) < 10
    assert "the budget of --max-total-tokens (24) is spent; to go on: distgen run in.jsonl" in capsys.readouterr().err
    assert [row["row"] for row in written()] == [*range(1, len(written()) + 1)]


def test_answers_that_were_cut_or_empty_are_counted(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(2))
    cut, empty = chat_body("x", finish_reason="length"), chat_body("", finish_reason="length")
    server.script(Act(response(200, cut)), Act(response(200, empty)))
    assert run(server, "--concurrency", "1") == 1
    assert "answers: 2 cut at max_tokens, 1 without text\n" in capsys.readouterr().err
    assert written()[1]["error"] == "no_text"
    assert run(server, "--resume", "--param", "max_tokens=500") == 0
    assert len(server.seen()) == 3


@pytest.mark.parametrize("retries", [0, 1])
def test_a_failed_request_is_made_again_as_often_as_said(server: Server, retries: int) -> None:
    write_rows({"user": "Hi"})
    server.script(then_always=status(500))
    assert run(server, "--retries", f"{retries}") == 1
    assert len(server.seen()) == retries + 1


def test_params_and_extra_are_sent(server: Server) -> None:
    write_rows({"user": "Hi"})
    assert run(server, "--param", "temperature=0.5", "--extra", "top_k=20", "--system", "Be brief.") == 0
    body = server.seen()[0].json()
    assert (body["temperature"], body["top_k"]) == (0.5, 20)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_a_second_run_judges_each_generation(server: Server) -> None:
    write_rows({"question": "2+2?"})
    server.script(Act(response(200, chat_body("4", "", "5"))))
    run(server, "-n", "3", "--user-field", "question")
    template = "Rate this: {question} -> {text}"
    assert main(["run", "out.jsonl", "-o", "judged.jsonl", "--each-generation", "--template", template]) == 0
    rows = written("judged.jsonl")
    assert [(row["text"], row["generation"], row["source_row"], row["row"]) for row in rows] == [
        ("4", 1, 1, 1),
        ("5", 3, 1, 2),
    ]
    assert [row["generations"][0]["text"] for row in rows] == ["Rate this: 2+2? -> 4", "Rate this: 2+2? -> 5"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--param", "logprob=1"], "did you mean 'logprobs'? Other fields of a request: --extra logprob=1;"),
        (["--param", "temprature=1"], "the protocol has no parameter 'temprature'; did you mean 'temperature'?"),
        (["--model", "m"], "model m needs a server: name it with --base-url, or set OPENAI_BASE_URL."),
        (["--each-generation"], "--each-generation needs --template or --user-field"),
        (["--base-url", "http://127.0.0.1:1/v1"], "--model is missing: name a model"),
        (["--hf", "gpt2"], "--hf needs --format"),
        (["--concurrency", "0"], "'0' is not a whole number, 1 or more"),
        (["--format", "lama3"], "no format is named 'lama3'; did you mean"),
        (["--template", "{x}", "--user-field", "y"], "--user-field and --template exclude each other"),
        (
            ["--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--timeout", "0"],
            "--timeout 0.0: give a positive number of seconds",
        ),
        (["--template", "Rate {question"], "'Rate {question' has no {field}, or a brace that is not {{ or }};"),
        (["--template", "Rate it"], "'Rate it' has no {field}"),
        (["--template", "Rate {{question}}"], "'Rate {{question}}' has no {field}"),
        (
            ["--concurency", "4"],
            "unknown argument '--concurency'; see `distgen run --help`.",
        ),
        (["--param", "stop=END"], "is not KEY=JSON, such as"),
    ],
    ids=lambda value: str(value).replace("'", ""),
)
def test_usage_errors_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str) -> None:
    write_rows({"user": "Hi"})
    assert run(None, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.csv", b"user,id\nHi,1\n", "in.csv is CSV, not JSON Lines in UTF-8; convert it: python -c"),
        ("in.tsv", b"user\tid\nHi\t1\n", "in.tsv is CSV, not JSON Lines"),
        ("in.txt", b"user,id\nHi,1\n", "in.txt is CSV, not JSON Lines"),
        ("in.parquet", b"PAR1\x15", "in.parquet is Parquet, not JSON Lines in UTF-8; convert it: python -c"),
        ("in.jsonl", '{"user": "Hi"}'.encode("utf-16"), "iconv -f UTF-16 -t UTF-8 in.jsonl > rows.jsonl"),
        ("in.gz", b"\x1f\x8b\x08", "gzip -dc in.gz > rows.jsonl"),
        ("in.json", b'[{"user": "Hi"}]', "jq -c '.[]' in.json > rows.jsonl"),
    ],
)
def test_other_kinds_of_files_are_refused(
    capsys: pytest.CaptureFixture[str], name: str, content: bytes, said: str
) -> None:
    Path(name).write_bytes(content)
    assert main(["run", name, "-o", "out.jsonl"]) == 2
    assert said in capsys.readouterr().err


def test_an_output_that_exists_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "Hi"})
    assert [run(None), run(None), run(None, "--resume"), run(None, "--overwrite")] == [0, 2, 0, 0]
    assert (
        "out.jsonl already exists; resume it with --resume, begin anew with --overwrite, or choose another file.\n"
        in (capsys.readouterr().err)
    )


def test_overwriting_begins_anew() -> None:
    write_rows({"user": "old"}, {"user": "older"})
    assert run(None) == 0
    write_rows({"user": "new"})
    assert run(None, "--overwrite") == 0
    assert [row["user"] for row in written()] == ["new"]
    assert sorted(os.listdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.distgen.json"]


@pytest.mark.parametrize("mode", ["--resume", "--overwrite"])
def test_the_input_is_never_the_output(capsys: pytest.CaptureFixture[str], mode: str) -> None:
    write_rows({"user": "Hi"})
    before = Path("in.jsonl").read_bytes()
    Path("link.jsonl").symlink_to("in.jsonl")
    assert [run(None, mode, output="in.jsonl"), run(None, mode, output="link.jsonl")] == [2, 2]
    assert capsys.readouterr().err == "distgen: the output is the input; choose another output.\n" * 2
    assert Path("in.jsonl").read_bytes() == before


def test_a_resumed_run_may_have_other_parameters_and_the_sidecar_keeps_them_all() -> None:
    write_rows(*users(2))
    assert run(None, "--limit", "1", "--param", "seed=1") == 0
    assert run(None, "--resume", "--param", "seed=2", "--extra", "top_k=3") == 0
    kept = json.loads(Path("out.jsonl.distgen.json").read_text())["params"]
    assert kept == [{"seed": 1}, {"seed": 2, "top_k": 3}]


def test_an_edited_input_is_refused_by_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(3))
    assert run(None) == 0
    write_rows({"user": "u0"}, {"user": "edited"}, {"user": "u2"})
    assert run(None, "--resume") == 2
    said = capsys.readouterr().err
    assert said.endswith("out.jsonl had another input; use the same, or choose another file.\n")
    assert "distgen: row 2 of " in said
    assert [row["user"] for row in written()] == ["u0", "u1", "u2"]


def test_a_resumed_run_that_ends_early_keeps_the_rows_that_failed_before(server: Server) -> None:
    write_rows(*users(4))
    server.script(then_always=Act(response(200, chat_body("", finish_reason="length"))))
    assert run(server) == 1
    failed = written()
    assert run(server, "--resume", "--concurrency", "1", "--max-total-tokens", "8") == 3
    assert [row["row"] for row in written()] == [row["row"] for row in failed] == [1, 2, 3, 4]


def test_a_captured_stdout_gets_rows_in_input_order(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(20))
    assert run(server, output="-") == 0
    assert [json.loads(line)["user"] for line in capsys.readouterr().out.splitlines()] == [f"u{n}" for n in range(20)]


def test_no_arguments_print_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "distgen run rows.jsonl" in capsys.readouterr().out


def interrupt(server: Server, requests: int, number: int = signal.SIGINT, twice: bool = False) -> threading.Thread:
    """Send a signal when the server has so many requests, and SIGINT when that one was heard."""

    def send() -> None:
        while len(server.seen()) < requests:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        if twice:
            while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_ctrl_c_finishes_what_is_under_way_and_says_how_to_go_on(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    write_rows(*users(400))  # too many to time out before the signal, however late it is
    server.script(to={f"u{number}": [Act(then="hang")] for number in range(2, 400)})
    thread = interrupt(server, 4)
    assert run(server, "--concurrency", "2", "--timeout", "1", "--overwrite") == 130
    thread.join()
    said = capfd.readouterr().err
    assert "distgen: finishing the requests under way; press Ctrl-C to end at once\n" in said
    assert "distgen: interrupted; to go on: distgen run in.jsonl" in said
    assert said.rstrip().endswith("--resume")
    assert "--overwrite" not in said
    errors = {row["user"]: row["error"] for row in written()}
    assert errors["u2"] == "timeout"
    assert {"u0", "u1"} <= {*errors}
    assert len(written()) < 400


@dataclass(frozen=True)
class ScriptedLLM:
    """A double that answers as a script says: a function of the inputs, as `as_completed`."""

    script: Callable[[Iterator[Record]], Iterator[tuple[int, Row]]]

    def generate(self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None) -> list[Row]:
        raise NotImplementedError

    def stream(self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None) -> Iterator[Row]:
        raise NotImplementedError

    def as_completed(
        self, inputs: Iterable[Record], num_generations: int = 1, on_progress: object = None
    ) -> Iterator[tuple[int, Row]]:
        return self.script(iter(inputs))


STOPPED: Row = Failure(RequestFailed("stopped", "the run ended"))


def answer_to(record: Record) -> Row:
    prompt = record.prompt.unwrap()
    return Success((Generation("tiny", prompt, Completion(prompt.user, usage=Usage(2, 3)), Success(prompt.user)),))


def run_script(server: Server, script: Callable[[Iterator[Record]], Iterator[tuple[int, Row]]], *more: str) -> int:
    given = ["run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--model", "tiny", *more]
    return run_options(read_options(given, {}), lambda llm, _: ScriptedLLM(script))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_file_is_unsorted_and_resuming_sorts_it_and_asks_the_rest(
    server: Server, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def script(records: Iterator[Record]) -> Iterator[tuple[int, Row]]:
        first, second, third, _ = (next(records) for _ in range(4))
        yield from ((1, answer_to(second)), (0, answer_to(first)))
        signal.raise_signal(number)
        yield from ((2, answer_to(third)), (3, STOPPED))  # under way, and waiting for a retry
        assert next(records, None) is None  # nothing more is asked

    write_rows(*users(5))
    assert run_script(server, script) == 130
    said = capsys.readouterr().err
    assert "rows: 3 answered, 0 failed, in " in said
    assert "stopped" not in said
    assert f"distgen: interrupted; to go on: distgen run in.jsonl -o out.jsonl --base-url {server.url}" in said
    assert [row["row"] for row in written()] == [2, 1, 3]
    assert run(server, "--resume") == 0
    assert sorted(json.loads(seen.body)["messages"][0]["content"] for seen in server.seen()) == ["u3", "u4"]
    assert [(row["row"], row["generations"][0]["text"]) for row in written()] == [(n + 1, f"u{n}") for n in range(5)]


@pytest.mark.parametrize(
    ("rows", "last", "status"),
    [(3, True, 3), (2, True, 0), (2, False, 3)],
    ids=["a row is left", "no row is left", "a row was stopped"],
)
def test_a_spent_budget_is_an_early_end_only_if_rows_are_left(
    server: Server, capsys: pytest.CaptureFixture[str], rows: int, last: bool, status: int
) -> None:
    def script(records: Iterator[Record]) -> Iterator[tuple[int, Row]]:
        first, second = next(records), next(records)
        yield 1, answer_to(second)
        yield 0, answer_to(first) if last else STOPPED
        assert next(records, None) is None

    write_rows(*users(rows))
    assert run_script(server, script, "--max-total-tokens", "4") == status
    assert ("the budget of --max-total-tokens (4) is spent; to go on: " in capsys.readouterr().err) == (status == 3)
    assert [row["row"] for row in written()] == ([1, 2] if last else [2])  # sorted, as the run ended by itself
    assert run(server, "--resume") == 0
    assert [row["row"] for row in written()] == [*range(1, rows + 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_a_signal_gives_up_rows_that_wait_for_a_retry(
    server: Server, output: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(*users(4))
    busy = Act(response(429, b"slow down", {"Retry-After": "60"}))
    server.script(then_always=busy)
    thread = interrupt(server, 1, number)  # its pause holds the others back
    assert run(server, output=output) == 130
    thread.join()
    assert capsys.readouterr().out == ""
    assert output == "-" or written() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_signal_raises_before_the_requests_are_finished(server: Server, number: int) -> None:
    write_rows(*users(2))
    server.script(then_always=Act(then="hang"))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread = interrupt(server, 2, number, twice=True)
    assert run(server) == 130
    thread.join()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--format", "llama2"], "<s>[INST] Hi [/INST]\n"),
        (["--format", "llama2", "--no-bos"], "[INST] Hi [/INST]\n"),
        (["--no-bos"], '[{"role": "user", "content": "Hi"}]\n'),
    ],
    ids=["with", "without", "of messages"],
)
def test_the_bos_token_is_left_out_only_where_asked(
    arguments: Sequence[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows({"user": "Hi"})
    assert main(["render", "in.jsonl", *arguments]) == 0
    assert capsys.readouterr().out == shown


def test_render_shows_what_would_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "Hi"}, {"user": None}, {"user": "last"})
    assert main(["render", "in.jsonl", "--format", "chatml", "--limit", "2"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\n"
    assert shown.err == 'row 1:\nrow 2: "user" is null, not text\n'


def test_render_keeps_each_row_at_its_number_in_one_pipe() -> None:
    write_rows({"user": "a"}, {"user": "b"})
    done = subprocess.run(child("render", "in.jsonl", "--format", "default"), stdout=-1, stderr=subprocess.STDOUT)
    assert done.stdout == b"row 1:\na\nrow 2:\nb\n"


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*[{"user": "u" * 500}] * 200)
    Path("disk").mkdir()
    with mounted(Path("disk"), "size=64k"):
        assert run(None, output="disk/out.jsonl") == 2
        said = capsys.readouterr().err
        assert "disk/out.jsonl (No space left on device); rows already written are kept." in said
        kept = len(written("disk/out.jsonl"))
        assert 0 < kept < 200
        subprocess.run(["mount", "-o", "remount,size=2m", "disk"], check=True)
        assert run(None, "--resume", output="disk/out.jsonl") == 0
        assert f"rows: {200 - kept} answered (and {kept} before), 0 failed" in capsys.readouterr().err
        assert [row["row"] for row in written("disk/out.jsonl")] == [*range(1, 201)]


def test_a_device_that_is_full_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(3))
    assert run(None, output="/dev/full") == 2
    assert "distgen: cannot read or write: No space left on device.\n" in capsys.readouterr().err


def test_a_read_only_folder_is_named_before_anything_is_asked(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(*users(3))
    with mounted(Path("disk"), "size=64k,ro"):
        assert run(server, output="disk/out.jsonl") == 2
    said = capsys.readouterr().err
    assert said.endswith("disk/out.jsonl (Read-only file system); rows already written are kept.\n")
    assert said.count("\n") == 1
    assert server.seen() == []


def test_one_run_writes_a_file_at_a_time(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(2))
    server.script(to={"u1": [Act(then="hang")]})
    given = ("run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--model", "tiny")
    with subprocess.Popen(child(*given), stderr=subprocess.DEVNULL) as first:
        while len(server.seen()) < 2:
            assert first.poll() is None
        assert run(server, "--resume") == 2
        assert "another run writes" in capsys.readouterr().err
        assert len(server.seen()) == 2
        first.kill()
    server.script()
    assert run(server, "--resume") == 0
    assert [row["user"] for row in written()] == ["u0", "u1"]


def test_memory_does_not_grow_with_the_input() -> None:
    Path("in.jsonl").write_text(f'{{"user": "{"u" * 50_000}"}}\n' * 100)
    tracemalloc.start()
    try:
        assert run(None) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Path("out.jsonl").stat().st_size > 2 * Path("in.jsonl").stat().st_size > 10_000_000
    assert peak < 2_500_000


def test_an_empty_input_is_no_failure() -> None:
    write_rows()
    assert run(None) == 0
    assert written() == []


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (status(401), "status 401"),
        (status(402), "status 402"),
        (Act(response(429, b'{"error": {"message": "no", "code": "insufficient_quota"}}')), "status 429"),
    ],
    ids=["key", "payment", "quota"],
)
def test_fewer_rows_than_concurrency_that_all_fail_alike_end_with_the_reason(
    server: Server, capsys: pytest.CaptureFixture[str], act: Act, kind: str
) -> None:
    write_rows(*users(3))
    server.script(then_always=act)
    assert run(server) == 2
    assert (
        f"distgen: stopped: 3 consecutive rows failed ({kind}); mend the cause above and run again.\n"
        in capsys.readouterr().err
    )
    server.script()
    assert run(server) == 0


def test_a_refused_connection_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(3))
    arguments = ["--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--retries", "0"]
    assert run(None, *arguments) == 2
    said = capsys.readouterr().err
    assert "check that the server is up, and --base-url." in said
    assert "stopped: 3 consecutive rows failed (connection)" in said


def test_a_connection_that_breaks_is_no_reason_to_end(server: Server) -> None:
    write_rows(*users(3))
    server.script(then_always=Act(then="reset"))
    assert run(server, "--retries", "0") == 1


def test_a_row_without_its_field_among_answered_ones_fails_alone(server: Server) -> None:
    write_rows(*users(3), {"other": 1})
    assert run(server) == 1
    assert run(server, "--resume") == 1


def test_a_budget_needs_a_server_that_counts(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(30))
    server.script(then_always=Act(response(200, chat_body("x", tokens=None))))
    assert run(server, "--concurrency", "1", "--max-total-tokens", "20") == 2
    assert "does not count tokens, so --max-total-tokens cannot be kept; leave it out." in capsys.readouterr().err


def test_a_limit_asks_the_first_rows_and_resuming_asks_the_rest(server: Server) -> None:
    write_rows(*users(5))
    assert run(server, "--limit", "2") == 0
    assert run(server, "--limit", "1", "--resume") == 0
    assert len(written()) == 2
    assert run(server, "--resume") == 0
    assert [row["user"] for row in written()] == [f"u{number}" for number in range(5)]
    assert len(server.seen()) == 5


def test_other_settings_are_refused_by_name(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(*users(1))
    assert run(server) == 0
    assert run(server, "--resume", "--system", "Be brief.") == 2
    assert "system was None and is now 'Be brief.'" in capsys.readouterr().err
    assert run(server, "--resume", "-n", "2") == 2
    assert "-n was 1 and is now 2" in capsys.readouterr().err


def test_a_text_format_is_asked_with_its_stop_and_without_bos(server: Server) -> None:
    write_rows({"user": "Hi"})
    assert run(server, "--format", "llama2", "--no-bos", "--param", "max_tokens=9") == 0
    body = server.seen()[0].json()
    assert (body["prompt"], body["max_tokens"]) == ("[INST] Hi [/INST]", 9)
    assert run(server, "--format", "chatml", output="other.jsonl") == 0
    assert server.seen()[1].json()["stop"] == ["<|im_end|>"]


def test_logprobs_and_tool_calls_are_json_text(server: Server) -> None:
    write_rows({"user": "Hi"})
    top = {"token": "y", "logprob": -math.inf, "bytes": None}
    token = {"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": [top]}
    server.script(Act(response(200, chat_body("x", logprobs={"content": [token]}))))
    assert run(server) == 0
    (generation,) = written()[0]["generations"]
    (read,) = json.loads(generation["logprobs"])
    assert read == {"token": "x", "logprob": -0.5, "top_logprobs": [{"token": "y", "logprob": -9999.0}]}
    assert generation["tool_calls"] == ""


def test_letters_of_every_script_are_written_as_they_are(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "é"})
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"city": "東京"}'}}
    choice = {
        "message": {"content": "ж", "tool_calls": [call]},
        "logprobs": {"content": [{"token": "ж", "logprob": 0}]},
    }
    server.script(Act(response(200, json.dumps({"choices": [choice]}).encode())))
    assert [run(server), run(server, "--resume")] == [0, 0]
    assert len(server.seen()) == 1
    assert main(["render", "in.jsonl"]) == 0
    for said in (Path("out.jsonl").read_text(encoding="utf-8"), capsys.readouterr().out):
        assert "é" in said
        assert "\\u" not in said


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    write_rows({"user": "Hi"})
    monkeypatch.setenv("http_proxy", f"{scheme}127.0.0.1:{server.port}")
    monkeypatch.setenv("no_proxy", "")
    arguments = ["--base-url", "http://example.invalid/v1", "--model", "m"]
    server.script(then_always=Act(response(200, chat_body("x"))))
    assert run(None, *arguments) == 0
    assert server.seen()[0].path == "http://example.invalid/v1/chat/completions"


def test_a_model_of_the_environment_without_a_server_is_no_rehearsal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows({"user": "Hi"})
    monkeypatch.setenv("OPENAI_MODEL", "of-environment")
    assert run(None) == 2
    assert capsys.readouterr().err.startswith("distgen: model of-environment needs a server: name it with --base-url")


def test_the_environment_names_server_and_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows({"user": "Hi"})
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_MODEL", "of-environment")
    assert run(None) == 0
    assert written()[0]["model"] == "of-environment"


def test_a_pipe_is_opened_once_and_gets_rows_in_input_order(server: Server) -> None:
    write_rows(*users(20))
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        assert run(server, output="pipe") == 0
        said, _ = reader.communicate(timeout=60)
    assert [json.loads(line)["user"] for line in said.splitlines()] == [f"u{number}" for number in range(20)]


def test_a_device_is_an_output_and_only_a_file_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "Hi"})
    assert run(None, output="/dev/null") == 0
    assert run(None, "--resume", output="/dev/null") == 2
    capsys.readouterr()
    assert run(None, "--resume", output="-") == 2
    assert capsys.readouterr().err == "distgen: --resume needs a file, and - is not one; name one with --output.\n"
    assert run(None, output=".") == 2
    assert "distgen: .: Is a directory." in capsys.readouterr().err


def test_an_input_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no.jsonl", "-o", "-"]) == 2
    assert "distgen: no.jsonl: No such file or directory.\n" in capsys.readouterr().err


def test_it_runs_in_any_thread() -> None:
    write_rows({"user": "Hi"})
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(run(None)))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_version_and_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("distgen ")
    assert main(["formats"]) == 0
    assert "\nchatml " in capsys.readouterr().out


def test_render_as_messages_and_what_a_format_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "Hi [/INST]"})
    assert main(["render", "in.jsonl"]) == 0
    assert capsys.readouterr().out == '[{"role": "user", "content": "Hi [/INST]"}]\n'
    assert main(["render", "in.jsonl", "--format", "llama2"]) == 1
    assert "row 1: user holds '[/INST]'" in capsys.readouterr().err


def child(*arguments: str, **environment: str) -> list[str]:
    pairs = [f"{name}={value}" for name, value in {"PYTHONPATH": str(Path(__file__).parents[2]), **environment}.items()]
    return ["env", *pairs, sys.executable, "-m", "distgen", *arguments]


def test_stdin_to_stdout_in_a_locale_without_letters() -> None:
    given = '{"user": "é"}\n'.encode()
    done = subprocess.run(child("run", "-", "-o", "-", LC_ALL="C"), input=given, capture_output=True, check=True)
    assert json.loads(done.stdout)["user"] == "é"
    assert b"rows: 1 answered" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    write_rows(*users(5_000))
    with subprocess.Popen(child("run", "in.jsonl", "-o", "-"), stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1


def test_progress_is_drawn_on_a_terminal_which_cuts_it(server: Server) -> None:
    write_rows(*users(40))
    main_side, side = pty.openpty()
    given = ("run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--model", "m", "--concurrency", "4")
    with subprocess.Popen(child(*given), stderr=side, stdout=side) as process:
        os.close(side)
        said = read_all(main_side).decode()
    assert process.returncode == 0
    drawn = [line for line in said.split("\r\x1b[K") if "/40 rows" in line]
    assert drawn
    assert all(re.fullmatch(r"\x1b\[\?7l\d+/40 rows, .* failed\x1b\[\?7h", line) for line in drawn)


def test_a_failure_is_shown_between_lines_of_progress(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(*users(5), {"user": None})
    main_side, side = pty.openpty()
    monkeypatch.setattr("distgen.cli.run._REDRAW", 0.0)
    with open(side, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert run(server) == 1
    drawn = read_all(main_side).decode().split("\r\x1b[K")
    (failure,) = [number for number, line in enumerate(drawn) if line.startswith("distgen: row 6: invalid_row: ")]
    assert "/6 rows, " in drawn[failure - 1]
    assert drawn[failure].endswith("\n")
    assert drawn[-1].startswith("rows: 5 answered, 1 failed")  # the last line of progress is erased


@pytest.mark.parametrize(("output", "is_drawn"), [("out.jsonl", True), ("-", False)])
def test_progress_is_not_drawn_between_rows_on_the_same_terminal(output: str, is_drawn: bool) -> None:
    write_rows(*users(5))
    main_side, side = pty.openpty()
    with subprocess.Popen(child("run", "in.jsonl", "-o", output), stderr=side, stdout=side) as process:
        os.close(side)
        said = read_all(main_side).decode()
    assert process.returncode == 0
    assert ("\r\x1b[K" in said) == is_drawn


def test_a_log_has_a_line_of_progress_every_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(*users(10))
    seconds = count(1000, 10)
    monkeypatch.setattr("distgen.cli.run.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert run(None) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "rows/s" in line] == [
        "distgen: 2/10 rows, 0.1 rows/s, 0:02:00 left, 0 failed",
        "distgen: 5/10 rows, 0.1 rows/s, 0:01:00 left, 0 failed",
        "distgen: 8/10 rows, 0.1 rows/s, 0:00:22 left, 0 failed",
    ]
    assert said[-1] == "rows: 10 answered, 0 failed, in 0:02:10"


def test_the_generations_of_a_file_are_not_counted_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows({"generations": [{"text": "a"}, {"text": "b"}]})
    monkeypatch.setattr("distgen.cli.run._LOG", 0.0)
    assert run(None, "--each-generation", "--user-field", "text") == 0
    assert "distgen: 2 rows, " in capsys.readouterr().err


def test_an_answer_in_no_time_has_no_latency(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(*users(3))
    monkeypatch.setattr("distgen.cli.run.time", SimpleNamespace(monotonic=lambda: 1000.0))
    assert run(server) == 0
    assert "latency: p50 0.00 s, p90 0.00 s (retries included)" in capsys.readouterr().err


@pytest.mark.timeout(30)
def test_each_row_and_the_progress_are_shown_before_the_next_row_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("in.jsonl")
    answers, output = os.pipe()
    main_side, side = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("distgen.cli.run._REDRAW", 0.0)
    with open(side, "w") as terminal, open(answers, "rb") as read, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(sys, "stderr", terminal)
        status = pool.submit(run, None, output=f"/dev/fd/{output}")
        with open("in.jsonl", "wb", buffering=0) as rows:
            for number in range(1, 4):
                rows.write(b'{"user": "Hi"}\n')
                assert json.loads(read.readline())["row"] == number
                drawn = b""
                while f"{number} rows, ".encode() not in drawn:
                    drawn += os.read(main_side, 65536)
        assert status.result() == 0
    os.close(output)
    os.close(main_side)


def test_a_log_has_lines_of_progress(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(*users(3))
    monkeypatch.setattr("distgen.cli.run._LOG", 0.0)
    assert run(server) == 0
    assert "distgen: 3/3 rows, " in capsys.readouterr().err


def test_stdout_and_stdin_may_be_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"user": "Hi"}\n')))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["run", "-", "-o", "-"]) == 0
    assert json.loads(said.getvalue())["user"] == "Hi"


def test_a_request_is_timed_from_its_beginning_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = iter([100.0, 102.5]), list[float]()

    async def answer(prompts: Sequence[str], num_generations: int) -> Batch:
        return [[Completion(prompt)] * num_generations for prompt in prompts]

    task = Task[Record, str](lambda record: record.prompt, Success)
    llm = LLM[Record, str, str, Awaitable[Batch]](task, default, answer, Asyncio(1))
    monkeypatch.setattr("distgen.cli.run.time", SimpleNamespace(monotonic=lambda: next(clock)))
    (row,) = time_requests(llm, seconds.append).generate([Record(1, {}, b"", Success(Prompt("Hi")))])
    assert row.unwrap()[0].completion == Completion("Hi")
    assert seconds == [2.5]


def test_half_and_nine_tenths_of_the_requests_were_faster() -> None:
    latencies = [float(seconds) for seconds in range(200, -1, -1)]
    assert "latency: p50 100.00 s, p90 180.00 s (retries included)" in summary(Counts(), 1.0, latencies)


def test_the_line_of_progress_leaves_out_what_nobody_knows() -> None:
    assert progress_line(Counts(), None, 0.0) == "0 rows, 0.0 rows/s, 0 failed"


def test_no_time_is_left_when_more_rows_were_answered_before_than_are_asked() -> None:
    counts = Counts(answered_before=9, rows=Counter({"": 1}))
    assert progress_line(counts, 5, 1.0) == "10/5 rows, 1.0 rows/s, 0:00:00 left, 0 failed"


def test_a_command_that_is_not_whole_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch"]) == 2
    assert capsys.readouterr().err.endswith("required: COMMAND; see `distgen batch --help`.\n")


def test_a_closed_reader_ends_a_run_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(*users(3))
    os.mkfifo("pipe")

    @contextlib.contextmanager
    def open_and_wait(name: str) -> Generator[TextIO]:
        with open_output(name) as output:
            reader.wait()
            yield output

    monkeypatch.setattr("distgen.cli.rows.open_output", open_and_wait)
    with subprocess.Popen(["sh", "-c", "exec 3<pipe; exec 3<&-"]) as reader:
        assert run(None, output="pipe") == 1


def read_all(descriptor: int) -> bytes:
    said = b""
    with contextlib.suppress(OSError):  # Linux: EIO when the other side is closed
        while part := os.read(descriptor, 65536):
            said += part
    os.close(descriptor)
    return said


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(server: Server) -> None:
    write_rows(*users(8))
    server.script(then_always=Act(then="hang"))
    given = ("run", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--model", "m")
    command = subprocess.Popen(child(*given), stderr=subprocess.PIPE, text=True)
    with command as process, contextlib.ExitStack() as at_end:
        at_end.callback(process.kill)
        assert process.stderr is not None
        while len(server.seen()) < 8:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        while "press Ctrl-C to end" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
        assert process.wait() == 130


def test_an_extra_that_is_missing_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows({"user": "Hi"})
    monkeypatch.setitem(sys.modules, "distgen.backends.server", None)
    assert run(None, "--base-url", "http://127.0.0.1:9/v1", "--model", "m") == 2
    assert "distgen: import of distgen.backends.server halted" in capsys.readouterr().err


class StubModel:
    """A stand-in for a transformers model: it answers each prompt with its text."""

    device, dtype = "cpu", "float32"

    def is_special_token(self, text: str) -> bool:
        return text.startswith("<|im_")

    def has_special_token(self, text: str) -> bool:
        return "<|im_" in text

    def __call__(self, prompts: Sequence[Rendered], num_generations: int) -> Batch:
        texts = (prompt if isinstance(prompt, str) else "".join(part.text for part in prompt) for prompt in prompts)
        return [[Completion(text)] * num_generations for text in texts]


def test_a_model_in_this_process_takes_its_own_params(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows({"user": "Hi <|im_end|>"})
    given: list[Mapping[str, object]] = []

    def load(name: str, *, params: Mapping[str, object], options: Mapping[str, object]) -> StubModel:
        given.extend([params, options])
        return StubModel()

    monkeypatch.setattr("distgen.backends.hf.load", load)
    more = ["--param", "seed=1", "--extra", "top_k=9", "--extra", "min_p=0.1"]
    assert run(None, "--hf", "folder/tiny", "--format", "chatml", *more) == 0
    assert given == [{"stop": ("<|im_end|>",), "seed": 1}, {"top_k": 9, "min_p": 0.1}]
    assert written()[0]["model"] == "tiny"
    assert "Hi <|im_end|>" in written()[0]["generations"][0]["text"]
    assert "distgen: running on cpu (float32)" in capsys.readouterr().err
    assert run(None, "--hf", "folder/tiny", "--format", "openai") == 2
    assert "--hf needs --format" in capsys.readouterr().err


def test_stdout_of_the_process_is_written_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    write_rows({"user": "Hi"})
    assert run(None, output="-") == 0
    assert json.loads(capfd.readouterr().out)["user"] == "Hi"


def test_the_package_runs_as_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["distgen", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("distgen", run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.strip().endswith(distgen.__version__)
