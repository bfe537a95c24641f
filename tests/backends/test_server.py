"""Backends for servers: rows, retries, pauses, secrets, event loops and threads, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import pickle
import random
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen.backends.generate import Batch, Row
from distgen.backends.limiter import Limiter
from distgen.backends.redact import Secrets, may_hold
from distgen.backends.retry import Retry
from distgen.backends.server import Completions, blocking, chat, completions
from distgen.completion import Completion, Usage
from distgen.errors import FormatError, NoText, ParseFailed, RequestFailed, explain
from distgen.executors import Asyncio, Call, CallResult, Executor, Pool, Processes, Threads
from distgen.formats import chatml, openai
from distgen.llm import LLM, RowResult, single
from distgen.prompt import Prompt
from distgen.task import Task
from tests.support.faults import BROKEN, ECHOES, FAULTS, KEY, LONG, LONG_HEADS, NO_HTTP, SLOW
from tests.support.servers import Act, Server, response, serving, text_body

ONCE = Retry(attempts=1)
BUSY = Act(response(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.2"}))
REFUSED_N = Act(response(422, b'{"detail": "n must be 1"}'))
FAILED = Act(response(400, b'{"error": "no"}'))


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


def ask(backend: Completions, *prompts: str, n: int = 1) -> Batch:
    async def main() -> Batch:
        return await backend(prompts, n)

    return asyncio.run(main())


def render_user(prompt: Prompt) -> Result[str, FormatError]:
    return Success(prompt.user)


def shown(row: Row) -> list[str] | str:
    if not isinstance(row, list):
        return failure(row).reason
    return [completion.text for completion in row]


def failure(row: Row | RowResult[object]) -> RequestFailed:
    assert isinstance(row, Failure)
    error = row.failure()
    assert isinstance(error, RequestFailed)
    return error


# n samples


def test_a_long_prompt_is_sent_without_a_warning(server: Server) -> None:
    server.script()  # aiohttp warns of bytes of more than 1 MiB, and in tests a warning is an error
    (row,) = ask(completions(server.url, model="m", retry=Retry(attempts=1)), "x" * 2**20)
    assert isinstance(row, Sequence), row


def test_what_a_server_does_not_give_is_asked_for_with_other_seeds(server: Server) -> None:
    server.script(ignore_n=True)
    backend = completions(server.url, model="m", params={"seed": 5})
    assert shown(ask(backend, "a", n=3)[0]) == ["a"] * 3
    seen = [seen.json() for seen in server.seen()]
    assert (seen[0]["n"], seen[0]["seed"]) == (3, 5)
    assert sorted(str(body["seed"]) for body in seen[1:]) == ["6", "7"]


def test_a_refused_n_is_remembered(server: Server) -> None:
    server.script(to={"a": [REFUSED_N]})
    backend = completions(server.url, model="m")

    async def main() -> list[Batch]:
        return [await backend([word], 2) for word in "ab"]

    assert [shown(batch[0]) for batch in asyncio.run(main())] == [["a", "a"], ["b", "b"]]
    assert [seen.json().get("n") for seen in server.seen()] == [2, None, None, None, None]


def test_a_bad_request_is_no_refused_n(server: Server) -> None:
    server.script(to={"a": [FAILED, FAILED]})
    backend = completions(server.url, model="m")

    async def main() -> list[Batch]:
        return [await backend([word], 2) for word in "ab"]

    assert [shown(batch[0]) for batch in asyncio.run(main())] == ["status", ["b", "b"]]
    assert len(server.seen()) == 3


def test_three_samples_paid_and_one_failed_keep_three(server: Server) -> None:
    one = Act(response(200, text_body("a", tokens=(3, 5))))
    lost = Act(response(200, b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}'))
    server.script(to={"a": [one, one, lost, one]})
    error = failure(ask(completions(server.url, model="m"), "a", n=4)[0])
    assert [completion.text for completion in error.completions] == ["a"] * 3
    assert [completion.usage for completion in error.completions] == [Usage(3, 5)] * 3
    assert (error.reason, error.usage) == ("no_choices", Usage(3, 7))


def test_choices_beyond_n_are_dropped_and_counted(server: Server) -> None:
    server.script(Act(response(200, text_body("a", "b", "c", tokens=(3, 15)))))
    (row,) = ask(completions(server.url, model="m"), "x", n=2)
    assert shown(row) == ["a", "b"]
    assert isinstance(row, list)
    assert [completion.usage for completion in row] == [Usage(3, 15), None]


# Faults


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_is_made_again(server: Server, name: str) -> None:
    server.script(BROKEN[name])
    backend = completions(server.url, model="m", timeout=20)
    assert shown(ask(backend, "a")[0]) == ["a"]
    server.script(then_always=BROKEN[name])
    assert shown(ask(completions(server.url, model="m", retry=ONCE), "a")[0]) == "connection"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("closed before", "reset"),
        ("closed in the headers", "reset"),
        ("closed in the body", "cut"),
        ("closed in a chunk", "cut"),
        ("no HTTP", "cut"),
        ("a status that is no number", "cut"),
    ],
)
def test_an_answer_is_cut_once_its_body_has_begun(server: Server, name: str, code: str) -> None:
    server.script(then_always=BROKEN[name])
    assert failure(ask(completions(server.url, model="m", retry=ONCE), "a")[0]).code == code


def test_a_cut_answer_is_asked_for_once_more(server: Server) -> None:
    server.script(then_always=BROKEN["closed in the body"])
    assert shown(ask(completions(server.url, model="m"), "a")[0]) == "connection"
    assert len(server.seen()) == 2


def test_an_empty_body_is_asked_for_once_more(server: Server) -> None:
    server.script(Act(response(200, b"")))
    assert shown(ask(completions(server.url, model="m"), "a")[0]) == ["a"]
    assert len(server.seen()) == 2


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_answer_is_a_timeout_and_not_asked_again(server: Server, name: str) -> None:
    server.script(then_always=SLOW[name])
    requests = count()
    backend = completions(server.url, model="m", timeout=0.2, headers=lambda: {"X-Request": str(next(requests))})
    assert shown(ask(backend, "a")[0]) == "timeout"
    assert next(requests) == 1


@pytest.mark.parametrize("name", LONG)
def test_a_long_answer_is_cut_off(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.backends.transport.MAX_ANSWER", 10_000)
    server.script(then_always=LONG[name])
    assert shown(ask(completions(server.url, model="m", timeout=60), "a")[0]) == "too_long"


def test_an_answer_may_be_as_long_as_the_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    body = text_body("a")
    for bound, answer in ((len(body), ["a"]), (len(body) - 1, "too_long")):
        monkeypatch.setattr("distgen.backends.transport.MAX_ANSWER", bound)
        server.script(Act(response(200, body)))
        assert shown(ask(completions(server.url, model="m"), "a")[0]) == answer


@pytest.mark.parametrize("name", LONG_HEADS)
def test_long_headers_are_no_answer(server: Server, name: str) -> None:
    server.script(then_always=LONG_HEADS[name])
    assert shown(ask(completions(server.url, model="m", timeout=0.3, retry=ONCE), "a")[0]) in ("connection", "timeout")


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare_deflate)],
    ids=["gzip", "deflate", "bare deflate"],
)
def test_a_packed_answer_is_unpacked_within_bounds(
    server: Server, encoding: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = completions(server.url, model="m", retry=ONCE)
    answer = Act(response(200, pack(text_body("a")), {"Content-Encoding": encoding}))
    server.script(answer, answer, Act(response(200, pack(text_body("a"))[:-30], {"Content-Encoding": encoding})))
    assert shown(ask(backend, "x")[0]) == ["a"]
    monkeypatch.setattr("distgen.backends.transport.MAX_ANSWER", 50)
    assert shown(ask(backend, "x")[0]) == "too_long"
    monkeypatch.undo()
    assert shown(ask(backend, "x")[0]) in ("not_json", "connection")


@pytest.mark.parametrize(("status", "code"), [(407, "proxy"), (499, "proxy"), (500, "refused"), (502, "refused")])
def test_a_proxy_that_opens_no_connection_is_asked_again_only_if_it_failed_itself(
    server: Server, status: int, code: str
) -> None:
    server.script(Act(response(status, b"")))  # the server stands for the proxy
    proxy = server.url.removesuffix("/v1")
    error = failure(ask(completions("https://nowhere.invalid/v1", model="m", proxy=proxy, retry=ONCE), "a")[0])
    assert (error.reason, error.code) == ("connection", code)
    assert f"status {status}" in error.message


def test_a_refused_connection_waits_for_the_server() -> None:
    requests = 0

    def headers() -> Mapping[str, str]:
        nonlocal requests
        requests += 1
        return {}

    async def main(port: int) -> Batch:
        backend = completions(f"http://127.0.0.1:{port}/v1", model="m", headers=headers)
        row = asyncio.ensure_future(backend(["a"], 1))
        while requests < 2:  # the first was refused
            await asyncio.sleep(0.01)
        with serving(port):
            return await row

    with socket.socket() as holder:  # it does not listen: the port refuses, and no other process gets it
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        assert shown(asyncio.run(main(holder.getsockname()[1]))[0]) == ["a"]


def test_a_connection_that_fails_again_says_how_long_it_was_tried(server: Server) -> None:
    server.script(then_always=Act(then="reset"))
    for retry, end in ((ONCE, ""), (Retry(attempts=2), r" \(tried for 0\.[2-5] s\)")):
        error = failure(ask(completions(server.url, model="m", retry=retry), "a")[0])
        assert re.fullmatch(rf"the answer broke off[^()]+\(\w+\){end}", error.message)


@pytest.fixture
def rejections(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each rejection that a backend has read."""
    found: list[int] = []
    reject = Limiter.reject

    def note(limiter: Limiter, period: int, pause: float, backoff: float) -> None:
        reject(limiter, period, pause, backoff)
        found.append(period)

    monkeypatch.setattr(Limiter, "reject", note)
    return found


