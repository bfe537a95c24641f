"""Measure the journal: rows per second beside bare writes, time and memory of ordering a large file and of a run of 1 GB.

    python tests/benchmarks/journal.py [FOLDER]

The backend answers at once, so that all of the time is distgen's and the disk's. Give a folder on the disk in question,
with 8 GB free. Exits with 1 where a million rows take more than 16 bytes of memory each, or where 1 GB of input takes 32
MiB more than 1 MB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from returns.result import Result, Success

from distgen import LLM, Prompt, RowResult, Sequential, Task
from distgen.backends.echo import echo
from distgen.cli import main as cli_main
from distgen.formats import default
from distgen.journal import Mode, run, to_json_line

ROWS = 20_000
MILLION = 1_000_000
TEXT = "What is the capital of Peru, and how many people live there? " * 8
MIB = 2**20


def encode(number: int, answer: RowResult[str]) -> dict[str, object]:
    return {"number": number, "said": answer.unwrap()[0].completion.text}


def decode(row: Mapping[str, object]) -> Result[tuple[int, int], str]:
    return Success((int(str(row["number"])), 1))


def ask(number: int) -> Prompt:
    return Prompt(f"{number} {TEXT}")


LLM_OF_ECHO = LLM(Task(ask, Success), default, echo, Sequential())


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def answer(path: Path, rows: int, mode: Mode) -> None:
    for event in run(LLM_OF_ECHO, range(rows), path, encode, decode, mode):
        event.unwrap()


def write_bare(path: Path, rows: int) -> None:
    """Ask and write as a run does, without a journal."""
    with path.open("wb", buffering=0) as file:
        for number, row in enumerate(LLM_OF_ECHO.stream(range(rows))):
            file.write(to_json_line({**encode(number, row), "row": number + 1}))


def write_backwards(path: Path, rows: int, text: str) -> None:
    """Write the rows of a run that was answered from its last input to its first."""
    answer(path, 1, "overwrite")
    with path.open("wb") as file:
        for row in range(rows, 0, -1):
            file.write(to_json_line({"number": row - 1, "said": text, "row": row}))


def order(path: Path) -> None:
    """Resume a run without further inputs, in a process of its own, and print seconds and peak memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = seconds(lambda: answer(path, 0, "resume"))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([took, (after - before) * 1024]))


def measure_ordering(path: Path, rows: int, text: str) -> float:
    """Return the bytes of memory a row."""
    write_backwards(path, rows, text)
    size = path.stat().st_size
    ended = subprocess.run([sys.executable, __file__, "--order", str(path)], stdout=subprocess.PIPE, check=True)
    figures: list[float] = json.loads(ended.stdout)
    took, memory = figures
    with path.open("rb") as file:
        assert [json.loads(file.readline())["row"] for _ in range(3)] == [1, 2, 3]
    print(f"reading and ordering {rows:,} rows, {size / MIB:,.0f} MiB: {took:.1f} s, {memory / MIB:.1f} MiB of memory")
    return memory / rows


def write_input(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for number in range(rows):
            print(json.dumps({"user": f"{number} {TEXT * 20}"}), file=file)


def measure_input(folder: Path, rows: int) -> int:
    """Answer an input with the command line, in a process of its own, and return its peak memory in bytes."""
    path = folder / "in.jsonl"
    write_input(path, rows)
    start = time.perf_counter()
    command = [sys.executable, __file__, "--run", str(path), str(folder / "answers.jsonl")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    took, memory = time.perf_counter() - start, int(ended.stdout)
    size = path.stat().st_size
    print(
        f"a run over {rows:,} rows, {size / MIB:,.0f} MiB: {took:.1f} s, peak memory {memory / MIB:.1f} MiB", flush=True
    )
    return memory


def main(parent: Path) -> int:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        path = Path(folder, "out.jsonl")
        bare = min(seconds(lambda: write_bare(path, ROWS)) for _ in range(3))
        journal = min(seconds(lambda: answer(path, ROWS, "overwrite")) for _ in range(3))
        resumed = min(seconds(lambda: answer(path, ROWS, "resume")) for _ in range(3))
        for name, took in (("bare writes", bare), ("journal", journal), ("resumed", resumed)):
            print(f"{name:12} {ROWS / took:10,.0f} rows/s {took / ROWS * 1e6:8.1f} microseconds a row", flush=True)
        each = measure_ordering(path, MILLION, "short")
        measure_ordering(path, MILLION, TEXT * 2)
        path.unlink()
        small, large = (measure_input(Path(folder), rows) for rows in (100, 110_000))
    return int(each > 16 or large - small > 32 * MIB)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--order"]:
        order(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--run"]:
        assert cli_main(["run", sys.argv[2], "-o", sys.argv[3], "--overwrite"]) == 0
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    else:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())))
