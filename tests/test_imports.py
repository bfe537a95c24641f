"""`import distgen` loads no extra and nothing that only a run needs, and no import runs upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "distgen"
# Extras, and modules of the standard library that are slow to import.
HEAVY = {"aiohttp", "asyncio", "concurrent.futures", "hypothesis", "jinja2", "logging", "torch", "transformers"}
# Each module may import those of the rows before its own, and its neighbours.
LAYERS = (
    {"completion"},
    {"errors"},
    {"prompt"},
    {"formats", "task", "executors", "backends"},
    {"llm"},
    {"journal", "batch", "testing"},
    {"cli"},
    {"__main__", "__init__"},
)


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, distgen; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "distgen.llm" in loaded
    assert HEAVY & set(loaded) == set()


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_no_import_runs_upwards() -> None:
    upwards: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("distgen."):
                other = node.module.split(".")[1]
                if layer(other) > layer(name):
                    upwards.append(f"{path.name} imports {other}")
    assert upwards == []


def test_a_star_import_gives_the_public_names_alone() -> None:
    names: dict[str, object] = {}
    exec("from distgen import *", names)
    import distgen

    assert names.keys() - {"__builtins__"} == set(distgen.__all__)
    assert len(distgen.__all__) <= 25