def test_a_rate_limit_pauses_all_requests(server: Server, rejections: list[int]) -> None:
    server.script(Act(response(429, b"slow down", {"Retry-After": "9000"})))
    backend = completions(server.url, model="m", retry=Retry(patience=1e5, longest_wait=1e5))

    async def main() -> list[Row]:
        first = asyncio.ensure_future(backend(["a"], 1))
        while not rejections:
            await asyncio.sleep(0.01)
        second = asyncio.ensure_future(backend(["b"], 1))
        await asyncio.sleep(0.05)
        backend.end_waits()
        return [*(await first), *(await second)]

    rows = asyncio.run(main())
    assert [shown(row) for row in rows] == ["stopped"] * 2
    assert failure(rows[1]).status is None
    assert len(server.seen()) == 1


@pytest.mark.parametrize(("status", "others"), [(429, "stopped"), (503, ["c"])], ids=["rate limit", "overload"])
def test_only_a_rate_limit_holds_back_requests_of_others(
    server: Server, rejections: list[int], status: int, others: object
) -> None:
    busy = Act(response(status, b"busy", {"Retry-After": "9000"}))
    server.script(to={"a": [Act(then="hang")], "b": [busy]})
    backend = completions(server.url, model="m", retry=Retry(patience=1e5, longest_wait=1e5))

    async def main() -> Row:
        under_way = asyncio.ensure_future(backend(["a"], 1))
        while len(server.seen()) < 1:
            await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(backend(["b"], 1))
        while not rejections:
            await asyncio.sleep(0.01)
        under_way.cancel()  # its place is free
        other = asyncio.ensure_future(backend(["c"], 1))
        if status == 429:
            await asyncio.sleep(0.05)
            backend.end_waits()
        row = (await other)[0]
        backend.end_waits()
        await waiting
        return row

    assert shown(asyncio.run(main())) == others


