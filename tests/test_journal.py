"""The journal: what is killed, cut, filled up or mixed up goes on, or is refused with nothing lost."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen import LLM, RowResult, Raised, Prompt, Sequential, Task, Threads, each, explain, fold
from distgen.formats import default
from distgen.journal import (
    Exists,
    IfExists,
    InUse,
    Journal,
    JournalError,
    Kept,
    NotARow,
    NotEncoded,
    NotWritten,
    OtherInput,
    OtherSettings,
    Recorded,
    Sink,
    Step,
    UnknownSettings,
    entries,
    explain_journal,
    record,
)
from tests.support.parts import mounted
from tests.support.servers import Act, Seen, Server, response, serving

ROOT = Path(__file__).parent.parent


def encode(word: str, answer: RowResult[str]) -> dict[str, object]:
    return fold(
        answer,
        lambda generations: {"word": word, "said": generations[0].completion.text},
        lambda error: {"word": word, "error": explain(error)},
    )


def decode(row: Mapping[str, object]) -> Result[tuple[str, RowResult[str]], str]:
    word = row.get("word")
    if not isinstance(word, str):
        return Failure("no word")
    answer: RowResult[str] = Failure(Raised("Old", "it failed")) if "error" in row else Success(())
    return Success((word, answer))


def journal(folder: Path, **changes: object) -> Journal[str, str]:
    return Journal(folder / "out.jsonl", {"model": "m", **changes}, encode, decode)


def run(
    kept: Journal[str, str],
    words: Iterable[str],
    say: Callable[[str], str] = str.upper,
    if_exists: IfExists = "resume",
) -> list[Result[Step[str, str], JournalError]]:
    model = LLM(Task(Prompt, Success), default, each(say), Threads(4))
    return list(record(kept, words, model.stream, if_exists))


def asked(steps: Iterable[Result[Step[str, str], JournalError]]) -> list[str]:
    return [step.input for step in _recorded(steps)]


def failing_on(*words: str) -> Callable[[str], str]:
    def say(word: str) -> str:
        if word in words:
            raise ValueError(word)
        return word.upper()

    return say


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_rows_are_there_as_they_come_and_a_run_goes_on_after_them(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    steps = record(kept, ["a", "b", "c"], LLM(Task(Prompt, Success), default, each(str.upper), Threads(2)).stream)
    assert next(steps).map(lambda step: isinstance(step, Recorded) and step.input) == Success("a")
    assert lines(kept.path) == [{"word": "a", "said": "A"}]
    steps.close()
    assert run(kept, ["a", "b", "c", "d"])[0] == Success(Kept(1))
    assert [row["word"] for row in lines(kept.path)] == ["a", "b", "c", "d"]
    assert run(kept, ["a", "b", "c", "d"]) == [Success(Kept(4))]
    assert run(kept, ["a"]) == [Success(Kept(1))]
    assert len(lines(kept.path)) == 4


def test_equal_inputs_are_told_apart_by_their_order(tmp_path: Path) -> None:
    kept, number = journal(tmp_path), iter(range(100))
    run(kept, ["x", "x"], lambda _: str(next(number)))
    assert asked(run(kept, ["x", "x", "y", "x"], lambda _: str(next(number)))) == ["y", "x"]
    assert sorted(row["said"] for row in lines(kept.path)[:2]) == ["0", "1"]
    assert len(lines(kept.path)) == 4


def test_failed_rows_are_asked_again_in_their_places(tmp_path: Path) -> None:
    kept, words = journal(tmp_path), list("abcdefgh")
    run(kept, words[:6], failing_on("b", "d", "f"))
    stay = run(kept, words, failing_on("b"), "keep failures")
    assert asked(stay) == ["g", "h"]
    assert stay[0] == Success(Kept(6, failed=3))
    assert asked(run(kept, words, failing_on("f"))) == ["b", "d", "f"]
    assert [("error" in row, row["word"]) for row in lines(kept.path)] == [(word == "f", word) for word in words]
    assert asked(run(kept, words)) == ["f"]
    assert lines(kept.path) == [{"word": word, "said": word.upper()} for word in words]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.distgen.json"]


def test_the_file_is_replaced_as_soon_as_its_old_rows_are_through(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    run(kept, list("abc"), failing_on("b"))
    steps = _recorded(
        record(kept, list("abcd"), LLM(Task(Prompt, Success), default, each(str.upper), Threads(2)).stream)
    )
    assert next(steps).input == "b"
    assert "error" in lines(kept.path)[1]
    assert next(steps).input == "d"
    assert ["said" in row for row in lines(kept.path)] == [True] * 4
    del steps


def test_inputs_that_end_early_leave_the_rest_as_it_is(tmp_path: Path) -> None:
    kept, words = journal(tmp_path), list("abcdef")
    run(kept, words, failing_on("b", "e"))
    assert asked(run(kept, words[:3])) == ["b"]
    assert [row["word"] for row in lines(kept.path)] == words
    assert ["error" in row for row in lines(kept.path)] == [word == "e" for word in words]


def test_a_failed_input_that_was_mended_is_asked_also_where_failures_are_kept(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    run(kept, ["a", "bad", "c"], failing_on("bad"))
    assert asked(run(kept, ["a", "good", "c"], if_exists="keep failures")) == ["good"]
    assert [row["word"] for row in lines(kept.path)] == ["a", "good", "c"]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_runs_that_are_cut_off_end_in_the_file_of_one_that_is_not(data: st.DataObject) -> None:
    """Against the plainest model of it: a list, of which the answered rows stay."""
    words = data.draw(st.lists(st.sampled_from(["a", "b", "c", "d", "\ud800"]), max_size=12), label="words")
    with tempfile.TemporaryDirectory() as folder:
        kept = journal(Path(folder))
        model: list[bool] = []  # whether each row of the file was answered
        for _ in range(data.draw(st.integers(0, 4), label="runs")):
            failing = data.draw(st.sets(st.sampled_from("abcd")), label="failing")
            stop = data.draw(st.integers(0, 12), label="stop")
            stream = LLM(Task(Prompt, Success), default, each(failing_on(*failing)), Threads(2)).stream
            missing = [index for index in range(len(words)) if index >= len(model) or not model[index]]
            steps = record(kept, words, stream)
            got = list(islice(_recorded(steps), stop))
            steps.close()
            assert [step.input for step in got] == [words[index] for index in missing[:stop]]
            for index in missing[:stop]:
                model[index : index + 1] = [words[index] not in failing]
            rows = lines(kept.path) if kept.path.exists() else []
            assert [(row["word"], "said" in row) for row in rows] == list(zip(words, model, strict=False))
        run(kept, words)
        assert lines(kept.path) == [{"word": word, "said": word.upper()} for word in words]
        assert not kept.path.with_name("out.jsonl.distgen.part").exists()


def _recorded(steps: Iterable[Result[Step[str, str], JournalError]]) -> Iterator[Recorded[str, str]]:
    for step in steps:
        done = step.unwrap()
        if isinstance(done, Recorded):
            yield done


WORDS = [f"{number} {'é' * (number * 37 % 500)}" for number in range(220)]
FAILING = [word for number, word in enumerate(WORDS) if number % 7 == 3]


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Path, bytes, bytes]]:
    """A finished file, and one whose failures were asked again; both longer than 64 KiB."""
    with tempfile.TemporaryDirectory() as folder:
        kept = journal(Path(folder))
        run(kept, WORDS, failing_on(*FAILING))
        before = kept.path.read_bytes()
        run(kept, WORDS)
        after = kept.path.read_bytes()
        assert len(before) > 2**16 < len(after)
        yield kept.path.with_name("out.jsonl.distgen.json"), before, after


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 2**16), is_failing=st.booleans())
def test_a_file_cut_at_any_byte_is_mended(whole: tuple[Path, bytes, bytes], cut: int, is_failing: bool) -> None:
    """Resumed with or without asking failures again, it is byte for byte the file that was not cut."""
    sidecar, before, after = whole
    with tempfile.TemporaryDirectory() as folder:
        kept = journal(Path(folder))
        kept.path.with_name(sidecar.name).write_bytes(sidecar.read_bytes())
        kept.path.write_bytes(before[: len(before) - cut])
        say = failing_on(*FAILING) if is_failing else str.upper
        was_whole = before[: len(before) - cut].count(b"\n")
        steps = run(kept, WORDS, say, "keep failures" if is_failing else "resume")
        assert kept.path.read_bytes() == (before if is_failing else after)
        again = [] if is_failing else [word for word in WORDS[:was_whole] if word in FAILING]
        assert asked(steps) == again + WORDS[was_whole:]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**17))
def test_a_part_cut_at_any_byte_is_joined(whole: tuple[Path, bytes, bytes], cut: int) -> None:
    sidecar, before, after = whole
    with tempfile.TemporaryDirectory() as folder:
        kept = journal(Path(folder))
        kept.path.with_name(sidecar.name).write_bytes(sidecar.read_bytes())
        kept.path.write_bytes(before)
        part = kept.path.with_name("out.jsonl.distgen.part")
        part.write_bytes(after[:cut])
        again = [word for word in WORDS[after[:cut].count(b"\n") :] if word in FAILING]
        assert asked(run(kept, WORDS)) == again  # what was answered again is not asked a third time
        assert kept.path.read_bytes() == after
        assert not part.exists()


def test_a_long_torn_line_is_taken_away(tmp_path: Path) -> None:
    kept, words = journal(tmp_path), ["a", "b" * 200_000]
    run(kept, words)
    os.truncate(kept.path, kept.path.stat().st_size - 1)
    assert asked(run(kept, words)) == words[1:]
    os.truncate(kept.path, 5)
    assert asked(run(kept, words)) == words
    assert [row["word"] for row in lines(kept.path)] == words


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Exists(Path("o")), "o exists already and is left as it is"),
        (InUse(Path("o")), "o is being written by another run; wait"),
        (UnknownSettings(Path("a/o")), "a/o has no legible o.distgen.json beside it"),
        (OtherInput(Path("o"), 7), "row 7 of o answers another input"),
        (NotARow(Path("o"), 7, "why"), "row 7 of o cannot be read (why); mend it"),
        (
            NotEncoded(Path("o"), Raised("K", "m")),
            "a row or the settings of o cannot be encoded as JSON (K: m); mend them",
        ),
        (NotEncoded(Path("o"), Raised("K", "")), "cannot be encoded as JSON (K); mend them"),
        (NotWritten(Path("o"), "No space"), "cannot write o: No space; what was written stays"),
    ],
)
def test_every_error_says_the_way_out(error: JournalError, sentence: str) -> None:
    assert sentence in explain_journal(error)
    assert explain_journal(error).endswith(".")


@pytest.mark.no_cover
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=100, deadline=None)
@given(at=st.integers(1, 1200), is_part=st.booleans())
def test_an_interrupt_at_any_line_of_the_journal_loses_nothing(at: int, is_part: bool) -> None:
    """KeyboardInterrupt may come between any two lines; the answered rows of the file stay, and no row comes twice."""
    words = [f"{number}" for number in range(12)]
    model = LLM(Task(Prompt, Success), default, each(str.upper), Sequential())
    with tempfile.TemporaryDirectory() as folder:
        kept = journal(Path(folder))
        run(kept, words[:9], failing_on("1", "4", "5") if is_part else str.upper)
        got: list[str] = []
        tracer = sys.gettrace()
        try:
            sys.settrace(interrupting(at))
            for step in record(kept, words, model.stream):
                got += asked([step])
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracer)
        gc.collect()
        again = asked(run(kept, words))
        assert not set(got) & set(again)
        assert lines(kept.path) == [{"word": word, "said": word} for word in words]


class Trace(Protocol):
    def __call__(self, frame: FrameType, event: str, arg: object, /) -> Trace | None: ...


def interrupting(at: int) -> Trace:
    """A trace function that raises KeyboardInterrupt at so many lines of the journal, not where its lock is let go."""
    left = at

    def trace(frame: FrameType, event: str, _: object, /) -> Trace | None:
        nonlocal left
        if frame.f_globals["__name__"] != "distgen.journal" or frame.f_code.co_name == "_locked":
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    return trace


def test_a_file_that_is_there_is_left_alone_unless_it_is_to_be_resumed(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.path.write_bytes(b"mine")
    assert run(kept, ["a"], if_exists="refuse") == [Failure(Exists(kept.path))]
    assert run(kept, ["a"]) == [Failure(UnknownSettings(kept.path))]
    assert kept.path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [kept.path]
    (tmp_path / "out.jsonl.distgen.json").write_bytes(b'{"model"')
    assert run(kept, ["a"]) == [Failure(UnknownSettings(kept.path))]
    kept.path.unlink()
    assert asked(run(kept, ["a"], if_exists="refuse")) == ["a"]  # killed before anything was written


def test_settings_that_are_no_json_are_a_failure(tmp_path: Path) -> None:
    (refused,) = run(journal(tmp_path, model=object()), ["a"])
    assert isinstance(refused.failure(), NotEncoded)


def test_two_that_begin_at_once_are_one_that_writes(tmp_path: Path) -> None:
    """The file may come into being between the first look and the lock."""
    kept, stream = journal(tmp_path), LLM(Task(Prompt, Success), default, each(str.upper), Threads(2)).stream
    with ThreadPoolExecutor(8) as pool:
        ends = [pool.submit(lambda: list(record(kept, ["a", "b"], stream, "refuse"))) for _ in range(8)]
    done = [end.result() for end in ends]
    assert sum(len(steps) == 2 for steps in done) == 1
    assert all(isinstance(steps[0].failure(), InUse | Exists) for steps in done if len(steps) == 1)
    assert [row["word"] for row in lines(kept.path)] == ["a", "b"]


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    kept = journal(tmp_path, temperature=0.5, seed=1)
    run(kept, ["a"])
    before = kept.path.read_bytes()
    other = journal(tmp_path, temperature=0.7, top_p=1)
    (refused,) = run(other, ["a", "b"])
    differ = (("temperature", "0.5", "0.7"), ("seed", "1", "absent"), ("top_p", "absent", "1"))
    assert refused == Failure(OtherSettings(kept.path, differ))
    assert "temperature was 0.5 and is now 0.7, seed was 1 and is now absent" in explain_journal(refused.failure())
    assert kept.path.read_bytes() == before


def test_other_inputs_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    run(kept, list("abcd"), failing_on("b"))
    steps = run(kept, list("abXd"))
    assert asked(steps[:-1]) == ["b"]
    assert steps[-1] == Failure(OtherInput(kept.path, 3))
    assert lines(kept.path) == [{"word": word, "said": word.upper()} for word in "abcd"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"junk", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[1]", "not an object"),
        (b'{"other": 1}', "no word"),
        (b'{"word": "raise"}', "KeyError: 'raise'"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_number(tmp_path: Path, line: bytes, reason: str) -> None:
    def decode_or_raise(row: Mapping[str, object]) -> Result[tuple[str, RowResult[str]], str]:
        if row.get("word") == "raise":
            raise KeyError("raise")
        return decode(row)

    kept = Journal(tmp_path / "out.jsonl", {}, encode, decode_or_raise)
    run(kept, ["a"])
    with kept.path.open("ab") as file:
        file.write(line + b"\n")
    before = kept.path.read_bytes()
    assert run(kept, ["a", "b"]) == [Failure(NotARow(kept.path, 2, reason))]
    assert kept.path.read_bytes() == before
    assert list(entries(kept)) == [Success(("a", Success(()))), Failure(NotARow(kept.path, 2, reason))]


@pytest.mark.parametrize(
    ("decoded", "reason"),
    [
        (("a", Success(())), "AttributeError: 'tuple' object has no attribute 'unwrap'"),
        (Success("a"), "ValueError: not enough values to unpack (expected 2, got 1)"),
    ],
)
def test_a_decoder_of_untyped_code_may_give_anything(tmp_path: Path, decoded: Any, reason: str) -> None:
    kept = Journal(tmp_path / "out.jsonl", {}, encode, lambda _: decoded)
    run(kept, ["a"])
    assert run(kept, ["a", "b"]) == [Failure(NotARow(kept.path, 1, reason))]
    assert lines(kept.path) == [{"word": "a", "said": "A"}]


def test_entries_of_no_file_are_a_failure(tmp_path: Path) -> None:
    (missing,) = entries(journal(tmp_path))
    assert missing == Failure(NotWritten(tmp_path / "out.jsonl", "No such file or directory"))


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_an_encoder_that_fails_ends_the_run_and_says_so(tmp_path: Path, value: object) -> None:
    bad = Journal(tmp_path / "out.jsonl", {}, lambda word, _: {"word": value if word == "b" else word}, decode)
    first, refused = run(bad, list("abc"))
    assert isinstance(first.unwrap(), Recorded)
    error = refused.failure()
    assert isinstance(error, NotEncoded)
    assert lines(bad.path) == [{"word": "a"}]


def test_an_exception_of_the_inputs_comes_out_after_what_came_before(tmp_path: Path) -> None:
    def inputs() -> Iterator[str]:
        yield "a"
        raise OSError("the input broke")

    with pytest.raises(OSError, match="the input broke"):
        run(journal(tmp_path), inputs())
    assert lines(tmp_path / "out.jsonl") == [{"word": "a", "said": "A"}]


def test_a_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "rows.jsonl"
    (tmp_path / "out.jsonl").symlink_to(target)
    run(journal(tmp_path), ["a", "b"], failing_on("a"))
    run(journal(tmp_path), ["a", "b"])
    assert (tmp_path / "out.jsonl").is_symlink()
    assert [row["said"] for row in lines(target)] == ["A", "B"]


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "out.jsonl"
    (refused,) = run(Journal(nowhere, {}, encode, decode), ["a"])
    assert refused == Failure(NotWritten(nowhere, "No such file or directory"))
    (tmp_path / "out.jsonl").mkdir()
    run(journal(tmp_path), ["a"], if_exists="refuse")
    assert list((tmp_path / "out.jsonl").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of that kind")
@pytest.mark.parametrize("is_part", [False, True])
def test_a_file_that_may_not_grow_keeps_whole_rows(tmp_path: Path, is_part: bool) -> None:
    import resource

    words, kept = [f"{number:050}" for number in range(100)], journal(tmp_path)
    before = b""
    if is_part:
        run(kept, words, failing_on(*words[:50]))
        before = kept.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_050, hard))
    try:
        steps = run(kept, words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps[-1] == Failure(NotWritten(kept.path, os.strerror(errno.EFBIG)))
    assert (kept.path.read_bytes() if is_part else b"") == before
    grown = kept.path.with_name("out.jsonl.distgen.part") if is_part else kept.path
    assert [row["word"] for row in lines(grown)] == words[: len(steps) - 1]
    assert is_part or grown.read_bytes().endswith(b"\n")
    assert asked(run(kept, words)) == words[len(steps) - 1 : 50 if is_part else 100]
    assert lines(kept.path) == [{"word": word, "said": word} for word in words]


@pytest.mark.skipif(sys.platform == "win32", reason="no mount")
def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k"):
        words, kept = [f"{number:0500}" for number in range(200)], journal(tmp_path / "disk")
        steps = run(kept, words)
        assert steps[-1] == Failure(NotWritten(kept.path, "No space left on device"))
        got = lines(kept.path)
        assert [row["word"] for row in got] == words[: len(steps) - 1]
        assert 10 < len(got) < 200
        subprocess.run(["mount", "-o", "remount,size=1m", str(tmp_path / "disk")], check=True)
        assert asked(run(kept, words)) == words[len(got) :]
        assert [row["word"] for row in lines(kept.path)] == words


@pytest.mark.skipif(sys.platform == "win32", reason="no mount")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro"):
        kept = journal(tmp_path / "disk")
        assert run(kept, ["a"]) == [Failure(NotWritten(kept.path, "Read-only file system"))]


WRITER = """
import sys, time
from pathlib import Path
from types import FrameType
from typing import Protocol
from returns.result import Success
from distgen import LLM, Prompt, Sequential, Task, each
from distgen.formats import default
from tests.test_journal import journal, run

