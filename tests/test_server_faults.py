"""Many rows against a server process that fails by plan or is killed: none lost, none shifted, none twice."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import quote

import openai
import pytest
from returns.result import Failure, Result, Success
from urllib3 import Retry

from distgen import LLM, RowResult, Asyncio, Raised, Stream, Threads, explain, fold, kind
from distgen.__main__ import main
from distgen.backends import aiohttp, http
from distgen.backends.openai import completions as over_client
from distgen.backends.server import RETRIES
from distgen.formats import default
from distgen.journal import Fields, Journal, Recorded, record
from tests.support.faults import BODY, BROKEN, CHUNKED, ECHOES, KEY, MALFORMED
from tests.support.faults import PASSING as PASSING_STATUSES
from tests.support.parts import PLAIN
from tests.support.servers import Act, Server, response, serving, text_body


class Ask(Protocol):
    """`LLM.stream`, whatever the transport."""

    def __call__(self, inputs: Iterable[str], /) -> Stream[RowResult[str]]: ...


class Over(Protocol):
    """A transport to a server: how often it asks again, how long it waits, how many it asks at once."""

    def __call__(self, url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask: ...


def over_http(url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask:
    backend = http.completions(url, model="m", retries=retries, timeout=timeout)
    return LLM(PLAIN, default, backend, Threads(at_once)).stream


def over_aiohttp(url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask:
    backend = aiohttp.completions(url, model="m", retries=retries, timeout=timeout)
    return LLM(PLAIN, default, backend, Asyncio(at_once)).stream


def over_openai(url: str, retries: Retry, timeout: float = 10, at_once: int = 64, /) -> Ask:
    """Its client has a back-off of its own, of half a second and more."""
    client = openai.OpenAI(base_url=url, api_key="sk-0123456789", max_retries=int(retries.total or 0), timeout=timeout)
    return LLM(PLAIN, default, over_client(client, model="m"), Threads(at_once)).stream


def outcome(answer: RowResult[str]) -> str:
    return fold(answer, lambda answers: answers[0].completion.text, kind)


# A server that is killed and comes back


def encode(word: str, answer: RowResult[str]) -> Fields:
    return fold(
        answer,
        lambda answers: {"word": word, "said": answers[0].completion.text},
        lambda error: {"word": word, "error": explain(error)},
    )


def decode(row: Fields) -> Result[tuple[str, RowResult[str]], str]:
    answer: RowResult[str] = Failure(Raised("Old", "it failed")) if "error" in row else Success(())
    return Success((str(row["word"]), answer))


def recorded(journal: Journal[str, str], words: Sequence[str], ask: Ask) -> Iterator[Recorded[str, str]]:
    for step in record(journal, words, ask):
        done = step.unwrap()
        if isinstance(done, Recorded):
            yield done


def kill(server: Server) -> None:
    server.process.kill()  # SIGKILL
    server.process.wait()


def killed_before(last: str, words: Iterable[str], server: Server) -> Iterator[str]:
    for word in words:
        if word == last:
            kill(server)
        yield word


def asked(server: Server) -> Counter[object]:
    return Counter(seen.json()["prompt"] for seen in server.seen())


REFUSED: Final = Act(response(422, b'{"detail": "no"}'))
PATIENT: Final = RETRIES.new(total=40, backoff_factor=0.1, backoff_jitter=0.1, backoff_max=0.3)
NEVER: Final = RETRIES.new(total=0)


@pytest.mark.no_cover
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
        assert len(before) <= 7_000  # what had been answered was not asked of the second
        assert [row.input for row in recorded(journal, words, ask)] == refused
        assert asked(again) - before == Counter(refused)
    lines = journal.path.read_text().splitlines()
    assert lines == [f'{{"word": "{word}", "said": "{word}"}}' for word in words]


@pytest.mark.parametrize("over", [over_http, over_aiohttp, over_openai])
def test_rows_of_an_outage_are_typed_and_they_alone_are_asked_when_it_is_over(tmp_path: Path, over: Over) -> None:
    words = [f"row {number}" for number in range(600)]
    journal = Journal(tmp_path / "out.jsonl", {}, encode, decode)
    with serving() as first:
        ask = over(first.url, NEVER)
        done = list(recorded(journal, words, lambda missing: ask(killed_before(words[400], missing, first))))
    assert [row.input for row in done] == words
    failed = [row.input for row in done if isinstance(row.answer, Failure)]
    assert words[400:] == failed[-200:]
    assert len(failed) <= 200 + 2 * 64  # and what was under way
    assert {outcome(row.answer) for row in done} - set(words) == {"ConnectionFailed"}
    assert [outcome(row.answer) for row in done if row.input not in failed] == [w for w in words if w not in failed]
    with serving(first.port) as again:
        assert [row.input for row in recorded(journal, words, over(again.url, NEVER))] == failed
        assert asked(again) == Counter(failed)
    lines = journal.path.read_text().splitlines()
    assert lines == [f'{{"word": "{word}", "said": "{word}"}}' for word in words]


# A server that fails by chance: what becomes of a row is what its own plan says

_End: TypeAlias = tuple[str, Act]  # an outcome, and what leads to it
_Faults: TypeAlias = tuple[Sequence[Act], Sequence[_End], Sequence[_End]]  # that pass, that end a row, that take long

PASSING: Final[Sequence[Act]] = [
    *BROKEN.values(),
    *(Act(response(status, b"wait")) for status in PASSING_STATUSES),
    *(Act(response(status, b"wait"), then="close") for status in PASSING_STATUSES),
    Act(response(429, b"wait", {"Retry-After": "0"})),
    Act(response(503, b"<html>busy</html>", {"Content-Type": "text/html", "Retry-After": "soon"})),
]
FINAL: Final[Sequence[_End]] = [
    *((name, Act(response(200, body))) for body, name in MALFORMED.items()),
    ("NotJSON", Act(response(200, b'{"choices": [{"text": "of nobody"}]} {}'))),
    ("ServerError", Act(response(200, b'{"error": "upstream died", "choices": [{"text": "of nobody"}]}'))),
    ("NoText", Act(response(200, b'{"choices": [{"finish_reason": "content_filter"}]}'))),
    ("Redirected", Act(response(307, b"", {"Location": "/v1/completions"}))),
    *(("BadStatus", Act(response(status, b"no"))) for status in (400, 401, 403, 404, 413, 422)),
    ("BadStatus", Act(response(400, b"no"), then="close")),
]
LONG: Final[Sequence[_End]] = [("TooLong", Act(response(200, b"", {"Content-Length": str(10**9)}), then="close"))]
SLOW: Final[Sequence[_End]] = [
    ("TimedOut", Act(then="hang")),
    ("TimedOut", Act(BODY[:-20], then="hang")),
    ("TimedOut", Act(BODY, drip=0.05)),
]
OURS: Final[_Faults] = PASSING, [*FINAL, *LONG], SLOW
# The openai client takes any number of headers and any length, and asks again after its own timeout.
HEADS = (BROKEN["too many headers"], BROKEN["a header too long"])
CLIENTS: Final[_Faults] = [act for act in PASSING if act not in HEADS], FINAL, ()


def plans(words: Sequence[str], faults: _Faults) -> Mapping[str, tuple[str, Sequence[Act]]]:
    """What becomes of each word, and how it comes to that: what passes, then perhaps an end."""
    chance = random.Random(2026)
    passing, final, slow = faults
    planned: dict[str, tuple[str, Sequence[Act]]] = {}
    for number, word in enumerate(words):
        acts = chance.choices(passing, k=chance.choice([0, 0, 1, 2, 3]))
        ends = slow if number % 200 == 7 else final if chance.random() < 0.4 else ()
        name, last = chance.choice(ends) if ends else (word, None)
        planned[word] = name, [*acts, last] if last else acts
    return planned


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("over", "rows", "faults"), [(over_http, 2_000, OURS), (over_aiohttp, 2_000, OURS), (over_openai, 120, CLIENTS)]
)
def test_what_becomes_of_a_row_is_what_its_own_plan_says(
    server: Server, over: Over, rows: int, faults: _Faults
) -> None:
    words = [f"row {number}" for number in range(rows)]
    planned = plans(words, faults)
    server.script(to={word: acts for word, (_, acts) in planned.items()})
    # Far more retries than a plan has faults: a connection that ended after one row's answer may be the next row's.
    often = RETRIES.new(total=30, backoff_factor=0.001, backoff_jitter=0)
    assert list(map(outcome, over(server.url, often, 3)(words))) == [planned[word][0] for word in words]
    assert asked(server) == {word: len(acts) + (name == word) for word, (name, acts) in planned.items()}


# Bytes that nobody asked for


def one_by_one(server: Server, words: Iterable[str]) -> Iterator[str]:
    """Each word when the server has said to those before all that it says."""
    end = time.monotonic() + 5  # where a word got what was another's, nothing is said to it
    for number, word in enumerate(words):
        while server.done() < number and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.02)
        yield word


OWN: Final = text_body("own")
FORGED: Final = response(200, text_body("of nobody"))
CHUNKS: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(OWN), OWN)
MORE: Final[Mapping[str, tuple[Act, str, str]]] = {
    "two answers at once": (Act(response(200, OWN) + FORGED), "own", "own"),
    "an answer more, later": (Act(response(200, OWN), later=FORGED), "own", "own"),
    "the beginning of an answer, later": (Act(response(200, OWN), later=FORGED[:99]), "own", "own"),
    "an answer without end, later": (Act(response(200, OWN), later=b"HTTP/1.1 408 Timeout\r\n\r\n"), "own", "own"),
    "a length that ends before": (Act(response(200, OWN + FORGED, {"Content-Length": str(len(OWN))})), "own", "own"),
    "chunks that end before": (Act(CHUNKED + CHUNKS + FORGED), "own", "own"),
    "a length and chunks": (
        Act(CHUNKED[:-2] + b"Content-Length: 900\r\n\r\n" + CHUNKS + FORGED),
        "own",
        "ConnectionFailed",
    ),
    "an interim answer": (Act(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", later=response(200, OWN)), "own", "own"),
    "interim answers": (
        Act(b"HTTP/1.1 102 A\r\n\r\nHTTP/1.1 100 B\r\n\r\n" * 9, later=response(200, OWN)),
        "own",
        "own",
    ),
    "another protocol": (
        Act(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", later=FORGED),
        "ConnectionFailed",
        "BadStatus",
    ),
    "a body where none may be": (Act(response(204, FORGED)), "NotJSON", "NotJSON"),
    "a body of what is not modified": (Act(response(304, FORGED)), "Redirected", "Redirected"),
}


# Not over the openai client: it takes what stands behind an answer for the next one.
@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("over", [over_http, over_aiohttp])
def test_what_nobody_asked_for_is_nobodys_answer(server: Server, over: Over, name: str) -> None:
    act, with_http, with_aiohttp = MORE[name]
    server.script(to={"a": [act] * 2})
    once = RETRIES.new(total=1, backoff_factor=0)
    got = list(map(outcome, over(server.url, once, 2, 1)(one_by_one(server, "abc"))))
    assert got == [with_http if over is over_http else with_aiohttp, "b", "c"]


FORKED: Final = """
import os, sys
from distgen.backends.http import completions

