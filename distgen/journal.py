"""Write each row to a file as it is answered, and resume a run that was interrupted.

Rows are appended in the order of their answers, so that a kill loses only the requests in flight. When a run ends by
itself, the file is put in input order in one atomic step. The file holds rows only. Its settings are in
`<path>.distgen.json`, which is also the lock: one run writes a file at a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType
from typing import BinaryIO, Final, Generic, Literal, TypeAlias, TypeVar, assert_never, final, get_args

from returns.result import Failure, Result, Success
from typing_extensions import TypeIs

from distgen.errors import Raised, RequestFailed
from distgen.llm import RowResult, SupportsGenerate

_In = TypeVar("_In")
_Out = TypeVar("_Out")

Fields: TypeAlias = Mapping[str, object]
"""A JSON object."""

Mode: TypeAlias = Literal["new", "resume", "overwrite"]
"""What to do with a file that has answered rows: refuse it, keep them and ask the rest, or delete them."""

_SYNC_INTERVAL: Final = 0.5  # seconds
_NO_FIELDS: Final[Fields] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """The first event of a run: the file has `answered` rows, which are kept."""

    answered: int


@final
@dataclass(frozen=True, slots=True)
class Written(Generic[_In, _Out]):
    """The row of an input is in the file. `row` counts inputs from 1."""

    row: int
    input: _In
    answer: RowResult[_Out]


@final
@dataclass(frozen=True, slots=True)
class Exists:
    """The file has answered rows, or was not written by distgen; mode "new" leaves it alone."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class InUse:
    """Another run writes the file."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class OtherSettings:
    """The file was written with other settings; `changes` has the name, the old and the new value of each, as JSON."""

    path: Path
    changes: tuple[tuple[str, str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class UnknownSettings:
    """The file has rows, but the sidecar with their settings is missing or unreadable."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class OtherInput:
    """The answered row `row` belongs to another input than the one that is now at its place."""

    path: Path
    row: int


@final
@dataclass(frozen=True, slots=True)
class NotARow:
    """A line of the file, counted from 1, cannot be read as a row."""

    path: Path
    line: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class NotEncoded:
    """`encode` raised, or returned what JSON cannot hold, or the settings are not JSON."""

    path: Path
    error: Raised


@final
@dataclass(frozen=True, slots=True)
class NotWritten:
    """The operating system refused: a full disk, a read-only folder, no permission."""

    path: Path
    reason: str