def say(word):
    print("asked", flush=True)
    time.sleep(60)

run(journal(Path(sys.argv[1])), ["a"], say)
"""


def test_one_writer_at_a_time_and_the_lock_dies_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"asked\n"
            assert run(journal(tmp_path), ["a"]) == [Failure(InUse(tmp_path / "out.jsonl"))]
        finally:
            other.kill()
    assert asked(run(journal(tmp_path), ["a"])) == ["a"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no /dev/null here")
def test_rows_are_synced_at_once_or_in_time_and_what_the_disk_says_is_heard() -> None:
    """The fsync of /dev/null is refused, which shows that, and when, there was one."""
    at_once = Sink(Path("/dev/null"), 0)
    with pytest.raises(OSError, match="Invalid argument"):
        at_once.write(b"x")
    at_once.close()
    in_time, deadline = Sink(Path("/dev/null"), 0.01), time.monotonic() + 20
    in_time.write(b"x")
    with pytest.raises(OSError, match="Invalid argument"):
        while time.monotonic() < deadline:
            time.sleep(0.001)
            in_time.write(b"x")
    with pytest.raises(OSError, match="Invalid argument"):
        in_time.close()
    late = Sink(Path("/dev/null"), 1000)
    late.write(b"x")
    with pytest.raises(OSError, match="Invalid argument"):
        late.close()


def test_each_row_may_be_on_the_disk_before_it_is_yielded(tmp_path: Path) -> None:
    kept = Journal(tmp_path / "out.jsonl", {}, encode, decode, sync=0)
    assert asked(run(kept, list("abc"))) == list("abc")
    assert len(lines(kept.path)) == 3


@pytest.mark.no_cover
def test_memory_does_not_grow_with_the_rows_that_stay(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    run(kept, ["0"])
    with kept.path.open("ab") as file:
        for number in range(1, 50_000):
            failed = number in (20_000, 40_000)
            file.write(json.dumps({"word": str(number), "error" if failed else "said": "x" * 20}).encode() + b"\n")
    tracemalloc.start()
    try:
        steps = run(kept, map(str, range(50_001)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert asked(steps) == ["20000", "40000", "50000"]
    assert peak < 4 * 2**20  # the copy takes 1 MiB at a time; the file is 2.4 MB, its rows as objects ten times that


def command_for(folder: Path, server: Server, rows: int) -> list[str]:
    """A run over so many rows in a process of its own, which goes on with what is there."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(f'{{"user": "row {number}"}}\n' for number in range(rows)))
    options = ["--format", "openai", "--base-url", server.url, "--model", "m", "--threads", "8", "--resume"]
    return [sys.executable, "-m", "distgen", "run", str(source), "-o", str(output), *options]


