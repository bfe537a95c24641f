"""The time of `import distgen`, as a ratio to the imports of its dependencies, in fresh interpreters, in turn.

    python tests/benchmarks/import_time.py

The fastest run of each is compared. Exits with 1 if the ratio is over its bound.
"""

from __future__ import annotations

import os
import subprocess
import sys

DEPENDENCIES = "import returns.result, typing_extensions"
BOUND = 1.8
RUNS = 31


def output(code: str) -> str:
    """What a fresh interpreter prints; it may keep bytecode, as any installed package has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def seconds(statement: str) -> float:
    """How long a statement takes in an interpreter of its own, its start not counted."""
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    return float(output(code))


def main() -> int:
    seconds("import distgen")  # writes the bytecode
    pairs = [(seconds(DEPENDENCIES), seconds("import distgen")) for _ in range(RUNS)]
    dependencies, whole = (min(column) for column in zip(*pairs, strict=True))
    ratio = whole / dependencies
    print(f"dependencies {dependencies * 1e3:.1f} ms, distgen {whole * 1e3:.1f} ms: {ratio:.2f} times (bound {BOUND})")
    return int(ratio > BOUND)


if __name__ == "__main__":
    sys.exit(main())
