"""Write each row to a file as it is answered, and resume a run that was interrupted.

Rows are appended in the order of their answers, so that a kill loses only the requests in flight. When a run ends by
itself, the file is put in input order in one atomic step; after an interruption, the next run does that. The file holds
rows only. Its settings are in `<path>.distgen.json`, which is also the lock: one run writes a file at a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final, Generic, Literal, TypeAlias, TypeVar, final, get_args

from returns.result import Failure, Result, Success

from distgen.errors import Raised, error_kind
from distgen.llm import RowResult, SupportsGenerate

_In = TypeVar("_In")
_Out = TypeVar("_Out")

Fields: TypeAlias = Mapping[str, object]
"""A JSON object."""

Mode: TypeAlias = Literal["new", "resume", "overwrite"]
"""The treatment of a file that has answered rows.

"new" refuses it. "resume" keeps its answered rows and asks the rest. "overwrite" deletes all that the file holds.
"""

JournalReason: TypeAlias = Literal[
    "exists", "in_use", "other_settings", "unknown_settings", "other_input", "not_a_row", "not_encoded", "not_written"
]
"""Reasons why a run ended early; see `JournalError`."""

_ELSE: Final = "choose another file."


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """The first event of a run: `answered` rows of the file have a text and are kept."""

    answered: int


@final
@dataclass(frozen=True, slots=True)
class RowDone(Generic[_In, _Out]):
    """The result of an input. Its row is in the file, unless it failed with RequestFailed("stopped"). `row` counts from 1."""

    row: int
    input: _In
    answer: RowResult[_Out]


@final
@dataclass(frozen=True, slots=True)
class JournalError:
    """A run ended early; rows already written stay. `message` is a sentence for a user, `reason` is for programs:

    - "exists": mode is "new", and the file has answered rows or was not written by distgen.
    - "in_use": another run writes the file.
    - "other_settings": the file was written with other settings. "other_input": one of its rows is for another input.
    - "unknown_settings": the file has rows, but the sidecar with their settings is missing or unreadable.
    - "not_a_row": a line of the file is not a JSON object with a "row", or `decode` does not read it.
    - "not_encoded": `encode` raised, or its row or the settings are not JSON values.
    - "not_written": the operating system refused: a full disk, a read-only folder, no permission.
    """

    reason: JournalReason
    message: str


RunEvent: TypeAlias = Opened | RowDone[_In, _Out]
Encode: TypeAlias = Callable[[_In, RowResult[_Out]], Fields]
Decode: TypeAlias = Callable[[dict[str, object]], Result[tuple[_In, int], object]]


def run(
    llm: SupportsGenerate[_In, _Out],
    inputs: Iterable[_In],
    path: Path,
    encode: Encode[_In, _Out],
    decode: Decode[_In],
    mode: Mode,
    *,
    num_generations: int = 1,
    settings: Fields | None = None,
    params: Fields | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Generator[Result[RunEvent[_In, _Out], JournalError], None, None]:
    r"""Ask `llm` about each input that has no answered row in the file yet, and yield each row once it is written.

    - `encode(input, answer)` returns a row as JSON values; the journal adds "row", the number of the input, from 1.
    - `decode(row)` returns its input, as `==` compares it, and the number of its texts: a row with none is asked again.
    - `settings` are JSON values. A file that was written with other settings, or another `num_generations`, is refused.
    - `params` are JSON values that may change from run to run; the sidecar keeps those of each run.
    - `interrupted()` is called after the last row. If it returns True, the file stays unsorted, and the next run sorts it.

    A Failure ends the run and is its last event. Rows already written stay, whatever ends the run; an exception of the inputs
    leaves them unsorted. If there are fewer inputs than before, the rows beyond them stay.

    >>> from tempfile import TemporaryDirectory
    >>> from distgen import LLM, Prompt, Sequential, Task, each
    >>> from distgen.formats import default
    >>> llm = LLM(Task(Prompt, Success), default, each(str.upper), Sequential())
    >>> def encode(word, answer):
    ...     return {"word": word, "said": answer.map(lambda generations: generations[0].completion.text).value_or("")}
    >>> def decode(row):
    ...     return Success((row["word"], int(row["said"] != "")))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "out.jsonl")
    ...     _ = list(run(llm, ["a", "b"], path, encode, decode, "new"))
    ...     for event in run(llm, ["a", "b", "c"], path, encode, decode, "resume"):
    ...         print(event.map(lambda done: done if isinstance(done, Opened) else done.input))
    ...     print(path.read_text(), end="")
    <Success: Opened(answered=2)>
    <Success: c>
    {"word": "a", "said": "A", "row": 1}
    {"word": "b", "said": "B", "row": 2}
    {"word": "c", "said": "C", "row": 3}
    """
    if mode not in get_args(Mode):
        raise TypeError(f"mode must be 'new', 'resume' or 'overwrite', got {mode!r}")
    opening = _open(path, decode, mode, {**(settings or {}), "num_generations": num_generations}, params or {})

    def events() -> Generator[Result[RunEvent[_In, _Out], JournalError], None, None]:
        try:
            with opening as file, closing(_ask(llm, inputs, file, num_generations)) as answers:
                yield Success(Opened(file.answered))
                for row, value, answer in answers:
                    if answer.swap().map(error_kind).value_or("") != "stopped":
                        with _refuse("not_encoded", f"cannot encode row {row} of {file.path}"):
                            line = to_json_line({**encode(value, answer), "row": row})
                        file.append(row, line)
                    yield Success(RowDone(row, value, answer))
                if not interrupted():
                    file.sort()
        except _Refused as refused:
            yield Failure(refused.error)

    return events()


def to_json_line(fields: Fields) -> bytes:
    r"""Return a line of JSON Lines in UTF-8; raise ValueError or TypeError for what JSON cannot hold.

    A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

    >>> to_json_line({"user": "é\ud800"}).decode()
    '{"user": "é�"}\n'
    """
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", "\ufffd", f"{text}\n").encode()


@final
class _Refused(Exception):
    """Carries a JournalError to the end of the run; the iterator of the inputs may raise it inside the LLM."""

    def __init__(self, reason: JournalReason, message: str) -> None:
        self.error = JournalError(reason, message)


@contextmanager
def _refuse(reason: JournalReason, what: str, kind: type[Exception] = Exception) -> Generator[None, None, None]:
    """Raise an exception of that kind as `_Refused`."""
    try:
        yield
    except kind as error:
        raised = Raised.of(error)
        why = getattr(error, "strerror", None) or f"{raised.kind}: {raised.message}"
        raise _Refused(reason, f"{what} ({why}); rows already written are kept.") from error


@final
@dataclass(slots=True)
class _File(Generic[_In]):
    """An open, locked file, with the offset of the best line of each row; it takes nine bytes of memory a row."""

    path: Path
    decode: Decode[_In]
    reader: BinaryIO
    writer: BinaryIO  # without a buffer, so that a row is in the file when its write returns
    offsets: array[int] = field(default_factory=lambda: array("q"))  # -1 for a row without a line
    texts: bytearray = field(default_factory=bytearray)  # the number of texts of that line, at most 255
    size: int = 0  # of the lines so far, in bytes
    in_order: bool = True  # one line a row, each after those of the rows before it

    @property
    def answered(self) -> int:
        """The number of rows that have a text."""
        return len(self.texts) - self.texts.count(0)

    def add(self, row: int, size: int, texts: int) -> None:
        """Note that the next `size` bytes of the file are a line of this row."""
        new = row - len(self.offsets)
        self.in_order = self.in_order and new > 0
        self.offsets.extend(array("q", [-1]) * new)  # at once: a number far too large is a MemoryError
        self.texts.extend(b"\0" * new)
        if texts >= self.texts[row - 1]:
            self.offsets[row - 1], self.texts[row - 1] = self.size, min(texts, 255)
        self.size += size

    def append(self, row: int, line: bytes) -> None:
        """Write a line, whole or not at all."""
        with _refuse("not_written", f"cannot write {self.path}", OSError):
            try:
                _write(self.writer, line)
            except BaseException:
                self.writer.truncate(self.size)
                raise
        self.add(row, len(line), 0)  # a row is asked only if its earlier lines have no text

    def sort(self) -> None:
        """Put the rows in input order, one line each, in one atomic step."""
        new = self.path.with_name(f"{self.path.name}.distgen.sorting")
        with _refuse("not_written", f"cannot sort {self.path}", OSError):
            os.fsync(self.writer.fileno())
            if self.in_order:
                return
            try:
                with new.open("wb") as ordered:
                    shutil.copymode(self.path, new)
                    for offset in self.offsets:
                        if offset >= 0:
                            self.reader.seek(offset)
                            ordered.write(self.reader.readline())
                    ordered.flush()
                    os.fsync(ordered.fileno())
                self.reader.close()  # Windows replaces no open file
                self.writer.close()
                os.replace(new, self.path)
            finally:
                new.unlink(missing_ok=True)


@contextmanager
def _open(
    path: Path, decode: Decode[_In], mode: Mode, settings: Fields, params: Fields
) -> Generator[_File[_In], None, None]:
    """Lock the file, read and check its rows, and cut off a last line that a kill left incomplete."""
    with _refuse("not_encoded", f"cannot encode the settings of {path}"):
        now, now_params = json.loads(to_json_line(settings)), json.loads(to_json_line({**params}))
    path = Path(os.path.realpath(path))  # a link stays a link, and two links to one file share one lock
    sidecar = path.with_name(f"{path.name}.distgen.json")
    with ExitStack() as files:
        with _refuse("not_written", f"cannot write {path}", OSError):
            is_foreign = path.exists() and path.stat().st_size > 0 and not sidecar.exists()
            if is_foreign and mode != "overwrite":
                _check(path, mode, {}, now)
            sidecar.touch()
            lock = files.enter_context(sidecar.open("r+b", buffering=0))
            _lock(lock, path)
            writer = files.enter_context(path.open("ab", buffering=0))
            reader = files.enter_context(path.open("rb"))
            file = _File(path, decode, reader, writer)
            then, past = _read_sidecar(lock)
            if mode != "overwrite":
                _scan(file)
            if file.answered:
                _check(path, mode, then, now)
            elif mode != "resume" or then != now:  # a try that answered nothing starts over
                file, past = _File(path, decode, reader, writer), []
            writer.truncate(file.size)
            _write_sidecar(lock, now, past if now_params in past[-1:] else [*past, now_params])
        yield file


def _scan(file: _File[_In]) -> None:
    for number, line in enumerate(file.reader, 1):
        if line.endswith(b"\n"):  # else a kill has cut it
            with _refuse("not_a_row", f"cannot read line {number} of {file.path}; remove it if it is not a row"):
                row, _, texts = _parse(line, file.decode)
                file.add(row, len(line), texts)


def _parse(line: bytes, decode: Decode[_In]) -> tuple[int, _In, int]:
    """Return the row's number, its input and the number of its texts; raise an Exception for anything else."""
    match json.loads(line):
        case {"row": int(row)} as fields if row > 0:
            found = decode(fields)
        case _:
            raise ValueError('it is not a JSON object with a "row"')
    if isinstance(found, Failure):
        raise ValueError(str(found.failure()))
    return row, *found.unwrap()


