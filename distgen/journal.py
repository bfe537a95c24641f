"""A run that survives: each row is a line of a file as soon as it is answered, and a run that was cut off goes on.

The invariant. At every moment the file is the rows of the first inputs, in their order, each once, and at most a torn
last line after them. So resuming reads the file beside the inputs, row for input, and needs no table of keys: a row
belongs to an input by its place and its content, and equal inputs are told apart by their order. Rows that failed are
asked again into a second file, `<path>.distgen.part`, which is the same kind of prefix and lacks only what `path`
still has: joined, part first, they are again such a file, and `path` is replaced by it in one step.

What would change an answer stands in `<path>.distgen.json` and not in a first line, so that the file holds rows only and
any reader of JSON Lines reads it. That sidecar is also what is locked: unlike the file it is never replaced.

Not here: asking. `record` composes over `LLM.stream`, or over any function from inputs to answers in their order.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO, Final, Generic, Literal, TypeAlias, TypeVar, assert_never, final
from weakref import ref

from returns.result import Failure, Result, Success
from typing_extensions import TypeIs

from distgen.errors import Raised, in_words
from distgen.llm import RowResult

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_A = TypeVar("_A")

Fields: TypeAlias = Mapping[str, object]
"""A JSON object."""

IfExists: TypeAlias = Literal["refuse", "resume", "keep failures"]
"""What becomes of a file that is there: it is left alone; its failed rows are asked again; they stay as well."""


@final
@dataclass(frozen=True, slots=True)
class Journal(Generic[_In, _Out]):
    """Where rows are kept, what they were asked with, and how an input and its answer are a JSON object and back.

    - `settings`: JSON values by name, all that would change an answer: the format, the model, the parameters.
    - `encode`: an input and what became of it, a Failure too, as JSON values by name; where it raises, the run ends.
    - `decode`: the inverse of `encode`; of an answer it need only tell a Success from a Failure, of an input what `==` compares.
    - `sync`: a row survives a loss of power this many seconds after it was written (fsync); 0 is before it is yielded.
      That the process is killed costs nothing that was written, whatever `sync` is.

    `entries` reads the rows back.
    """

    path: Path
    settings: Fields
    encode: Callable[[_In, RowResult[_Out]], Fields]
    decode: Callable[[dict[str, object]], Result[tuple[_In, RowResult[_Out]], object]]
    sync: float = 1.0


@final
@dataclass(frozen=True, slots=True)
class Recorded(Generic[_In, _Out]):
    """An input was asked, and its row is in the file."""

    input: _In
    answer: RowResult[_Out]


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """So many `rows` were in the file already and stay; `failed` of them are failures that are kept."""

    rows: int
    failed: int = 0


@final
@dataclass(frozen=True, slots=True)
class Exists:
    """The file is there, and was not to be resumed."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class InUse:
    """Another run writes the file."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class OtherSettings:
    """The file was made with other settings; `differ` has the name of each, what it was and what it is to be, as JSON."""

    path: Path
    differ: tuple[tuple[str, str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class UnknownSettings:
    """The file has rows and no legible sidecar that says what they were made with."""

    path: Path


@final
@dataclass(frozen=True, slots=True)
class OtherInput:
    """The row at `number` (from 1) was answered, and not to the input that stands there now."""

    path: Path
    number: int


@final
@dataclass(frozen=True, slots=True)
class NotARow:
    """The line at `number` (from 1) is no row that `decode` reads."""

    path: Path
    number: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class NotEncoded:
    """`encode` raised on an answer, or gave what JSON cannot hold, or the settings are no JSON."""

    path: Path
    fault: Raised


@final
@dataclass(frozen=True, slots=True)
class NotWritten:
    """The system refused: a full disk, a read-only folder, no permission."""

    path: Path
    reason: str


JournalError: TypeAlias = (
    Exists | InUse | OtherSettings | UnknownSettings | OtherInput | NotARow | NotEncoded | NotWritten
)
Step: TypeAlias = Recorded[_In, _Out] | Kept
Answers: TypeAlias = Callable[[Iterable[_In]], Generator[_A, None, None]]
"""From inputs, pulled lazily, to an answer each, in their order: `llm.stream`, or a lambda that gives it more arguments."""


def record(
    journal: Journal[_In, _Out],
    inputs: Iterable[_In],
    answers: Answers[_In, RowResult[_Out]],
    if_exists: IfExists = "resume",
) -> Generator[Result[Step[_In, _Out], JournalError], None, None]:
    """Asks for the rows that the file lacks, and writes each before it is yielded; a Failure is the last thing yielded.

    The inputs may be more than last time. Where they end before the file does, the rest of it stays as it is: to stop
    early, end the inputs. Closing the generator, an exception of the inputs and a Failure leave all rows that were written.

    >>> from tempfile import TemporaryDirectory
    >>> from distgen import LLM, Prompt, Sequential, Task, each
    >>> from distgen.formats import default
    >>> def encode(word, answer):
    ...     return {"word": word, "said": answer.map(lambda generations: generations[0].completion.text).value_or(None)}
    >>> def decode(row):
    ...     return Success((row["word"], Failure(Raised("Failed", "")) if row["said"] is None else Success(())))
    >>> llm = LLM(Task(Prompt, Success), default, each(str.upper), Sequential())
    >>> with TemporaryDirectory() as folder:
    ...     journal = Journal(Path(folder, "out.jsonl"), {"format": "default"}, encode, decode)
    ...     _ = list(record(journal, ["a", "b"], llm.stream))
    ...     for step in record(journal, ["a", "b", "c"], llm.stream):
    ...         print(step.map(lambda done: done if isinstance(done, Kept) else done.input))
    ...     print(journal.path.read_text(), end="")
    <Success: Kept(rows=2, failed=0)>
    <Success: c>
    {"word": "a", "said": "A"}
    {"word": "b", "said": "B"}
    {"word": "c", "said": "C"}
    """
    try:
        with _about(journal.path):
            if journal.path.is_symlink():  # or the link would be replaced, and two links be two locks
                journal = replace(journal, path=journal.path.resolve())
        _check_place(journal.path, if_exists)  # also before the lock, which would leave a sidecar beside others' files
        with _locked(journal.path):
            _check_place(journal.path, if_exists)
            _begin(journal)
            with closing(_steps(journal, inputs, answers, if_exists == "keep failures")) as steps:
                for step in steps:
                    yield Success(step)
    except _Refused as refused:
        yield Failure(refused.error)


def entries(journal: Journal[_In, _Out]) -> Iterator[Result[tuple[_In, RowResult[_Out]], JournalError]]:
    """The rows of the file as `decode` reads them; a line that is none is a Failure, and so is a file that cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "out.jsonl")
    ...     _ = path.write_text('{"word": "a"}\\n')
    ...     list(entries(Journal(path, {}, lambda word, _: {"word": word}, lambda row: Success((row["word"], Success(()))))))
    [<Success: ('a', <Success: ()>)>]
    """
    try:
        with _about(journal.path):
            source = journal.path.open("rb")
        with source:
            for number, line in enumerate(source, 1):
                try:
                    yield Success(_decoded(journal, number, line))
                except _Refused as refused:
                    yield Failure(refused.error)
    except _Refused as refused:
        yield Failure(refused.error)


def paired(inputs: Iterable[_In], answers: Answers[_In, _A]) -> Generator[tuple[_In, _A], None, None]:
    """Each input with its answer, in bounded memory.

    >>> list(paired("ab", lambda letters: (letter.upper() for letter in letters)))
    [('a', 'A'), ('b', 'B')]
    """
    waiting: deque[_In] = deque()
    with closing(answers(_remembered(inputs, waiting))) as stream:
        for answer in stream:
            yield waiting.popleft(), answer


def row(fields: Fields) -> bytes:
    r"""A line of JSON Lines, in UTF-8; a ValueError or TypeError where JSON cannot hold it.

    >>> row({"user": "é"}), row({"user": "\ud800"})
    (b'{"user": "\xc3\xa9"}\n', b'{"user": "\\ud800"}\n')
    """
    try:
        return f"{json.dumps(fields, ensure_ascii=False, allow_nan=False)}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate is JSON only when escaped
        return f"{json.dumps(fields)}\n".encode()


def explain_journal(error: JournalError) -> str:
    """One sentence that says what is wrong and the way out.

    >>> explain_journal(OtherSettings(Path("out.jsonl"), (("model", '"a"', '"b"'),)))
    'out.jsonl was made with other settings: model was "a" and is now "b"; ask with the same, or name another output.'
    """
    match error:
        case Exists(path):
            return f"{path} exists already and is left as it is; resume it, or name another output."
        case InUse(path):
            return f"{path} is being written by another run; wait for its end, or name another output."
        case OtherSettings(path, differ):
            changes = ", ".join(f"{name} was {was} and is now {now}" for name, was, now in differ)
            return f"{path} was made with other settings: {changes}; ask with the same, or name another output."
        case UnknownSettings(path):
            return f"{path} has no legible {_sidecar(path).name} beside it, so that nobody knows what made it; name another output."
        case OtherInput(path, number):
            return f"row {number} of {path} answers another input than the one there now; resume with the inputs it was made from, or name another output."
        case NotARow(path, number, reason):
            return f"row {number} of {path} cannot be read ({reason}); mend it or take the rest away from there on, and resume."
        case NotEncoded(path, fault):
            return (
                f"a row or the settings of {path} cannot be encoded as JSON ({in_words(fault)}); mend them, and resume."
            )
        case NotWritten(path, reason):
            return f"cannot write {path}: {reason}; what was written stays, and can be resumed."
        case _:
            assert_never(error)


class _Refused(Exception):
    """Carries a JournalError to the end of `record`, through the stream where its inputs found it."""

    def __init__(self, error: JournalError) -> None:
        super().__init__(error)
        self.error: Final = error


@contextmanager
def _about(path: Path) -> Generator[None, None, None]:
    """What the system refuses in here is about this path; an OSError of the inputs' own iterator is not ours."""
    try:
        yield
    except OSError as error:
        raise _Refused(NotWritten(path, error.strerror or str(error))) from error


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.distgen.json")


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.distgen.part")


@contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    """One writer at a time: the lock is the system's, and ends with the process however that ends."""
    with _about(path):
        held = os.open(_sidecar(path), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with _about(path):
            is_ours = _lock(held)
        if not is_ours:
            raise _Refused(InUse(path))
        yield
    finally:
        os.close(held)


if sys.platform == "win32":

    def _lock(held: int) -> bool:
        import msvcrt

        os.lseek(held, 2**30, os.SEEK_SET)  # a locked byte cannot be read; there is none there
        try:
            msvcrt.locking(held, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _lock(held: int) -> bool:
        import fcntl

        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _check_place(path: Path, if_exists: IfExists) -> None:
    with _about(path):
        if if_exists == "refuse" and _is_there(path):
            raise _Refused(Exists(path))
        if _has_rows(path) and not _sidecar(path).exists():
            raise _Refused(UnknownSettings(path))


def _is_there(path: Path) -> bool:
    return path.exists() or _part(path).exists()


def _has_rows(path: Path) -> bool:
    return _part(path).exists() or (path.exists() and path.stat().st_size > 0)


def _begin(journal: Journal[_In, _Out]) -> None:
    """Leaves a whole prefix in the file and its settings beside it, or refuses and changes nothing."""
    path, settings = journal.path, _settings_row(journal)
    with _about(path):
        if _has_rows(path):
            _check_settings(path, settings)
            path.touch()
            _mend(path)
            _settle(path)
            return
        # In this order: where the file is, its settings are whole.
        _write_new(_sidecar(path), settings)
        path.touch()
        _sync_folder(path)


def _settings_row(journal: Journal[_In, _Out]) -> bytes:
    try:
        return row(journal.settings)
    except Exception as error:
        raise _Refused(NotEncoded(journal.path, Raised.of(error))) from error


def _check_settings(path: Path, settings: bytes) -> None:
    then = _object(_sidecar(path).read_bytes())
    if isinstance(then, str):
        raise _Refused(UnknownSettings(path))
    now: Fields = json.loads(settings)
    names = [*then, *(name for name in now if name not in then)]
    differ = [(name, _shown(then, name), _shown(now, name)) for name in names]
    if changed := tuple(each for each in differ if each[1] != each[2]):
        raise _Refused(OtherSettings(path, changed))


def _shown(settings: Fields, name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False, sort_keys=True) if name in settings else "absent"


def _object(line: bytes) -> dict[str, object] | str:
    """A JSON object, or why it is none."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if _is_object(value) else "not an object"


def _is_object(value: object) -> TypeIs[dict[str, object]]:
    return isinstance(value, dict)


def _mend(path: Path) -> None:
    """Takes away what stands after the last line break."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        found = -1
        while end and found < 0:
            start = max(0, end - 2**16)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            end = start + found + 1
        file.truncate(end)


def _settle(path: Path) -> None:
    """Joins the part, where there is one: what it lacks is what `path` still has after as many rows."""
    part = _part(path)
    if not part.exists():
        return
    _mend(part)
    with part.open("r+b") as new, path.open("rb") as old:
        for _ in new:
            old.readline()
        shutil.copyfileobj(old, new)
    _replace(part, path)


def _replace(part: Path, path: Path) -> None:
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync_folder(path)


def _write_new(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:  # the very file that is locked
        file.truncate()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # a folder can be opened on POSIX alone
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remembered(inputs: Iterable[_In], waiting: deque[_In]) -> Iterator[_In]:
    for value in inputs:
        waiting.append(value)
        yield value


@final
@dataclass(frozen=True, slots=True)
class _Asked(Generic[_In]):
    """An input to ask, after `kept` rows that stay; the bytes from `start` to `end` of the file are its failed row."""

    value: _In
    start: int
    end: int
    kept: Kept


def _steps(
    journal: Journal[_In, _Out], inputs: Iterable[_In], answers: Answers[_In, RowResult[_Out]], keep_failures: bool
) -> Generator[Step[_In, _Out], None, None]:
    rest: list[Kept] = []
    with _about(journal.path):
        old = journal.path.open("rb")
    with old, closing(_Output(journal)) as output:
        missing = _missing(journal, old, output.size, inputs, keep_failures, rest)
        with closing(paired(missing, lambda asked: answers(each.value for each in asked))) as pairs:
            for asked, answer in pairs:
                if asked.kept.rows:
                    yield asked.kept
                output.write(asked.start, asked.end, _encoded(journal, asked.value, answer))
                yield Recorded(asked.value, answer)
        yield from rest


def _missing(
    journal: Journal[_In, _Out],
    old: BinaryIO,
    size: int,
    inputs: Iterable[_In],
    keep_failures: bool,
    rest: list[Kept],
) -> Iterator[_Asked[_In]]:
    """The inputs without a row that stays among the first `size` bytes of the file; what stays after them is left in `rest`."""
    kept, start = Kept(0), 0
    for number, value in enumerate(inputs, 1):
        with _about(journal.path):
            line = old.readline() if start < size else b""
        end = start + len(line)
        stays = _what_stays(journal, number, line, value, keep_failures) if line else None
        if stays is None:
            yield _Asked(value, start, end, kept)
            kept = Kept(0)
        else:
            kept = Kept(kept.rows + 1, kept.failed + stays.failed)
        start = end
    if kept.rows:
        rest.append(kept)


def _what_stays(journal: Journal[_In, _Out], number: int, line: bytes, value: _In, keep_failures: bool) -> Kept | None:
    """A row that was answered stays, or this is the wrong file; one that failed may stay."""
    answered, answer = _decoded(journal, number, line)
    if isinstance(answer, Failure):
        return Kept(1, 1) if keep_failures and answered == value else None
    if answered != value:
        raise _Refused(OtherInput(journal.path, number))
    return Kept(1)


def _decoded(journal: Journal[_In, _Out], number: int, line: bytes) -> tuple[_In, RowResult[_Out]]:
    fields = _object(line)
    if isinstance(fields, str):
        raise _Refused(NotARow(journal.path, number, fields))
    try:
        found = journal.decode(fields)
        if not isinstance(found, Failure):
            answered, answer = found.unwrap()  # here, since untyped code may give anything
            return answered, answer
    except Exception as error:
        raise _Refused(NotARow(journal.path, number, f"{type(error).__name__}: {error}")) from error
    raise _Refused(NotARow(journal.path, number, str(found.failure())))


def _encoded(journal: Journal[_In, _Out], value: _In, answer: RowResult[_Out]) -> bytes:
    try:
        return row(journal.encode(value, answer))
    except Exception as error:
        raise _Refused(NotEncoded(journal.path, Raised.of(error))) from error


@final
class _Output:
    """What grows: the file, or the part from the first failed row that is asked again until the old rows are through."""

    __slots__ = ("_done", "_is_part", "_old", "_path", "_sink", "_sync", "size")

    def __init__(self, journal: Journal[_In, _Out]) -> None:
        self._path, self._sync = journal.path, journal.sync
        with _about(self._path):
            self._old = self._path.open("rb")
            self.size = self._old.seek(0, os.SEEK_END)
            self._sink = Sink(self._path, self._sync)
        self._is_part = False
        self._done = 0  # bytes of the old file for which the part stands already

    def write(self, start: int, end: int, line: bytes) -> None:
        """Writes a row in place of the old bytes from `start` to `end`; those before them stay."""
        with _about(self._path):
            if start < end and not self._is_part:
                self._sink.close()
                self._sink, self._is_part = Sink(_part(self._path), self._sync), True
                self._old.seek(0)
            if self._is_part:
                self._carry(start)
            self._sink.write(line)
            if self._is_part:
                self._done = self._old.seek(end)
                if self._done == self.size:
                    self._sink.close()
                    _replace(_part(self._path), self._path)
                    self._sink, self._is_part = Sink(self._path, self._sync), False

    def close(self) -> None:
        """Leaves one file, if the disk has room; else the part too, for the next run to join.

        What the part lacks is read from the part: an interrupt may have come between a row and our note of it.
        """
        self._old.close()
        with _about(self._path):
            self._sink.close()
            _settle(self._path)

    def _carry(self, end: int) -> None:
        while self._done < end:
            chunk = self._old.read(min(2**20, end - self._done))
            self._sink.write(chunk)
            self._done += len(chunk)


@final
class Sink:
    """Appends to a file; a thread has it reach the disk every `sync` seconds, since an fsync takes milliseconds."""

    __slots__ = ("__weakref__", "_ended", "_fault", "_file", "_is_dirty", "_sync", "_thread")

    def __init__(self, path: Path, sync: float) -> None:  # noqa: D107  (the class says it)
        self._file = path.open("ab", buffering=0)
        self._sync = sync
        self._is_dirty = False
        self._fault: OSError | None = None
        self._ended = ended = SimpleQueue[None]()
        self._thread: Thread | None = None
        if sync:
            # Held weakly, so that a sink which an interrupt leaves to nobody takes its thread with it.
            this = ref(self, lambda _: ended.put(None))
            self._thread = Thread(target=_keep_syncing, args=(this, ended, sync), name="distgen-journal", daemon=True)
            self._thread.start()

    def write(self, data: bytes) -> None:
        """All of it or, where the system refuses, nothing."""
        if self._fault:
            raise self._fault
        start, left = self._file.tell(), memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(start)
            raise
        self._is_dirty = True
        if not self._sync:
            self._flush()

    def close(self) -> None:
        """Has all of it on the disk, and ends; where the disk refuses, it ends as well."""
        self._ended.put(None)
        if self._thread:
            self._thread.join()
        self.flush_or_fault()
        self._file.close()
        if self._fault:
            raise self._fault

    def flush_or_fault(self) -> None:
        """Has what was written on the disk; what the disk refuses is said at the next write."""
        try:
            self._flush()
        except OSError as error:
            self._fault = error

    def _flush(self) -> None:
        if self._is_dirty and not self._file.closed:
            self._is_dirty = False
            os.fsync(self._file.fileno())


def _keep_syncing(this: ref[Sink], ended: SimpleQueue[None], sync: float) -> None:
    while not _is_put(ended, sync):
        if sink := this():  # pragma: no branch  (it may be dropped just now)
            sink.flush_or_fault()
        del sink


def _is_put(queue: SimpleQueue[None], seconds: float) -> bool:
    try:
        queue.get(timeout=seconds)
    except Empty:
        return False
    return True
