"""The price of a request, in CPU of the client alone, beside its bounds; exits with 1 where one is missed.

    python tests/benchmarks/backends.py [ROWS]

A server in a process of its own answers each chat request after 50 ms; 512 are asked at once, 2,000 rows in all unless
told otherwise, the best of three runs taken in turn. The bare ones format, send and read JSON as a careful user would: one
pool, one session, retries and a timeout as the library has them, the text and its cost taken out of the answer. The
openai client is taken twice: as users call it, `client.chat.completions.create`, which the bounds are about, and by the
adapter, which spares it the parsing of what it read.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

import aiohttp
import urllib3
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from returns.result import Success

from distgen import LLM, Asyncio, Completion, Messages, Prompt, Task, Threads, Usage, each
from distgen.backends import aiohttp as over_aiohttp
from distgen.backends import http as over_http
from distgen.backends import openai as over_openai
from distgen.formats import openai

AT_ONCE = 512
LATENCY = 0.05
RUNS = 3
TASK: Task[str, str] = Task(Prompt, Success)
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


def inputs(rows: int) -> Iterator[str]:
    return (f"Name a river, number {n}." for n in range(rows))


def read(body: bytes) -> Completion:
    answer = json.loads(body)
    choice, usage = answer["choices"][0], answer["usage"]
    cost = Usage(usage["prompt_tokens"], usage["completion_tokens"])
    return Completion(choice["message"]["content"], choice["finish_reason"], cost)


def bare_urllib3(url: str, rows: int) -> Iterator[Completion]:
    pool = urllib3.PoolManager(
        maxsize=AT_ONCE, block=True, retries=urllib3.Retry(4, backoff_factor=0.5), timeout=urllib3.Timeout(60)
    )
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-1"}

    def ask(text: str) -> Completion:
        body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0.7})
        answer = pool.request("POST", f"{url}/chat/completions", body=body, headers=headers)
        if answer.status != 200:
            raise RuntimeError(answer.data.decode())
        return read(answer.data)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(ask, inputs(rows))


def bare_aiohttp(url: str, rows: int) -> Iterator[Completion]:
    async def main() -> list[Completion]:
        places = asyncio.Semaphore(AT_ONCE)
        headers = {"Authorization": "Bearer sk-1"}
        timeout, connector = aiohttp.ClientTimeout(total=60), aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:

            async def ask(text: str) -> Completion:
                request = {"model": "tiny", "messages": [{"role": "user", "content": text}], "temperature": 0.7}
                async with places, session.post(f"{url}/chat/completions", json=request) as answer:
                    body = await answer.read()
                    if answer.status != 200:
                        raise RuntimeError(body.decode())
                    return read(body)

            return await asyncio.gather(*map(ask, inputs(rows)))

    yield from asyncio.run(main())


def through_http(url: str, rows: int) -> Iterable[object]:
    backend = over_http.chat(url, model="tiny", api_key="sk-1", connections=AT_ONCE, params={"temperature": 0.7})
    return LLM(TASK, openai, backend, Threads(AT_ONCE)).stream(inputs(rows))


def through_aiohttp(url: str, rows: int) -> Iterable[object]:
    backend = over_aiohttp.chat(url, model="tiny", api_key="sk-1", connections=AT_ONCE, params={"temperature": 0.7})
    return LLM(TASK, openai, backend, Asyncio(AT_ONCE)).stream(inputs(rows))


def through_client(url: str, rows: int) -> Iterable[object]:
    client = OpenAI(base_url=url, api_key="sk-1")
    backend = over_openai.chat(client, model="tiny", params={"temperature": 0.7})
    return LLM(TASK, openai, backend, Threads(AT_ONCE)).stream(inputs(rows))


def through_client_as_users_do(url: str, rows: int) -> Iterable[object]:
    client = OpenAI(base_url=url, api_key="sk-1")

    def ask(messages: Messages) -> str:
        told: list[ChatCompletionMessageParam] = [{"role": "user", "content": each["content"]} for each in messages]
        answer = client.chat.completions.create(model="tiny", messages=told, temperature=0.7)
        return answer.choices[0].message.content or ""

    return LLM(TASK, openai, each(ask), Threads(AT_ONCE)).stream(inputs(rows))


def through_async_client(url: str, rows: int) -> Iterable[object]:
    backend = over_openai.chat(
        lambda: AsyncOpenAI(base_url=url, api_key="sk-1"), model="tiny", params={"temperature": 0.7}
    )
    return LLM(TASK, openai, backend, Asyncio(AT_ONCE)).stream(inputs(rows))


def rows_per_second(rows: Iterable[object], number: int) -> float:
    """Rows a second of CPU, all threads of this process."""
    start = time.process_time()
    seen = sum(isinstance(row, Success | Completion) for row in rows)
    assert seen == number, f"{number - seen} rows failed"
    return number / (time.process_time() - start)


RUN: dict[str, Callable[[str, int], Iterable[object]]] = {
    "LLM + http, Threads": through_http,
    "bare urllib3, ThreadPoolExecutor.map": bare_urllib3,
    "LLM + aiohttp, Asyncio": through_aiohttp,
    "bare aiohttp, gather": bare_aiohttp,
    "LLM + openai client by the adapter, Threads": through_client,
    "LLM + openai client by each(create), Threads": through_client_as_users_do,
    "LLM + AsyncOpenAI by the adapter, Asyncio": through_async_client,
}


def told(what: str, figure: float, bound: float) -> bool:
    print(f"{what}: {figure:.2f} times (at least {bound:g})", flush=True)
    return figure >= bound


def main(arguments: Sequence[str]) -> int:
    number = int(arguments[0]) if arguments else 2000
    with serving() as url:
        best = dict.fromkeys(RUN, 0.0)
        for _ in range(RUNS):
            for name, run in RUN.items():
                best[name] = max(best[name], rows_per_second(run(url, number), number))
    for name, figure in best.items():
        print(f"{name}: {figure:,.0f} rows a CPU second, {1e3 / figure:.2f} ms a row")
    http, urllib, ours, bare, adapter, client, _ = best.values()
    print(f"to the adapter: http {http / adapter:.2f} times, aiohttp {ours / adapter:.2f} times")
    held = [
        told("http to the openai client, each(create)", http / client, 4),
        told("http to bare urllib3", http / urllib, 0.7),
        told("aiohttp to the openai client, each(create)", ours / client, 6),
        told("aiohttp to bare aiohttp", ours / bare, 0.7),
    ]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
