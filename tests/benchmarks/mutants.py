"""Break the code on purpose, one small change at a time, and count how many changes the tests notice.

    python -m tests.benchmarks.mutants --number 300 --seed 1 --jobs 2 --only distgen/llm.py distgen/formats

The fast tests run once under coverage, to learn which of them run which lines. Each mutant is then tried in a copy of the
project: by the tests that run its line, the quickest first, or by those of its module where none is known to, as for what runs at
import or in another process. The seed, each survivor as a diff, and the share that was killed are printed; exits with 1
if less than 95 % were killed. A mutant that changes no result survives rightly: read the survivors.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

from coverage import CoverageData

ROOT: Final = Path(__file__).parents[2]
BOUND: Final = 0.95
MOST: Final = 300
"""The number of tests in a first run; to collect thousands takes long, and most mutants are killed at once."""
PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "not slow")
# Statuses of pytest.
PASSED: Final = 0
NOT_FOUND: Final = 4
NO_TESTS: Final = 5
# Which tests read which modules, besides the test file of the same name and the doctests; the first prefix that fits is taken.
TESTS: Final[dict[str, list[str]]] = {
    "distgen/prompt.py": ["tests/formats/test_testing.py"],
    "distgen/errors.py": ["tests/test_errors.py"],
    "distgen/task.py": ["tests/test_llm.py"],
    "distgen/llm.py": ["tests/executors", "tests/test_batch.py"],
    "distgen/executors": ["tests/executors", "tests/test_llm.py"],
    "distgen/formats/models": [],  # data
    "distgen/formats": ["tests/formats"],
    "distgen/testing.py": ["tests/formats/test_testing.py"],
    "distgen/completion.py": ["tests/test_llm.py"],
    "distgen/backends/hf.py": [],  # needs torch
    "distgen/backends": ["tests/backends"],
    "distgen/cli": ["tests/cli"],
    "distgen/journal.py": ["tests/cli"],
    "distgen/batch.py": ["tests/test_batch.py"],
}
ALWAYS: Final = ("tests/test_imports.py", "tests/test_defaults.py")
STATIC: Final = ("slots", "covariant", "contravariant")  # keywords that change no result, or that type checkers read
_PAIRS: Final[tuple[tuple[type[ast.AST], type[ast.AST]], ...]] = (
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
)
SWAPS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    **dict(_PAIRS),
    **{right: left for left, right in _PAIRS},
}


class Mutant(NamedTuple):
    """A changed source of a module."""

    path: str
    lines: range
    """The lines of the smallest statement that was changed; none if it runs at import."""
    line: int
    source: str


class Map(NamedTuple):
    """Which tests run which lines, and how long they take."""

    tests: Mapping[str, Mapping[int, Sequence[str]]]
    seconds: Mapping[str, float]


def tests_of(path: str) -> list[str]:
    """Return the tests of a module, those of the file that mirrors it first; none for a module that is not tried."""
    found = [tests for prefix, tests in TESTS.items() if path.startswith(prefix)]
    if not found or not found[0]:
        return []
    module = Path(path)
    own = Path("tests", *module.parts[1:-1], f"test_{module.stem}.py").as_posix()
    return [test for test in dict.fromkeys([own, path, *found[0], *ALWAYS]) if (ROOT / test).exists()]


def mutants_of(path: str) -> Iterator[Mutant]:
    """Yield every single change of a module that this program knows."""
    source = (ROOT / path).read_text("utf-8")
    before = ast.parse(source)
    lines = statement_lines(before)
    static = static_nodes(before)
    for index, node in enumerate(ast.walk(before)):
        if node in static or not is_mutable(node):
            continue
        tree = ast.parse(source)
        changed = next(found for number, found in enumerate(ast.walk(tree)) if number == index)
        mutate(changed)
        line: int = getattr(node, "lineno", 0)
        yield Mutant(path, lines.get(line, range(0)), line, ast.unparse(tree))


def static_nodes(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes whose mutants no test can kill here: those of static keywords, and those that run on Windows alone."""
    found = set[ast.AST]()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in STATIC:
            found.add(node.value)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "sys.platform == 'win32'":
            found.update(each for statement in node.body for each in ast.walk(statement))
    return found


def statement_lines(tree: ast.Module) -> dict[int, range]:
    """Map each line of a function's body to the lines of its statement, or of the head of a statement with a body."""
    found = dict[int, range]()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first, last = function.body[0].lineno, function.end_lineno or 0
        found.update({line: range(line, line + 1) for line in range(first, last + 1) if line not in found})
        for node in (node for statement in function.body for node in ast.walk(statement)):
            if isinstance(node, ast.stmt) and not isinstance(node, ast.Match):
                body: list[ast.stmt] = getattr(node, "body", [])
                end = body[0].lineno if body else (node.end_lineno or 0) + 1
                lines = range(node.lineno, max(end, node.lineno + 1))
                found.update(dict.fromkeys(lines, lines))
    return found


def is_mutable(node: ast.AST) -> bool:
    match node:
        case ast.Compare(ops=[op]) | ast.BoolOp(op=op) | ast.BinOp(op=op):
            return type(op) in SWAPS and not isinstance(getattr(node, "left", None), ast.JoinedStr)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
        case ast.Constant(value=bool() | int()) | ast.If() | ast.IfExp():
            return True
        case _:
            return False


