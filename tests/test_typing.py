"""The type checkers read the whole project, and with it the compositions that they must refuse."""

from __future__ import annotations

import os
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


def test_pyright_accepts_the_project_and_refuses_wrong_compositions() -> None:
    if run(sys.executable, "-m", "pyright", "--version").returncode:
        pytest.skip("pyright does not start here: it needs Node.js, or a network to fetch it")
    done = run(sys.executable, "-m", "pyright")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kept", "dropped"),
    [
        ("texts, Threads(8)", "# type: ignore[arg-type]"),
        ("chats, Sequential()", "# pyright: ignore[reportArgumentType]"),
    ],
)
def test_the_checks_can_fail(tmp_path: Path, kept: str, dropped: str) -> None:
    """A composition that fits, marked as one that must not, is reported: the comments do assert something."""
    shutil.copy(ROOT / "mypy.ini", tmp_path)
    source = (ROOT / "tests" / "typing" / "compositions.py").read_text()
    assert f"{kept})\n" in source
    (tmp_path / "compositions.py").write_text(source.replace(f"{kept})\n", f"{kept})  {dropped}\n", 1))
    done = run(sys.executable, "-m", "mypy", "--config-file", "mypy.ini", str(tmp_path / "compositions.py"))
    if "type: ignore" in dropped:
        assert "unused-ignore" in done.stdout
    else:
        assert done.returncode == 0, done.stdout