def test_a_pause_ends_and_its_requests_are_answered(server: Server) -> None:
    server.script(BUSY)
    assert [shown(row) for row in ask(completions(server.url, model="m"), "a", "b")] == [["a"], ["b"]]


def test_stop_ends_waits_and_asks_nothing_new(server: Server) -> None:
    server.script(then_always=Act(response(429, b"slow down", {"Retry-After": "60"})))
    stop = threading.Event()
    backend = completions(server.url, model="m", stop=stop, max_connections=1)

    async def main() -> Batch:
        rows = asyncio.ensure_future(backend(["a", "b"], 1))
        while not server.done():
            await asyncio.sleep(0.01)
        stop.set()
        return [*(await rows), *(await backend(["c"], 1))]

    rows = asyncio.run(main())
    assert [shown(row) for row in rows] == ["stopped"] * 3
    assert len(server.seen()) == 1
    assert failure(rows[0]).status == 429
    messages = [failure(row).message for row in rows]
    not_asked = "the run ended before this row was asked"
    assert messages == ["the run ended; the last answer was: slow down", not_asked, not_asked]


def test_ending_waits_gives_up_rows_that_wait_for_a_retry(server: Server) -> None:
    server.script(then_always=Act(response(429, b"", {"Retry-After": "9000"})))
    backend = completions(server.url, model="m", retry=Retry(patience=1e5, longest_wait=1e5))

    async def main() -> Batch:
        row = asyncio.ensure_future(backend(["a"], 1))
        while not server.done():
            await asyncio.sleep(0.01)
        backend.end_waits()
        return await row

    assert shown(asyncio.run(main())[0]) == "stopped"