def mutate(node: ast.AST) -> None:
    """Change one node in place: the copy of the tree is this function's own."""
    match node:
        case ast.Compare(ops=[op]):
            node.ops = [SWAPS[type(op)]()]  # type: ignore[list-item]  # pyright: ignore[reportAttributeAccessIssue]
        case ast.BoolOp(op=op) | ast.BinOp(op=op):
            node.op = SWAPS[type(op)]()  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() as value):
            node.value = value + 1
        case ast.If(test=test) | ast.IfExp(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
        case _:
            pass


def measure(file: Path) -> Map:
    """Run the fast tests once under coverage, unless the file is of a run before, and return which tests run which lines."""
    times = file.with_name(f"{file.name}-times")
    if not file.exists():
        coverage = "--durations=0 --durations-min=0.001 --cov --cov-context=test --cov-report= --cov-fail-under=0"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COVERAGE_FILE": str(file)}
        with times.open("w") as log:
            subprocess.run([*PYTEST, *coverage.split()], cwd=ROOT, env=environment, stdout=log, check=True)
    data = CoverageData(str(file))
    data.read()
    tests = {
        Path(name).relative_to(ROOT).as_posix(): {
            line: [context.rpartition("|")[0] for context in contexts if context]
            for line, contexts in data.contexts_by_lineno(name).items()
        }
        for name in data.measured_files()
    }
    seconds = dict[str, float]()
    for found in re.finditer(r"^([\d.]+)s (?:setup|call|teardown) +(.+)$", times.read_text(), re.MULTILINE):
        seconds[found[2]] = seconds.get(found[2], 0) + float(found[1])
    return Map(tests, seconds)


def tests_of_line(mutant: Mutant, known: Map) -> list[str]:
    """Return the tests that run the lines of a mutant, the quickest first; none if it runs at import or in a process."""
    by_line = known.tests.get(mutant.path, {})
    found = {test for line in mutant.lines for test in by_line.get(line, ())}
    own = tuple(tests_of(mutant.path)[:1])
    return sorted(found, key=lambda test: (round(known.seconds.get(test, 0), 1), not test.startswith(own), test))


def is_killed(mutant: Mutant, copy: Path, known: Map) -> bool:
    """Run tests in a copy of the project that has the mutant: those of its line, or else those of its module."""
    path = copy / mutant.path
    before = path.read_text("utf-8")
    write(path, mutant.source)
    try:
        narrow, wide = tests_of_line(mutant, known), tests_of(mutant.path)
        for tests in (narrow[:MOST], narrow[MOST:]) if narrow else (wide,):
            status = run_tests(tests, copy) if tests else NO_TESTS
            if status == NOT_FOUND:  # a module cannot be imported, or the map is of other tests
                status = run_tests(wide, copy)
            if status not in (PASSED, NO_TESTS):
                return True
        return False
    finally:
        write(path, before)


def write(path: Path, source: str) -> None:
    """Write a module; its compiled file goes, since one of the same size and second would be taken for the new one's."""
    path.write_text(source, "utf-8")
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def run_tests(tests: Sequence[str], copy: Path) -> int:
    """Run tests in a copy of the project, and end the processes that they leave; a run that does not end has passed."""
    command = [*PYTEST, "-x", "--timeout", "30", "--timeout-method", "thread", "--hypothesis-seed", "0", *tests]
    environment, null = {**os.environ, "PYTHONPATH": str(copy)}, subprocess.DEVNULL
    with subprocess.Popen(command, cwd=copy, env=environment, stdout=null, stderr=null, start_new_session=True) as run:
        try:
            return run.wait(900)
        except subprocess.TimeoutExpired:
            return PASSED
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)


def diff(mutant: Mutant) -> str:
    before = ast.unparse(ast.parse((ROOT / mutant.path).read_text("utf-8"))).splitlines()
    lines = difflib.unified_diff(before, mutant.source.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=["distgen/"], help="prefixes of the paths of modules")
    parser.add_argument("--map", type=Path, help="a file that keeps which tests run which lines; made if it is missing")
    options = parser.parse_args()
    paths = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "distgen").rglob("*.py"))]
    mutants = [
        one for path in paths if tests_of(path) and path.startswith(tuple(options.only)) for one in mutants_of(path)
    ]
    drawn = random.Random(options.seed).sample(mutants, min(options.number, len(mutants)))
    print(f"seed {options.seed}: {len(drawn)} of {len(mutants)} mutants", flush=True)
    copies: SimpleQueue[Path] = SimpleQueue()

    def survives(mutant: Mutant) -> bool:
        copy = copies.get()
        try:
            return not is_killed(mutant, copy, known)
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        known = measure(options.map or Path(folder, "map"))
        for job in range(options.jobs):
            copies.put(shutil.copytree(ROOT, Path(folder, str(job)), ignore=shutil.ignore_patterns(".git", ".*_cache")))
        survivors = 0
        for mutant, survived in zip(drawn, pool.map(survives, drawn), strict=True):
            survivors += survived
            shown = f"survived, {diff(mutant)}" if survived else "killed"
            print(f"{mutant.path}:{mutant.line} {shown}", flush=True)
    killed = 1 - survivors / len(drawn)
    print(f"\nkilled {killed:.1%} (bound {BOUND:.0%})")
    return int(killed < BOUND)


if __name__ == "__main__":
    sys.exit(main())
