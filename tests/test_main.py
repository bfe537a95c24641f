"""The command line, in this process and, where the process itself matters, in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distgen.__main__ import main
from distgen.formats import FAMILIES, FORMATS
from distgen.rows import read
from tests.support.parts import mounted
from tests.support.servers import Act, Server, chat_body, response, serving, text_body

ROOT = Path(__file__).parent.parent
QUESTIONS = ROOT / "tests" / "data" / "questions.jsonl"
KEY = "sk-test-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


def written(path: Path, *lines: object) -> str:
    """A file of lines: bytes as they are, anything else as JSON."""
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return str(path)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def answered(*lines: object, tmp_path: Path, options: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
    source, output = written(tmp_path / "in.jsonl", *lines), tmp_path / "out.jsonl"
    status = main(["run", source, "-o", str(output), "--format", "default", *options])
    return status, rows(output)


def said(text: str) -> dict[str, object]:
    return {"text": text, "finish_reason": "stop", "usage": None}


def test_real_rows_are_answered_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    assert main(["run", str(QUESTIONS), "-o", str(output), "--format", "chatml", "-n", "2"]) == 0
    asked, got = rows(QUESTIONS), rows(output)
    assert [{**row, "generations": 0, "model": "echo"} for row in asked] == [{**row, "generations": 0} for row in got]
    first = said("<|im_start|>user\nWhat is the capital of Peru?<|im_end|>\n<|im_start|>assistant\n")
    assert got[0]["generations"] == [first, first]
    assert "Times" not in output.read_text()
    assert "日本で一番高い山は何ですか。🙂" in output.read_text()
    rehearsal, outcome, *table = capsys.readouterr().err.splitlines()
    assert rehearsal == "distgen: no --base-url, so this is a rehearsal: each prompt is answered with itself, offline"
    assert outcome == "distgen: 8 rows: 8 answered, 0 failed"
    assert [line.split()[0] for line in table if line[2] != " "] == ["rate", "latency"]


def test_every_kind_of_row(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    status, got = answered(
        {"user": "U"},
        {"user": "U", "system": "S"},
        {"user": "U", "system": None, "history": None},
        {"user": "U", "history": [["Q", "A"]]},
        {"messages": messages},
        {"messages": messages[1:], "id": 7},
        tmp_path=tmp_path,
        options=("--system", "D", "--model", "m"),
    )
    assert status == 0
    texts = ["D\nU", "S\nU", "D\nU", "D\nQ\nA\nU", "S\nU", "D\nU"]
    assert [row["generations"] for row in got] == [[said(text)] for text in texts]
    assert got[5]["id"] == 7
    assert {row["model"] for row in got} == {"m"}


def test_the_text_may_be_in_a_field_that_is_named(tmp_path: Path) -> None:
    status, got = answered(
        {"question": "Q", "messages": "kept", "user": 3}, tmp_path=tmp_path, options=("--user-field", "question")
    )
    assert (status, got[0]["generations"], got[0]["messages"]) == (0, [said("Q")], "kept")


def test_a_bad_line_is_an_error_row_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad: list[tuple[object, str]] = [
        (b"not JSON", "line 1: not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"user": "cut', "line 2: not JSON: Unterminated string"),
        (b"[1]", "line 3: not an object"),
        (b'"text"', "line 4: not an object"),
        (b'{"user": "\xff\xfe"}', "line 5: byte 10 (b'\\xff\\xfe\"}') is not UTF-8"),
        (b'{"user": NaN}', "line 6: not JSON: NaN is no JSON number"),
        (b"[" * 100_000, "line 7: nested deeper than 500 lists and objects"),
        (b'{"user": ' + b'{"a": [' * 251 + b"]}" * 251 + b"}", "line 8: nested deeper than 500"),
        (b'{"n": 1e999}', "line 9: not JSON: 1e999 is too large a number"),
        (b'{"user": "a", "user": "b"}', 'line 10: not JSON: "user" stands twice in an object'),
        (b'{"user": "a\x00b"}', "line 11: not JSON: Invalid control character at"),
        (b'{"n": ' + b"1" * 5000 + b"}", "line 12: not JSON: Exceeds the limit"),
        ({"text": "x", "id": 9}, 'line 13: it has no field "user"; its fields are "text", "id"'),
        ({}, 'line 14: it has no field "user"; it is empty'),
        ({"user": 7}, 'line 15: "user" is a number, not text'),
        ({"user": True}, 'line 16: "user" is true or false, not text'),
        ({"user": None}, 'line 17: "user" is null, not text'),
        ({"user": ["x"]}, 'line 18: "user" is a list, not text'),
        ({"user": {"x": 1}}, 'line 19: "user" is an object, not text'),
        ({"user": "x", "system": 7}, 'line 20: "system" is a number, not text'),
        ({"user": "x", "history": [["q"]]}, 'line 21: "history" is not a list of [user, assistant] pairs of texts'),
        ({"user": "x", "history": "q"}, 'line 22: "history" is not a list'),
        ({"user": "x", "messages": []}, 'line 23: it has both "user" and "messages"; say which with --user-field'),
        ({"messages": "x"}, 'line 24: "messages" is text, not a list'),
        ({"messages": ["x"]}, 'line 25: "messages" holds something that is no message object'),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            "line 26: \"messages\" is no conversation at 0: role 'assistant' where 'user'",
        ),
    ]
    status, got = answered(*(line for line, _ in bad), {"user": "good"}, tmp_path=tmp_path)
    assert status == 1
    assert len(got) == 27
    for (_, reason), row in zip(bad, got, strict=False):
        assert row["error"]["type"] == "BadLine"
        assert row["error"]["message"].startswith(reason)
        assert "generations" not in row
    assert (got[12]["text"], got[12]["id"]) == ("x", 9)
    assert got[26]["generations"] == [said("good")]
    assert "distgen: 27 rows: 1 answered, 26 failed (BadLine 26)" in capsys.readouterr().err


def test_blank_lines_a_byte_order_mark_and_carriage_returns_are_no_rows(tmp_path: Path) -> None:
    status, got = answered(b'\xef\xbb\xbf{"user": "a"}\r', b"", b"  \r", b'{"user": "b"}\r', b"x", tmp_path=tmp_path)
    assert status == 1
    assert [row.get("user") for row in got] == ["a", "b", None]
    assert str(got[2]["error"]).startswith("{'type': 'BadLine', 'message': 'line 5: ")


def test_input_fields_with_the_names_of_output_fields_are_kept(tmp_path: Path) -> None:
    status, got = answered(
        {"user": "U", "model": "old", "input_model": "older", "error": {"type": "T"}, "generations": [1]},
        b'{"error": "old"}',
        tmp_path=tmp_path,
    )
    assert status == 1
    assert got[0] == {
        "user": "U",
        "input_input_model": "old",
        "input_model": "older",
        "input_error": {"type": "T"},
        "input_generations": [1],
        "generations": [said("U")],
        "model": "echo",
    }
    assert got[1]["input_error"] == "old"
    assert str(got[1]["error"]).startswith("{'type': 'BadLine'")


def test_a_lone_surrogate_goes_through_as_json_writes_it(tmp_path: Path) -> None:
    status, got = answered(b'{"user": "\\ud800 \xc3\xa9"}', tmp_path=tmp_path)
    assert (status, got[0]["generations"]) == (0, [said("\ud800 é")])
    assert b'"\\ud800 \\u00e9"' in (tmp_path / "out.jsonl").read_bytes()


@given(st.lists(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: json.dumps({"user": text}).encode())))
def test_any_bytes_are_rows_or_reasons(lines: list[bytes]) -> None:
    raw = [line.replace(b"\n", b" ") + b"\n" for line in lines]
    found = list(read(raw, None, None))
    assert [line.number for line in found] == [number for number, line in enumerate(raw, 1) if line.strip()]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["run", "no.jsonl", "-o", "out.jsonl", "--format", "chatml"],
            "cannot read no.jsonl: No such file or directory",
        ),
        (["run", ".", "-o", "out.jsonl", "--format", "chatml"], "cannot read .: Is a directory"),
        (["render", "no.jsonl", "--format", "chatml"], "cannot read no.jsonl: No such file or directory"),
        (["run", "in.jsonl", "-o", "in.jsonl", "--format", "chatml"], "in.jsonl exists already and is left as it is"),
        (["run", "in.jsonl", "-o", "no/out.jsonl", "--format", "chatml"], "cannot write no/out.jsonl: No such file"),
        (["run", "in.jsonl", "-o", "out.jsonl", "--format", "zefyr"], "did you mean 'zephyr'?"),
        (["render", "in.jsonl", "--format", "lama2"], "did you mean 'llama2'"),
        (
            ["run", "in.jsonl", "-o", "out.jsonl", "--format", "openai", "--base-url", "http://127.0.0.1:1/v1"],
            "--base-url needs --model",
        ),
        (
            ["run", "in.jsonl", "-o", "out.jsonl", "--format", "openai", "--base-url", "127.0.0.1", "--model", "m"],
            "base_url='127.0.0.1' is no base URL",
        ),
    ],
)
def test_what_cannot_be_done_ends_at_once_with_a_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.jsonl", {"user": "U"})
    assert main(arguments) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if "rehearsal" not in line]
    assert sentence in line
    assert printed.out == ""
    assert not (tmp_path / "out.jsonl").exists()
    assert rows(tmp_path / "in.jsonl") == [{"user": "U"}]


@pytest.mark.parametrize("option", [["-n", "0"], ["-n", "x"], ["--threads", "-1"], ["--threads", "²"]])
def test_counts_are_whole_numbers_of_one_or_more(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "in.jsonl", "-o", "out.jsonl", "--format", "chatml", *option])
    assert ended.value.code == 2
    assert f"'{option[1]}' is no whole number of 1 or more" in capsys.readouterr().err


def test_render_writes_what_each_row_would_send(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    source = written(tmp_path / "in.jsonl", {"user": "Hi é"}, {"user": "[INST]"}, b"x", b'{"user": "\\ud800"}')
    assert main(["render", source, "--format", "llama2"]) == 1
    printed = capfdbinary.readouterr()
    assert printed.out == "<s>[INST] Hi é [/INST]\n<s>[INST] \\ud800 [/INST]\n".encode()
    errors = printed.err.decode().splitlines()
    assert errors[0] == "line 1:"
    assert errors[1].startswith("line 2: user holds '[INST]' at character 0")
    assert errors[2].startswith("line 3: not JSON")
    assert main(["render", written(tmp_path / "in.jsonl", {"user": "Hi"}), "--format", "openai"]) == 0
    assert capfdbinary.readouterr().out == b'[{"role": "user", "content": "Hi"}]\n'
    assert main(["render", written(tmp_path / "in.jsonl", {"user": "Hi"}), "--format", "llama2", "--no-bos"]) == 0
    assert capfdbinary.readouterr().out == b"[INST] Hi [/INST]\n"


def test_formats_is_a_table_by_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats"]) == 0
    head, *table = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "system", "stops", "models"]
    assert [line.split()[0] for line in table if line.startswith("  ")] == list(FORMATS)
    assert [line for line in table if line and not line.startswith(" ")] == list(FAMILIES)
    (llama2,) = [line.split(maxsplit=3) for line in table if line.startswith("  llama2 ")]
    assert llama2 == ["llama2", "first", "</s>", "Llama-2, Llama-2-*-chat"]
    (gemma,) = [line.split() for line in table if line.startswith("  gemma ")]
    assert gemma[:4] == ["gemma", "refused", "<end_of_turn>", "<eos>"]


def on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    """What a person sees who runs the command in a terminal of that width."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "distgen", *arguments]
    environment = {**known, "TERM": "xterm", **environment}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        seen = bytearray()
        with contextlib.suppress(OSError):  # a terminal of which the other end is closed
            while read := os.read(ours, 65536):
                seen += read
    os.close(ours)
    assert process.returncode == 0
    return seen.decode().replace("\r\n", "\n")