backend = completions(sys.argv[1], model="m", api_key="", retries=0)
backend(["before"], 1)
child = os.fork()
prompts = [f"{bool(child)} {number}" for number in range(20)]
is_own = [row[0].text for row in backend(prompts, 1)] == prompts
if not child:
    os._exit(not is_own)
sys.exit(os.waitpid(child, 0)[1] or not is_own)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_forked_process_shares_no_connection(server: Server) -> None:
    server.script()
    subprocess.run([sys.executable, "-c", FORKED, server.url], check=True, timeout=20)
    assert server.connections() == 2


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


# A server that says the key


SAYS: Final[Sequence[Act]] = [
    *ECHOES,
    Act(response(401, json.dumps({"error": {"message": f"no such key: {KEY[:14]}..."}}).encode())),
    Act(response(403, json.dumps({"detail": [{"input": f"Bearer {KEY[5:]}"}]}).encode())),
    Act(response(400, f"<html>{quote(KEY, safe='')}</html>".encode())),
    Act(response(400, f"{'x' * 975}{KEY}".encode())),
    Act(response(422, f"{KEY[:9]}\n{KEY[9:]}".encode(), {"WWW-Authenticate": KEY, "Set-Cookie": f"key={KEY}"})),
    Act(response(308, KEY.encode(), {"Location": f"/?key={quote(KEY)}", "X-Request-Id": KEY})),
    Act(response(200, f'{{"choices": [{{"text": 1, "{KEY}'.encode())),
    Act(response(500, KEY.encode(), {"Content-Length": "9999", "Retry-After": KEY}), then="close"),
    Act(response(200, KEY.encode(), {"Content-Encoding": KEY, "Content-Type": KEY, "Transfer-Encoding": KEY}), "close"),
]


