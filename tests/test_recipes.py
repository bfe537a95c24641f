"""The recipes of the README's section "Composition", typed: the real libraries against a real server."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, MutableMapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Annotated, TypeVar

import pytest
import stamina
import urllib3
from aiohttp import ClientResponseError, ClientSession
from aiolimiter import AsyncLimiter
from diskcache import Index
from diskcache.core import MODE_RAW, MODE_TEXT
from pydantic import BaseModel, Field, TypeAdapter
from returns.result import Failure, Result, Success, safe

from distgen import (
    LLM,
    Answered,
    Asyncio,
    Batch,
    Completion,
    Fault,
    Generate,
    GenerateError,
    Generation,
    Prompt,
    Row,
    Sequential,
    Task,
    Threads,
    each,
    explain,
    fold,
    kind,
)
from distgen.backends.http import completions
from distgen.formats import default
from distgen.journal import Fields, Journal, Recorded, record
from tests.parts import PLAIN
from tests.servers import Act, Server, response, serving, text_body

P = TypeVar("P")
R = TypeVar("R")

BUSY = Act(response(503, b"busy"))
REFUSED = Act(response(403, b"no"))


def said(*texts: str) -> Act:
    return Act(response(200, text_body(*texts)))


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


def texts(rows: Iterable[Answered[str]]) -> list[Sequence[str]]:
    return [fold(row, lambda answers: [answer.completion.text for answer in answers], kind) for row in rows]


# Retries belong around what raises. `each` raises no more, and `http` neither, so there they come before it.


class Busy(Exception):
    """A server's 503, as clients raise it."""


def client(url: str) -> Callable[[str], str]:
    """A client of one's own."""
    pool = urllib3.PoolManager()

    def ask(prompt: str) -> str:
        answer = pool.request("POST", f"{url}/completions", json={"prompt": prompt}, retries=False)
        if answer.status == 503:
            raise Busy
        choices: list[dict[str, str]] = answer.json()["choices"]
        return choices[0]["text"]

    return ask


def patient(ask: Callable[[str], str], attempts: int = 4) -> Generate[str, Batch]:
    return each(stamina.retry(on=Busy, attempts=attempts, wait_initial=0.01, wait_jitter=0)(ask))


def test_what_raises_is_asked_again_and_nothing_else(server: Server) -> None:
    server.script(BUSY, BUSY, said("ok"))
    llm = LLM(PLAIN, default, patient(client(server.url)), Sequential(), batch_size=2)
    assert texts(llm.generate(["a", "b"])) == [["ok"], ["b"]]
    assert [seen.json()["prompt"] for seen in server.seen()] == ["a", "a", "a", "b"]


def test_what_always_raises_is_a_failure_after_so_many_attempts(server: Server) -> None:
    server.script(BUSY, BUSY, REFUSED)
    llm = LLM(PLAIN, default, patient(client(server.url), 2), Sequential(), batch_size=3)
    assert texts(llm.generate(["a", "b", "c"])) == ["tests.test_recipes.Busy", "json.decoder.JSONDecodeError", ["c"]]
    assert [seen.json()["prompt"] for seen in server.seen()] == ["a", "a", "b", "c"]


def async_client(url: str) -> Generate[str, Awaitable[Batch]]:
    async def backend(prompts: Sequence[str], num_generations: int) -> Batch:
        rows: list[Row] = []
        async with ClientSession(raise_for_status=True) as session:
            for prompt in prompts:
                body = {"prompt": prompt, "n": num_generations}
                async with session.post(f"{url}/completions", json=body) as answer:
                    choices: list[dict[str, str]] = (await answer.json())["choices"]
                rows.append([Completion(choice["text"]) for choice in choices])
        return rows

    return backend


def test_an_async_backend_is_asked_again_as_it_is(server: Server) -> None:
    server.script(BUSY, BUSY, said("ok"))
    busy = stamina.retry(on=_is_busy, attempts=3, wait_initial=0.01, wait_jitter=0)(async_client(server.url))
    assert texts(LLM(PLAIN, default, busy, Asyncio(1)).generate(["a", "b"])) == [["ok"], ["b"]]
    assert len(server.seen()) == 4


def _is_busy(error: Exception) -> bool:
    return isinstance(error, ClientResponseError) and error.status == 503


def test_the_deadline_of_an_executor_holds_for_all_attempts_together(server: Server) -> None:
    server.script(then_always=BUSY)
    busy = stamina.retry(on=_is_busy, attempts=None, wait_initial=0.05, wait_jitter=0)(async_client(server.url))
    start = time.monotonic()
    assert texts(LLM(PLAIN, default, busy, Asyncio(1, timeout=0.3)).generate(["a"])) == ["TimeoutError"]
    assert time.monotonic() - start < 1


# A cache


