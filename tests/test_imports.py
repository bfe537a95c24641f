"""`import distgen` loads no extra and nothing that only a run needs, and no import runs upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import distgen
from distgen.backends.hf import load
from distgen.formats import lookup

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


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import distgen")
    assert "distgen.llm" in loaded
    assert HEAVY & loaded == set()


def test_the_formats_are_loaded_when_one_is_asked_for() -> None:
    assert "distgen.formats" not in loaded_by("import distgen")
    assert "distgen.formats.models" in loaded_by("import distgen; distgen.FORMATS")
    assert distgen.lookup is lookup
    with pytest.raises(AttributeError, match="'distgen' has no attribute 'chatml'"):
        getattr(distgen, "chatml")  # noqa: B009


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


def test_public_records_are_frozen() -> None:
    for module in walk_packages(distgen.__path__, "distgen."):
        if module.name not in ("distgen.__main__", "distgen.backends.hf"):
            for name, found in vars(import_module(module.name)).items():
                if isinstance(found, type) and is_dataclass(found) and not name.startswith("_"):
                    assert "__setattr__" in vars(found), f"{module.name}.{name} is not frozen"


def test_a_local_model_without_its_libraries_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install torch transformers"):
        load("model")


def test_a_star_import_gives_the_public_names_alone() -> None:
    names: dict[str, object] = {}
    exec("from distgen import *", names)
    assert names.keys() - {"__builtins__"} == set(distgen.__all__)
    assert len(distgen.__all__) <= 25
    shown = subprocess.check_output([sys.executable, "-c", "import distgen; print(*dir(distgen))"], text=True).split()
    assert set(distgen.__all__) <= set(shown)
