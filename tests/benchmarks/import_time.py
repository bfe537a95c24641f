"""The price of `import distgen`, as a ratio to the import of its own dependencies, in fresh interpreters, in turn.

    python tests/benchmarks/import_time.py

The fastest run of each is the least disturbed one. Exits with 1 where their ratio is over 1.6, or where an extra or a
heavy module was loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys

# What distgen imports from elsewhere.
DEPENDENCIES = "import contextlib, dataclasses, returns.result, typing_extensions"
BUDGET = 1.6
RUNS = 31
# What must not be loaded: extras, and what only a run needs.
HEAVY = (
    "hypothesis",
    "urllib3",
    "aiohttp",
    "openai",
    "asyncio",
    "rich",
    "concurrent.futures",
    "logging",
    "dask",
    "jinja2",
    "distgen.testing",
)


def output(code: str) -> str:
    """What a fresh interpreter prints; it may keep bytecode, as any installed package has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def seconds(statement: str) -> float:
    """How long a statement takes in an interpreter of its own, its start not counted."""
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    return float(output(code))


def loaded() -> list[str]:
    code = f"import sys, distgen; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    return output(code).split()


def main() -> int:
    seconds("import distgen")  # writes the bytecode
    pairs = [(seconds(DEPENDENCIES), seconds("import distgen")) for _ in range(RUNS)]
    dependencies, whole = (min(column) for column in zip(*pairs, strict=True))
    ratio = whole / dependencies
    print(
        f"dependencies {dependencies * 1e3:.1f} ms, distgen {whole * 1e3:.1f} ms: {ratio:.2f} times (at most {BUDGET})"
    )
    heavy = loaded()
    print(f"heavy modules loaded: {', '.join(heavy) or 'none'}")
    return int(ratio > BUDGET or bool(heavy))


if __name__ == "__main__":
    sys.exit(main())
