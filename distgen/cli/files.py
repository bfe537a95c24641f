"""Input and output of the command line: JSON Lines in, and any stdout, captured ones too."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final

from distgen.cli.options import UsageError
from distgen.cli.rows import read_lines

_PANDAS: Final = "python -c \"import pandas; pandas.read_{}('{}').to_json('rows.jsonl', orient='records', lines=True)\""


@contextmanager
def open_lines(name: str) -> Generator[Iterator[bytes], None, None]:
    """Open the lines of a file, or of stdin for "-"; raise UsageError if it is not JSON Lines."""
    try:
        source = _open_stdin() if name == "-" else Path(name).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}.") from error
    try:
        lines = read_lines(source)
        first = next(lines, b"")
        _check_kind(name, first)
        yield chain([first] if first else [], lines)
    finally:
        if name != "-":
            source.close()


def count_records(name: str, limit: int | None) -> int | None:
    """Count the lines of a file that are not blank; None for what can be read only once."""
    if name == "-" or not Path(name).is_file():
        return None
    with Path(name).open("rb") as source:
        return sum(1 for _ in islice((line for line in read_lines(source) if line.strip()), limit))


def write_stdout(data: bytes) -> None:
    """Write to stdout at once; nothing stays in a buffer, so a closed pipe is met here and not at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # captured
        sys.stdout.write(data.decode(errors="backslashreplace"))
        return
    sys.stdout.flush()
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _open_stdin() -> BinaryIO:
    if hasattr(sys.stdin, "buffer"):
        return sys.stdin.buffer
    return io.BytesIO(sys.stdin.read().encode())  # a captured stdin may have text only


def _check_kind(name: str, first: bytes) -> None:
    # Sources: RFC 1952, 2.3.1 (gzip); Apache Parquet, "File format" (PAR1).
    text = first.removeprefix(b"\xef\xbb\xbf").strip()
    shown = "input" if name == "-" else name
    if first.startswith(b"\x1f\x8b"):
        kind, convert = "gzip", f"gzip -dc {shown} > rows.jsonl"
    elif first.startswith(b"PAR1"):
        kind, convert = "Parquet", _PANDAS.format("parquet", shown)
    elif text.startswith(b"["):
        kind, convert = "a JSON array", f"jq -c '.[]' {shown} > rows.jsonl"
    elif name.lower().endswith((".csv", ".tsv")) or (b"," in text and not text.startswith(b"{")):
        kind, convert = "CSV", _PANDAS.format("csv", shown)
    else:
        return
    raise UsageError(f"{name} is {kind}, not JSON Lines; convert it: {convert}")