@pytest.mark.parametrize("status", [429, 503])
def test_leaving_a_run_on_threads_ends_waits_and_finishes_requests(server: Server, status: int) -> None:
    server.script(
        to={
            "limited": [Act(response(status, b"", {"Retry-After": "9000"}))],
            "slow": [Act(response(200, text_body("whole")), drip=0.001)],
        }
    )
    backend = blocking(completions(server.url, model="m", retry=Retry(patience=1e5, longest_wait=1e5)))
    results: dict[int, CallResult | KeyboardInterrupt] = {}
    with Threads(2).session(lambda delivery: results.update([delivery])) as submit:
        submit(0, Call(backend, ["slow"], 1))
        while not server.seen():
            time.sleep(0.01)
        submit(1, Call(backend, ["limited"], 1))
        while len(server.seen()) < 2:
            time.sleep(0.01)
    match results[0], results[1]:
        case ((Completion(text="whole"),),), (RequestFailed(reason="stopped", status=code),):
            assert code == status
        case other:
            pytest.fail(f"{other}")
    assert [seen.json()["prompt"] for seen in server.seen()] == ["slow", "limited"]


def test_a_backend_whose_run_was_left_is_used_again(server: Server, rejections: list[int]) -> None:
    backend = blocking(completions(server.url, model="m", retry=Retry(patience=1e5, longest_wait=1e5)))
    server.script(Act(response(503, b"", {"Retry-After": "9000"})))
    llm = LLM(Task(Prompt, parse_text), render_user, backend, Threads(2))
    rows = llm.stream(["a"])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, rows, None)
        while not rejections:
            time.sleep(0.01)
        rows.close()
        assert first.result() is None
    assert len(server.seen()) == 1
    assert [single(row) for row in llm.generate(["b", "c"])] == [Success("b"), Success("c")]


def test_a_backend_that_does_not_wait_has_no_waits_to_end() -> None:
    async def shout(prompts: Sequence[str], num_generations: int) -> Batch:
        return [[Completion(prompt.upper())] * num_generations for prompt in prompts]

    async def end_waits_before_any_row() -> None:
        completions("http://127.0.0.1/v1", model="m").end_waits()

    backend = blocking(shout)
    backend.end_waits()
    asyncio.run(end_waits_before_any_row())
    assert shown(backend(["a"], 1)[0]) == ["A"]
    loops = [thread for thread in threading.enumerate() if thread.name == "blocking backends"]
    assert [thread.daemon for thread in loops] == [True]  # it does not keep the interpreter alive
    backend.end_waits()


# Usage


def test_usage_of_an_attempt_that_failed_is_added_to_the_row(server: Server) -> None:
    half = b'{"error": {"message": "died", "code": 502}, "usage": {"prompt_tokens": 3, "completion_tokens": 7}}'
    server.script(Act(response(200, half)), Act(response(200, text_body("a", "b", tokens=(3, 5)))))
    (row,) = ask(completions(server.url, model="m"), "x", n=2)
    assert isinstance(row, list)
    assert [completion.usage for completion in row] == [Usage(6, 12), None]


# Through an LLM


def choices(*messages: Mapping[str, object], finish_reason: str = "stop") -> Act:
    listed = [
        {"index": index, "message": message, "finish_reason": finish_reason} for index, message in enumerate(messages)
    ]
    return Act(response(200, json.dumps({"choices": listed}).encode()))


@pytest.mark.parametrize("is_blocking", [False, True], ids=["Asyncio(512)", "Threads(8)"])
def test_an_llm_gives_each_choice_its_own_reason(server: Server, is_blocking: bool) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    server.script(
        to={
            "think": [choices({"content": None, "reasoning": "2 and"}, {"content": "4"}, finish_reason="length")],
            "siblings": [choices({"content": "a"}, {"content": ""})],
            "tool": [choices({"content": None, "tool_calls": [call]}, {"content": "b"}, finish_reason="tool_calls")],
            "refuse": [choices({"content": None, "refusal": "I cannot."}, {"content": "c"})],
        }
    )
    task, backend = Task(Prompt, parse_text), chat(server.url, model="m")
    words = ["think", "siblings", "tool", "refuse"]
    if is_blocking:
        rows = LLM(task, openai, blocking(backend), Threads(8)).generate(words, 2)
    else:
        rows = LLM(task, openai, backend, Asyncio(512)).generate(words, 2)
    reasons = [[reason_of(generation.parsed) for generation in row.unwrap()] for row in rows]
    assert reasons == [["max_tokens", "4"], ["a", "empty"], ["tool_call", "b"], ["refusal", "c"]]
    assert rows[0].unwrap()[0].completion.reasoning == "2 and"
    assert len(server.seen()) == len(words)


