"""Parts that several tests share: the table of executors, and backends with planned faults (their names say so)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from returns.result import Failure, Result, Success

from distgen import Asyncio, Batch, Completion, Exchange, Pool, Prompt, RowResult, Sequential, Task, Threads, fold
from distgen.errors import GenerateError
from distgen.executors import Executor
from distgen.executors.call import Call
from distgen.executors.engine import Deliver, Submit

P = TypeVar("P")


@dataclass(frozen=True)
class Awaited:
    """A synchronous backend on an async executor, so that every law is tried there too: it awaits once, then answers."""

    executor: Executor[Awaitable[Batch]]

    @property
    def in_flight(self) -> int:
        return self.executor.in_flight

    @property
    def buffer(self) -> int:
        return self.executor.buffer

    def session(self, deliver: Deliver, /) -> AbstractContextManager[Submit[Batch]]:
        return _AwaitedSession(self.executor.session(deliver))


class _AwaitedSession:
    def __init__(self, session: AbstractContextManager[Submit[Awaitable[Batch]]]) -> None:
        self.session = session

    def __enter__(self) -> Submit[Batch]:
        submit_async = self.session.__enter__()

        def submit(index: int, call: Call[P, Batch]) -> None:
            async def backend(prompts: Sequence[P], num_generations: int) -> Batch:
                await asyncio.sleep(0)
                return call.backend(prompts, num_generations)

            submit_async(index, Call(backend, call.prompts, call.num_generations))

        return submit

    def __exit__(self, *_: object) -> None:
        self.session.__exit__(None, None, None)


EXECUTORS: Final[Mapping[str, Executor[Batch]]] = {
    "sequential": Sequential(),
    "one thread": Threads(1),
    "threads": Threads(8),
    "threads without buffer": Threads(3, buffer=0),
    "pool": Pool(lambda: ThreadPoolExecutor(4), 5, buffer=2),
    "asyncio": Awaited(Asyncio(8)),
    "asyncio with a small buffer": Awaited(Asyncio(3, buffer=2)),
}


def text_of(text: str) -> Result[str, object]:
    """A parser that takes every text as it is."""
    return Success(text)


def asking(text: str) -> Prompt:
    """A prompt function with a system text and history, so that both are rendered too."""
    return Prompt(text, system="Be brief.", history=(Exchange("2+2?", "4"),))


PLAIN: Final = Task(prompt=Prompt, parse=text_of)


def planned_faults(plan: Mapping[str, Callable[[], object]]) -> Callable[[Sequence[str], int], Batch]:
    """A double: answers each prompt with itself, but first runs what is planned for it, which may raise.

    As a real batch endpoint, it answers all prompts of a call or, when one of them raises, none.
    """

    def generate(prompts: Sequence[str], num_generations: int) -> Batch:
        for prompt in prompts:
            plan.get(prompt, lambda: None)()
        return [[Completion(prompt)] * num_generations for prompt in prompts]

    return generate


def slow_echo(prompts: Sequence[str], num_generations: int) -> Batch:
    """A backend that takes 10 ms; at the top of a module, so that another process finds it."""
    time.sleep(0.01)
    return [[Completion(prompt)] * num_generations for prompt in prompts]


async def slow_echo_async(prompts: Sequence[str], num_generations: int) -> Batch:
    await asyncio.sleep(0.01)
    return [[Completion(prompt)] * num_generations for prompt in prompts]


def child_processes() -> set[str]:
    """Return the numbers of the child processes; none on a system without /proc."""
    numbers: set[str] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # that thread has ended meanwhile
            numbers.update(task.read_text().split())
    return numbers


def command_lines(numbers: set[str]) -> list[str]:
    """Return the command lines of processes that still run. A resource tracker stays for later pools."""
    found: list[str] = []
    for number in numbers:
        with suppress(OSError):  # it has ended meanwhile
            found.append(Path("/proc", number, "cmdline").read_text().replace("\0", " ").strip())
    return [command for command in found if command and "resource_tracker" not in command]


def left_behind() -> list[str]:
    """Return the threads and child processes that are still there, by name."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return [*threads, *command_lines(child_processes())]


@contextmanager
def dask_cluster() -> Generator[Any]:
    """A client of a real cluster of two worker processes, on loopback."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def mounted(folder: Path, options: str) -> Generator[None]:
    """A small disk of its own."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        mount = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount here")
    if mount.returncode:
        pytest.skip("no permission to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


ROOT: Final = Path(__file__).parent.parent.parent
Row = RowResult[str]


def texts(row: Row) -> list[str]:
    return fold(row, lambda generations: [one.completion.text for one in generations], lambda error: [repr(error)])


def error_of(row: Row) -> GenerateError | None:
    return row.failure() if isinstance(row, Failure) else None


def count_threads() -> int:
    return sum(thread.name.startswith(("distgen", "ThreadPoolExecutor")) for thread in threading.enumerate())


def until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def own_pid(prompts: Sequence[str], num_generations: int) -> Batch:
    """A backend that answers with the process that it runs in."""
    time.sleep(0.02)
    return [[Completion(f"{prompt} {os.getpid()}")] * num_generations for prompt in prompts]


def loky_pool() -> AbstractContextManager[FuturesExecutor]:
    loky = pytest.importorskip("loky")
    pool: AbstractContextManager[FuturesExecutor] = loky.ProcessPoolExecutor(2)
    return pool