RunEvent: TypeAlias = Opened | Written[_In, _Out]
JournalError: TypeAlias = (
    Exists | InUse | OtherSettings | UnknownSettings | OtherInput | NotARow | NotEncoded | NotWritten
)
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
    settings: Fields = _NO_FIELDS,
    params: Fields = _NO_FIELDS,
) -> Generator[Result[RunEvent[_In, _Out], JournalError], None, None]:
    r"""Ask `llm` about each input that has no answered row in the file yet, and yield each row once it is written.

    - `encode(input, answer)` returns a row as JSON values; the journal adds "row", the number of the input, from 1.
    - `decode(row)` returns its input, as `==` compares it, and the number of its texts: a row with none is asked again.
    - `settings` are JSON values. A file that was written with others, or with another `num_generations`, is refused.
      `params` may change from run to run; old and new ones are kept in the sidecar.

    A Failure ends the run and is its last event. Rows already written stay, whatever ends the run. Inputs may end early:
    rows beyond them stay. A row that was stopped is not written.

    >>> from tempfile import TemporaryDirectory
    >>> from distgen import LLM, Prompt, Sequential, Task, each
    >>> from distgen.formats import lookup
    >>> llm = LLM(Task(Prompt, Success), lookup("default").unwrap(), each(str.upper), Sequential())
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
    with suppress(OSError):
        path = path.resolve()  # a link stays a link, and two links to one file share one lock
    rows = _Rows(path, decode, mode, {**settings, "num_generations": num_generations}, dict(params))
    return _run(llm, inputs, rows, encode, num_generations)


def to_json_line(fields: Fields) -> bytes:
    r"""Return a line of JSON Lines in UTF-8; raise ValueError or TypeError for what JSON cannot hold.

    A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

    >>> to_json_line({"user": "é\ud800"}).decode()
    '{"user": "é�"}\n'
    """
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return f"{replace_surrogates(text)}\n".encode()


def replace_surrogates(text: str) -> str:
    """Return the text with U+FFFD in place of each lone surrogate."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def explain_journal(error: JournalError) -> str:
    """Return one sentence that says what is wrong and what to do.

    >>> explain_journal(OtherSettings(Path("out.jsonl"), (("model", '"a"', '"b"'),)))
    'out.jsonl was written with other settings: model was "a" and is now "b"; use the same settings, or another output.'
    """
    match error:
        case Exists(path):
            return f"{path} already exists; resume it, overwrite it, or choose another output."
        case InUse(path):
            return f"{path} is being written by another run; wait until it ends, or choose another output."
        case OtherSettings(path, changes):
            listed = ", ".join(f"{name} was {old} and is now {new}" for name, old, new in changes)
            return f"{path} was written with other settings: {listed}; use the same settings, or another output."
        case UnknownSettings(path):
            return f"cannot resume: {_sidecar(path)} is missing or unreadable; restore it, or choose another output."
        case OtherInput(path, row):
            return f"cannot resume: row {row} of {path} was answered for another input; use the same inputs, or another output."
        case NotARow(path, line, reason):
            return f"cannot resume: line {line} of {path} is not a row ({reason}); remove that line, or choose another output."
        case NotEncoded(path, Raised(kind, message)):
            return f"a row or the settings of {path} cannot be written as JSON ({kind}: {message}); the other rows are kept."
        case NotWritten(path, reason):
            return f"cannot write {path}: {reason}; rows already written are kept, and can be resumed."
        case _:
            assert_never(error)


def _run(
    llm: SupportsGenerate[_In, _Out],
    inputs: Iterable[_In],
    rows: _Rows[_In],
    encode: Encode[_In, _Out],
    num_generations: int,
) -> Generator[Result[RunEvent[_In, _Out], JournalError], None, None]:
    with closing(rows):
        error: JournalError | None = rows.open()
        if error is None:
            yield Success(Opened(rows.answered))
            answers = llm.as_completed(rows.missing(inputs), num_generations)
            try:
                for index, answer in answers:
                    row, value = rows.asked.pop(index)
                    if _is_stopped(answer):
                        continue
                    error = rows.write(row, encode, value, answer)
                    if error is not None:
                        break
                    yield Success(Written(row, value, answer))
            finally:
                _close(answers)
            if error is None:
                error = rows.refused or rows.sort()
        if error is not None:
            yield Failure(error)


def _is_stopped(answer: RowResult[object]) -> bool:
    match answer:
        case Failure(RequestFailed("stopped")):
            return True
        case _:
            return False


def _close(answers: object) -> None:
    """Close a generator or a Stream; other iterators have nothing to close."""
    close = getattr(answers, "close", None)
    if callable(close):
        close()