def test_a_format_of_the_other_kind_sends_nothing(server: Server) -> None:
    server.script()
    for llm in (
        LLM(Task(Prompt, parse_text), chatml, chat(server.url, model="m"), Asyncio(2)),  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
        LLM(Task(Prompt, parse_text), openai, completions(server.url, model="m"), Asyncio(2)),  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    ):
        (row,) = llm.generate(["a"])
        assert failure(row).reason == "not_sent"
        assert "chat takes the format openai" in failure(row).message
    assert server.seen() == []


def parse_text(text: str) -> Result[str, str]:
    return Success(text)


def reason_of(parsed: Result[str, ParseFailed | NoText]) -> str:
    match parsed:
        case Success(str(text)):
            return text
        case Failure(NoText(reason=reason)):
            return reason
        case _:
            pytest.fail(f"{parsed}")


def test_bytes_that_nobody_asked_for_are_no_answer(server: Server) -> None:
    server.script(Act(response(200, text_body("a")), later=response(200, text_body("not this"))))
    backend = completions(server.url, model="m")

    async def main() -> list[Batch]:
        first = await backend(["a"], 1)
        while not server.done():  # the bytes are sent
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return [first, await backend(["b"], 1)]

    assert [shown(batch[0]) for batch in asyncio.run(main())] == [["a"], ["b"]]


# Secrets


HEADER = "tenant-9f8e7d6c5b4a3"
assert len(HEADER) == len(KEY)  # so that one takes the place of the other in an answer


def holds_a_secret(text: str) -> bool:
    return any(secret[at : at + 8] in text for secret in (KEY, HEADER) for at in range(len(secret) - 7))


@pytest.mark.parametrize("place", range(len(ECHOES) + len(NO_HTTP)))
def test_no_piece_of_the_key_or_of_a_header_is_shown(
    server: Server, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    act = [*ECHOES, *NO_HTTP][place]
    for secret in (KEY, HEADER):
        echo = Act(act.send.replace(KEY.encode(), secret.encode()), act.then)
        server.script(then_always=echo)
        backend = completions(
            server.url, model="m", api_key=KEY, headers={"X-Tenant-Key": HEADER}, retry=ONCE, timeout=60
        )
        (row,) = ask(backend, "a")
        said = repr([(c, c.extra) for c in row] if isinstance(row, list) else row)
        assert not holds_a_secret(f"{said} {backend!r} {caplog.text} {[vars(each) for each in caplog.records]}")
        assert server.seen()[0].headers["x-tenant-key"] == HEADER


def test_a_key_is_taken_out_of_completions() -> None:
    backend = completions("http://127.0.0.1/v1", model="m", api_key=KEY, headers=lambda: {"A": "b"})
    choice = {"text": f"it is {KEY}", "finish_reason": KEY, "meta": [{KEY: KEY[:12], "text": KEY[:12]}]}
    (completion,) = backend.read(200, {"x-request-id": KEY}, json.dumps({"choices": [choice]}).encode()).unwrap()
    assert completion.text == "it is ***"
    assert not holds_a_secret(repr((completion, completion.extra)))


def escape_all(text: str) -> str:
    return f'"{"".join(f"{chr(92)}u{ord(character):04x}" for character in text)}"'


ESCAPES: Mapping[str, Callable[[str], str]] = {
    "few": json.dumps,
    "slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "all": escape_all,
}


@pytest.mark.parametrize("way", ESCAPES)
@given(st.text(st.characters(codec="ascii", min_codepoint=33), min_size=8, max_size=60), st.data())
def test_a_piece_of_a_key_is_found_however_it_is_escaped(way: str, key: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(key) - 8))
    piece = key[start : start + 8]
    body = f'{{"said": {ESCAPES[way](piece)}}}'
    assert json.loads(body) == {"said": piece}
    assert may_hold(body.encode(), Secrets(key))


