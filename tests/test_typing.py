"""The type checkers read the whole project, and with it the compositions that they must refuse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)


def test_mypy_accepts_the_project_and_refuses_wrong_compositions() -> None:
    done = run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout + done.stderr


needs_pyright = pytest.mark.skipif(
    run(sys.executable, "-m", "pyright", "--version").returncode != 0,
    reason="pyright does not start here: it fetches its JavaScript when it is first used",
)


@needs_pyright
def test_pyright_accepts_the_project_and_refuses_wrong_compositions() -> None:
    done = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def without_a_mistake(tmp_path: Path) -> Path:
    """The compositions, with one that fits marked as one that must be refused, and the settings of both checkers."""
    source = (ROOT / "tests" / "typing" / "compositions.py").read_text()
    fits = "LLM(task, openai, chats, Sequential())\n"
    assert fits in source
    marked = f"{fits.strip()}  # type: ignore[misc]  # pyright: ignore[reportArgumentType]\n"
    (tmp_path / "compositions.py").write_text(source.replace(fits, marked, 1))
    shutil.copy(ROOT / "mypy.ini", tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "enableTypeIgnoreComments": False,
                "reportUnnecessaryTypeIgnoreComment": True,
                "extraPaths": [str(ROOT)],
            }
        )
    )
    return tmp_path


def test_mypy_reports_a_composition_that_is_not_refused(without_a_mistake: Path) -> None:
    source = str(without_a_mistake / "compositions.py")
    done = run(sys.executable, "-m", "mypy", "--config-file", str(without_a_mistake / "mypy.ini"), source)
    assert re.findall(r"\[([\w-]+)\]$", done.stdout, re.MULTILINE) == ["unused-ignore"]


@needs_pyright
def test_pyright_reports_a_composition_that_is_not_refused(without_a_mistake: Path) -> None:
    done = run(sys.executable, "-m", "pyright", "-p", str(without_a_mistake), "--pythonpath", sys.executable)
    assert re.findall(r"\((\w+)\)$", done.stdout, re.MULTILINE) == ["reportUnnecessaryTypeIgnoreComment"], done.stdout
