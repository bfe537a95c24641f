"""The price of the engine, each figure beside its bound; exits with 1 where one is over.

    python tests/benchmarks/engine.py [price] [schedule] [memory] [peers]

Without arguments all four, on Linux. `price` is CPU per row, beside a bare loop and a bare ThreadPoolExecutor.map that format and
wrap alike; `schedule` is wall time beside the ideal one of as many workers; `memory` runs a million inputs through each
executor, which takes minutes; `peers` skips what is not installed. A busy machine stretches wall time, CPU time less.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import check_output
from typing import Any

from returns.result import Success

from distgen import (
    LLM,
    Asyncio,
    Batch,
    Completion,
    Generation,
    Pool,
    Processes,
    Prompt,
    RowResult,
    Sequential,
    Task,
    Threads,
)
from distgen.executors import Stream
from distgen.formats import chatml

TASK: Task[str, str] = Task(Prompt, Success)
ROWS = 20_000
MILLION = 1_000_000
MIB = 2**20


def told(what: str, figure: float, bound: float, unit: str = "times") -> bool:
    print(f"{what}: {figure:.2f} {unit} (at most {bound:g})", flush=True)
    return figure <= bound


def inputs(rows: int) -> Iterator[str]:
    return (f"row {n}" for n in range(rows))


def cpu(rows: Iterable[object], number: int = ROWS) -> float:
    """Microseconds of CPU a row, all threads of this process."""
    start = time.process_time()
    for _ in rows:
        pass
    return (time.process_time() - start) / number * 1e6


def echo(prompts: Sequence[str], num_generations: int) -> list[list[Completion]]:
    return [[Completion(prompt, "stop") for _ in range(num_generations)] for prompt in prompts]


def bare(text: str) -> RowResult[str]:
    """What the loop of a careful user does: format, ask, wrap."""
    prompt = Prompt(text)
    (row,) = echo([chatml(prompt).unwrap()], 1)
    return Success(tuple([Generation("m", prompt, each, Success(each.text)) for each in row]))


def bare_map() -> Iterator[RowResult[str]]:
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(bare, inputs(ROWS))


async def bare_async(text: str) -> RowResult[str]:
    prompt = Prompt(text)
    (row,) = await echo_async([chatml(prompt).unwrap()], 1)
    return Success(tuple([Generation("m", prompt, each, Success(each.text)) for each in row]))


def bare_coroutines() -> list[RowResult[str]]:
    """Sixty-four coroutines that share the inputs, and nothing else."""
    rows: list[RowResult[str]] = []

    async def work(left: Iterator[str]) -> None:
        rows.extend([await bare_async(text) for text in left])

    async def work_all() -> None:
        left = inputs(ROWS)
        await asyncio.gather(*[work(left) for _ in range(64)])

    asyncio.run(work_all())
    return rows


def streamed(executor: Sequential | Threads, rows: int = ROWS) -> Stream[RowResult[str]]:
    return LLM(TASK, chatml, echo, executor, "m").stream(inputs(rows))


def streamed_async(rows: int = ROWS) -> Stream[RowResult[str]]:
    return LLM(TASK, chatml, echo_async, Asyncio(64), "m").stream(inputs(rows))


def best_of_five(runs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Run all in turn, five times, so that a disturbance hits all alike."""
    turns = [[run() for run in runs.values()] for _ in range(5)]
    return dict(zip(runs, map(min, zip(*turns, strict=True)), strict=True))


def price() -> bool:
    best = best_of_five(
        {
            "loop": lambda: cpu(map(bare, inputs(ROWS))),
            "Sequential": lambda: cpu(streamed(Sequential())),
            "map": lambda: cpu(bare_map()),
            "Threads(8)": lambda: cpu(streamed(Threads(8))),
            "coroutines": lambda: cpu(delayed(bare_coroutines)),
            "Asyncio(64)": lambda: cpu(streamed_async()),
        }
    )
    print("CPU a row:", ", ".join(f"{name} {figure:.1f}" for name, figure in best.items()), "us")
    held = [
        told("Sequential to a bare loop", best["Sequential"] / best["loop"], 4),
        told("Threads(8) to ThreadPoolExecutor.map", best["Threads(8)"] / best["map"], 1.4),
        told("Asyncio(64) more than bare coroutines", best["Asyncio(64)"] - best["coroutines"], 25, "us"),
    ]
    return all(held)