def test_a_header_that_holds_no_credential_leaves_texts_as_they_are() -> None:
    backend = completions("http://127.0.0.1/v1", model="m", headers={"X-Title": "Distillation of rivers"})
    choice = {"text": "Distillation of rivers is a title.", "meta": "Distillation of rivers"}
    (completion,) = backend.read(200, {}, json.dumps({"choices": [choice]}).encode()).unwrap()
    assert (completion.text, completion.extra) == (choice["text"], {"meta": "***"})


def test_headers_may_be_a_function_and_win(server: Server) -> None:
    server.script()
    tokens = iter(["first-token", "second-token"])
    backend = completions(server.url, model="m", api_key=KEY, headers=lambda: {"authorization": next(tokens)})
    assert [shown(ask(backend, "a")[0]) for _ in range(3)] == [["a"], ["a"], "not_sent"]
    assert [seen.headers["authorization"] for seen in server.seen()] == ["first-token", "second-token"]


def test_headers_that_are_no_mapping_send_nothing(server: Server) -> None:
    server.script()
    untyped: Any = lambda: None  # noqa: E731
    (row,) = ask(completions(server.url, model="m", headers=untyped), "a")
    assert failure(row).message == "the headers function raised TypeError"
    assert server.seen() == []


@pytest.mark.parametrize(("key", "sent"), [(KEY, f"Bearer {KEY}"), ("", None)], ids=["a key", "none"])
def test_a_key_is_sent_if_there_is_one(server: Server, key: str, sent: str | None) -> None:
    server.script()
    ask(completions(server.url, model="m", api_key=key), "a")
    assert server.seen()[0].headers.get("authorization") == sent


def test_backends_of_two_runs_are_equal() -> None:
    one, other = (chat("http://127.0.0.1/v1", model="m", stop=stop) for stop in (None, threading.Event()))
    assert one == other


def test_a_header_that_cannot_be_sent_is_a_reason(server: Server) -> None:
    backend = completions(server.url, model="m", headers={"X-Tenant": f"{HEADER}\n"})
    error = failure(ask(backend, "a")[0])
    assert error.reason == "not_sent"
    assert not holds_a_secret(repr(error))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": ""}, "model is empty"),
        ({"timeout": 0}, "positive number of seconds"),
        ({"max_connections": 0}, "at least 1"),
        ({"proxy": "127.0.0.1:3128"}, "begins with http"),
        ({"api_key": "sk 1"}, "strip"),
        ({"base_url": "ftp://127.0.0.1"}, "an http or https URL"),
        ({"base_url": "http://127.0.0.1/v1 "}, "an http or https URL"),
        ({"base_url": "http://[::1/v1"}, "an http or https URL"),
        ({"base_url": "http://user:pass@host/v1"}, "without a user name"),
        ({"params": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"params": {"zzz": 1}}, "params has no 'zzz': put it into extra_body"),
        ({"params": {"top_k": 20}}, "params has no 'top_k': put it into extra_body, or did you mean 'top_p'"),
        ({"params": {"seed": {1}}}, "no JSON value"),
        ({"params": {"temperature": math.nan}}, "no JSON value"),
        ({"extra_body": {"stream": True}}, "set by the backend"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"base_url": "http://127.0.0.1/v1", "model": "m", **arguments}
    with pytest.raises(ValueError, match=said):
        chat(**given)


def test_a_format_of_the_other_backend_is_a_failure_that_says_what_to_write(server: Server) -> None:
    server.script()
    to_chat: LLM[str, str, Any, Any] = LLM(Task(Prompt, parse_text), chatml, chat(server.url, model="m"), Asyncio(2))
    to_completions = replace(to_chat, format=openai, backend=completions(server.url, model="m"))
    for llm in (to_chat, to_completions):
        (row,) = llm.generate(["a"])
        assert failure(row).reason == "not_sent"
        assert "chat takes the format openai" in failure(row).message
    assert server.seen() == []


def test_a_query_string_is_kept_and_not_shown(server: Server) -> None:
    server.script(Act(response(200, text_body("a"))))
    backend = completions(f"{server.url}/?api-version=2026&k=%61bc", model="m")
    assert shown(ask(backend, "x")[0]) == ["a"]
    assert server.seen()[0].path == "/v1/completions?api-version=2026&k=%61bc"  # byte for byte
    assert "api-version" not in repr(backend)


def test_a_copy_is_equal_and_asks(server: Server) -> None:
    server.script()
    backend = completions(server.url, model="m")
    copy: Completions = pickle.loads(pickle.dumps(backend))
    assert copy == backend
    assert hash(copy) == hash(backend)
    assert shown(ask(copy, "a")[0]) == ["a"]


