"""Wrong compositions are refused by both type checkers, and annotations resolve at run time."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest

import distgen

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "tests" / "typing" / "compositions.py"
PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": True,
    "extraPaths": [str(ROOT)],
}
# Importing concurrent.futures costs too much, so these names exist only for type checkers.
ONLY_FOR_CHECKERS = {"Future", "FuturesExecutor"}


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    return done.stdout + done.stderr


def mypy(folder: Path) -> list[str]:
    """Return the codes of the errors in the compositions of a folder."""
    cache = str(ROOT / ".mypy_cache")
    printed = run(
        folder, sys.executable, "-m", "mypy", "--cache-dir", cache, "--config-file", "mypy.ini", "compositions.py"
    )
    assert "compositions.py:" in printed or "Success" in printed, printed
    return re.findall(r"error: .*\[([\w-]+)\]$", printed, re.MULTILINE)


def pyright(folder: Path) -> list[str]:
    """Return the rules that are broken in the compositions of a folder."""
    if "pyright" not in run(folder, sys.executable, "-m", "pyright", "--version"):
        pytest.skip("pyright is not installed, or cannot fetch its JavaScript")
    printed = run(folder, sys.executable, "-m", "pyright", "-p", ".", "--pythonpath", sys.executable)
    assert " warnings, " in printed, printed
    return re.findall(r"error: .*\((\w+)\)$", printed, re.MULTILINE)


def with_checkers(folder: Path, source: str) -> Path:
    (folder / "compositions.py").write_text(source)
    shutil.copy(ROOT / "mypy.ini", folder)
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return folder


@pytest.fixture
def compositions(tmp_path: Path) -> Path:
    return with_checkers(tmp_path, SOURCE.read_text())


@pytest.fixture
def without_a_mistake(tmp_path: Path) -> Path:
    """The compositions, with one that fits marked as one that must be refused."""
    fits = "LLM(task, openai, chats, Sequential())\n"
    marked = f"{fits.strip()}  # type: ignore[misc]  # pyright: ignore[reportArgumentType]\n"
    source = SOURCE.read_text()
    assert fits in source
    return with_checkers(tmp_path, source.replace(fits, marked, 1))


def test_mypy_refuses_wrong_compositions_and_no_others(compositions: Path) -> None:
    assert mypy(compositions) == []


def test_mypy_reports_a_composition_that_is_not_refused(without_a_mistake: Path) -> None:
    assert mypy(without_a_mistake) == ["unused-ignore"]


@pytest.mark.slow
def test_pyright_refuses_wrong_compositions_and_no_others(compositions: Path) -> None:
    assert pyright(compositions) == []


@pytest.mark.slow
def test_pyright_reports_a_composition_that_is_not_refused(without_a_mistake: Path) -> None:
    assert pyright(without_a_mistake) == ["reportUnnecessaryTypeIgnoreComment"]


def modules() -> list[str]:
    """Return the names of the modules of distgen whose extras are installed."""
    names = [found.name for found in pkgutil.walk_packages(distgen.__path__, "distgen.")]
    extras = {"distgen.backends.hf": "torch", "distgen.backends.server": "aiohttp", "distgen.testing": "hypothesis"}
    return [
        name
        for name in names
        if not name.endswith("__main__") and (name not in extras or find_spec(extras[name]) is not None)
    ]


def public_of(module: str) -> Iterator[tuple[str, object]]:
    """Yield the public functions, classes and methods that a module defines."""
    for name, value in vars(import_module(module)).items():
        if not name.startswith("_") and getattr(value, "__module__", None) == module:
            if inspect.isfunction(value):
                yield name, value
            elif inspect.isclass(value):
                yield name, value
                for inner, method in inspect.getmembers(value, inspect.isfunction):
                    if (inner == "__call__" or not inner.startswith("_")) and method.__module__ == module:
                        yield f"{name}.{inner}", method


@pytest.mark.parametrize("module", modules())
def test_type_hints_resolve_at_run_time(module: str) -> None:
    unresolved: list[str] = []
    for name, value in public_of(module):
        try:
            get_type_hints(value)
        except NameError as error:
            if error.name not in ONLY_FOR_CHECKERS:
                unresolved.append(f"{name}: {error}")
    assert unresolved == []