def _check(path: Path, mode: Mode, then: Fields, now: Fields) -> None:
    """Refuse a file with answered rows, unless it is resumed with the settings that it was written with."""
    if mode == "new":
        raise _Refused("exists", f"{path} already exists; resume it, overwrite it, or {_ELSE}")
    if not then:
        raise _Refused("unknown_settings", f"{path}.distgen.json is missing or unreadable; restore it, or {_ELSE}")
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    changes = ", ".join(f"{name} was {then.get(name)!r} and is now {now.get(name)!r}" for name in names)
    if changes:
        raise _Refused("other_settings", f"{path} was written with other settings: {changes}; use the same, or {_ELSE}")


def _ask(
    llm: SupportsGenerate[_In, _Out], inputs: Iterable[_In], file: _File[_In], num_generations: int
) -> Generator[tuple[int, _In, RowResult[_Out]], None, None]:
    """Yield each row that has no text yet, its input and its answer, as they are answered."""
    asked: dict[int, tuple[int, _In]] = {}  # by index, as `as_completed` counts its inputs

    def pending() -> Iterator[_In]:
        indices = count()
        for row, value in enumerate(inputs, 1):
            if row > len(file.texts) or not file.texts[row - 1]:
                asked[next(indices)] = row, value
                yield value
                continue
            file.reader.seek(file.offsets[row - 1])
            _, kept, _ = _parse(file.reader.readline(), file.decode)
            if kept != value:
                raise _Refused("other_input", f"row {row} of {file.path} had another input; use the same, or {_ELSE}")

    for index, answer in llm.as_completed(pending(), num_generations):
        yield *asked.pop(index), answer


def _write(file: BinaryIO, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]


def _read_sidecar(file: BinaryIO) -> tuple[Fields, list[object]]:
    """Return the settings and the params, or two empty values if the file is unreadable."""
    with suppress(Exception):
        found = json.load(file)
        return {**found["settings"]}, [*found["params"]]
    return {}, []


def _write_sidecar(file: BinaryIO, settings: Fields, params: list[object]) -> None:
    """Rewrite the sidecar in place. It grows by spaces first, so that a full disk leaves the old content, which stays JSON."""
    content = to_json_line({"settings": settings, "params": params})
    size = file.seek(0, os.SEEK_END)
    _write(file, b" " * (len(content) - size))
    file.seek(0)
    _write(file, content.ljust(size))
    os.fsync(file.fileno())


def _lock(sidecar: BinaryIO, path: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(sidecar.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(sidecar, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise _Refused("in_use", f"another run writes {path}; wait until it ends, or {_ELSE}") from None