def cached(
    generate: Generate[P, Batch], store: MutableMapping[str, str], settings: Mapping[str, object]
) -> Generate[P, Batch]:
    """Asks for what `store` lacks; a run has one of its own, since it counts how often each prompt was asked."""
    times: Counter[str] = Counter()
    lock = threading.Lock()

    def keys(prompt: P, n: int) -> list[str]:
        asked = sha256(json.dumps([settings, prompt], sort_keys=True).encode()).hexdigest()
        with lock:
            times[asked] += n
            return [f"{asked} {number}" for number in range(times[asked] - n, times[asked])]

    def row(prompt: P, n: int) -> Row:
        wanted = keys(prompt, n)
        known = {key: Completion(*json.loads(store[key])) for key in wanted if key in store}
        missing = [key for key in wanted if key not in known]
        if missing:
            answer = _only(generate, prompt, len(missing))
            if isinstance(answer, Failure):
                return answer
            known |= zip(missing, answer.unwrap(), strict=True)
            store.update({key: json.dumps([known[key].text, known[key].finish_reason]) for key in missing})
        return [known[key] for key in wanted]

    return lambda prompts, n: [row(prompt, n) for prompt in prompts]


def _only(generate: Generate[P, Batch], prompt: P, n: int) -> Result[Sequence[Completion], Fault]:
    """One prompt's row; that an exception becomes a Failure here keeps the others of a batch from being counted twice."""
    try:
        [row] = generate([prompt], n)
    except Exception as error:
        return Failure(Fault.of(error))
    return row if isinstance(row, Result) else Success(row)


def cached_llm(
    url: str, store: MutableMapping[str, str], threads: int, temperature: float = 1
) -> LLM[str, str, str, Batch]:
    backend = completions(url, model="m", params={"temperature": temperature}, retries=0)
    known = {"model": backend.server.model, **backend.server.params}
    return LLM(PLAIN, default, cached(backend, store, known), Threads(threads))


WORDS = [*(f"prompt {number}" for number in range(40)), *["again"] * 40]