def waiting(seconds: dict[str, float], prompts: Sequence[str], num_generations: int) -> Batch:
    time.sleep(sum(seconds.get(prompt, 0.05) for prompt in prompts))
    return [[Completion(prompt)] * num_generations for prompt in prompts]


async def waiting_async(seconds: dict[str, float], prompts: Sequence[str], num_generations: int) -> Batch:
    await asyncio.sleep(sum(seconds.get(prompt, 0.05) for prompt in prompts))
    return [[Completion(prompt)] * num_generations for prompt in prompts]


def ideal(durations: Iterable[float], workers: int) -> float:
    """The makespan of workers that each take the next call when they are free, at no cost at all."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def wall(rows: Iterable[object]) -> float:
    start = time.perf_counter()
    for _ in rows:
        pass
    return time.perf_counter() - start


def asleep(calls: int, workers: int) -> Iterator[object]:
    """Bare threads that do nothing but sleep: what the system asks for threads alone."""
    left = iter(range(calls))

    def sleep() -> None:
        for _ in left:
            time.sleep(0.05)

    threads = [threading.Thread(target=sleep) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
        yield thread


def asleep_in_order(seconds: Iterable[float], workers: int) -> Iterator[None]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(time.sleep, seconds)


def schedule() -> bool:
    """The best of five, where the bound is near what a busy machine adds."""
    held: list[bool] = []
    for concurrency, bound in ((64, 1.05), (512, 1.3)):
        best = ideal([0.05] * 2000, concurrency)
        threads = LLM(TASK, chatml, partial(waiting, {}), Threads(concurrency))
        loop = LLM(TASK, chatml, partial(waiting_async, {}), Asyncio(concurrency))
        walls = best_of_five(
            {
                "bare threads that only sleep": lambda: wall(asleep(2000, concurrency)),  # noqa: B023
                "Threads": lambda: wall(threads.stream(inputs(2000))),  # noqa: B023
                "Asyncio": lambda: wall(loop.stream(inputs(2000))),  # noqa: B023
            }
        )
        for name, taken in walls.items():
            print(f"2,000 calls of 50 ms, {concurrency} {name}: {taken / best:.2f} times {best:.2f} s")
        held.append(told(f"2,000 calls of 50 ms, {loop.executor}, to {best:.2f} s", walls["Asyncio"] / best, bound))
    chance = random.Random(7)
    tail = [0.25 if chance.random() < 0.01 else 0.005 for _ in range(8000)]
    plan = {chatml(Prompt(text)).unwrap(): seconds for text, seconds in zip(inputs(8000), tail, strict=True)}
    for concurrency in (16, 64):
        tailed = LLM(TASK, chatml, partial(waiting, plan), Threads(concurrency))
        walls = best_of_five(
            {
                "bare": lambda: wall(asleep_in_order(tail, concurrency)),  # noqa: B023
                "Threads": lambda: wall(tailed.stream(inputs(8000))),  # noqa: B023
            }
        )
        what = f"one in 100 takes 50 times longer, in order, {tailed.executor}, to a bare map of {walls['bare']:.2f} s"
        held.append(told(what, walls["Threads"] / walls["bare"], 1.1))
    return all(held)


async def echo_async(prompts: Sequence[str], num_generations: int) -> list[list[Completion]]:
    return echo(prompts, num_generations)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def growth(stream: Stream[RowResult[str]]) -> float:
    """MiB between the 20,000th row and the last."""
    before = seen = 0
    for seen, _ in enumerate(stream, 1):
        if seen == 20_000:
            before = resident()
    assert seen == MILLION
    return (resident() - before) / MIB


def dask_cluster(pipe: Connection) -> None:
    with import_module("distributed").LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        pipe.send(cluster.scheduler_address)
        pipe.recv()


@contextmanager
def dask_client() -> Generator[Any, None, None]:
    """A client of a cluster in a process of its own, without Dask's logs of the last 1,000 messages, each a whole call."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=dask_cluster, args=(there,))
    process.start()
    try:
        with (
            import_module("dask").config.set({"distributed.admin.low-level-log-length": 10}),
            import_module("distributed").Client(here.recv()) as client,
        ):
            yield client
    finally:
        here.send("end")
        process.join()


