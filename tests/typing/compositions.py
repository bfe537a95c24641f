"""What type checkers must accept and refuse.

An expected error carries an ignore comment for each checker; both report a comment that ignores nothing, so that a
composition which is no longer refused fails the check. Never imported, never run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import assert_type

from openai import AsyncOpenAI, OpenAI
from returns.result import Result, Success, safe

from distgen import (
    LLM,
    Asyncio,
    Batch,
    Completion,
    Generate,
    Generation,
    Messages,
    Pool,
    Processes,
    Prompt,
    RowResult,
    Sequential,
    Task,
    Threads,
    each,
    explain,
    fold,
    format_as,
    lookup,
)
from distgen.backends import aiohttp, http, llama_cpp, transformers
from distgen.backends import openai as openai_client
from distgen.backends.echo import echo
from distgen.errors import FormatError, GenerateError, ParseFailed, Raised, UnknownFormat
from distgen.executors import Executor
from distgen.formats import chatml, openai, quoting, total
from distgen.journal import Journal, JournalError, Kept, Recorded, Step, explain_journal, record


def ask(number: int) -> Prompt:
    return Prompt(str(number))


def texts(prompts: Sequence[str], num_generations: int) -> Batch:
    return [[Completion(prompt)] * num_generations for prompt in prompts]


def chats(prompts: Sequence[Messages], num_generations: int) -> Batch:
    return [[Completion(prompt[-1]["content"])] * num_generations for prompt in prompts]


async def texts_async(prompts: Sequence[str], num_generations: int) -> Batch:
    return texts(prompts, num_generations)


def with_failures(prompts: Sequence[str], num_generations: int) -> Batch:
    failed: Result[Sequence[Completion], Raised] = Result.from_failure(Raised("Refused", "no"))
    return [failed for _ in prompts] * num_generations


task: Task[int, float] = Task(ask, safe(float))

# What fits.
llm = LLM(task, chatml, texts, Threads(8))
assert_type(llm.generate([1, 2]), list[RowResult[float]])
assert_type(llm.generate([1])[0].unwrap(), tuple[Generation[float], ...])
assert_type(llm.generate([1])[0].unwrap()[0].parsed, Result[float, ParseFailed])
assert_type(next(llm.stream([1])), RowResult[float])
assert_type(next(llm.as_completed([1])), tuple[int, RowResult[float]])
with llm.submitter() as submit:
    assert_type(submit(1), Future[RowResult[float]])
LLM(task, openai, chats, Sequential())
LLM(task, openai, echo, Sequential())
LLM(task, chatml, texts, Processes(2))
llm_async = LLM(task, chatml, texts_async, Asyncio(8, timeout=60))
assert_type(llm_async.generate([1, 2]), list[RowResult[float]])
assert_type(next(llm_async.stream([1])), RowResult[float])


async def read() -> None:
    async for row in llm_async.stream([1]):
        assert_type(row, RowResult[float])
    async for index, row in llm.as_completed([1]):
        assert_type((index, row), tuple[int, RowResult[float]])


def judged(row: RowResult[float]) -> Result[Prompt, GenerateError]:
    return row.map(lambda generations: Prompt(generations[0].completion.text))


# A judge of what was generated takes its Results, and passes on its failures.
judge: Task[RowResult[float], float] = Task(judged, safe(float))
assert_type(next(LLM(judge, chatml, texts, Sequential()).stream(llm.stream([1]))), RowResult[float])
LLM(judge, chatml, texts, Sequential()).stream([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]

# A stream is a Generator.
streamed: Generator[RowResult[float], None, None] = llm.stream([1])
LLM(task, chatml, echo, Threads(2))
LLM(task, chatml, with_failures, Pool(ThreadPoolExecutor, 4))
LLM(task, total(lambda prompt: prompt.user), texts, Sequential())
LLM(task, chatml, each(str.upper), Sequential())
generate: Generate[str, Batch] = echo
generate_chats: Generate[Messages, Batch] = echo


# A model in process takes texts and segments, and no messages.
def in_process(local: transformers.InProcess | llama_cpp.InProcess) -> None:
    LLM(task, chatml, local, Sequential())
    LLM(task, chatml.segments, local, Sequential(), batch_size=8)
    LLM(task, quoting(chatml, local.is_token, local.holds_token), local, Threads(2))
    LLM(task, openai, local, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    LLM(task, chatml.segments, texts, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


# A format renders what the backend takes.
LLM(task, openai, texts, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, chats, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, total(lambda prompt: len(prompt.user)), texts, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]

# An async backend runs on an async executor.
wrong: Awaitable[Batch] = texts_async([""], 1)
LLM(task, chatml, texts_async, Sequential())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts_async, Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts_async, Processes(2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts_async, Pool(ThreadPoolExecutor, 4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts, Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, each(str.upper), Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, texts_async, Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]

# The backends for servers: messages or text, on threads or on an event loop.
URL = "http://127.0.0.1:8000/v1"
client, async_client = OpenAI(), AsyncOpenAI()
LLM(task, openai, http.chat(URL, model="m"), Threads(8))
LLM(task, chatml, http.completions(URL, model="m", params={"stop": chatml.stops, "temperature": 0.7}), Threads(8))
LLM(task, openai, aiohttp.chat(URL, model="m", extra_body={"top_k": 20}), Asyncio(8))
LLM(task, chatml, aiohttp.completions(URL, model="m"), Asyncio(8))
LLM(task, openai, openai_client.chat(client, model="m"), Threads(8))
LLM(task, chatml, openai_client.completions(client, model="m"), Threads(8))
LLM(task, openai, openai_client.chat(async_client, model="m"), Asyncio(8))
LLM(task, chatml, openai_client.completions(AsyncOpenAI, model="m"), Asyncio(8))

LLM(task, openai, aiohttp.chat(URL, model="m"), Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, http.chat(URL, model="m"), Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, openai_client.chat(async_client, model="m"), Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, openai_client.chat(AsyncOpenAI, model="m"), Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, openai_client.chat(client, model="m"), Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, http.chat(URL, model="m"), Threads(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, aiohttp.chat(URL, model="m"), Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, openai, aiohttp.completions(URL, model="m"), Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, openai_client.chat(client, model="m"), Threads(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, openai_client.chat(async_client, model="m"), Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, openai, openai_client.completions(client, model="m"), Threads(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
http.chat(URL, model="m", params={"top_k": 20})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
http.chat(URL, model="m", params={"temperature": "hot"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# An executor is chosen at run time among those of its kind.
executors: list[Executor[Batch]] = [Sequential(), Threads(8), Processes(2), Pool(ThreadPoolExecutor, 4)]
executors.append(Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
asynchronous: Executor[Awaitable[Batch]] = Asyncio(8, timeout=60)

# A task asks with a Prompt and answers a Result.
Task(str, safe(float))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Task(ask, float)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# The inputs are what the task asks about.
llm.generate(["one"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
llm.stream(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
llm.generate([1], "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Values do not change.
llm.model = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
chatml.bos = "<s>"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Prompt("hi", history=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Tasks compose where their types meet.
assert_type(task.map(str), Task[int, str])
assert_type(task.bind(safe(int)), Task[int, int])
task.map(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# A name known to the checker gives its own kind of prompt, another name either.
prompt = Prompt("hi")
assert_type(format_as(prompt, "openai"), Result[Messages, FormatError])
assert_type(format_as(prompt, "llama2"), Result[str, FormatError])


def by_any_name(name: str) -> Result[str | Messages, FormatError]:
    return format_as(prompt, name)


assert_type(lookup("chatml").unwrap().stops, tuple[str, ...])
print(lookup("openai").unwrap().stops)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]

# Errors are closed unions: a sentence for each, and nothing else.
assert_type(fold(lookup("chatml"), lambda found: found.name, explain), str)
explain(ValueError("no"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
unknown: Result[str, UnknownFormat] = lookup("chatml").map(lambda found: found.name)
parsed: Result[int, ParseFailed] = Success(1)


# A journal holds rows of the very inputs and answers that it records.
def encode(number: int, answer: RowResult[float]) -> dict[str, object]:
    return {"number": number, "is_answered": isinstance(answer, Success)}


def decode(row: dict[str, object]) -> Result[tuple[int, RowResult[float]], str]:
    return Success((len(row), Success(())))


def decode_mapping(row: Mapping[str, object]) -> Result[tuple[int, RowResult[float]], str]:
    return Success((len(row), Success(())))


def decode_text(row: Mapping[str, object]) -> Result[tuple[str, RowResult[float]], str]:
    return Success((str(row), Success(())))


Journal(Path("out.jsonl"), {}, encode, decode_mapping)
journal = Journal(Path("out.jsonl"), {}, encode, decode)
recorded = record(journal, [1, 2], llm.stream)
assert_type(recorded, Generator[Result[Step[int, float], JournalError], None, None])
for step in recorded:
    done = step.unwrap()
    assert_type(done.rows if isinstance(done, Kept) else done.input, int)
    if isinstance(done, Recorded):
        assert_type(done.answer, RowResult[float])
record(journal, ["one"], llm.stream)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
record(journal, [1], llm.as_completed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
record(journal, [1], llm.generate)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
record(journal, [1], llm.stream, "append")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
mixed: Journal[int, float] = Journal(Path("out.jsonl"), {}, encode, decode_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
explain_journal(ValueError("no"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