def status_of(command: list[str]) -> int:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode


def killed(command: list[str], output: Path, server: Server, longest: float) -> tuple[list[str], Counter[str]]:
    """Kills a run at a random moment after it began to ask; gives what is answered then, and what had been asked."""
    before = server.connections()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for_more(server, before, process)
        time.sleep(random.uniform(0, longest))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    time.sleep(0.05)  # what is on its way to the server arrives
    return answered_rows(output), asked_of(server.seen())


def check_ended(output: Path, rows: int, durable: list[tuple[list[str], Counter[str]]], last: Counter[str]) -> None:
    """Every row once, in order, and none asked again after it was written."""
    expected = [f"row {number}" for number in range(rows)]
    got = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [(row["user"], row["generations"][0]["text"]) for row in got] == [(word, word) for word in expected]
    for answered, then in durable:
        assert [word for word in answered if last[word] > then[word]] == []
    assert sorted(path.name for path in output.parent.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.distgen.json"]


def test_a_run_that_is_killed_five_times_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    rows, output = 4_000, tmp_path / "out.jsonl"
    with serving() as server:
        server.script(*[Act(response(400, b"{}"))] * 40, delay=0.002)
        command = command_for(tmp_path, server, rows)
        durable = [killed(command, output, server, 0.6) for _ in range(5)]
        assert status_of(command) == 0
        last = asked_of(server.seen())
    assert any(answered for answered, _ in durable)
    check_ended(output, rows, durable, last)


def test_a_run_that_is_killed_while_it_asks_failures_again_loses_none_of_them(tmp_path: Path) -> None:
    rows, output, parts = 400, tmp_path / "out.jsonl", 0
    durable: list[tuple[list[str], Counter[str]]] = []
    with serving() as server:
        server.script(then_always=Act(response(400, b"{}")))
        command = command_for(tmp_path, server, rows)
        assert status_of(command) == 1
        server.script(delay=0.02)
        for _ in range(4):
            durable.append(killed(command, output, server, 0.3))
            parts += output.with_name("out.jsonl.distgen.part").exists()
        assert status_of(command) == 0
        last = asked_of(server.seen())
    assert parts  # a second file was there at some kill
    check_ended(output, rows, durable, last)


def asked_of(seen: Iterable[Seen]) -> Counter[str]:
    return Counter(re.findall(r"row \d+", "\n".join(request.body for request in seen)))


def answered_rows(output: Path) -> list[str]:
    """What is answered in whole lines, of the file and of the part beside it."""
    part = output.with_name(f"{output.name}.distgen.part")
    whole = [line for path in (output, part) if path.exists() for line in path.read_bytes().split(b"\n")[:-1]]
    return [row["user"] for row in map(json.loads, whole) if "generations" in row]


def wait_for_more(server: Server, before: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while server.connections() <= before:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