def holds_the_key(shown: str) -> bool:
    return any(KEY[at : at + 8] in shown for at in range(len(KEY) - 7))


@pytest.mark.parametrize("over", [over_http, over_aiohttp])
def test_the_key_is_in_no_file_log_or_output(
    server: Server,
    tmp_path: Path,
    over: Over,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    words = [f"row {number}" for number in range(len(SAYS))]
    server.script(to={word: [act] * 2 for word, act in zip(words, SAYS, strict=True)})
    journal = Journal(tmp_path / "out.jsonl", {"url": server.url}, encode, decode)
    done = list(recorded(journal, words, over(server.url, RETRIES.new(total=1, backoff_factor=0), 2)))
    assert all(isinstance(row.answer, Failure) for row in done)
    assert holds_the_key(server.seen()[0].headers["authorization"])
    assert not holds_the_key(repr(done))
    assert not holds_the_key("".join(path.read_text() for path in tmp_path.iterdir()))
    assert not holds_the_key(f"{caplog.text} {[vars(each) for each in caplog.records]} {capfd.readouterr()}")


def test_the_command_line_shows_no_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    final = [act for act in SAYS if act.send.startswith((b"HTTP/1.1 4", b"HTTP/1.1 3", b"HTTP/1.1 200 Status"))]
    words = [f"row {number}" for number in range(len(final))]
    server.script(to={word: [act] for word, act in zip(words, final, strict=True)})
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"user": word}) + "\n" for word in words))
    into = ["-o", str(tmp_path / "out.jsonl"), "-v", "--format", "default"]
    assert main(["run", str(source), *into, "--base-url", server.url, "--model", "m"]) == 1
    assert len(server.seen()) >= len(final) > 9
    assert not holds_the_key("".join(path.read_text() for path in tmp_path.iterdir()))
    out, err = capfd.readouterr()
    assert "Status 401" in err
    assert not holds_the_key(out + err)


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server
