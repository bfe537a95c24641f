"""The journal: a file that was killed, cut, filled up or mixed up is resumed, or refused with nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen.backends.generate import Batch, each
from distgen.completion import Completion
from distgen.errors import RequestFailed
from distgen.executors import Sequential, Threads
from distgen.formats import default
from distgen.journal import JournalError, JournalReason, Mode, Opened, RowDone, RunEvent, run
from distgen.llm import LLM, RowResult, SupportsGenerate
from distgen.prompt import Prompt
from distgen.task import Task
from tests.support.parts import mounted

SEQUENTIAL = Sequential()
Event = Result[RunEvent[str, str], JournalError]


def text_of(answer: RowResult[str]) -> str:
    return answer.map(lambda generations: generations[0].completion.text).value_or("")


def encode(word: str, answer: RowResult[str]) -> dict[str, object]:
    return {"word": word, "said": text_of(answer)}


def decode(row: Mapping[str, object]) -> Result[tuple[str, int], str]:
    match row:
        case {"word": str(word), "said": str(said)}:
            return Success((word, int(said != "")))
        case _:
            return Failure("it has no word")


def answering(
    answer: Callable[[str], str | Completion], executor: Sequential | Threads = SEQUENTIAL
) -> LLM[str, str, str, Batch]:
    return LLM(Task(Prompt, Success), default, each(answer), executor)


def upper(text: str) -> str:
    return text.upper()


def record(
    path: Path,
    words: Iterable[str],
    mode: Mode = "resume",
    llm: SupportsGenerate[str, str] | None = None,
    settings: Mapping[str, object] | None = None,
    params: Mapping[str, object] | None = None,
) -> list[Event]:
    llm = llm or answering(upper)
    return [*run(llm, words, path, encode, decode, mode, settings=settings or {}, params=params or {})]


def rows_of(path: Path) -> list[tuple[int, str, str]]:
    return [(row["row"], row["word"], row["said"]) for row in map(json.loads, path.read_text().splitlines())]


def error_of(events: Sequence[Event]) -> JournalError:
    return events[-1].failure()


def reason_of(events: Sequence[Event]) -> JournalReason:
    return error_of(events).reason


def asked_in(events: Sequence[Event]) -> list[str]:
    found = [event.unwrap() for event in events if isinstance(event, Success)]
    return [event.input for event in found if isinstance(event, RowDone)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_rows_are_written_as_they_are_answered_and_sorted_at_the_end(path: Path) -> None:
    release, others = threading.Event(), threading.Semaphore(0)

    def wait_for_the_others(text: str) -> str:
        if "slow" not in text:
            others.release()
            return text.upper()
        assert release.wait(60)
        return text.upper()

    words = ["slow", *(f"w{number}" for number in range(50))]
    llm = answering(wait_for_the_others, Threads(4))
    events = run(llm, words, path, encode, decode, "new")
    assert next(events) == Success(Opened(0))
    for _ in range(50):
        next(events)
    assert [word for _, word, _ in rows_of(path)] == words[1:] or len(rows_of(path)) == 50
    assert "slow" not in [word for _, word, _ in rows_of(path)]
    release.set()
    assert len(list(events)) == 1
    assert [word for _, word, _ in rows_of(path)] == words
    assert [row for row, _, _ in rows_of(path)] == [*range(1, 52)]


def test_an_unknown_mode_is_a_type_error_at_once(path: Path) -> None:
    with pytest.raises(TypeError, match="'append'"):
        run(answering(upper), [], path, encode, decode, "append")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_failed_rows_are_asked_again_and_answered_ones_are_kept(path: Path) -> None:
    record(path, ["a", "b", "c"], llm=answering(lambda text: "" if "b" in text else "first"))
    events = record(path, ["a", "b", "c", "d"], llm=answering(lambda _: "second"))
    assert events[0] == Success(Opened(2))
    assert asked_in(events) == ["b", "d"]
    assert rows_of(path) == [(1, "a", "first"), (2, "b", "second"), (3, "c", "first"), (4, "d", "second")]


def test_fewer_inputs_remove_no_rows(path: Path) -> None:
    record(path, "abc")
    assert asked_in(record(path, "a")) == []
    assert [word for _, word, _ in rows_of(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("equal", ["aaaa", "abab"])
def test_equal_inputs_are_told_apart_by_their_place(path: Path, equal: str) -> None:
    record(path, equal[:2])
    assert asked_in(record(path, equal)) == [*equal[2:]]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(words=st.lists(TEXT, min_size=1, max_size=9), share=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_a_file_that_is_cut_at_any_byte_resumes_to_the_same_rows(words: list[str], share: float) -> None:
    said = answering(lambda text: f"{text}!")
    with TemporaryDirectory() as folder:
        path = Path(folder, "out.jsonl")
        record(path, words, llm=said)
        whole = path.read_bytes()
        cut = whole[: int(share * len(whole))]
        path.write_bytes(cut)
        events = record(path, words, llm=said)
        assert events[0] == Success(Opened(cut.count(b"\n")))
        assert len(asked_in(events)) == len(words) - cut.count(b"\n")
        assert path.read_bytes() == whole


class AnswersBackwards:
    """A double: answers its inputs from the last to the first, from a plain iterator."""

    def generate(
        self, inputs: Iterable[str], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Sequence[RowResult[str]]:
        return answering(upper).generate(inputs, num_generations, on_progress)

    def stream(
        self, inputs: Iterable[str], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[RowResult[str]]:
        return iter(self.generate(inputs, num_generations, on_progress))

    def as_completed(
        self, inputs: Iterable[str], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[tuple[int, RowResult[str]]]:
        return reversed([*enumerate(self.generate(inputs, num_generations, on_progress))])


def test_a_run_that_is_closed_leaves_its_rows_and_the_next_run_sorts_them(path: Path) -> None:
    events = run(AnswersBackwards(), "abc", path, encode, decode, "new")
    for _ in range(3):
        next(events)
    events.close()
    assert rows_of(path) == [(3, "c", "C"), (2, "b", "B")]
    path.chmod(0o640)
    assert record(path, "") == [Success(Opened(2))]
    assert rows_of(path) == [(2, "b", "B"), (3, "c", "C")]
    assert asked_in(record(path, "abc")) == ["a"]
    assert rows_of(path) == [(1, "a", "A"), (2, "b", "B"), (3, "c", "C")]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_run_that_is_interrupted_leaves_its_rows_unsorted(path: Path) -> None:
    events = run(AnswersBackwards(), "abc", path, encode, decode, "new", interrupted=lambda: True)
    assert asked_in([*events]) == ["c", "b", "a"]
    assert [row for row, _, _ in rows_of(path)] == [3, 2, 1]
    assert asked_in(record(path, "abc")) == []
    assert [row for row, _, _ in rows_of(path)] == [1, 2, 3]


def test_of_several_lines_of_a_row_the_one_with_most_texts_counts_then_the_later(path: Path) -> None:
    record(path, "ab", llm=answering(lambda _: "kept"))
    later = {"word": "a", "said": "later", "row": 1}
    failed = {"word": "b", "said": "", "row": 2}
    with path.open("a") as file:
        print(json.dumps(later), json.dumps(failed), sep="\n", file=file)
    assert asked_in(record(path, "ab")) == []
    assert rows_of(path) == [(1, "a", "later"), (2, "b", "kept")]


def test_a_row_may_have_any_number_of_texts(path: Path) -> None:
    def decode_many(row: Mapping[str, object]) -> Result[tuple[str, int], str]:
        return decode(row).map(lambda found: (found[0], 300 * found[1]))

    record(path, "a")
    assert [*run(answering(upper), "a", path, encode, decode_many, "resume")] == [Success(Opened(1))]


def test_a_file_in_input_order_is_not_written_again(path: Path) -> None:
    path.touch()
    before = path.stat().st_ino
    record(path, "abc", "new")
    assert len(rows_of(path)) == 3
    assert path.stat().st_ino == before


def test_rows_that_were_stopped_are_not_written(path: Path) -> None:
    def stop(prompts: Sequence[str], num_generations: int) -> Batch:
        return [Failure(RequestFailed("stopped", "the run ended")) for _ in prompts]

    llm = LLM(Task(Prompt, Success), default, stop, Sequential())
    assert asked_in(record(path, "ab", llm=llm)) == ["a", "b"]
    assert path.read_bytes() == b""
    assert asked_in(record(path, "ab")) == ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"model": "b"}, "model was 'a' and is now 'b'"),
        ({}, "model was 'a' and is now None"),
        ({"model": "a", "format": "x"}, "format was None and is now 'x'"),
    ],
    ids=["changed", "absent", "new"],
)
def test_other_settings_are_refused(path: Path, settings: Mapping[str, object], change: str) -> None:
    record(path, "ab", settings={"model": "a"})
    before = path.read_bytes()
    assert record(path, "ab", settings=settings) == [
        Failure(
            JournalError(
                "other_settings",
                f"{path} was written with other settings: {change}; use the same, or choose another file.",
            )
        )
    ]
    assert path.read_bytes() == before


def test_other_params_are_accepted_and_kept_beside_the_old(path: Path) -> None:
    for most in (5, 5, 50, 5):
        record(path, "a", params={"max_tokens": most})
    sidecar = path.with_name("out.jsonl.distgen.json").read_text()
    kept = {"settings": {"num_generations": 1}, "params": [{"max_tokens": most} for most in (5, 50, 5)]}
    assert json.loads(sidecar) == kept
    assert sidecar == sidecar.strip() + "\n"  # it grows no further than it must


def test_an_edited_input_of_an_answered_row_is_refused(path: Path) -> None:
    record(path, "abc")
    assert error_of(record(path, "axc")) == JournalError(
        "other_input", f"row 2 of {path} had another input; use the same, or choose another file."
    )
    assert [word for _, word, _ in rows_of(path)] == ["a", "b", "c"]


def test_a_new_run_leaves_answered_rows_and_foreign_files_alone(path: Path) -> None:
    record(path, "a")
    assert reason_of(record(path, "a", "new")) == "exists"
    foreign = path.with_name("notes.txt")
    foreign.write_text("mine\n")
    assert reason_of(record(foreign, "a", "new")) == "exists"
    assert reason_of(record(foreign, "a", "resume")) == "unknown_settings"
    assert foreign.read_text() == "mine\n"
    assert not foreign.with_name("notes.txt.distgen.json").exists()
    foreign.write_text("x")
    assert reason_of(record(foreign, "a", "new")) == "exists"


@pytest.mark.parametrize("mode", ["new", "resume", "overwrite"])
def test_a_file_without_an_answered_row_does_not_block_the_next_try(path: Path, mode: Mode) -> None:
    record(path, "ab", llm=answering(lambda _: ""), settings={"model": "wrong"})
    assert asked_in(record(path, "xy", mode, settings={"model": "right"})) == ["x", "y"]
    assert [word for _, word, _ in rows_of(path)] == ["x", "y"]


@pytest.mark.parametrize(("mode", "rows"), [("new", "x"), ("overwrite", "x"), ("resume", "xb")])
def test_a_file_without_an_answered_row_begins_anew_unless_it_is_resumed(path: Path, mode: Mode, rows: str) -> None:
    record(path, "ab", llm=answering(lambda _: ""))
    assert asked_in(record(path, "x", mode)) == ["x"]
    assert [word for _, word, _ in rows_of(path)] == [*rows]


def test_overwriting_deletes_the_rows(path: Path) -> None:
    record(path, "abc", settings={"model": "a long name"})
    record(path, "x", "overwrite", settings={"model": "b"})
    assert [word for _, word, _ in rows_of(path)] == ["x"]
    assert asked_in(record(path, "xy", settings={"model": "b"})) == ["y"]
    path.write_text("mine\n")
    record(path, "y", "overwrite")
    assert rows_of(path) == [(1, "y", "Y")]


def test_rows_without_a_text_stay_until_they_are_answered(path: Path) -> None:
    record(path, "ab", llm=answering(lambda _: ""))
    events = run(answering(upper), "ab", path, encode, decode, "resume")
    next(events)
    next(events)
    events.close()
    assert rows_of(path) == [(1, "a", ""), (2, "b", ""), (1, "a", "A")]
    assert asked_in(record(path, "ab")) == ["b"]
    assert rows_of(path) == [(1, "a", "A"), (2, "b", "B")]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": 1, "params": []}', b"[" * 100_000])
def test_a_sidecar_that_cannot_be_read_is_named(path: Path, content: bytes) -> None:
    record(path, "a")
    path.with_name("out.jsonl.distgen.json").write_bytes(content)
    assert error_of(record(path, "a")) == JournalError(
        "unknown_settings", f"{path}.distgen.json is missing or unreadable; restore it, or choose another file."
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("[1]", 'ValueError: it is not a JSON object with a "row"'),
        ('{"word": "b"}', 'ValueError: it is not a JSON object with a "row"'),
        ('{"row": 0}', 'ValueError: it is not a JSON object with a "row"'),
        ('{"row": 2}', "ValueError: it has no word"),
        ('{"row": 2, "word": ' + "[" * 100_000, "RecursionError: "),
        (f'{{"row": {10**30}, "word": "b", "said": "B"}}', "OverflowError: "),
    ],
    ids=["not JSON", "a list", "no row", "row 0", "refused by decode", "nested too deep", "row 10**30"],
)
def test_a_line_that_is_not_a_row_is_named(path: Path, line: str, why: str) -> None:
    record(path, "a")
    with path.open("a") as file:
        print(line, file=file)
    before = path.read_bytes()
    error = error_of(record(path, "ab"))
    assert error.reason == "not_a_row"
    assert error.message.startswith(f"cannot read line 2 of {path}; remove it if it is not a row ({why}")
    assert path.read_bytes() == before


def test_two_runs_do_not_write_one_file(path: Path) -> None:
    first = run(answering(upper), "ab", path, encode, decode, "new")
    next(first)
    assert reason_of(record(path, "ab")) == "in_use"
    first.close()
    assert asked_in(record(path, "ab")) == ["a", "b"]


def test_a_link_stays_a_link_and_shares_the_lock(path: Path) -> None:
    link = path.with_name("link.jsonl")
    link.symlink_to(path)
    first = run(answering(upper), "ab", link, encode, decode, "new")
    next(first)
    assert reason_of(record(path, "ab")) == "in_use"
    first.close()
    record(link, "ab")
    assert link.is_symlink()
    assert len(rows_of(path)) == 2


def test_what_json_cannot_hold_ends_the_run(path: Path) -> None:
    def broken(word: str, _: RowResult[str]) -> Mapping[str, object]:
        return {"word": word, "said": float("nan") if word == "b" else "x"}

    events = [*run(answering(upper), "abc", path, broken, decode, "new")]
    assert events[-1].failure().reason == "not_encoded"
    assert "row 2 of" in events[-1].failure().message
    assert [word for _, word, _ in rows_of(path)] == ["a"]
    assert reason_of(record(path, "a", settings={"x": float("nan")}, mode="overwrite")) == "not_encoded"
    assert [word for _, word, _ in rows_of(path)] == ["a"]


def test_an_exception_of_the_inputs_leaves_what_was_answered_unsorted(path: Path) -> None:
    def inputs() -> Iterator[str]:
        yield from "ab"
        raise OSError("the inputs are gone")

    first_is_last = threading.Event()

    def answer(text: str) -> str:
        assert "a" not in text or first_is_last.wait(60)
        return text.upper()

    with pytest.raises(OSError, match="inputs are gone"):
        for event in run(answering(answer, Threads(2)), inputs(), path, encode, decode, "new"):
            if isinstance(event.unwrap(), RowDone):
                first_is_last.set()
    assert [word for _, word, _ in rows_of(path)] == ["b", "a"]


def test_a_lone_surrogate_is_written_as_the_replacement_character(path: Path) -> None:
    record(path, "a", llm=answering(lambda _: "x\ud800"))
    assert rows_of(path) == [(1, "a", "x\ufffd")]


def test_a_folder_that_is_missing_is_named(path: Path) -> None:
    missing = path.with_name("no") / "out.jsonl"
    assert error_of(record(missing, "a")) == JournalError(
        "not_written", f"cannot write {missing} (No such file or directory); rows already written are kept."
    )


def test_a_write_that_fails_leaves_whole_rows(path: Path) -> None:
    words = ["a" * 50] * 100
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        events = record(path, words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = f"cannot write {path} (File too large); rows already written are kept."
    assert error_of(events) == JournalError("not_written", message)
    assert path.read_bytes().endswith(b"}\n")
    kept = len(rows_of(path))
    assert 0 < kept == len(asked_in(events)) < 100
    assert len(asked_in(record(path, words))) == 100 - kept


def test_a_full_disk_keeps_the_rows_and_the_settings(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k"):
        path = tmp_path / "disk" / "out.jsonl"
        words = ["a" * 500] * 200
        message = f"cannot write {path} (No space left on device); rows already written are kept."
        first, second = record(path, words), record(path, words, params={"note": "b" * 5_000})
        assert [error_of(first), error_of(second)] == [JournalError("not_written", message)] * 2
        assert 0 < len(rows_of(path)) == len(asked_in(first))
        subprocess.run(["mount", "-o", "remount,size=1m", str(path.parent)], check=True)
        assert len(asked_in(record(path, words))) == 200 - len(asked_in(first))


def test_a_disk_too_full_for_the_ordering_keeps_the_rows(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=128k"):
        path = tmp_path / "disk" / "out.jsonl"
        events = record(path, ["a" * 1000] * 40, llm=AnswersBackwards())
        message = f"cannot sort {path} (No space left on device); rows already written are kept."
        assert error_of(events) == JournalError("not_written", message)
        assert [row for row, _, _ in rows_of(path)] == [*range(40, 0, -1)]
        assert sorted(os.listdir(path.parent)) == ["out.jsonl", "out.jsonl.distgen.json"]


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k,ro"):
        path = tmp_path / "disk" / "out.jsonl"
        message = f"cannot write {path} (Read-only file system); rows already written are kept."
        assert record(path, "a") == [Failure(JournalError("not_written", message))]


IN_FLIGHT = Threads(8).in_flight

SLOW_WRITER = """
import threading
from pathlib import Path
from distgen.executors import Threads
from tests.test_journal import answering, encode, decode, run
def answer(text):
    with open({asked!r}, "ab", buffering=0) as asked:
        asked.write(f"{{text}}\\n".encode())
    if text == "w0":
        threading.Event().wait()
    return text.upper()
