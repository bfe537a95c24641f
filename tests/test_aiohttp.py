"""The aiohttp backend and event loops: connections are kept within a loop, and closed before it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from returns.result import Success

from distgen import LLM, Asyncio, Completion, Prompt, Task, Usage, total
from distgen.backends.aiohttp import RETRIES, OverAiohttp, completions
from tests.support.faults import OK
from tests.support.servers import Act, Server, response, serving

DONE = [Completion("ok", "stop")]


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_session_is_left(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """A session that is forgotten open warns as it is collected, which is an error here; a loop logs what ends badly."""
    yield
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno >= logging.WARNING]
    gc.collect()
    assert not [session for session in sessions() if not session.closed]


def sessions() -> list[aiohttp.ClientSession]:
    return [each for each in gc.get_objects() if isinstance(each, aiohttp.ClientSession)]


def texts(backend: OverAiohttp[str], limit: int, inputs: Sequence[str]) -> list[str]:
    llm = LLM(Task(Prompt, Success), total(lambda prompt: prompt.user), backend, Asyncio(limit))
    return [row.unwrap()[0].completion.text for row in llm.generate(inputs)]


def test_connections_are_kept_and_bounded_and_the_wait_for_one_is_no_part_of_the_deadline(server: Server) -> None:
    server.script(delay=0.1)
    backend = completions(server.url, model="tiny", connections=3, timeout=0.25, retries=0)
    inputs = [str(place) for place in range(30)]  # a second in all, four times the deadline
    assert texts(backend, 30, inputs) == inputs
    assert server.connections() == 3


def test_a_run_has_connections_of_its_own_and_leaves_none(server: Server) -> None:
    server.script()
    backend = completions(server.url, model="tiny")
    for _ in range(4):
        assert texts(backend, 1, ["a", "b", "c"]) == ["a", "b", "c"]
    assert server.connections() == 4
    gc.collect()
    assert len(sessions()) <= 1  # that of the last loop, closed


def test_loops_that_run_at_once_do_not_meet(server: Server) -> None:
    server.script(delay=0.02)
    backend = completions(server.url, model="tiny")
    inputs = [str(place) for place in range(20)]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(texts, backend, 5, inputs) for _ in range(4)]
    assert [run.result() for run in runs] == [inputs] * 4
    assert server.connections() <= 20


def test_a_loop_of_the_user_closes_its_session_too(server: Server) -> None:
    server.script()
    backend = completions(server.url, model="tiny")

    async def main() -> None:
        await asyncio.gather(*(backend(["a"], 1) for _ in range(5)))
        await backend(["b"], 1)

    asyncio.run(main())
    asyncio.run(main())
    assert server.connections() <= 10


def test_a_backend_that_is_forgotten_closes_its_session_while_the_loop_goes_on(server: Server) -> None:
    server.script()

    async def main() -> None:
        for _ in range(3):
            await completions(server.url, model="tiny")(["a"], 1)
        await asyncio.sleep(0.05)
        assert not [session for session in sessions() if not session.closed]

    gc.collect()
    gc.disable()  # it takes no cycle to be collected
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_call_that_is_cancelled_says_so_and_leaves_its_place(server: Server) -> None:
    server.script(Act(then="hang"), OK)
    backend = completions(server.url, model="tiny", connections=1)

    async def main() -> None:
        call = asyncio.create_task(backend(["a"], 1))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await backend(["b"], 1) == [DONE]

    asyncio.run(main())


def test_a_call_that_waits_to_ask_again_holds_no_place(server: Server) -> None:
    server.script(Act(response(503, b"", {"Retry-After": "1"})), OK, OK)
    backend = completions(server.url, model="tiny", connections=1, retries=RETRIES.new(total=1))

    async def main() -> None:
        call = asyncio.create_task(backend(["a"], 1))
        await asyncio.sleep(0.2)
        assert await asyncio.wait_for(backend(["b"], 1), 0.5) == [DONE]
        assert await call == [DONE]

    asyncio.run(main())


def test_a_copy_in_use_can_be_pickled(server: Server) -> None:
    server.script()
    backend = completions(server.url, model="tiny")
    assert texts(backend, 1, ["a"]) == texts(pickle.loads(pickle.dumps(backend)), 1, ["a"])


def test_a_deadline_of_the_executor_ends_a_call(server: Server) -> None:
    server.script(Act(then="hang"))
    backend = completions(server.url, model="tiny")
    llm = LLM(Task(Prompt, Success), total(lambda prompt: prompt.user), backend, Asyncio(2, timeout=0.2))
    failed, answered = llm.generate(["a", "b"])
    rows = [failed, answered]
    assert sorted(row.map(lambda _: "answered").value_or("failed") for row in rows) == ["answered", "failed"]


def test_completions_carry_what_they_cost(server: Server) -> None:
    server.script()
    assert asyncio.run(asked(completions(server.url, model="tiny"))) == [[Completion("a b", "stop", Usage(2, 2))]]


async def asked(backend: OverAiohttp[str]) -> object:
    return await backend(["a b"], 1)
