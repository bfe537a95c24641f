"""Random runs over all executors, each with faults and one way to end it, against a model of what it may yield."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

import pytest

from distgen import LLM, Asyncio, Batch, Completion, Pool, Prompt, Sequential, Task, Threads
from distgen.executors import Executor, Stream
from distgen.formats import default
from tests.support.parts import Awaited, Row, count_threads, text_of, texts, until

End: TypeAlias = Literal["whole", "close", "close elsewhere", "drop", "inputs raise", "interrupt"]
T = TypeVar("T")
ENDS: Final[Sequence[End]] = ("whole", "close", "close elsewhere", "drop", "inputs raise", "interrupt")
VERBS: Final = ("generate", "stream", "as_completed", "async for", "submitter")
SECONDS: Final = float(os.environ.get("STRESS_SECONDS", "20"))  # by hand: STRESS_SECONDS=180 pytest --timeout 300 ...


def executor_of(chance: random.Random) -> Executor[Batch]:
    workers, buffer = chance.randint(1, 6), chance.choice([0, 1, 7, 4096])
    executors: list[Executor[Batch]] = [
        Sequential(),
        Threads(workers, buffer),
        Pool(lambda: ThreadPoolExecutor(workers), chance.randint(1, 9), buffer),
        Awaited(Asyncio(workers, buffer)),
    ]
    return chance.choice(executors)


@dataclass(frozen=True)
class Plan:
    """One random run: its inputs by number, the faults of some, and how it ends after `end_after` rows."""

    seed: int
    verb: str
    executor: Executor[Batch]
    rows: int
    batch_size: int
    faults: dict[int, str]
    end: End
    end_after: int

    def inputs(self) -> Iterator[int]:
        for number in range(self.rows):
            if self.end == "inputs raise" and number == self.end_after:
                raise OSError("the disk is gone")
            yield number

    def ask(self, number: int) -> Prompt:
        if self.faults.get(number) == "prompt":
            raise LookupError(number)
        if self.faults.get(number) == "nested":
            inner = LLM(Task(Prompt, text_of), default, echo, self.executor)
            return Prompt(texts(inner.generate([str(number)])[0])[0])
        return Prompt(str(number))

    def backend(self, prompts: Sequence[str], num_generations: int) -> Batch:
        """A double: faults as planned, and a pause now and then."""
        batch: list[list[Completion]] = []
        for prompt in prompts:
            match self.faults.get(int(prompt)):
                case "raises":
                    raise ConnectionError(prompt)
                case "exits":
                    raise SystemExit(prompt)
                case "interrupts":
                    raise KeyboardInterrupt
                case "collects":
                    gc.collect()
                case "waits":
                    time.sleep(0.003)
                case "short":
                    batch.append([])
                    continue
                case _:
                    pass
            batch.append([Completion(prompt)] * num_generations)
        return batch

    def check(self, number: int, row: Row) -> None:
        fault = self.faults.get(number)
        kinds = {"prompt": "LookupError", "raises": "ConnectionError", "exits": "SystemExit", "short": "WrongCount"}
        if fault in kinds:
            assert kinds[fault] in repr(row.failure()), (self, number, row)
        else:
            assert texts(row) == [str(number)], (self, number, row)


def echo(prompts: Sequence[str], num_generations: int) -> Batch:
    return [[Completion(prompt)] * num_generations for prompt in prompts]


def plan_of(seed: int) -> Plan:
    chance = random.Random(seed)
    rows = chance.choice([0, 1, 5, 40, 150])
    kinds = ("prompt", "raises", "exits", "short", "nested", "collects", "waits", "waits", "waits")
    faults = {number: chance.choice(kinds) for number in range(rows) if chance.random() < 0.15}
    end, end_after = chance.choice(ENDS), chance.randint(0, max(0, rows - 1))
    if end == "interrupt" and rows:
        faults[end_after] = "interrupts"
    verb = chance.choice(VERBS)
    return Plan(seed, verb, executor_of(chance), rows, chance.choice([1, 1, 3]), faults, end, end_after)


def consume(plan: Plan, seen: dict[int, Row]) -> None:
    """Run a plan to its end; `seen` gets the rows as they come."""
    llm = LLM(Task(plan.ask, text_of), default, plan.backend, plan.executor, batch_size=plan.batch_size)
    match plan.verb:
        case "generate":
            seen.update(enumerate(llm.generate(plan.inputs())))
        case "stream":
            consume_stream(plan, llm.stream(plan.inputs()), lambda place, row: seen.update({place: row}))
        case "as_completed":
            consume_stream(plan, llm.as_completed(plan.inputs()), lambda _, pair: seen.update([pair]))
        case "async for":
            asyncio.run(consume_async(plan, llm.as_completed(plan.inputs()), seen))
        case _:
            with llm.submitter() as submit:
                futures = [submit(number) for number in plan.inputs()]
                if plan.end == "close" and futures:
                    futures.pop().cancel()
                seen.update({number: future.result() for number, future in enumerate(futures)})


def consume_stream(plan: Plan, stream: Stream[T], note: Callable[[int, T], None]) -> None:
    closer = threading.Thread(target=stream.close)
    for place, item in enumerate(stream):
        note(place, item)
        if place == plan.end_after:
            match plan.end:
                case "close":
                    stream.close()
                case "close elsewhere":
                    closer.start()
                case "drop":
                    return
                case _:
                    pass
    if closer.ident is not None:
        closer.join()


async def consume_async(plan: Plan, stream: Stream[tuple[int, Row]], seen: dict[int, Row]) -> None:
    closing: list[asyncio.Task[None]] = []
    async for number, row in stream:
        seen[number] = row
        if len(seen) == plan.end_after + 1:
            match plan.end:
                case "close":
                    await stream.aclose()
                case "close elsewhere":
                    closing.append(asyncio.create_task(stream.aclose()))
                case "drop":
                    return
                case _:
                    pass
    await asyncio.gather(*closing)


def run(plan: Plan) -> None:
    seen: dict[int, Row] = {}
    raised: list[type[BaseException]] = []
    try:
        consume(plan, seen)
    except (OSError, KeyboardInterrupt) as error:
        raised.append(type(error))
    assert until(lambda: count_threads() == 0), plan
    for number, row in seen.items():
        plan.check(number, row)
    fails = {"inputs raise": OSError, "interrupt": KeyboardInterrupt}
    assert raised == [fails[plan.end] for _ in range(plan.rows > 0) if plan.end in fails], plan
    is_stream = plan.verb not in ("generate", "submitter")
    if plan.end == "whole" or (is_stream and plan.end == "inputs raise"):
        assert sorted(seen) == list(range(plan.end_after if raised else plan.rows)), plan
    if is_stream and plan.end in ("close", "drop") and plan.rows:
        assert len(seen) == plan.end_after + 1, plan


@pytest.mark.slow
def test_random_runs_yield_what_the_model_says() -> None:
    seed, runs, end = random.randrange(10**9), 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        plan = plan_of(seed + runs)
        print(plan)  # shown if it fails, or hangs until the timeout of a test
        run(plan)
        runs += 1
    print(f"{runs} runs")
