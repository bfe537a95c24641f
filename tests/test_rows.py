"""Bad input in bulk: whatever a file holds, each of its lines is a row or an error row, and none costs another."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success
from typing_extensions import Buffer

from distgen import Completion, Raised, Generation, Prompt, TokenLogprob, Usage
from distgen.__main__ import main
from distgen.journal import row as journal_row
from distgen.rows import LONGEST_LINE, decode, encode, lines, read

ROOT = Path(__file__).parent.parent
GOOD = b'{"user": "good"}'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["user", "system", "history", "messages", "error", "model", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
JUNK = st.one_of(
    st.binary(max_size=40),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["user", "system", "history", "messages", "role", "content"]), VALUES).map(
        lambda value: json.dumps(value).encode("utf-8")
    ),
    # a row of which some bytes were replaced
    st.tuples(st.integers(0, 40), st.binary(max_size=3)).map(
        lambda cut: b'{"user": "a", "history": [["b", "c"]], "n": 1.5}'[: cut[0]] + cut[1]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(JUNK, max_size=6))
@example([b"\x00"])
@example([b"\xef\xbb\xbf" + GOOD])
@example([b'{"user": "a"}\r', b"\r"])
@example([b'{"user": "\xff"}'])
@example([b'{"user": "\\ud800", "model": "\\udfff"}'])
@example([b'{"user": "a", "n": NaN}', b'{"user": "a", "n": -Infinity}', b'{"user": "a", "n": 1e999}'])
@example([b'{"user": "a", "user": "b"}', b'{"user": "a", "x": {"y": 1, "y": 2}}'])
@example([b'{"user": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"x":' * 10_000 + b"1" + b"}" * 10_000])
@example([b'{"user": "a", "x": ' + b"[" * depth + b"]" * depth + b"}" for depth in (480, 490, 499, 500, 600, 900, 990)])
@example([b'{"user": 12345}', b'{"user": 1.5}', b'{"user": "12345"}'])
@example([b'{"user": "a", "error": {"type": null}, "generations": null, "model": [], "input_model": 1}'])
@example([b'{"user": "a", "n": ' + b"9" * 4300 + b"}", b'{"user": "a", "n": ' + b"9" * 4301 + b"}"])
@example([b'{"user": "a\x00b"}', b'{"user": "a\\u0000b"}', b"\x00" * 512, b"\xff\xfe{\x00}\x00"])
def test_any_bytes_are_rows_or_error_rows_and_the_others_are_answered(junk: list[bytes]) -> None:
    whole = [GOOD, *[line for each in junk for line in (each.replace(b"\n", b" "), GOOD)]]
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_bytes(b"\n".join(whole))
        arguments = ["run", str(source), "-o", str(output), "--format", "default"]
        status = main(arguments)
        written = output.read_bytes()
        got = [json.loads(line, parse_constant=pytest.fail) for line in written.split(b"\n")[:-1]]
        assert main([*arguments, "--resume"]) == status  # what was written is read back, and asked alike
        assert output.read_bytes() == written
    numbers = [number for number, line in enumerate(whole, 1) if line.strip()]
    assert len(got) == len(numbers)
    for number, row in zip(numbers, got, strict=True):
        assert ("generations" in row) != ("error" in row)
        if number % 2:
            assert row["generations"][0]["text"] == "good"
        elif "error" in row:
            assert f"line {number}: " in row["error"]["message"]
    assert status == any("error" in row for row in got)


def test_a_line_without_end_is_an_error_row_and_costs_bounded_memory() -> None:
    class Endless(io.RawIOBase):
        """So many bytes, made as they are read."""

        left = LONGEST_LINE * 2 + 10

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Buffer, /) -> int:
            view = memoryview(buffer)
            size = min(len(view), self.left)
            view[:size] = b"x" * size
            self.left -= size
            return size

    cut, second = lines(io.BytesIO(b"x" * (LONGEST_LINE + 9) + b"\n" + GOOD))
    assert (len(cut), second) == (LONGEST_LINE + 1, GOOD)
    (only,) = read(lines(io.BufferedReader(Endless())), None, None)
    assert only.prompt == Failure("longer than 67,108,864 bytes")


def test_a_line_of_a_million_characters_is_a_row() -> None:
    text = "é" * 1_000_000
    (line,) = read(lines(io.BytesIO(json.dumps({"user": text}, ensure_ascii=False).encode())), None, None)
    assert line.prompt == Success(Prompt(text))


@given(st.dictionaries(st.sampled_from(["user", "model", "input_model", "error", "input_error", "x"]), st.integers()))
def test_an_output_row_tells_its_line(fields: dict[str, int]) -> None:
    (line,) = read([json.dumps({**fields, "user": "u"}).encode()], None, None)
    back, answer = decode(json.loads(json.dumps(encode(line, Failure(Raised("K", "m")))))).unwrap()
    assert back == line
    assert isinstance(answer, Failure)


def test_logprobs_are_written_where_they_are_and_by_the_names_of_the_protocol() -> None:
    (line,) = read([GOOD], None, None)
    tokens = (TokenLogprob("a", -0.5, (TokenLogprob("a", -0.5), TokenLogprob("b", -math.inf))), TokenLogprob("c", None))
    said = [Completion("ac", "stop", Usage(1, 2), tokens), Completion("", "stop", None, ()), Completion("x")]
    answer = Success(tuple(Generation("m", Prompt("good"), each, Success(each.text)) for each in said))
    assert json.loads(journal_row(encode(line, answer))) == {
        "user": "good",
        "generations": [
            {
                "text": "ac",
                "finish_reason": "stop",
                "usage": {"prompt_tokens": 1, "completion_tokens": 2},
                "logprobs": [
                    {
                        "token": "a",
                        "logprob": -0.5,
                        "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -9999.0}],
                    },
                    {"token": "c", "logprob": None, "top_logprobs": []},
                ],
            },
            {"text": "", "finish_reason": "stop", "usage": None, "logprobs": []},
            {"text": "x", "finish_reason": None, "usage": None},
        ],
        "model": "m",
    }


LARGE = """
import json, sys
row = json.dumps({"user": "x" * 1000, "id": 1}) + "\\n"
for _ in range(int(sys.argv[1])):
    sys.stdout.write(row)
"""


PEAK = """
import resource, subprocess, sys
command = [sys.executable, "-m", "distgen", "run", "-", "-o", "/dev/null", "--format", "default"]
status = subprocess.run(command, stdin=sys.stdin, stderr=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no getrusage")
def test_a_large_input_takes_bounded_memory() -> None:
    """64 MB here, through a pipe, as it comes; what is measured is the most that the process ever held."""
    with subprocess.Popen([sys.executable, "-c", LARGE, "64000"], stdout=subprocess.PIPE) as source:
        # by a small process of its own, since a child begins with the peak of the one that forks it
        done = subprocess.run(
            [sys.executable, "-c", PEAK], stdin=source.stdout, capture_output=True, cwd=ROOT, check=True
        )
    status, peak = map(int, done.stdout.split())
    assert status == 0
    assert peak < 80 * 2**10  # KiB
