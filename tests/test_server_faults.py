"""Many rows against a server process that fails by plan or is killed: none lost, none shifted, none twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import openai
import pytest
from returns.result import Failure, Result, Success
from urllib3 import Retry

from distgen import LLM, Answered, Asyncio, Fault, Stream, Threads, explain, fold, kind
from distgen.backends import aiohttp, http
from distgen.backends.openai import completions as over_client
from distgen.backends.server import RETRIES
from distgen.formats import default
from distgen.journal import Fields, Journal, Recorded, record
from tests.parts import PLAIN
from tests.servers import Act, Server, response, serving, text_body


class Ask(Protocol):
    """`LLM.stream`, whatever the transport."""

    def __call__(self, inputs: Iterable[str], /) -> Stream[Answered[str]]: ...


class Over(Protocol):
    """A transport to a server: how often it asks again, how long it waits, how many it asks at once."""

    def __call__(self, url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask: ...


def over_http(url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask:
    backend = http.completions(url, model="m", api_key="", retries=retries, timeout=timeout)
    return LLM(PLAIN, default, backend, Threads(at_once)).stream


def over_aiohttp(url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask:
    backend = aiohttp.completions(url, model="m", api_key="", retries=retries, timeout=timeout)
    return LLM(PLAIN, default, backend, Asyncio(at_once)).stream


def over_openai(url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask:
    """Its client has a back-off of its own, of half a second and more."""
    client = openai.OpenAI(base_url=url, api_key="sk-0123456789", max_retries=int(retries.total or 0), timeout=timeout)
    return LLM(PLAIN, default, over_client(client, model="m"), Threads(at_once)).stream


def outcome(answer: Answered[str]) -> str:
    return fold(answer, lambda answers: answers[0].completion.text, kind)


# A server that is killed and comes back


def encode(word: str, answer: Answered[str]) -> Fields:
    return fold(
        answer,
        lambda answers: {"word": word, "said": answers[0].completion.text},
        lambda error: {"word": word, "error": explain(error)},
    )


def decode(row: Fields) -> Result[tuple[str, Answered[str]], str]:
    answer: Answered[str] = Failure(Fault("Old", "it failed")) if "error" in row else Success(())
    return Success((str(row["word"]), answer))


def recorded(journal: Journal[str, str], words: Sequence[str], ask: Ask) -> Iterator[Recorded[str, str]]:
    for step in record(journal, words, ask):
        done = step.unwrap()
        if isinstance(done, Recorded):
            yield done


def kill(server: Server) -> None:
    server.process.kill()  # SIGKILL
    server.process.wait()


def asked(server: Server) -> Counter[object]:
    return Counter(seen.json()["prompt"] for seen in server.seen())


REFUSED: Final = Act(response(422, b'{"detail": "no"}'))
PATIENT: Final = RETRIES.new(total=40, backoff_factor=0.1, backoff_jitter=0.1, backoff_max=0.3)
NEVER: Final = RETRIES.new(total=0)


@pytest.mark.parametrize("over", [over_http, over_aiohttp])
def test_a_server_that_is_killed_and_back_after_3_s_costs_no_row(tmp_path: Path, over: Over) -> None:
    words = [f"row {number}" for number in range(10_000)]
    refused = words[7:3_000:101]
    journal = Journal(tmp_path / "out.jsonl", {}, encode, decode)
    with ExitStack() as stack:
        first = stack.enter_context(serving())
        first.script(to={word: [REFUSED] for word in refused})
        back = stack.enter_context(ThreadPoolExecutor(1))
        ask = over(first.url, PATIENT)
        rows = recorded(journal, words, ask)
        done = list(islice(rows, 3_000))
        kill(first)
        outage = back.submit(time.sleep, 3)
        returned = back.submit(lambda: stack.enter_context(serving(first.port)))
        done.extend(rows)
        assert outage.done()
        again = returned.result()
        assert [row.input for row in done] == words
        assert [outcome(row.answer) for row in done] == ["BadStatus" if word in refused else word for word in words]

        before = asked(again)
        assert set(before.values()) == {1}
        assert len(before) < 7_100  # what had been answered was not asked of the second
        assert [row.input for row in recorded(journal, words, ask)] == refused
        assert asked(again) - before == Counter(refused)
    lines = journal.path.read_text().splitlines()
    assert lines == [f'{{"word": "{word}", "said": "{word}"}}' for word in words]


@pytest.mark.parametrize("over", [over_http, over_aiohttp, over_openai])
def test_rows_of_an_outage_are_typed_and_they_alone_are_asked_when_it_is_over(tmp_path: Path, over: Over) -> None:
    words = [f"row {number}" for number in range(600)]
    journal = Journal(tmp_path / "out.jsonl", {}, encode, decode)
    with serving() as first:
        first.script(delay=0.05)  # so that few are answered before those that come first are written
        rows = recorded(journal, words, over(first.url, NEVER))
        done = list(islice(rows, 200))
        kill(first)
        done.extend(rows)
    assert [row.input for row in done] == words
    failed = [row.input for row in done if isinstance(row.answer, Failure)]
    assert 200 < len(failed) <= 400
    assert {outcome(row.answer) for row in done} - set(words) == {"ConnectionFailed"}
    assert [outcome(row.answer) for row in done if row.input not in failed] == [w for w in words if w not in failed]
    with serving(first.port) as again:
        assert [row.input for row in recorded(journal, words, over(again.url, NEVER))] == failed
        assert asked(again) == Counter(failed)
    lines = journal.path.read_text().splitlines()
    assert lines == [f'{{"word": "{word}", "said": "{word}"}}' for word in words]


# A server that fails by chance: what becomes of a row is what its own plan says

_End: TypeAlias = tuple[str, Act]  # an outcome, and what leads to it

ANSWER: Final = response(200, text_body("of nobody"))
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def body(text: str, **headers: str) -> Act:
    return Act(response(200, text.encode(), {name.replace("_", "-"): value for name, value in headers.items()}))


PASSING: Final[Sequence[Act]] = [  # what is asked again
    Act(then="reset"),
    Act(then="close"),
    Act(ANSWER[:30], then="reset"),
    Act(ANSWER[:30], then="close"),
    Act(ANSWER[:-20], then="reset"),
    Act(ANSWER[:-20], then="close"),
    Act(CHUNKED + b"ff\r\nhalf", then="close"),
    Act(CHUNKED + b"no size\r\n", then="close"),
    Act(b"SSH-2.0-OpenSSH_9.6\r\n", then="close"),
    Act(response(200, text_body("of nobody"), {"Content-Length": "9999"}), then="close"),
    *(Act(response(status, b"wait")) for status in (408, 409, 429, 500, 502, 503, 529)),
    *(Act(response(status, b"wait"), then="close") for status in (429, 503)),
    Act(response(429, b"wait", {"Retry-After": "0"})),
    Act(response(503, b"<html>busy</html>", {"Content-Type": "text/html", "Retry-After": "soon"})),
]
FINAL: Final[Sequence[_End]] = [
    ("NotJSON", body("<html>proxy</html>")),
    ("NotJSON", body("")),
    ("NotJSON", body('{"choices": [{"te')),
    ("NotJSON", body('{"choices": [{"text": "of nobody"}]} {}')),
    ("NoChoices", body("{}")),
    ("NoChoices", body('{"choices": null}')),
    ("NoChoices", body('{"choices": []}')),
    ("ServerError", body('{"error": {"message": "upstream died"}}')),
    ("ServerError", body('{"error": "upstream died", "choices": [{"text": "of nobody"}]}')),
    ("BadChoice", body('{"choices": [null]}')),
    ("NoText", body('{"choices": [{"text": null}]}')),
    ("NoText", body('{"choices": [{"finish_reason": "content_filter"}]}')),
    ("Redirected", Act(response(307, b"", {"Location": "/v1/completions"}))),
    *(("BadStatus", Act(response(status, b"no"))) for status in (400, 401, 403, 404, 422)),
    ("BadStatus", Act(response(400, b"no"), then="close")),
]
LONG: Final[Sequence[_End]] = [("TooLong", Act(response(200, b"", {"Content-Length": str(10**9)}), then="close"))]
SLOW: Final[Sequence[_End]] = [
    ("TimedOut", Act(then="hang")),
    ("TimedOut", Act(ANSWER[:-20], then="hang")),
    ("TimedOut", Act(ANSWER, drip=0.05)),
]


def plans(words: Sequence[str], final: Sequence[_End], slow: Sequence[_End]) -> Mapping[str, tuple[str, Sequence[Act]]]:
    """What becomes of each word, and how it comes to that: what passes, then perhaps an end."""
    chance = random.Random(2026)
    planned: dict[str, tuple[str, Sequence[Act]]] = {}
    for number, word in enumerate(words):
        passing = chance.choices(PASSING, k=chance.choice([0, 0, 1, 2, 3]))
        ends = slow if number % 200 == 7 else final if chance.random() < 0.4 else ()
        name, last = chance.choice(ends) if ends else (word, None)
        planned[word] = name, [*passing, last] if last else passing
    return planned


# The openai client knows no longest answer, and asks again after its own timeout.
@pytest.mark.parametrize(
    ("over", "rows", "final", "slow"),
    [
        (over_http, 2_000, [*FINAL, *LONG], SLOW),
        (over_aiohttp, 2_000, [*FINAL, *LONG], SLOW),
        (over_openai, 120, FINAL, ()),
    ],
)
def test_what_becomes_of_a_row_is_what_its_own_plan_says(
    server: Server, over: Over, rows: int, final: Sequence[_End], slow: Sequence[_End]
) -> None:
    words = [f"row {number}" for number in range(rows)]
    planned = plans(words, final, slow)
    server.script(to={word: acts for word, (_, acts) in planned.items()})
    # Far more retries than a plan has faults: a connection that ended after one row's answer may be the next row's.
    often = RETRIES.new(total=30, backoff_factor=0.001, backoff_jitter=0)
    assert list(map(outcome, over(server.url, often, 3)(words))) == [planned[word][0] for word in words]
    assert asked(server) == {word: len(acts) + (name == word) for word, (name, acts) in planned.items()}


# Bytes that nobody asked for


def slowly(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        yield word
        time.sleep(0.15)


FORGED: Final = response(200, text_body("of nobody"))
OWN: Final = text_body("own")
MORE: Final[Mapping[str, Act]] = {
    "two answers at once": Act(response(200, OWN) + FORGED),
    "an answer more, later": Act(response(200, OWN), later=FORGED),
    "a length that ends before the next": Act(response(200, OWN + FORGED, {"Content-Length": str(len(OWN))})),
    "a chunk that ends before the next": Act(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(OWN), OWN) + FORGED),
    "another length than that of the chunks": Act(
        CHUNKED[:-2] + b"Content-Length: 900\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(OWN), OWN) + FORGED
    ),
    "an early hint, and the answer later": Act(b"HTTP/1.1 103 Early Hints\r\n\r\n", later=response(200, OWN)),
    "an answer of another protocol": Act(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", later=FORGED),
    "a body where none may be": Act(response(204, FORGED)),
    "a body of what is not modified": Act(response(304, FORGED)),
    "a line more, later": Act(response(200, OWN), later=b"HTTP/1.1 408 Request Timeout\r\n\r\n"),
}


@pytest.mark.parametrize("act", MORE.values(), ids=MORE)
@pytest.mark.parametrize("over", [over_http, over_aiohttp])
def test_what_nobody_asked_for_is_nobodys_answer(server: Server, over: Over, act: Act) -> None:
    server.script(to={"a": [act] * 2})
    once = RETRIES.new(total=1, backoff_factor=0)
    a, *others = map(outcome, over(server.url, once, 2, 1)(slowly("abc")))
    assert others == ["b", "c"]
    assert a in ("own", "NotJSON", "Redirected", "ConnectionFailed")


TOO_SHORT: Final = Act(response(200, text_body("of nobody"), {"Content-Length": "40"}))


@pytest.mark.parametrize(
    ("over", "name"), [(over_http, "NotJSON"), (over_aiohttp, "ConnectionFailed"), (over_openai, "NotJSON")]
)
def test_a_length_that_is_too_short_cuts_the_answer(server: Server, over: Over, name: str) -> None:
    server.script(to={"a": [TOO_SHORT]})
    assert list(map(outcome, over(server.url, NEVER, 2, 1)(["a"]))) == [name]


@pytest.mark.parametrize("over", [over_http, over_aiohttp])
def test_a_body_of_100_mib_is_cut_off(server: Server, over: Over) -> None:
    server.script(to={"a": [Act(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2**20, times=100)]})
    assert list(map(outcome, over(server.url, NEVER, 20)(["a", "b"]))) == ["TooLong", "b"]


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server