def test_a_stop_is_not_sent_to_another_process() -> None:
    backend = blocking(completions("http://127.0.0.1:1/v1", model="m", stop=threading.Event()))
    (row,) = LLM(Task(Prompt, parse_text), render_user, backend, Processes(1)).generate(["a"])
    assert "'stop' works in one process only: leave it out" in explain(row.failure())


def test_without_aiohttp_the_fix_is_said() -> None:
    program = "import sys; sys.modules['aiohttp'] = None; import distgen.backends.server"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "needs aiohttp: pip install aiohttp" in done.stderr


# Event loops, threads, processes


def test_a_wait_for_a_place_is_no_part_of_the_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script(to={"a": [Act(then="hang")]})
    backend = completions(server.url, model="m", max_connections=1, retry=ONCE)

    async def main() -> Batch:
        rows = asyncio.ensure_future(backend(["a", "b"], 1))
        while not server.seen():
            await asyncio.sleep(0.01)
        loop, clock = asyncio.get_running_loop(), time.monotonic
        monkeypatch.setattr(loop, "time", lambda: clock() + 10_000)
        return await rows

    assert [shown(row) for row in asyncio.run(main())] == ["timeout", ["b"]]


def test_requests_that_follow_share_a_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.backends.transport._KEEP_ALIVE", 100.0)
    server.script()
    words = ["a", "b", "c"]
    backend = completions(server.url, model="m", max_connections=1)
    assert [shown(row) for row in ask(backend, *words)] == [[word] for word in words]
    assert server.connections() == 1


def test_a_cancelled_row_gives_its_place_back(server: Server) -> None:
    server.script(to={"a": [Act(then="hang")]})
    backend = completions(server.url, model="m", max_connections=1)

    async def main() -> Batch:
        rows = [asyncio.ensure_future(backend([word], 1)) for word in "abc"]
        while not server.seen():
            await asyncio.sleep(0.01)
        rows[1].cancel()
        rows[0].cancel()
        return await rows[2]

    assert shown(asyncio.run(main())[0]) == ["c"]


def test_threads_share_one_loop_and_its_connections(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgen.backends.transport._KEEP_ALIVE", 100.0)
    server.script(to={"1": [FAILED]})
    generate = blocking(completions(server.url, model="m"))

    def ask(number: int) -> Row:
        return generate([str(number)], 1)[0]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(ask, range(40)))
    assert [shown(row) for row in rows] == [["0"], "status", *([str(number)] for number in range(2, 40))]
    assert server.connections() <= 8
    assert sum(thread.name == "blocking backends" for thread in threading.enumerate()) == 1


def answer_in_process(url: str, word: str) -> list[str] | str:
    return shown(blocking(completions(url, model="m"))([word], 1)[0])


@pytest.mark.slow
def test_a_forked_process_has_a_loop_of_its_own(server: Server) -> None:
    server.script(to={"b": [FAILED]})
    assert answer_in_process(server.url, "here") == ["here"]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        rows = list(pool.map(answer_in_process, [server.url] * 3, "abc"))
    assert rows == [["a"], "status", ["c"]]


@pytest.mark.slow
@pytest.mark.parametrize("executor", [Threads(8), Processes(2)], ids=["threads", "processes"])
def test_every_fault_has_its_reason_through_blocking(server: Server, executor: Executor[Batch]) -> None:
    assert reasons_of_faults(server, executor) == {name: reason for name, (_, reason) in FAULTS.items()}


@pytest.mark.slow
def test_every_fault_has_its_reason_on_dask(server: Server, dask: Any) -> None:
    if dask is None:
        pytest.skip("needs Dask: pip install dask distributed")
    reasons = reasons_of_faults(server, Pool(dask.get_executor, 8))
    assert reasons == {name: reason for name, (_, reason) in FAULTS.items()}


def reasons_of_faults(server: Server, executor: Executor[Batch]) -> dict[str, str]:
    server.script(to={name: [act] for name, (act, _) in FAULTS.items()})
    rows: dict[str, RowResult[str]] = {}
    for timeout, names in ((1.0, [*SLOW]), (100.0, [*(name for name in FAULTS if name not in SLOW), "answered"])):
        backend = blocking(completions(server.url, model="m", retry=ONCE, timeout=timeout))
        rows.update(
            zip(names, LLM(Task(Prompt, parse_text), render_user, backend, executor).generate(names), strict=True)
        )
    assert single(rows.pop("answered")) == Success("answered")
    return {name: failure(row).reason for name, row in rows.items()}


