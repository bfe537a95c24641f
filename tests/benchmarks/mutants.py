"""Break the code on purpose, one small change at a time, and count how many changes the tests notice.

    python -m tests.benchmarks.mutants --number 300 --seed 1 --jobs 2 --only distgen/llm.py distgen/formats

Each mutant is tried in a copy of the project by the fast tests of its module, and with --slow by the slow tests, if it has
survived. The seed, each survivor as a diff, and the share that was killed are printed; exits with 1 if less than 95 % were
killed. A mutant that changes no result survives rightly: read the survivors.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
BOUND: Final = 0.95
# Which tests read which modules, besides the test file of the same name and the doctests; the first prefix that fits is taken.
TESTS: Final[dict[str, list[str]]] = {
    "distgen/prompt.py": ["tests/formats/test_testing.py"],
    "distgen/errors.py": ["tests/test_errors.py"],
    "distgen/task.py": ["tests/test_llm.py"],
    "distgen/llm.py": ["tests/executors", "tests/test_batch.py"],
    "distgen/executors": ["tests/executors", "tests/test_llm.py"],
    "distgen/formats/models": [],  # data
    "distgen/formats": ["tests/formats"],
    "distgen/backends/hf.py": [],  # needs torch
    "distgen/backends": ["tests/backends"],
    "distgen/cli": ["tests/cli"],
    "distgen/journal.py": ["tests/cli"],
    "distgen/batch.py": ["tests/test_batch.py"],
}
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
    line: int
    source: str


def tests_of(path: str) -> list[str]:
    """Return the tests of a module, those of the file that mirrors it first; none for a module that is not tried."""
    found = [tests for prefix, tests in TESTS.items() if path.startswith(prefix)]
    if not found or not found[0]:
        return []
    module = Path(path)
    own = Path("tests", *module.parts[1:-1], f"test_{module.stem}.py").as_posix()
    return [test for test in dict.fromkeys([own, path, *found[0]]) if (ROOT / test).exists()]


def mutants_of(path: str) -> Iterator[Mutant]:
    """Yield every single change of a module that this program knows."""
    source = (ROOT / path).read_text("utf-8")
    for index, node in enumerate(ast.walk(ast.parse(source))):
        if not is_mutable(node):
            continue
        tree = ast.parse(source)
        changed = next(found for number, found in enumerate(ast.walk(tree)) if number == index)
        mutate(changed)
        yield Mutant(path, getattr(node, "lineno", 0), ast.unparse(tree))


def is_mutable(node: ast.AST) -> bool:
    match node:
        case ast.Compare(ops=[op]) | ast.BoolOp(op=op) | ast.BinOp(op=op):
            return type(op) in SWAPS and not isinstance(getattr(node, "left", None), ast.JoinedStr)
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


def is_killed(mutant: Mutant, copy: Path, markers: list[str]) -> bool:
    """Run the tests of the module in a copy of the project that has the mutant."""
    path = copy / mutant.path
    before = path.read_text("utf-8")
    path.write_text(mutant.source, "utf-8")
    try:
        return any(fails(tests_of(mutant.path), marker, copy) for marker in markers)
    finally:
        path.write_text(before, "utf-8")


def fails(tests: list[str], marker: str, copy: Path) -> bool:
    """Run tests in a copy of the project. A run that does not end fails nothing, and so is among the survivors."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    options = ["-m", marker, "--timeout", "30", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            [*command, *options], cwd=copy, env=environment, capture_output=True, timeout=900, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode == 4:  # pytest's own error, such as a missing file
        raise RuntimeError(done.stderr.decode())
    return done.returncode not in (0, 5)  # 5: no test has the marker


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
    parser.add_argument("--slow", action="store_true", help="try the survivors by the slow tests too")
    options = parser.parse_args()
    markers = ["not slow", "slow"] if options.slow else ["not slow"]
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
            return not is_killed(mutant, copy, markers)
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
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