def by_word(words: Sequence[str], rows: Iterable[Answered[str]]) -> Mapping[str, Counter[str]]:
    """What was said to each word, however often; equal prompts are interchangeable, and their answers come in any order."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word, row in zip(words, texts(rows), strict=True):
        found[word].update(row)
    return found


def test_a_second_run_costs_no_request_and_gives_the_same_answers(server: Server, tmp_path: Path) -> None:
    server.script(*[said(f"answer {number} a", f"answer {number} b") for number in range(80)])
    first = by_word(WORDS, cached_llm(server.url, Index(str(tmp_path)), 8).generate(WORDS, 2))
    assert len(server.seen()) == 80
    assert first["again"].total() == len(first["again"]) == 80  # each a sample of its own
    server.script()
    assert by_word(WORDS, cached_llm(server.url, Index(str(tmp_path)), 3).generate(WORDS, 2)) == first
    backwards = WORDS[::-1]
    assert by_word(backwards, cached_llm(server.url, Index(str(tmp_path)), 8).generate(backwards, 2)) == first
    assert server.seen() == []


def test_only_what_is_new_is_asked(server: Server, tmp_path: Path) -> None:
    store: MutableMapping[str, str] = Index(str(tmp_path))
    server.script(said("a"), said("b"), said("c", "d"), said("other"), said("warm"))
    assert texts(cached_llm(server.url, store, 1).generate(["x", "x"])) == [["a"], ["b"]]
    assert texts(cached_llm(server.url, store, 1).generate(["x"], 4)) == [["a", "b", "c", "d"]]
    assert texts(cached_llm(server.url, store, 1).generate(["y"])) == [["other"]]
    assert texts(cached_llm(server.url, store, 1, temperature=2).generate(["x"])) == [["warm"]]
    assert [seen.json().get("n") for seen in server.seen()] == [None, None, 2, None, None]


def test_a_failure_is_not_kept(server: Server, tmp_path: Path) -> None:
    store: MutableMapping[str, str] = Index(str(tmp_path))
    server.script(said("a"), REFUSED, said("c"))
    words = ["x", "x", "x"]
    assert texts(cached_llm(server.url, store, 1).generate(words)) == [["a"], "BadStatus", ["c"]]
    server.script(said("b"))
    assert texts(cached_llm(server.url, store, 1).generate(words)) == [["a"], ["b"], ["c"]]
    assert len(server.seen()) == 1


def test_a_backend_that_raises_in_a_batch_is_counted_once(server: Server, tmp_path: Path) -> None:
    store: MutableMapping[str, str] = Index(str(tmp_path))

    def generate(prompts: Sequence[str], num_generations: int) -> Batch:
        if "bad" in prompts:
            raise Busy
        return completions(server.url, model="m")(prompts, num_generations)

    for asked in (3, 1):  # the second run asks for the bad one alone, which does not get as far as the server
        server.script()
        llm = LLM(PLAIN, default, cached(generate, store, {}), Sequential(), batch_size=4)
        assert texts(llm.generate(["a", "a", "bad", "\ud800"])) == [["a"], ["a"], "tests.test_recipes.Busy", ["\ud800"]]
        assert len(server.seen()) == (asked if asked > 1 else 0)


def test_nothing_in_the_folder_is_pickled(server: Server, tmp_path: Path) -> None:
    server.script(said("short"), said("long" * 20_000))
    store: Index[str, str] = Index(str(tmp_path))
    cached_llm(server.url, store, 1).generate(["x", "y"])
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database:
        modes = {mode for (mode,) in database.execute("SELECT mode FROM Cache")}
    assert modes == {MODE_RAW, MODE_TEXT}


# A rate limit


def limited(generate: Generate[P, Awaitable[Batch]], limiter: AsyncLimiter) -> Generate[P, Awaitable[Batch]]:
    async def wait_and_generate(prompts: Sequence[P], num_generations: int) -> Batch:
        async with limiter:
            return await generate(prompts, num_generations)

    return wait_and_generate


def most_within(seconds: float, times: Iterable[float]) -> int:
    """The most that fell into any window so long."""
    ordered = sorted(times)
    return max(sum(start <= time < start + seconds for time in ordered) for start in ordered)


def noting(times: list[float], generate: Generate[P, R]) -> Generate[P, R]:
    def noted(prompts: Sequence[P], num_generations: int) -> R:
        times.append(time.monotonic())
        return generate(prompts, num_generations)

    return noted


def test_no_more_go_out_in_any_window_than_the_limit(server: Server) -> None:
    server.script()
    times: list[float] = []
    backend = noting(times, async_client(server.url))
    limiter = AsyncLimiter(1, 0.02)  # not (10, 0.2), which lets 10 go at once and then one each 0.02 s: 19 in a window
    rows = LLM(PLAIN, default, limited(backend, limiter), Asyncio(32)).generate([str(n) for n in range(40)])
    assert texts(rows) == [[str(n)] for n in range(40)]
    assert most_within(0.2, times) <= 10
    assert max(times) - min(times) < 2


# Structured output, to JSON Lines and back


class Rating(BaseModel):
    stars: Annotated[int, Field(ge=1, le=5)]
    why: str = ""


rate = Task(Prompt, safe(TypeAdapter(Rating).validate_json))


def encode(word: str, row: Answered[Rating]) -> Fields:
    return {"word": word, **fold(row, lambda answers: {"said": [_said(answer) for answer in answers]}, _failed)}


def _failed(error: GenerateError) -> dict[str, list[Fields]]:
    return {"error": [{"kind": kind(error), "explained": explain(error)}]}


def _said(answer: Generation[Rating]) -> Fields:
    text: Fields = {"text": answer.completion.text}
    return fold(
        answer.parsed,
        lambda rating: {**text, "rating": rating.model_dump(mode="json")},
        lambda error: {**text, "reason": explain(error)},
    )


def decode(fields: Fields) -> Result[tuple[str, Answered[Rating]], str]:
    answer: Answered[Rating] = Failure(Fault("Old", "")) if "error" in fields else Success(())
    return Success((str(fields["word"]), answer))


BAD = ['{"stars": 6}', '{"stars": 1', "", "five", '"\ud800"', "[" * 100_000, '{"stars": NaN}', "9" * 5_000]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_does_not_validate_keeps_its_text_and_says_why(server: Server, text: str) -> None:
    server.script(said('{"stars": 4, "why": "clear"}', text))
    llm = LLM(rate, default, completions(server.url, model="m"), Sequential())
    [row] = llm.generate(["The Nile."], 2)
    good, bad = row.unwrap()
    assert good.parsed == Success(Rating(stars=4, why="clear"))
    assert bad.completion.text == text
    error = bad.parsed.failure().error
    assert isinstance(error, Fault)
    assert error.part == "parser"
    assert error.kind == "pydantic_core._pydantic_core.ValidationError"
    assert len(explain(bad.parsed.failure())) < 3_000


def test_rows_are_json_lines_that_any_reader_reads(server: Server, tmp_path: Path) -> None:
    server.script(said('{"stars": 4}', '{"stars": 9}'), REFUSED, said('{"stars": 1}', '{"stars": 2}'))
    llm = LLM(rate, default, completions(server.url, model="m"), Sequential())
    journal = Journal(tmp_path / "ratings.jsonl", {"model": "m"}, encode, decode)
    steps = [step.unwrap() for step in record(journal, ["a", "b", "c"], lambda words: llm.stream(words, 2))]
    assert [step.input for step in steps if isinstance(step, Recorded)] == ["a", "b", "c"]
    a, b, c = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [row["word"] for row in (a, b, c)] == ["a", "b", "c"]
    assert a["said"][0] == {"text": '{"stars": 4}', "rating": {"stars": 4, "why": ""}}
    assert a["said"][1]["text"] == '{"stars": 9}'
    assert "less than or equal to 5" in a["said"][1]["reason"]
    assert b["error"][0]["kind"] == "BadStatus"
    assert [TypeAdapter(Rating).validate_python(each["rating"]).stars for each in c["said"]] == [1, 2]