def test_the_background_loop_leaves_nothing_open(server: Server) -> None:
    server.script()
    program = (
        "import sys; from distgen.backends.server import blocking, completions\n"
        "backend = blocking(completions(sys.argv[1], model='m'))\n"
        "print(backend(['a'], 1)[0][0].text)"
    )
    done = subprocess.run([sys.executable, "-c", program, server.url], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("a\n", "")


# Many rows


@pytest.mark.slow
def test_a_server_that_is_killed_and_back_costs_no_row() -> None:
    words, killed = [f"row {number}" for number in range(10_000)], threading.Event()

    def inputs() -> Iterator[str]:
        yield from words[:8_000]
        assert killed.wait(100)  # however late the kill is, there are rows after it
        yield from words[8_000:]

    with serving() as first, ThreadPoolExecutor(1) as pool:
        first.script()
        backend = completions(first.url, model="m", max_connections=64)
        llm = LLM(Task(Prompt, parse_text), render_user, backend, Asyncio(64))
        rows = pool.submit(llm.generate, inputs())
        while first.done() < 2_000:
            time.sleep(0.1)
        first.process.kill()
        first.process.wait()
        killed.set()
        time.sleep(2)
        with serving(first.port) as second:
            assert [single(row) for row in rows.result()] == [Success(word) for word in words]
            assert second.done() > 1_000


FEW_PLACES = pytest.mark.parametrize("places", [5, 20])
HINTS = pytest.mark.parametrize("hint", [{}, {"Retry-After": "1"}], ids=["no hint", "Retry-After"])


@pytest.mark.slow
@HINTS
@FEW_PLACES
def test_a_server_of_few_places_loses_no_row(server: Server, places: int, hint: Mapping[str, str]) -> None:
    server.script(delay=0.05, places=places, busy=Act(response(429, b"busy", hint)))
    words = [f"row {number}" for number in range(600)]
    llm = LLM(Task(Prompt, parse_text), render_user, completions(server.url, model="m"), Asyncio(512))
    assert [single(row) for row in llm.generate(words)] == [Success(word) for word in words]


class Jumping(selectors.SelectSelector):
    """Makes the clock of an event loop jump to its next timer, so that no machine is too slow."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Generator[asyncio.Runner]:
    """Runs coroutines on an event loop whose clock jumps."""
    selector = Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    monkeypatch.setattr(loop, "time", lambda: selector.now)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        yield runner


@HINTS
@FEW_PLACES
def test_a_server_of_few_places_rejects_few(
    places: int, hint: Mapping[str, str], jumping: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, rejected = 0, 0

    async def send(*_: object) -> tuple[int, Mapping[str, str], bytes]:
        """A double of a server that takes 50 ms for an answer."""
        nonlocal under_way, rejected
        if under_way >= places:
            rejected += 1
            return 429, hint, b"busy"
        under_way += 1
        await asyncio.sleep(0.05)
        under_way -= 1
        return 200, {}, text_body("a")

    monkeypatch.setattr("distgen.backends.server.send", send)
    monkeypatch.setattr("random.random", random.Random(1).random)
    backend = completions("http://127.0.0.1/v1", model="m")

    async def main() -> Batch:
        return await backend(["a"] * 600, 1)

    rows = jumping.run(main())
    assert [shown(row) for row in rows] == [["a"]] * 600
    assert rejected < 40  # asked at once, 512 would be too many at first


def test_a_rejection_after_a_run_was_ended_holds_the_next_one_not_back(
    jumping: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def send(*_: object) -> tuple[int, Mapping[str, str], bytes]:
        """A double of a server that rejects the first request, but only when its run is ended."""
        if ended.is_set():
            return 200, {}, text_body("a")
        await ended.wait()
        return 503, {"Retry-After": "9000"}, b""

    monkeypatch.setattr("distgen.backends.server.send", send)
    backend = completions("http://127.0.0.1/v1", model="m", retry=Retry(patience=1e5, longest_wait=1e5))

    async def main() -> Batch:
        first = asyncio.ensure_future(backend(["a"], 1))
        await asyncio.sleep(0.01)
        backend.end_waits()
        ended.set()
        return [*(await first), *(await backend(["a"], 1))]

    rows = jumping.run(main())
    assert [shown(row) for row in rows] == ["stopped", ["a"]]
    assert jumping.get_loop().time() < 100