words = [f"w{{number}}" for number in range({rows})]
for event in run(answering(answer, Threads(8)), words, Path({path!r}), encode, decode, "resume"):
    print(event, flush=True)
"""


@pytest.mark.slow
def test_five_kills_cost_the_rows_in_flight_behind_a_row_that_never_ends(path: Path) -> None:
    words = [f"w{number}" for number in range(4_000)]
    asked = path.with_name("asked.txt")
    source = SLOW_WRITER.format(rows=len(words), path=str(path), asked=str(asked))
    written: list[int] = []
    for kill, moment in enumerate(sorted(random.Random(1).sample(range(len(words) - 1), 5)), 1):
        child = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        seen = len([*zip(range(1 + max(0, moment - len(written))), child.stdout, strict=False)])
        child.send_signal(signal.SIGKILL)
        child.communicate()
        before, written = len(written), [json.loads(line)["row"] for line in path.read_bytes().split(b"\n")[:-1]]
        assert len(written) == len({*written}) >= before + seen - 1  # the first event is no row
        assert len(asked.read_text().split()) <= len(written) + kill * IN_FLIGHT
    assert 1 not in written
    assert len(asked_in(record(path, words))) == len(words) - len(written)
    assert [row for row, _, _ in rows_of(path)] == [*range(1, len(words) + 1)]


ORDERING = """
from pathlib import Path
from tests.test_journal import record
record(Path({path!r}), [f"{{number}}" * 30 for number in range(2_000)])
"""


def test_a_kill_in_the_middle_of_the_final_ordering_leaves_all_rows(path: Path) -> None:
    """The ordering writes to a pipe here, so that it waits for the test, which then kills it."""
    words = [f"{number}" * 30 for number in range(2_000)]
    record(path, words, llm=AnswersBackwards())
    ordered = path.read_bytes()
    shuffled = b"".join(reversed(ordered.splitlines(keepends=True)))
    path.write_bytes(shuffled)
    pipe = path.with_name("out.jsonl.distgen.sorting")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    child = subprocess.Popen([sys.executable, "-c", ORDERING.format(path=str(path))])
    assert select.select([reader], [], [], 60)[0]
    half = os.read(reader, 9_001)
    assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    os.close(reader)
    assert 0 < len(half) < len(ordered)
    assert path.is_file()
    assert path.read_bytes() == shuffled
    pipe.unlink()
    pipe.write_bytes(half)
    with path.open("rb") as old:
        assert asked_in(record(path, words)) == []
        assert old.read() == shuffled  # the file was replaced, and never changed in place
    assert path.read_bytes() == ordered
    assert sorted(os.listdir(path.parent)) == ["out.jsonl", "out.jsonl.distgen.json"]


def test_errors_are_plain_data() -> None:
    errors = [JournalError(reason, "text") for reason in get_args(JournalReason)]
    assert pickle.loads(pickle.dumps(errors)) == errors
    assert len({*errors}) == 8


def test_a_disk_that_refuses_to_sync_ends_the_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        if path.stat().st_size:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    message = f"cannot sort {path} (Input/output error); rows already written are kept."
    assert error_of(record(path, "ab")) == JournalError("not_written", message)
    assert len(rows_of(path)) == 2
