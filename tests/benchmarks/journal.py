"""The price of keeping a journal: rows a second with an fsync for each, one each second, and none, and of resuming.

    python tests/benchmarks/journal.py [FOLDER]

The backend answers at once, so that all of the time is distgen's and the disk's. Give a folder on the disk in question.
Exits with 1 where an fsync each second costs more than half of the rows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from returns.result import Result, Success

from distgen import LLM, RowResult, Prompt, Sequential, Task
from distgen.backends.echo import echo
from distgen.formats import default
from distgen.journal import Journal, record

ROWS = 20_000
TEXT = "What is the capital of Peru, and how many people live there? " * 8
NEVER = 1e6


def encode(number: int, answer: RowResult[str]) -> dict[str, object]:
    return {"number": number, "said": answer.unwrap()[0].completion.text}


def decode(row: Mapping[str, object]) -> Result[tuple[int, RowResult[str]], str]:
    return Success((int(str(row["number"])), Success(())))


def seconds(folder: Path, sync: float, rows: int) -> float:
    """How long a run of so many rows takes in that folder."""
    task: Task[int, str] = Task(lambda number: Prompt(f"{number} {TEXT}"), Success)
    llm = LLM(task, default, echo, Sequential())
    journal = Journal(folder / "out.jsonl", {}, encode, decode, sync)
    start = time.perf_counter()
    for step in record(journal, range(rows), llm.stream):
        step.unwrap()
    return time.perf_counter() - start


def fresh(parent: Path, sync: float, rows: int) -> float:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        return seconds(Path(folder), sync, rows)


def main(parent: Path) -> int:
    none, each_second = (min(fresh(parent, sync, ROWS) for _ in range(5)) for sync in (NEVER, 1.0))
    each_row = min(fresh(parent, 0, ROWS // 20) for _ in range(3)) * 20
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        seconds(Path(folder), NEVER, ROWS)
        resumed = min(seconds(Path(folder), NEVER, ROWS) for _ in range(3))
    for name, took in (("no fsync", none), ("each second", each_second), ("each row", each_row), ("resumed", resumed)):
        print(f"{name:12} {ROWS / took:10,.0f} rows/s {took / ROWS * 1e6:10.1f} microseconds a row")
    return int(each_second > 2 * none)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())))
