"""The price of a request, in CPU of the client alone, beside its bounds; exits with 1 where one is missed.

    python tests/benchmarks/backends.py [ROWS]

A server in a process of its own answers each chat request after 50 ms; 2,000 rows unless told otherwise, the best of five
runs taken in turn. Bare aiohttp sends and reads JSON as a careful user would. The openai client is compared where it is
installed. Then a server of 5 and one of 20 places, which rejects all that is more with status 429, is asked by
Asyncio(512), with answers of 50 ms, without and with a Retry-After: time beside the ideal, requests beside the rows.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection

import aiohttp
from returns.result import Failure, Success

from distgen.backends.server import chat, completions
from distgen.completion import Completion, Usage
from distgen.executors import Asyncio
from distgen.llm import LLM
from distgen.prompt import Prompt
from distgen.task import Task
from tests.support.servers import Act, response
from tests.support.servers import serving as serving_few

LATENCY = 0.05
RUNS = 5
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The Nile. " * 20, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 60, "total_tokens": 72},
    }
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + str(len(ANSWER)).encode() + b"\r\n\r\n"
) + ANSWER


class Answering(asyncio.Protocol):
    """One connection: a whole request, 50 ms, the answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self.data = b""
            asyncio.get_running_loop().call_later(LATENCY, self.transport.write, RESPONSE)


def serve(pipe: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(main())


@contextmanager
def serving() -> Generator[str]:
    """The base URL of the server."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there,))
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        here.send("end")
        process.join()


def read(body: bytes) -> Completion:
    answer = json.loads(body)
    choice, usage = answer["choices"][0], answer["usage"]
    cost = Usage(usage["prompt_tokens"], usage["completion_tokens"])
    return Completion(choice["message"]["content"], choice["finish_reason"], cost)


Ask = Callable[[str], Awaitable[Completion]]


async def rate(ask: Ask, rows: int, at_once: int) -> float:
    """Rows per CPU second."""
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with places:
            await ask(f"Name a river, number {number}.")

    started = time.process_time()
    await asyncio.gather(*map(one, range(rows)))
    return rows / (time.process_time() - started)


async def bare(url: str, rows: int, at_once: int) -> float:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-1"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def ask(text: str) -> Completion:
            body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0.7}
            async with session.post(f"{url}/chat/completions", data=json.dumps(body), headers=headers) as answer:
                answer.raise_for_status()
                return read(await answer.read())

        return await rate(ask, rows, at_once)


async def ours(url: str, rows: int, at_once: int) -> float:
    backend = chat(url, model="tiny", api_key="sk-0123456789", params={"temperature": 0.7})

    async def ask(text: str) -> Completion:
        (row,) = await backend([[{"role": "user", "content": text}]], 1)
        assert isinstance(row, Sequence)
        return row[0]

    return await rate(ask, rows, at_once)


async def openai_client(url: str, rows: int, at_once: int) -> float:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="sk-1") as client:

        async def ask(text: str) -> Completion:
            answer = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": text}], temperature=0.7
            )
            return Completion(answer.choices[0].message.content or "")

        return await rate(ask, rows, at_once)


def ask_few_places(url: str, rows: int) -> tuple[float, int]:
    """Seconds, and rows lost."""
    llm = LLM(Task(Prompt, Success), lambda prompt: Success(prompt.user), completions(url, model="tiny"), Asyncio(512))
    started = time.perf_counter()
    answers = llm.generate(map(str, range(rows)))
    return time.perf_counter() - started, sum(isinstance(row, Failure) for row in answers)


def compare(name: str, ratio: float, bound: float) -> bool:
    print(f"{name:45} {ratio:6.2f} (at least {bound})")
    return ratio >= bound


def main(rows: int) -> bool:
    holds = True
    clients = [bare, ours, *([openai_client] if find_spec("openai") else [])]
    with serving() as url:
        for at_once, bound in ((64, 5), (512, 9)):
            runs = [[asyncio.run(client(url, rows, at_once)) for client in clients] for _ in range(RUNS)]
            best = [max(taken) for taken in zip(*runs, strict=True)]
            print(f"{at_once} at once, rows per CPU second:", *(f"{value:,.0f}" for value in best))
            holds &= compare("of bare aiohttp", best[1] / best[0], 0.75)
            if len(best) > 2:
                holds &= compare("times the openai client", best[1] / best[2], bound)
    with serving_few() as server:
        for places, count in ((5, 600), (20, 2_000)):
            for hint in ({}, {"Retry-After": "1"}):
                server.script(delay=LATENCY, places=places, busy=Act(response(429, b"busy", hint)))
                seconds, lost = ask_few_places(server.url, count)
                ratio, requests = seconds * places / (count * LATENCY), len(server.seen()) / count
                print(f"{places} places, {hint or 'no hint'}: {ratio:.2f} times the ideal (at most 1.5), ", end="")
                print(f"{requests:.2f} requests a row, {lost} rows lost")
                holds &= ratio <= 1.5 and not lost
    return holds


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000))