def memory() -> bool:
    runs: dict[str, Stream[RowResult[str]]] = {
        "Sequential()": LLM(TASK, chatml, echo, Sequential()).stream(inputs(MILLION)),
        "Threads(8)": LLM(TASK, chatml, echo, Threads(8)).stream(inputs(MILLION)),
        "Pool(ThreadPoolExecutor)": LLM(TASK, chatml, echo, Pool(ThreadPoolExecutor, 16)).stream(inputs(MILLION)),
        "Processes(2), 100 a call": LLM(TASK, chatml, echo, Processes(2), batch_size=100).stream(inputs(MILLION)),
        "Asyncio(64)": LLM(TASK, chatml, echo_async, Asyncio(64)).stream(inputs(MILLION)),
    }
    if find_spec("loky"):
        loky = Pool(partial(import_module("loky").ProcessPoolExecutor, 2), 4)
        runs["Pool(loky), 100 a call"] = LLM(TASK, chatml, echo, loky, batch_size=100).stream(inputs(MILLION))
    held = [is_bounded(name, stream) for name, stream in runs.items()]
    if find_spec("distributed"):
        with dask_client() as client:
            dask = LLM(TASK, chatml, echo, Pool(client.get_executor, 8), batch_size=1000)
            held.append(is_bounded("Pool(Dask), 1,000 a call", dask.stream(inputs(MILLION))))
    return all(held)


def is_bounded(name: str, stream: Stream[RowResult[str]]) -> bool:
    start = time.perf_counter()
    grown = growth(stream)
    took = time.perf_counter() - start
    return told(f"a million inputs, {name}, {took:.0f} s: growth", grown, 5, "MiB")


def langchain() -> dict[str, Callable[[], float]]:
    """LangChain's own batch and abatch, over a runnable that formats, asks and wraps as `bare` does."""
    rows = 2_000
    runnable = import_module("langchain_core.runnables").RunnableLambda(bare, bare_async)

    def batch() -> float:
        return cpu(delayed(lambda: runnable.batch(list(inputs(rows)), {"max_concurrency": 64})), rows)

    def abatch() -> float:
        return cpu(delayed(lambda: asyncio.run(runnable.abatch(list(inputs(rows)), {"max_concurrency": 64}))), rows)

    return {"LangChain batch": batch, "LangChain abatch": abatch}


def delayed(make: Callable[[], Iterable[object]]) -> Iterator[object]:
    """What `make` gives, made when the clock runs."""
    yield from make()


def distilabel() -> dict[str, Callable[[], float]]:
    """A pipeline of distilabel, the CPU of its processes counted: what 2,000 rows more cost than 500 alone."""

    def pipeline() -> float:
        script = str(Path(__file__).with_name("distilabel_pipeline.py"))
        few, many = (float(check_output([sys.executable, script, str(rows)]).split()[-1]) for rows in (500, 2_500))
        return (many - few) / 2_000 * 1e6

    return {"distilabel Pipeline.run": pipeline}


def installed(package: str) -> bool:
    if find_spec(package) is None:
        print(f"{package}: not installed, skipped")
        return False
    return True


def peers() -> bool:
    """Each beside ours of its kind: Asyncio beside abatch, Threads beside the others. The best of five, as in `price`."""
    bounds = {"LangChain batch": 5, "LangChain abatch": 12, "distilabel Pipeline.run": 100}
    ours = {"Threads(64)": lambda: cpu(streamed(Threads(64))), "Asyncio(64)": lambda: cpu(streamed_async())}
    best = best_of_five({**ours, **(langchain() if installed("langchain_core") else {})})
    if installed("distilabel"):
        best |= {name: run() for name, run in distilabel().items()}
    held: list[bool] = []
    for name, bound in bounds.items():
        if name in best:
            our = best["Asyncio(64)" if "abatch" in name else "Threads(64)"]
            times = best[name] / our
            print(f"{name}: {best[name]:.1f} us a row, {times:.1f} times our {our:.1f} (at least {bound})", flush=True)
            held.append(times >= bound)
    return all(held)


PARTS: dict[str, Callable[[], bool]] = {"price": price, "schedule": schedule, "memory": memory, "peers": peers}


def main(names: Sequence[str]) -> int:
    return int(False in [PARTS[name]() for name in names or PARTS])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
