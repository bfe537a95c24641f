"""Outputs that are no files: stdout, captured ones too, and pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


@contextmanager
def open_output(name: str) -> Generator[Callable[[str], None], None, None]:
    """Open stdout for "-", or a pipe or a device, once; yield a function that writes to it at once."""
    if name == "-":
        yield write_stdout
        return
    with Path(name).open("wb", buffering=0) as file:
        yield partial(_write, file.fileno())


def write_stdout(text: str) -> None:
    """Write to stdout at once; nothing stays in a buffer, so a closed pipe is met here and not at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # captured
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    _write(descriptor, text)


def _write(descriptor: int, text: str) -> None:
    left = memoryview(text.encode(errors="backslashreplace"))
    while left:
        left = left[os.write(descriptor, left) :]
