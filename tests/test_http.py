"""The HTTP backends against a real server process on loopback, well-behaved and not: the same tests for both transports."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import pickle
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TypeVar, final

import pytest
from returns.result import Failure, Result
from urllib3 import Retry

from distgen.backends import aiohttp, http
from distgen.backends.http import RETRIES, chat, completions
from distgen.completion import Batch, Completion, Generate, Row, TokenLogprob, Usage
from distgen.errors import Fault
from distgen.prompt import Messages
from tests.faults import (
    BODY,
    BROKEN,
    ECHOES,
    ESCAPED_KEY,
    FINAL,
    KEY,
    LONG,
    LONG_HEADS,
    MALFORMED,
    NO_HTTP,
    OK,
    PASSING,
    SLOW,
)
from tests.servers import Act, Server, Then, response, serving, text_body

P = TypeVar("P")

FAST = RETRIES.new(total=3, backoff_factor=0.01, backoff_jitter=0)
ONCE = 0
URL = "http://127.0.0.1:1/v1"
DONE = [Completion("ok", "stop")]


@final
@dataclass(frozen=True)
class Over:
    """A transport, each call of its backends run to its end."""

    name: str
    chat: Callable[..., Generate[Messages, Batch]]
    completions: Callable[..., Generate[str, Batch]]


def waited(make: Callable[..., Generate[P, Awaitable[Batch]]]) -> Callable[..., Generate[P, Batch]]:
    def made(*args: object, **options: object) -> Generate[P, Batch]:
        return partial(run, make(*args, **options))

    return made


def run(backend: Generate[P, Awaitable[Batch]], prompts: Sequence[P], num_generations: int) -> Batch:
    async def called() -> Batch:
        return await backend(prompts, num_generations)

    return asyncio.run(called())


TRANSPORTS = {
    "http": Over("http", http.chat, http.completions),
    "aiohttp": Over("aiohttp", waited(aiohttp.chat), waited(aiohttp.completions)),
}


@pytest.fixture(params=TRANSPORTS.values(), ids=list(TRANSPORTS))
def over(request: pytest.FixtureRequest) -> Over:
    found: Over = request.param
    return found


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_key_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def ask(
    over: Over, server: Server, *, n: int = 1, retries: int | Retry = ONCE, timeout: float = 5.0, key: str = ""
) -> Row:
    backend = over.completions(server.url, model="tiny", retries=retries, timeout=timeout, api_key=key)
    [row] = backend(["Once"], n)
    return row


def failed(row: Row) -> Fault:
    assert isinstance(row, Result), row
    return row.failure()


def kind(row: Row) -> str:
    return failed(row).kind


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


# What is asked and what is answered


def test_messages_are_answered_each_in_its_row(over: Over, server: Server) -> None:
    server.script()
    backend: Generate[Messages, Batch] = over.chat(server.url, model="tiny", api_key=KEY, params={"temperature": 0.5})
    assert backend([user("a b"), user("c")], 2) == [
        [Completion("a b", "stop", Usage(2, 4)), Completion("a b", "stop")],
        [Completion("c", "stop", Usage(1, 2)), Completion("c", "stop")],
    ]
    first = server.seen()[0]
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.headers["content-type"] == "application/json"
    assert first.json() == {"model": "tiny", "messages": user("a b"), "n": 2, "temperature": 0.5}


def test_texts_are_answered_each_in_its_row(over: Over, server: Server) -> None:
    server.script()
    backend: Generate[str, Batch] = over.completions(server.url + "/", model="tiny")
    assert backend(["a", "\ud800"], 1) == [[Completion(text, "stop", Usage(1, 1))] for text in ("a", "\ud800")]
    assert [seen.path for seen in server.seen()] == ["/v1/completions"] * 2
    assert "authorization" not in server.seen()[0].headers


def test_nothing_to_ask_is_no_request(over: Over, server: Server) -> None:
    server.script()
    backend = over.completions(server.url, model="tiny")
    assert (backend([], 3), backend(["a", "b"], 0)) == ([], [[], []])
    assert server.seen() == []


@pytest.mark.parametrize(
    ("given", "sent"), [(None, "Bearer of-the-environment"), ("given", "Bearer given"), ("", None)]
)
def test_where_the_key_comes_from(
    over: Over, server: Server, monkeypatch: pytest.MonkeyPatch, given: str | None, sent: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    server.script()
    over.completions(server.url, model="tiny", api_key=given)(["a"], 1)
    assert server.seen()[0].headers.get("authorization") == sent


def test_a_row_fails_alone(over: Over, server: Server) -> None:
    server.script(OK, Act(response(400, b'{"error": {"message": "too long"}}')), OK)
    first, second, third = over.completions(server.url, model="tiny")(["a", "b", "c"], 1)
    assert (first, third) == (DONE, DONE)
    assert failed(second) == Fault("BadStatus", "Status 400: too long; the request is at fault.")


def test_cookies_and_proxies_of_the_environment_are_left_alone(
    over: Over, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.script(Act(response(200, text_body("ok", tokens=None), {"Set-Cookie": "a=b"})), OK)
    assert over.completions(server.url, model="tiny")(["a", "b"], 1) == [DONE, DONE]
    assert [seen.headers.get("cookie") for seen in server.seen()] == [None, None]
    assert {seen.headers.get("accept-encoding", "identity") for seen in server.seen()} == {"identity"}


def test_a_prompt_of_megabytes_is_sent_whole_and_again(over: Over, server: Server) -> None:
    server.script(Act(response(503, b"")))
    text = "x" * 3_000_000
    assert over.completions(server.url, model="tiny", retries=FAST)([text], 1) == [
        [Completion(text, "stop", Usage(1, 1))]
    ]
    assert [len(str(seen.json()["prompt"])) for seen in server.seen()] == [3_000_000] * 2


# The number of choices


def test_a_server_that_ignores_n_is_asked_for_the_rest(
    over: Over, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(ignore_n=True)
    backend = over.completions(server.url, model="tiny", params={"seed": 7})
    with caplog.at_level(logging.INFO, "distgen"):
        assert backend(["a b"], 3) == [[Completion("a b", "stop", Usage(2, 2))] * 3]  # the sum is what was billed
    assert [seen.json().get("n") for seen in server.seen()] == [3, 2, None]
    assert [seen.json()["seed"] for seen in server.seen()] == [7, 8, 9]
    assert "answered 1 of 3 choices; asking for the rest" in caplog.text


def test_a_rest_may_come_in_parts(over: Over, server: Server) -> None:
    server.script(Act(response(200, text_body("a", "b"))), Act(response(200, text_body("c", "d", "e", tokens=(4, 6)))))
    assert ask(over, server, n=4) == [
        Completion("a", "stop", Usage(3, 5)),
        Completion("b", "stop"),
        Completion("c", "stop", Usage(4, 6)),
        Completion("d", "stop"),
    ]


def test_a_surplus_of_choices_is_cut(over: Over, server: Server) -> None:
    server.script(Act(response(200, text_body("a", "b", "c", tokens=None))))
    assert ask(over, server) == [Completion("a", "stop")]
    assert len(server.seen()) == 1


def test_a_rest_that_fails_is_a_failure_and_no_short_row(over: Over, server: Server) -> None:
    server.script(OK, Act(response(500, b'{"detail": "no"}')))
    assert failed(ask(over, server, n=3)) == Fault("BadStatus", "Status 500: no; the server is at fault.")
    assert len(server.seen()) == 2


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_several_is_asked_for_one_at_a_time(
    over: Over, server: Server, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    server.script(Act(response(status, b'{"detail": "n must be 1"}')), OK, OK, OK)
    backend = over.completions(server.url, model="tiny", extra_body={"seed": 7})
    with caplog.at_level(logging.INFO, "distgen"):
        assert backend(["Once"], 3) == [DONE * 3]
    assert [(seen.json().get("n"), seen.json()["seed"]) for seen in server.seen()] == [
        (3, 7),
        (None, 7),
        (None, 8),
        (None, 9),
    ]
    assert f"tiny refused 3 choices at once (status {status}); asking for one at a time" in caplog.text


@pytest.mark.parametrize(("status", "asked"), [(400, 2), (422, 2), (404, 1), (413, 1)])
def test_a_request_that_is_refused_for_one_too_is_the_last_refusal(
    over: Over, server: Server, status: int, asked: int
) -> None:
    server.script(*(Act(response(status, f'{{"detail": "refusal {n}"}}'.encode())) for n in (1, 2, 3)))
    assert f"refusal {asked};" in failed(ask(over, server, n=2)).message
    assert len(server.seen()) == asked


def test_a_server_that_refuses_several_and_then_fails_is_a_failure(over: Over, server: Server) -> None:
    server.script(Act(response(400, b"no")), OK, Act(response(400, b"never")))
    assert failed(ask(over, server, n=3)) == Fault("BadStatus", "Status 400: never; the request is at fault.")


def test_logprobs_come_with_the_completion(over: Over, server: Server) -> None:
    logprobs = {"tokens": ["ok"], "token_logprobs": [-0.5], "top_logprobs": [{"ok": -0.5}]}
    server.script(Act(response(200, text_body("ok", tokens=None, logprobs=logprobs))))
    backend = over.completions(server.url, model="tiny", params={"logprobs": 1})
    token = TokenLogprob("ok", -0.5, (TokenLogprob("ok", -0.5),))
    assert backend(["Once"], 1) == [[Completion("ok", "stop", None, (token,))]]
    assert server.seen()[0].json()["logprobs"] == 1


# Malformed answers


@pytest.mark.parametrize(("body", "name"), MALFORMED.items())
def test_a_malformed_answer_is_a_typed_failure_and_is_not_asked_again(
    over: Over, server: Server, body: bytes, name: str
) -> None:
    server.script(Act(response(200, body)))
    assert kind(ask(over, server, retries=FAST)) == name
    assert len(server.seen()) == 1


def test_a_gzip_bomb_is_not_unpacked(over: Over, server: Server) -> None:
    server.script(Act(response(200, b"\x1f\x8b rest", {"Content-Encoding": "gzip"})))
    assert kind(ask(over, server)) == "NotJSON"


# Statuses


@pytest.mark.parametrize("status", FINAL)
def test_a_status_that_is_final_is_asked_once(over: Over, server: Server, status: int) -> None:
    server.script(then_always=Act(response(status, b"")))
    name = {204: "NotJSON", 304: "Redirected"}.get(status, "BadStatus")
    assert kind(ask(over, server, retries=FAST)) == name
    assert len(server.seen()) == 1


@pytest.mark.parametrize("status", PASSING)
def test_a_status_that_may_pass_is_asked_again(over: Over, server: Server, status: int) -> None:
    server.script(Act(response(status, b"wait")), Act(response(status, b"wait")), OK)
    assert ask(over, server, retries=FAST) == DONE
    assert len(server.seen()) == 3


def test_a_status_that_does_not_pass_is_asked_a_bounded_number_of_times(over: Over, server: Server) -> None:
    quota = b'{"error": {"message": "No quota left.", "type": "insufficient_quota", "code": null}}'
    server.script(then_always=Act(response(429, quota)))
    assert failed(ask(over, server, retries=FAST.new(raise_on_status=True))) == Fault(
        "BadStatus", "Status 429: No quota left. (insufficient_quota); use fewer threads, or see to the quota."
    )
    assert len(server.seen()) == 4


def test_retries_are_counted(over: Over, server: Server) -> None:
    server.script(then_always=Act(response(503, b"")))
    ask(over, server, retries=1)
    assert len(server.seen()) == 2


def test_retry_after_is_honoured_up_to_a_cap(over: Over, server: Server) -> None:
    server.script(Act(response(429, b"", {"Retry-After": "120"})), OK)
    start = time.monotonic()
    assert ask(over, server, retries=FAST.new(retry_after_max=1)) == DONE
    assert 0.9 < time.monotonic() - start < 4


@pytest.mark.parametrize("value", ["soon", "0.5", "9" * 5_000, "Mon, 01 Jan 99999999 00:00:00 GMT", ""])
def test_a_retry_after_that_says_nothing_is_none(over: Over, server: Server, value: str) -> None:
    server.script(Act(response(503, b"", {"Retry-After": value})), OK)
    assert ask(over, server, retries=FAST) == DONE


def test_a_redirect_is_not_followed_and_named(over: Over, server: Server) -> None:
    server.script(then_always=Act(response(307, b"", {"Location": "http://127.0.0.1:1/v2"})))
    fault = failed(ask(over, server, retries=FAST))
    assert fault.kind == "Redirected"
    assert "http://127.0.0.1:1/v2" in fault.message
    assert len(server.seen()) == 1


# Connections that break


@pytest.mark.parametrize("act", BROKEN.values(), ids=BROKEN)
def test_a_connection_that_breaks_is_asked_again(over: Over, server: Server, act: Act) -> None:
    server.script(act, act, OK)
    assert ask(over, server, retries=FAST) == DONE
    assert len(server.seen()) == 3


@pytest.mark.parametrize("act", BROKEN.values(), ids=BROKEN)
def test_a_connection_that_always_breaks_is_a_failure(over: Over, server: Server, act: Act) -> None:
    server.script(then_always=act)
    assert kind(ask(over, server, retries=FAST)) == "ConnectionFailed"
    assert len(server.seen()) == 4


def test_lengths_that_contradict_each_other_are_a_failure(over: Over, server: Server) -> None:
    server.script(Act(response(200, b"{}", {"Content-Length": "1, 2"}), then="close"))
    assert kind(ask(over, server)) == "ConnectionFailed"


@pytest.mark.parametrize("length", ["-5", "many"])
def test_a_length_that_is_none_is_none_or_a_failure(over: Over, server: Server, length: str) -> None:
    server.script(Act(response(200, text_body("ok", tokens=None), {"Content-Length": length}), then="close"))
    row = ask(over, server)
    assert row == DONE if over.name == "http" else kind(row) == "ConnectionFailed"


def test_without_a_length_the_end_of_the_connection_is_the_end(over: Over, server: Server) -> None:
    server.script(Act(b"HTTP/1.1 200 OK\r\n\r\n" + text_body("ok", tokens=None), then="close"))
    assert ask(over, server) == DONE


def test_nobody_listens(over: Over) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    [row] = over.completions(f"http://127.0.0.1:{port}/v1", model="tiny", retries=FAST)(["a"], 1)
    assert kind(row) == "ConnectionFailed"
    assert str(port) in failed(row).message


def test_a_server_that_stops_and_comes_back(over: Over) -> None:
    patient = RETRIES.new(total=200, backoff_factor=0.02, backoff_jitter=0, backoff_max=0.05)
    with serving() as first:
        backend = over.completions(first.url, model="tiny", retries=patient)
        before = backend(["a"], 1)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(backend, ["a"], 1)
        time.sleep(0.2)
        assert not later.done()
        with serving(first.port):
            assert later.result(timeout=10) == before


def test_https_is_not_spoken_by_everyone(over: Over, server: Server) -> None:
    server.script(then_always=Act(response(400, b"")))
    url = server.url.replace("http:", "https:")
    [row] = over.completions(url, model="tiny", retries=ONCE, timeout=0.3)(["a"], 1)
    # The server waits for the end of a request that is a TLS greeting.
    assert kind(row) == "TimedOut"


# Deadlines and lengths


@pytest.mark.parametrize("act", SLOW.values(), ids=SLOW)
def test_the_deadline_holds_however_slowly_the_answer_comes(over: Over, server: Server, act: Act) -> None:
    server.script(then_always=act)
    threads = threading.active_count()
    start = time.monotonic()
    fault = failed(ask(over, server, timeout=0.25, retries=FAST))
    assert 0.2 < time.monotonic() - start < 0.6
    assert fault == Fault("TimedOut", "No whole answer within 0.25 s; raise timeout, or ask for fewer tokens.")
    assert len(server.seen()) == 1  # it may still be at work on the first
    assert threading.active_count() == threads


def test_the_wait_for_a_byte_is_no_longer_than_what_is_left(over: Over, server: Server) -> None:
    server.script(Act(b"HT", drip=0.3, then="hang"))
    start = time.monotonic()
    assert kind(ask(over, server, timeout=0.4)) == "TimedOut"
    assert time.monotonic() - start < 0.65  # and not 0.3 and again 0.4


def test_the_deadline_holds_though_there_is_always_more_to_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = map(float, itertools.count())  # a second each time the clock is read
    monkeypatch.setattr("distgen.backends.http.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    server.script(Act(b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"b" * 1024 + b"\r\n") * 90))
    assert kind(ask(TRANSPORTS["http"], server, timeout=5)) == "TimedOut"


def test_a_slow_answer_within_the_deadline_is_an_answer(over: Over, server: Server) -> None:
    server.script(Act(BODY, drip=0.0002), OK)
    backend = over.completions(server.url, model="tiny", timeout=5, retries=ONCE)
    assert len(backend(["a", "b"], 1)) == 2
    assert server.connections() == 1


def test_the_deadline_starts_anew_with_each_request(over: Over, server: Server) -> None:
    server.script(delay=0.15)
    backend = over.completions(server.url, model="tiny", timeout=0.5, retries=ONCE)
    assert not [row for row in backend(["a"] * 5, 1) if isinstance(row, Failure)]


@pytest.mark.parametrize("act", LONG.values(), ids=LONG)
def test_an_answer_that_is_too_long_is_cut_off(
    over: Over, server: Server, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    monkeypatch.setattr(f"distgen.backends.{over.name}.LONGEST_ANSWER", 10_000)
    server.script(then_always=act)
    fault = failed(ask(over, server, retries=FAST, timeout=2))
    assert fault == Fault("TooLong", "The answer is longer than 10,000 bytes and was cut off; ask for fewer tokens.")
    assert len(server.seen()) == 1


@pytest.mark.parametrize("act", LONG_HEADS.values(), ids=LONG_HEADS)
def test_headers_that_are_too_long_are_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch, act: Act) -> None:
    # aiohttp reads at most 128 headers of 8,190 bytes, and keeps nothing of what comes before them
    monkeypatch.setattr("distgen.backends.http.LONGEST_ANSWER", 10_000)
    server.script(then_always=act)
    assert kind(ask(TRANSPORTS["http"], server, retries=FAST, timeout=2)) == "TooLong"


# Connections are kept


def test_connections_are_kept_and_bounded(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.script(delay=0.01)
    backend = completions(server.url, model="tiny", connections=3)
    prompts = [[str(place)] for place in range(120)]
    with ThreadPoolExecutor(12) as pool:
        batches = list(pool.map(backend, prompts, [1] * 120))
    assert batches == [[[Completion(prompt, "stop", Usage(1, 1))]] for [prompt] in prompts]
    assert server.connections() == 3
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_connection_that_the_server_drops_is_replaced(over: Over, server: Server, then: Then) -> None:
    server.script(Act(OK.send, then=then), OK)
    assert list(over.completions(server.url, model="tiny", retries=FAST)(["a", "b"], 1)) == [DONE, DONE]


def test_a_failure_costs_no_place_in_the_pool(over: Over, server: Server) -> None:
    acts = [*BROKEN.values(), Act(then="hang"), LONG["announced"], Act(response(307, b"")), Act(response(400, b"x"))]
    server.script(*acts, OK)
    backend = over.completions(server.url, model="tiny", connections=1, retries=ONCE, timeout=0.3)
    rows = backend(["a"] * (len(acts) + 1), 1)
    assert rows[-1] == DONE


# The key


@pytest.mark.parametrize("act", ECHOES, ids=range(len(ECHOES)))
def test_the_key_is_shown_nowhere_even_if_the_server_says_it(
    over: Over, server: Server, act: Act, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server.script(then_always=act)
    caplog.set_level(logging.DEBUG)
    fault = failed(ask(over, server, key=KEY, retries=FAST.new(total=1)))
    shown = f"{fault!r} {fault.trace} {caplog.text} {[vars(record) for record in caplog.records]} {capfd.readouterr()}"
    assert KEY not in shown.replace("\\/", "/")
    assert "sk-abc" not in shown


@pytest.mark.parametrize("act", NO_HTTP, ids=range(len(NO_HTTP)))
def test_what_is_no_http_is_not_quoted(over: Over, server: Server, act: Act, caplog: pytest.LogCaptureFixture) -> None:
    server.script(then_always=act)
    caplog.set_level(logging.DEBUG)
    fault = failed(ask(over, server, key=ESCAPED_KEY))
    assert "sk-ab" not in f"{fault!r} {fault.trace} {caplog.text} {[vars(record) for record in caplog.records]}"


@pytest.mark.parametrize("key", ["sk-1\n", "sk-1\r\nX: y", "sk 1", "sk-1\x00", "sk-\u2713", "sk-\xe9", "\x7f"])
def test_a_key_that_is_no_header_is_refused_unseen(over: Over, key: str) -> None:
    with pytest.raises(ValueError, match=r"strip\(\)") as raised:
        over.chat("http://127.0.0.1:1/v1", model="tiny", api_key=key)
    assert key not in f"{raised.value!r}"
    assert "sk" not in f"{raised.value}"


# Construction


NO_BASE = (
    *("", "/v1", "localhost", "127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://", "http:///v1"),
    *("http://h:99999999/v1", "http://[::1/v1", "http://h/v1?key=1", "http://h/v1#top"),
)


@pytest.mark.parametrize("url", NO_BASE)
def test_a_base_url_that_is_none_is_refused_with_the_way_out(url: str) -> None:
    with pytest.raises(ValueError, match=r"it looks like 'http://127\.0\.0\.1:8000/v1'"):
        completions(url, model="tiny")


def test_a_base_url_with_a_password_is_refused_unseen() -> None:
    with pytest.raises(ValueError, match="api_key") as raised:
        completions("http://me:secret@127.0.0.1/v1", model="tiny")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://h", "http://h/", "HTTP://h//", "https://h:8443/a/v1/", "http://[::1]:8000/v1"])
def test_a_base_url_may_end_in_a_slash(url: str) -> None:
    assert completions(url, model="tiny").server.url == url.lower().rstrip("/") + "/completions"


def test_both_transports_take_the_same_arguments() -> None:
    makers: list[Callable[..., object]] = [http.chat, http.completions, aiohttp.chat, aiohttp.completions]
    assert len({tuple(inspect.signature(make).parameters) for make in makers}) == 1


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout="):
        chat("http://h/v1", model="tiny", timeout=timeout)


def test_other_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="model is empty"):
        chat("http://h/v1", model="")
    with pytest.raises(ValueError, match="connections=0"):
        chat("http://h/v1", model="tiny", connections=0)
    with pytest.raises(ValueError, match="retries=-1"):
        chat("http://h/v1", model="tiny", retries=-1)
    with pytest.raises(ValueError, match=r"params\['n'\]"):
        chat("http://h/v1", model="tiny", params={"n": 2})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"extra_body\['n'\]"):
        chat("http://h/v1", model="tiny", extra_body={"n": 2})


@pytest.mark.parametrize("make", [http.chat, aiohttp.chat])
def test_a_backend_is_a_value(make: Callable[..., object]) -> None:
    def made(key: str) -> object:
        return make(URL, model="tiny", api_key=key, params={"stop": ["\n"]}, extra_body={"top_k": 1})

    backend = made(KEY)
    again = pickle.loads(pickle.dumps(backend))
    assert again == backend == made(KEY)
    assert hash(again) == hash(backend)
    assert backend != made("other")
    assert "sk-" not in f"{backend} {backend!r}"
    assert repr(again) == repr(backend)
    assert "params={'stop': ['\\n'], 'top_k': 1}" in repr(backend)


def test_a_pickled_copy_answers(server: Server) -> None:
    server.script()
    answer = [[Completion("a", "stop", Usage(1, 1))]]
    assert pickle.loads(pickle.dumps(http.chat(server.url, model="tiny")))([user("a")], 1) == answer
    assert run(pickle.loads(pickle.dumps(aiohttp.chat(server.url, model="tiny"))), [user("a")], 1) == answer