@final
class _Rows(Generic[_In]):
    """The file of a run: where the best line of each row is, and which inputs are being asked."""

    def __init__(self, path: Path, decode: Decode[_In], mode: Mode, settings: Fields, params: Fields) -> None:
        self.asked: dict[int, tuple[int, _In]] = {}  # row and input by index, as `as_completed` counts the inputs
        self.refused: OtherInput | None = None
        self._path, self._decode, self._mode = path, decode, mode
        self._settings, self._params = settings, params
        self._offsets = array("q")  # of the best line of each row, -1 for none; with _texts, 9 bytes a row
        self._texts = bytearray()  # texts of that line, at most 255
        self._lines = self._size = 0
        self._fault: OSError | None = None
        self._ended = Event()
        self._thread = Thread(target=self._keep_syncing, name="distgen-journal", daemon=True)
        self._files = ExitStack()

    @property
    def answered(self) -> int:
        """The number of rows that have a text."""
        return len(self._texts) - self._texts.count(0)

    def open(self) -> JournalError | None:
        """Lock the file, check and read what it holds, and cut off a last line that a kill left incomplete."""
        try:
            return self._open()
        except OSError as error:
            return _not_written(self._path, error)
        except (TypeError, ValueError) as error:  # settings that are not JSON
            return NotEncoded(self._path, Raised.of(error))

    def _open(self) -> JournalError | None:
        sidecar = _sidecar(self._path)
        if not sidecar.exists() and self._is_foreign():  # before a sidecar is made beside a file of someone else
            return self._unknown()
        lock = self._files.enter_context(os.fdopen(os.open(sidecar, os.O_RDWR | os.O_CREAT, 0o666), "r+b"))
        if not _lock(lock.fileno()):
            return InUse(self._path)
        self._path.touch()
        self._reader = self._files.enter_context(self._path.open("rb"))
        known = _read_sidecar(lock)
        error = self._check(known) if self._mode != "overwrite" else None
        if error is not None:
            return error
        past = known[1] if known and self.answered else []
        self._writer = self._files.enter_context(self._path.open("r+b", buffering=0))
        if not self.answered:
            self._offsets, self._texts, self._lines, self._size = array("q"), bytearray(), 0, 0
        self._writer.truncate(self._size)
        self._writer.seek(self._size)
        _write_sidecar(lock, self._settings, past if self._params in past[-1:] else [*past, self._params])
        _sync_folder(self._path)
        self._thread.start()
        return None

    def _is_foreign(self) -> bool:
        return self._mode != "overwrite" and self._path.exists() and self._path.stat().st_size > 0

    def _unknown(self) -> JournalError:
        return Exists(self._path) if self._mode == "new" else UnknownSettings(self._path)

    def _check(self, known: tuple[Fields, list[object]] | None) -> JournalError | None:
        if known is None:
            return self._unknown() if self._is_foreign() else None
        unreadable = self._scan()
        if self._mode == "new":
            return Exists(self._path) if unreadable or self.answered else None
        if unreadable or not self.answered:  # a file without an answer may have had wrong settings
            return unreadable
        now: Fields = json.loads(to_json_line(self._settings))
        then = known[0]
        names = [*then, *(name for name in now if name not in then)]
        changes = tuple((name, _show(then, name), _show(now, name)) for name in names)
        changes = tuple(change for change in changes if change[1] != change[2])
        return OtherSettings(self._path, changes) if changes else None

    def _scan(self) -> NotARow | None:
        for number, line in enumerate(self._reader, 1):
            found = self._read(line)
            if isinstance(found, str):
                return NotARow(self._path, number, found) if line.endswith(b"\n") else None
            if line.endswith(b"\n"):
                self._note(found[0], len(line), found[2])
        return None

    def _read(self, line: bytes) -> tuple[int, _In, int] | str:
        """Return the row's number, its input and the number of its texts, or why it is not a row."""
        try:
            fields: object = json.loads(line)
            if not _is_object(fields):
                return "it is not a JSON object"
            row = fields.get("row")
            if not isinstance(row, int) or row < 1:
                return 'it has no "row"'
            found = self._decode(fields)
            return str(found.failure()) if isinstance(found, Failure) else (row, *found.unwrap())
        except Exception as error:  # `decode` is the user's
            return f"{type(error).__name__}: {error}"

    def _note(self, row: int, size: int, texts: int) -> None:
        """Note that the next `size` bytes of the file are a line of this row."""
        new = max(0, row - len(self._offsets))
        self._offsets.extend(repeat(-1, new))
        self._texts.extend(bytes(new))
        if texts >= self._texts[row - 1]:
            self._offsets[row - 1], self._texts[row - 1] = self._size, min(texts, 255)
        self._lines += 1
        self._size += size

    def missing(self, inputs: Iterable[_In]) -> Iterator[_In]:
        """Yield the inputs without an answered row; end at one that is not the input of its answered row."""
        calls = count()
        for row, value in enumerate(inputs, 1):
            if row > len(self._texts) or not self._texts[row - 1]:
                self.asked[next(calls)] = (row, value)
                yield value
                continue
            self._reader.seek(self._offsets[row - 1])
            found = self._read(self._reader.readline())
            if isinstance(found, str) or found[1] != value:
                self.refused = OtherInput(self._path, row)
                return

    def write(
        self, row: int, encode: Encode[_In, _Out], value: _In, answer: RowResult[_Out]
    ) -> NotEncoded | NotWritten | None:
        """Append a row, whole or not at all."""
        try:
            line = to_json_line({**encode(value, answer), "row": row})
        except Exception as error:  # `encode` is the user's
            return NotEncoded(self._path, Raised.of(error))
        try:
            self._append(line)
        except OSError as error:
            return _not_written(self._path, error)
        self._note(row, len(line), 0)  # a row is asked only if its earlier lines have no text
        return None

    def _append(self, line: bytes) -> None:
        if self._fault is not None:
            raise self._fault
        left = memoryview(line)
        try:
            while left:
                left = left[self._writer.write(left) :]
        except OSError:
            with suppress(OSError):
                self._writer.truncate(self._size)
            raise

    def sort(self) -> NotWritten | None:
        """Put the rows in input order, one line each, in one atomic step."""
        new = self._path.with_name(f"{self._path.name}.distgen.sorting")
        try:
            self._end_syncing()
            os.fsync(self._writer.fileno())
            if self._is_sorted():
                return None
            self._write_sorted(new)
            self._writer.close()
            self._reader.close()
            os.replace(new, self._path)
            _sync_folder(self._path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            return _not_written(self._path, error)
        return None

    def _is_sorted(self) -> bool:
        rows, last = 0, -1
        for offset in self._offsets:
            if 0 <= offset < last:
                return False
            rows += offset >= 0
            last = max(last, offset)
        return rows == self._lines

    def _write_sorted(self, new: Path) -> None:
        with new.open("wb") as file:
            for offset in self._offsets:
                if offset >= 0:
                    self._reader.seek(offset)
                    file.write(self._reader.readline())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(self._path, new)

    def _keep_syncing(self) -> None:
        while not self._ended.wait(_SYNC_INTERVAL):
            try:
                os.fsync(self._writer.fileno())
            except OSError as error:  # raised by the next write
                self._fault = error

    def _end_syncing(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Leave the file as it is; the lock ends with this."""
        with self._files, suppress(OSError):
            self._end_syncing()


def _not_written(path: Path, error: OSError) -> NotWritten:
    return NotWritten(path, error.strerror or str(error))


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.distgen.json")


def _read_sidecar(file: BinaryIO) -> tuple[Fields, list[object]] | None:
    try:
        found: object = json.load(file)
    except (ValueError, RecursionError):
        return None
    settings = found.get("settings") if _is_object(found) else None
    params = found.get("params") if _is_object(found) else None
    return (settings, params) if _is_object(settings) and _is_list(params) else None


def _write_sidecar(file: BinaryIO, settings: Fields, params: list[object]) -> None:
    """Rewrite the sidecar by one write: a kill leaves the old or the new one, since it only grows while there are rows."""
    content = to_json_line({"settings": settings, "params": params})
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    file.write(content.ljust(size))
    file.flush()
    os.fsync(file.fileno())


def _show(settings: Fields, name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False, sort_keys=True) if name in settings else "absent"


def _is_object(value: object) -> TypeIs[dict[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeIs[list[object]]:
    return isinstance(value, list)


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # only POSIX opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        import msvcrt

        os.lseek(descriptor, 2**30, os.SEEK_SET)  # a locked byte cannot be read; this one does not exist
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:

    def _lock(descriptor: int) -> bool:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