def test_on_a_terminal_formats_keeps_to_its_width() -> None:
    wide, narrow = on_a_terminal("formats", columns=200), on_a_terminal("formats", columns=80)
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, wide.splitlines())) <= 200
    assert narrow.split() == wide.split()


def test_formats_in_a_locale_that_lacks_letters_and_on_a_full_disk() -> None:
    command = [sys.executable, "-m", "distgen", "formats"]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=plain, capture_output=True, check=True)
    assert b"<\\uff5cend\\u2581of\\u2581sentence\\uff5c>" in done.stdout
    with open("/dev/full", "wb") as full:
        refused = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert refused.returncode == 2
    assert refused.stderr == b"distgen: cannot write the output: No space left on device\n"


def test_what_is_coloured_and_what_is_not(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    source = written(tmp_path / "in.jsonl", {"user": "a\x00"}, {"user": "</s>"})
    assert main(["render", source, "--format", "zephyr"]) == 1
    cyan, plain = b"\x1b[36m", b"\x1b[0m"
    zephyr = cyan + b"<|user|>\n" + plain + b"a\\x00" + cyan + b"</s>\n<|assistant|>\n" + plain + b"\n"
    assert capfdbinary.readouterr().out == zephyr
    assert main(["render", source, "--format", "openai"]) == 0
    assert b"\x1b" not in capfdbinary.readouterr().out


def test_on_a_terminal_render_shows_the_format_s_literals_in_colour(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", {"user": "a\x1b[2J\tb\x07", "system": "\u00e9\u202e"})
    seen = on_a_terminal("render", source, "--format", "zephyr")
    assert seen == (
        "\x1b[36m<|system|>\n\x1b[0m\u00e9\\u202e\x1b[36m</s>\n<|user|>\n\x1b[0m"
        "a\\x1b[2J\tb\\x07\x1b[36m</s>\n<|assistant|>\n\x1b[0m\n"
    )
    plain = "<|system|>\n\u00e9\\u202e</s>\n<|user|>\na\\x1b[2J\tb\\x07</s>\n<|assistant|>\n\n"
    assert on_a_terminal("render", source, "--format", "zephyr", NO_COLOR="1") == plain
    assert on_a_terminal("render", source, "--format", "zephyr", TERM="dumb") == plain
    assert on_a_terminal("render", source, "--format", "openai").startswith('[{"role": "system"')


def test_a_server_is_asked_for_chat_with_the_openai_format(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script(Act(response(401, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode())))
    source, output = written(tmp_path / "in.jsonl", {"user": "A"}, {"user": "B"}), tmp_path / "out.jsonl"
    arguments = ["run", source, "-o", str(output), "--format", "openai", "--base-url", server.url, "--model", "tiny"]
    assert main([*arguments, "--threads", "1", "-n", "2"]) == 1
    refused, fine = rows(output)
    assert str(refused["error"]).startswith("{'type': 'BadStatus'")
    first_answer, second_answer = fine["generations"]
    assert first_answer["finish_reason"] == second_answer["finish_reason"] == "stop"
    assert {*first_answer["usage"]} == {"prompt_tokens", "completion_tokens"}
    assert fine["model"] == "tiny"
    first, second = server.seen()
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert second.json()["messages"] == [{"role": "user", "content": "B"}]
    assert (second.json()["n"], second.json()["model"]) == (2, "tiny")
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err + output.read_text()
    assert "rehearsal" not in printed.err
    assert "2 rows: 1 answered, 1 failed (BadStatus 1)" in printed.err


def test_a_server_is_asked_for_completions_with_a_text_format(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script()
    source, output = written(tmp_path / "in.jsonl", {"user": "A"}), tmp_path / "out.jsonl"
    arguments = ["run", source, "--base-url", server.url, "--model", "tiny"]
    assert main([*arguments, "-o", str(output), "--format", "llama2"]) == 0
    assert main([*arguments, "-o", str(tmp_path / "other.jsonl"), "--format", "llama2", "--no-bos"]) == 0
    assert main([*arguments, "-o", str(tmp_path / "third.jsonl"), "--format", "default"]) == 0
    first, second, third = server.seen()
    assert first.path == "/v1/completions"
    assert first.json()["prompt"] == "<s>[INST] A [/INST]"
    assert first.json()["stop"] == ["</s>"]
    assert "authorization" not in first.headers
    assert second.json()["prompt"] == "[INST] A [/INST]"
    assert third.json()["prompt"] == "A"
    assert "stop" not in third.json()
    notes = [line for line in capsys.readouterr().err.splitlines() if "--no-bos" in line]
    assert len(notes) == 1
    assert "<s>" in notes[0]


def test_without_the_http_extra_a_server_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distgen.backends.http", None)
    monkeypatch.delattr("distgen.backends.http", raising=False)
    source = written(tmp_path / "in.jsonl", {"user": "A"})
    arguments = ["run", source, "-o", str(tmp_path / "out.jsonl"), "--format", "openai", "--model", "m"]
    assert main([*arguments, "--base-url", "http://127.0.0.1:1/v1"]) == 2
    assert "pip install 'distgen[http]'" in capsys.readouterr().err


def shell(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "distgen", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def test_a_rehearsal_of_chat_answers_with_the_last_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    rows_in = Path(written(tmp_path / "in.jsonl", {"user": "A", "system": "S"}))
    with rows_in.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["run", "-", "-o", "-", "--format", "openai"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["generations"] == [said("A")]


def test_a_dash_is_stdin_and_stdout() -> None:
    with shell("run", "-", "-o", "-", "--format", "default") as process:
        out, err = process.communicate(b'{"user": "A"}\n\n{"user": "B"}\n', timeout=30)
    assert [json.loads(line)["generations"] for line in out.splitlines()] == [[said("A")], [said("B")]]
    assert process.returncode == 0
    assert b"2 rows: 2 answered, 0 failed" in err


@pytest.mark.parametrize("command", [["run", "-o", "-"], ["render"]])
def test_a_reader_that_goes_away_is_no_traceback(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in.jsonl", *[{"user": "A" * 1000}] * 200)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main([*command, source, "--format", "default"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_an_output_that_takes_no_more_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["formats"]) == 2
    assert capfd.readouterr().err == "distgen: cannot write the output: No space left on device\n"


def test_a_reader_that_goes_away_ends_the_process_quietly(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", *[{"user": "A" * 1000}] * 2000)
    with shell("run", source, "-o", "-", "--format", "default") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=30) == 1
    assert len(err.splitlines()) == 1  # that it was a rehearsal


def test_rows_are_written_as_they_finish_and_stay_after_an_interrupt(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script(delay=0.02)
    source, output = written(tmp_path / "in.jsonl", *[{"user": f"{n}"} for n in range(2000)]), tmp_path / "out.jsonl"

    def interrupt_after_twenty_rows() -> None:
        deadline = time.monotonic() + 20
        while (not output.exists() or output.read_bytes().count(b"\n") < 20) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    watcher = threading.Thread(target=interrupt_after_twenty_rows)
    watcher.start()
    arguments = ["--format", "openai", "--base-url", server.url, "--model", "m", "--threads", "2"]
    assert main(["run", source, "-o", str(output), *arguments]) == 130
    watcher.join()
    assert signal.getsignal(signal.SIGINT) == before
    got = rows(output)
    assert 20 <= len(got) < 2000
    assert [row["user"] for row in got] == [f"{n}" for n in range(len(got))]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"distgen: {len(got)} rows: {len(got)} answered, 0 failed"
    why, _, command = said[-1].partition("; to go on: ")
    assert why == "distgen: interrupted"
    server.script()
    assert main(shlex.split(command)[3:]) == 0
    assert [row["user"] for row in rows(output)] == [f"{n}" for n in range(2000)]
    assert len(server.seen()) == 2000 - len(got)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in.jsonl", {"user": "A"})
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["run", source, "-o", "-", "--format", "default"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["distgen: after 0 rows: No space left on device"]


def drawn(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command draws on a terminal: a real pseudo-terminal, since what is drawn depends on one."""
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    parts: list[bytes] = []

    def read_screen() -> None:
        with contextlib.suppress(OSError):  # which is how Linux says that the other end is closed
            while part := os.read(master, 65536):
                parts.append(part)

    reader = threading.Thread(target=read_screen)
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(arguments) == 0
    reader.join()
    os.close(master)
    return b"".join(parts).decode()


def test_progress_is_drawn_on_a_terminal(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script(delay=0.05)
    source = written(tmp_path / "in.jsonl", *[{"user": "A"}] * 25, b"")
    arguments = ["run", source, "-o", str(tmp_path / "out.jsonl"), "--format", "default", "-n", "2", "--threads", "1"]
    screen = drawn([*arguments, "--base-url", server.url, "--model", "m"], monkeypatch)
    drawn_lines = [part for part in screen.split("\r\x1b[K") if "/25 rows" in part]
    assert len(drawn_lines) >= 2
    for line in drawn_lines:
        assert re.fullmatch(r"\d+/25 rows, [\d.]+ rows/s, 0:0\d left, \d+ tokens, 0 failed", line)
    assert "distgen: 25 rows: 25 answered, 0 failed" in screen


def run_on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """What a run writes on its terminal."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "distgen", "run", *arguments]
    environment = {**os.environ, "TERM": "xterm", **environment}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment) as process:
        os.close(theirs)
        seen = bytearray()
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                seen += part
    os.close(ours)
    return process.returncode, seen.decode().replace("\r\n", "\n")


def test_what_a_run_shows_fits_its_terminal(server: Server, tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", *[{"user": "\u00e9" * 200}] * 40)
    options = ["--format", "openai", "--base-url", server.url, "--model", "m", "--threads", "1", "-v"]
    shown: list[str] = []
    for name, columns, environment in (
        ("narrow", 80, {}),
        ("wide", 200, {}),
        ("dumb", 80, {"TERM": "dumb"}),
        ("C", 80, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "NO_COLOR": "1"}),
    ):
        refusal = {"error": {"message": "\u65e5\u672c " + "y" * 60}}
        server.script(*[Act(response(400 + n, json.dumps(refusal).encode())) for n in range(3)], delay=0.03)
        output = tmp_path / f"{name}.jsonl"
        status, screen = run_on_a_terminal(source, "-o", str(output), *options, columns=columns, **environment)
        assert status == 1
        assert "Traceback" not in screen
        assert "line 1: BadStatus: Status 400: " in screen
        assert ("\\u65e5" in screen) == (name == "C")
        assert "37 answered, 3 failed (BadStatus 3)" in screen
        lines = [part for part in screen.split("\r\x1b[K") if "/40 rows" in part]
        assert all(len(line) < columns for line in lines)
        assert ("\x1b" in screen, bool(lines)) == ((False, False) if name == "dumb" else (True, True))
        shown.append(output.read_text("utf-8"))
    assert len(set(shown)) == 1


def test_rows_on_a_terminal_are_not_drawn_over(server: Server, tmp_path: Path) -> None:
    server.script(delay=0.05)
    source = written(tmp_path / "in.jsonl", *[{"user": "A"}] * 10)
    options = ["--format", "openai", "--base-url", server.url, "--model", "m", "--threads", "1"]
    status, screen = run_on_a_terminal(source, "-o", "-", *options)
    assert (status, "\x1b" in screen) == (0, False)
    assert [json.loads(line)["user"] for line in screen.splitlines()[:10]] == ["A"] * 10


def test_the_first_failures_are_shown_in_full_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad: list[object] = [{"user": "</s>"}, *[b"junk"] * 6]
    assert answered(*bad, tmp_path=tmp_path, options=("-v", "--format", "zephyr"))[0] == 1
    _, first, *others, more, outcome, _, _, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("distgen: line 1: InjectedToken: user holds '</s>' at character 0")
    assert first.endswith("choose a format whose markup differs ('openai' has none).")
    assert [line.split(": not")[0] for line in others] == [f"distgen: BadLine: line {n}" for n in range(2, 6)]
    assert "only counted" in more
    assert outcome == "distgen: 7 rows: 0 answered, 7 failed (BadLine 6, InjectedToken 1)"
    (tmp_path / "out.jsonl").unlink()
    assert answered(*bad, tmp_path=tmp_path)[0] == 1
    assert "junk" not in capsys.readouterr().err


def test_a_second_interrupt_ends_at_once_and_leaves_whole_rows(server: Server, tmp_path: Path) -> None:
    server.script(*[Act(response(200, chat_body("hi")))] * 3, delay=30)
    source, output = written(tmp_path / "in.jsonl", *[{"user": "A"}] * 50), tmp_path / "out.jsonl"
    options = ["--format", "openai", "--base-url", server.url, "--model", "m", "--threads", "1"]
    with shell("run", source, "-o", str(output), *options) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 20
        while (not output.exists() or output.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        while b"Ctrl-C again ends at once" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT
    assert [row["generations"][0]["text"] for row in rows(output)] == ["hi"] * 3


def test_an_interrupt_before_anything_is_asked_is_no_traceback(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # to open it waits for a writer
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert main(["render", str(tmp_path / "pipe"), "--format", "default"]) == 130
    timer.join()


def test_it_runs_in_any_thread(tmp_path: Path) -> None:
    source, statuses = written(tmp_path / "in.jsonl", {"user": "A"}), list[int]()
    arguments = ["run", source, "-o", str(tmp_path / "out.jsonl"), "--format", "default"]
    thread = threading.Thread(target=lambda: statuses.append(main(arguments)))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_a_limit_asks_the_first_rows_and_resuming_asks_the_rest(tmp_path: Path) -> None:
    lines = [{"user": f"{n}"} for n in range(5)]
    status, got = answered(*lines, tmp_path=tmp_path, options=("--limit", "2"))
    assert (status, [row["user"] for row in got]) == (0, ["0", "1"])
    status, got = answered(*lines, tmp_path=tmp_path, options=("--resume", "--limit", "1"))
    assert (status, [row["user"] for row in got]) == (0, ["0", "1"])
    status, got = answered(*lines, tmp_path=tmp_path, options=("--resume",))
    assert (status, [row["user"] for row in got]) == (0, ["0", "1", "2", "3", "4"])


def test_a_budget_ends_the_run_cleanly(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.script()  # a word is a token, of the prompt and of each answer
    lines = [{"user": "one two three"}] * 100
    options = ("--base-url", server.url, "--model", "m", "--threads", "1", "-n", "2")
    status, got = answered(*lines, tmp_path=tmp_path, options=(*options, "--max-total-tokens", "90"))
    assert status == 3
    assert 10 <= len(got) <= 12  # nine tokens a row, and two that are being asked
    outcome, *table, last = capsys.readouterr().err.splitlines()
    assert outcome == f"distgen: {len(got)} rows: {len(got)} answered, 0 failed"
    assert table[0].split() == ["tokens", str(3 * len(got)), "of", "prompts"]
    assert table[1].split()[:3] == [str(6 * len(got)), "of", "completions,"]
    assert last.startswith("distgen: 90 tokens are spent; to go on: python -m distgen run ")
    server.script()
    status, got = answered(*lines[:20], tmp_path=tmp_path, options=(*options, "--resume", "--max-total-tokens", "900"))
    assert (status, len(got)) == (0, 20)
    assert "20 rows: 20 answered (" in capsys.readouterr().err
    assert len(server.seen()) <= 10
    with shell("run", "-", "-o", "-", "--format", "default", *options, "--max-total-tokens", "5") as process:
        out, err = process.communicate(b'{"user": "one two"}\n' * 50, timeout=30)
    assert process.returncode == 3
    assert len(out.splitlines()) < 5
    assert err.splitlines()[-1] == b"distgen: 5 tokens are spent; rows are left"


def test_a_budget_needs_a_server_that_counts(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script(then_always=Act(response(200, text_body("x", tokens=None))))
    options = ("--base-url", server.url, "--model", "m", "--threads", "1", "--max-total-tokens", "9")
    status, got = answered(*[{"user": "A"}] * 50, tmp_path=tmp_path, options=options)
    assert status == 2
    assert 1 <= len(got) <= 3
    assert "the server does not say how many tokens an answer took" in capsys.readouterr().err


def test_parameters_are_sent_and_belong_to_the_settings(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script()
    options = ("--base-url", server.url, "--model", "m", "--param", "temperature=0.5", "--param", 'stop=["END"]')
    assert answered({"user": "A"}, tmp_path=tmp_path, options=(*options, "--format", "llama2"))[0] == 0
    (tmp_path / "out.jsonl").unlink()
    assert answered({"user": "A"}, tmp_path=tmp_path, options=(*options, "--format", "openai"))[0] == 0
    text, chat = (seen.json() for seen in server.seen())
    assert text == {"temperature": 0.5, "stop": ["END"], "model": "m", "prompt": "<s>[INST] A [/INST]"}
    assert (chat["temperature"], chat["stop"]) == (0.5, ["END"])
    capsys.readouterr()
    assert answered({"user": "A"}, tmp_path=tmp_path, options=(*options[:-2], "--format", "openai", "--resume"))[0] == 2
    assert 'params was {"stop": ["END"], "temperature": 0.5} and is now {"temperature": 0.5}' in capsys.readouterr().err
    assert answered({"user": "A"}, tmp_path=tmp_path, options=(*options, "--param", "n=3"))[0] == 2
    assert "['n'] is set by the backend itself" in capsys.readouterr().err


def test_logprobs_that_are_asked_for_are_written(server: Server, tmp_path: Path) -> None:
    token = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Hi", "logprob": -0.5}]}
    server.script(Act(response(200, chat_body("Hi", logprobs={"content": [token]}))))
    asked = ("--param", "logprobs=true", "--param", "top_logprobs=1")
    options = ("--base-url", server.url, "--model", "m", "--format", "openai", *asked)
    status, (row,) = answered({"user": "A"}, tmp_path=tmp_path, options=options)
    assert status == 0
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    said = {"text": "Hi", "finish_reason": "stop", "usage": usage, "logprobs": [token]}
    assert row == {"user": "A", "generations": [said], "model": "m"}
    assert (server.seen()[0].json()["logprobs"], server.seen()[0].json()["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("temperature", "temperature=0.7"),
        ("=1", '=\\"1\\"'),
        ("stop=END", 'stop="END"'),
        ("top_p=NaN", 'top_p="NaN"'),
        ("x=" + "[" * 100_000, "is not KEY=JSON"),
    ],
)
def test_a_parameter_is_a_name_and_json(text: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "in.jsonl", "-o", "out.jsonl", "--format", "default", "--param", text])
    printed = capsys.readouterr().err
    assert hint.replace("\\", "") in printed
    assert "is not KEY=JSON" in printed


def test_the_environment_names_the_server_and_the_model(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert answered({"user": "A"}, tmp_path=tmp_path, options=("--model", "flag"))[1][0]["model"] == "flag"
    assert f"asking {server.url}, as OPENAI_BASE_URL says" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_MODEL", "environment")
    for options, model in ((), "environment"), (("--base-url", ""), "echo"):
        (tmp_path / "out.jsonl").unlink()
        assert answered({"user": "A"}, tmp_path=tmp_path, options=options)[1][0]["model"] == model
    assert [seen.json()["model"] for seen in server.seen()] == ["flag", "environment"]


def test_a_run_is_resumed_and_its_failures_asked_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in.jsonl", *[{"user": f"{n}", "model": "kept"} for n in range(4)], b"no row")
    output = tmp_path / "out.jsonl"
    arguments = ["run", source, "-o", str(output), "--format", "openai", "--base-url", server.url, "--model", "m"]
    server.script(Act(response(400, b"{}")))
    assert main([*arguments, "--threads", "1"]) == 1
    assert "error" in rows(output)[0]
    server.script()
    assert main([*arguments, "--resume", "--keep-failures"]) == 1
    assert server.seen() == []
    assert main([*arguments, "--resume"]) == 1
    assert [seen.json()["messages"] for seen in server.seen()] == [[{"role": "user", "content": "0"}]]
    assert [row.get("user") for row in rows(output)] == ["0", "1", "2", "3", None]
    assert [row.get("input_model") for row in rows(output)] == ["kept"] * 4 + [None]
    capsys.readouterr()
    assert main([*arguments, "--keep-failures"]) == 2
    assert main([*arguments, "--resume", "-n", "2"]) == 2
    assert main(["run", source, *arguments[2:], "--resume", "--user-field", "model"]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "exists already" in first
    assert "other settings: num_generations was 1 and is now 2;" in second
    assert 'user_field was null and is now "model"' in third


def test_only_a_file_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "in.jsonl", {"user": "A"})
    assert main(["run", source, "-o", "-", "--format", "default", "--resume"]) == 2
    assert "--resume needs a file to go on with, and - is none" in capsys.readouterr().err


def test_an_output_that_is_no_file_is_written_as_it_comes(tmp_path: Path) -> None:
    source, pipe = written(tmp_path / "in.jsonl", {"user": "A"}, {"user": "B"}), tmp_path / "pipe"
    os.mkfifo(pipe)
    with shell("run", source, "-o", str(pipe), "--format", "default") as process:
        assert [json.loads(line)["user"] for line in pipe.read_bytes().splitlines()] == ["A", "B"]
        assert process.wait(timeout=30) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "pipe"]


def test_a_folder_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", written(tmp_path / "in.jsonl", {"user": "A"}), "-o", str(tmp_path), "--format", "default"]) == 2
    assert f"cannot write {tmp_path}: Is a directory" in capsys.readouterr().err


def test_an_output_row_that_no_run_wrote_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = answered({"user": "A"}, tmp_path=tmp_path)
    (tmp_path / "out.jsonl").write_bytes(b'{"user": "A"}\n')
    status = main(
        ["run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--format", "default", "--resume"]
    )
    assert status == 2
    assert 'cannot be read (it has neither "generations" nor an "error")' in capsys.readouterr().err


def test_numbers_and_wide_lists_go_through(tmp_path: Path) -> None:
    row: dict[str, object] = {"user": "A", "score": 0.1, "big": 10**40, "wide": [[]] * 600}
    status, (got,) = answered(row, tmp_path=tmp_path)
    assert (status, {name: got[name] for name in row}) == (0, row)


def test_help_teaches_within_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ["--help"], ["run", "--help"], ["render", "--help"]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert shown.isascii()
        assert max(map(len, shown.splitlines())) <= 80
        if arguments != ["render", "--help"]:
            for taught in ("--resume", "Exit status: 0", "OPENAI_BASE_URL", "python -m distgen run rows.jsonl"):
                assert taught in shown


def test_an_argument_that_the_locale_cannot_decode_is_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered({"user": "A"}, tmp_path=tmp_path, options=("--system", "\udcc3\udca9"))[1][0]["generations"] == [
        said("\u00e9\nA")
    ]
    with pytest.raises(SystemExit):
        main(["run", "in.jsonl", "-o", "out.jsonl", "--format", "default", "--system", "\udcff"])
    assert "is not UTF-8" in capsys.readouterr().err


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "in.jsonl", *[{"user": f"{n:01000}"} for n in range(200)])
    output = tmp_path / "disk" / "out.jsonl"
    arguments = ["run", source, "-o", str(output), "--format", "default"]
    with mounted(tmp_path / "disk", "size=64k"):
        assert main(arguments) == 2
        assert (
            f"distgen: cannot write {output}: No space left on device; what was written stays"
            in capsys.readouterr().err
        )
        assert [int(row["user"]) for row in rows(output)] == list(range(len(rows(output))))
        assert len(rows(output)) > 10
    with mounted(tmp_path / "disk", "ro"):
        assert main(arguments) == 2
        assert f"distgen: cannot write {output}: Read-only file system" in capsys.readouterr().err
