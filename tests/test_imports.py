"""`import distgen` loads no extra, and nothing that only a run needs; imports run down the floors."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "distgen"
HEAVY = {
    *(
        "asyncio",
        "concurrent.futures",
        "logging",
        "urllib3",
        "aiohttp",
        "openai",
        "rich",
        "hypothesis",
        "dask",
        "jinja2",
    ),
    *(
        "distgen.testing",
        "distgen.journal",
        "distgen.report",
        "distgen.rows",
        "distgen.backends.aiohttp",
        "distgen.backends.http",
        "distgen.backends.openai",
        "distgen.backends.wire",
        "distgen.__main__",
    ),
}
FLOORS = (
    {"errors", "prompt", "completion"},
    {"formats", "task", "executors", "backends"},
    {"llm"},
    {"journal", "report", "rows", "testing"},
    {"__main__", "__init__"},
)


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, distgen; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "distgen.llm" in loaded
    assert HEAVY & set(loaded) == set()


def floor(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def test_no_import_runs_upwards() -> None:
    upwards: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("distgen."):
                other = node.module.split(".")[1]
                if floor(other) > floor(part):
                    upwards.append(f"{path.name} imports {other}")
    assert upwards == []
