"""Compositions that the type checkers accept, and those that they must refuse: an ignore that is not needed is an error."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import assert_type

from returns.result import Failure, Result, Success, safe

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
    SupportsGenerate,
    Task,
    Threads,
    each,
    explain,
    fold,
    format_as,
    lookup,
    single,
)
from distgen.backends.blocking import blocking
from distgen.backends.echo import echo
from distgen.backends.server import chat, completions
from distgen.errors import FormatError, GenerateError, NoText, ParseFailed, Raised, UnknownFormat
from distgen.executors import Executor
from distgen.formats import chatml, openai


def ask(number: int) -> Prompt:
    return Prompt(str(number))


def texts(prompts: Sequence[str], num_generations: int) -> Batch:
    return [[Completion(prompt)] * num_generations for prompt in prompts]


def chats(prompts: Sequence[Messages], num_generations: int) -> Batch:
    return [[Completion(prompt[-1]["content"])] * num_generations for prompt in prompts]


async def texts_async(prompts: Sequence[str], num_generations: int) -> Batch:
    return texts(prompts, num_generations)


def with_failures(prompts: Sequence[str], num_generations: int) -> Batch:
    failed: Result[Sequence[Completion], Raised] = Failure(Raised("Refused", "no"))
    return [failed for _ in prompts] * num_generations


def by_length(prompt: Prompt) -> Result[int, FormatError]:
    return Success(len(prompt.user))


task: Task[int, float] = Task(ask, safe(float))

# What fits.
llm = LLM(task, chatml, texts, Threads(8))
assert_type(llm.generate([1, 2]), list[RowResult[float]])
assert_type(llm.generate([1])[0].unwrap(), tuple[Generation[float], ...])
assert_type(llm.generate([1])[0].unwrap()[0].parsed, Result[float, ParseFailed | NoText])
assert_type(single(llm.generate([1])[0]), Result[float, GenerateError | ParseFailed | NoText])
assert_type(next(llm.stream([1])), RowResult[float])
assert_type(next(llm.as_completed([1])), tuple[int, RowResult[float]])
with llm.submitter() as submit:
    assert_type(submit(1), Future[RowResult[float]])
LLM(task, openai, chats, Sequential())
LLM(task, openai, echo, Sequential())
LLM(task, chatml, texts, Processes(2))
llm_async = LLM(task, chatml, texts_async, Asyncio(8))
assert_type(llm_async.generate([1, 2]), list[RowResult[float]])
assert_type(next(llm_async.stream([1])), RowResult[float])


async def read() -> None:
    async for row in llm_async.stream([1]):
        assert_type(row, RowResult[float])
    async for index, row in llm.as_completed([1]):
        assert_type((index, row), tuple[int, RowResult[float]])


# An LLM of any kind of prompt and backend, of wider answers and narrower inputs.
models: list[SupportsGenerate[int, float]] = [llm, llm_async, LLM(task, openai, chats, Sequential())]
wider: SupportsGenerate[bool, object] = llm
narrower: SupportsGenerate[object, float] = llm  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
another: SupportsGenerate[int, str] = llm  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def judged(row: RowResult[float]) -> Result[Prompt, GenerateError]:
    return row.map(lambda generations: Prompt(generations[0].completion.text))


# A judge of what was generated takes its Results, and passes on its failures.
judge: Task[RowResult[float], float] = Task(judged, safe(float))
assert_type(next(LLM(judge, chatml, texts, Sequential()).stream(llm.stream([1]))), RowResult[float])
LLM(judge, chatml, texts, Sequential()).stream([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]

streamed: Iterator[RowResult[float]] = llm.stream([1])
LLM(task, chatml, echo, Threads(2))
LLM(task, chatml, with_failures, Pool(ThreadPoolExecutor, 4))
LLM(task, chatml, each(str.upper), Sequential())
generate: Generate[str, Batch] = echo
generate_chats: Generate[Messages, Batch] = echo

# A format renders what the backend takes.
LLM(task, openai, texts, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, chats, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, by_length, texts, Sequential())  # type: ignore[misc]  # pyright: ignore[reportArgumentType]

# An async backend runs on an async executor, a synchronous one on the others.
wrong: Awaitable[Batch] = texts_async([""], 1)
LLM(task, chatml, texts_async, Sequential())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts_async, Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts_async, Processes(2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts_async, Pool(ThreadPoolExecutor, 4))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts, Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, each(str.upper), Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, texts_async, Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, texts, Threads)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, "chatml", texts, Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# The backends for servers take messages or text, on an event loop or blocking.
URL = "http://127.0.0.1:8000/v1"
LLM(task, openai, chat(URL, model="m", extra_body={"top_k": 20}), Asyncio(8))
LLM(task, chatml, completions(URL, model="m", params={"temperature": 0.7}), Asyncio(8))
LLM(task, openai, blocking(chat(URL, model="m")), Threads(8))
LLM(task, chatml, blocking(completions(URL, model="m")), Processes(2))

LLM(task, openai, chat(URL, model="m"), Threads(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, openai, blocking(chat(URL, model="m")), Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, chat(URL, model="m"), Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, openai, completions(URL, model="m"), Asyncio(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
LLM(task, chatml, blocking(chat(URL, model="m")), Threads(8))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
blocking(texts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
chat(URL, model="m", params={"top_k": 20})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
chat(URL, model="m", params={"temperature": "hot"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# An executor is chosen at run time among those of its kind.
executors: list[Executor[Batch]] = [Sequential(), Threads(8), Processes(2), Pool(ThreadPoolExecutor, 4)]
executors.append(Asyncio(8))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
asynchronous: Executor[Awaitable[Batch]] = Asyncio(8)

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


def by_any_name(name: str) -> Result[str | Messages, FormatError]:
    return format_as(prompt, name)


# Errors are closed unions: a sentence for each, and nothing else.
assert_type(fold(lookup("chatml"), lambda found: found.name, explain), str)
explain(ValueError("no"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
unknown: Result[str, UnknownFormat] = lookup("chatml").map(lambda found: found.name)
parsed: Result[int, ParseFailed] = Success(1)
