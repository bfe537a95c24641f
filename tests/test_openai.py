"""The adapter for clients of the openai package, against the servers that the other transports meet."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, Timeout
from returns.result import Result, Success

from distgen import LLM, Asyncio, Completion, Fault, Prompt, Task, Threads, TokenLogprob, Usage, total
from distgen.backends.openai import OverAsyncOpenAI, OverOpenAI, chat, completions
from distgen.completion import Batch, Row
from distgen.prompt import Messages
from tests.faults import BROKEN, ECHOES, ESCAPED_KEY, FINAL, KEY, MALFORMED, NO_HTTP, OK, PASSING, SLOW
from tests.servers import Act, Server, response, serving, text_body

DONE = [Completion("ok", "stop")]
TASK = Task(Prompt, Success)
AS_IT_IS = total(lambda prompt: prompt.user)


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Generator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=server.url, max_retries=0, timeout=0.3) as client:
        yield client


def kind(row: Row) -> str:
    assert isinstance(row, Result), row
    return row.failure().kind


def made(server: Server, retries: int = 0) -> Callable[[], AsyncOpenAI]:
    return lambda: AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=retries, timeout=0.3)


def waited(call: Awaitable[Batch]) -> Batch:
    async def called() -> Batch:
        return await call

    return asyncio.run(called())


def asked(server: Server, act: Act, client: OpenAI) -> list[Row]:
    """What a client and an async one make of the same answer."""
    server.script(then_always=act)
    return [*completions(client, model="tiny")(["a"], 1), *waited(completions(made(server), model="tiny")(["a"], 1))]


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def test_messages_and_texts_are_answered_each_in_its_row(server: Server, client: OpenAI) -> None:
    server.script()
    backend: OverOpenAI[Messages] = chat(client, model="tiny", params={"temperature": 0.5}, extra_body={"top_k": 2})
    texts: OverOpenAI[str] = completions(client, model="tiny", params={"stop": ("END",)})
    assert backend([user("a b"), user("c")], 2) == [
        [Completion("a b", "stop", Usage(2, 4)), Completion("a b", "stop")],
        [Completion("c", "stop", Usage(1, 2)), Completion("c", "stop")],
    ]
    assert texts(["d"], 1) == [[Completion("d", "stop", Usage(1, 1))]]
    first, _, third = server.seen()
    assert (first.path, third.path) == ("/v1/chat/completions", "/v1/completions")
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.json() == {"model": "tiny", "messages": user("a b"), "n": 2, "temperature": 0.5, "top_k": 2}
    assert third.json() == {"model": "tiny", "prompt": "d", "stop": ["END"]}


def test_an_async_client_answers_the_same(server: Server) -> None:
    server.script()
    backend: OverAsyncOpenAI[Messages] = chat(made(server), model="tiny")
    assert waited(backend([user("a b")], 1)) == [[Completion("a b", "stop", Usage(2, 2))]]
    texts: OverAsyncOpenAI[str] = completions(made(server), model="tiny")
    assert waited(texts(["a b"], 1)) == [[Completion("a b", "stop", Usage(2, 2))]]


def test_a_short_answer_is_topped_up_and_logprobs_are_read(server: Server, client: OpenAI) -> None:
    logprobs = {"tokens": ["ok"], "token_logprobs": [-0.5]}
    server.script(Act(response(200, text_body("ok", tokens=None, logprobs=logprobs))), Act(response(400, b"")), OK, OK)
    first = Completion("ok", "stop", None, (TokenLogprob("ok", -0.5),))
    assert completions(client, model="tiny", params={"seed": 1})(["a"], 3) == [[first, *DONE, *DONE]]
    assert [(seen.json().get("n"), seen.json()["seed"]) for seen in server.seen()] == [
        (3, 1),
        (2, 2),
        (None, 2),
        (None, 3),
    ]


@pytest.mark.parametrize(("body", "name"), MALFORMED.items())
def test_a_malformed_answer_is_a_typed_failure(server: Server, client: OpenAI, body: bytes, name: str) -> None:
    assert [kind(row) for row in asked(server, Act(response(200, body)), client)] == [name, name]


@pytest.mark.parametrize("status", [*FINAL, *PASSING, 307])
def test_a_status_is_told_and_a_redirect_not_followed(server: Server, client: OpenAI, status: int) -> None:
    name = {204: "NotJSON", 304: "Redirected", 307: "Redirected"}.get(status, "BadStatus")
    act = Act(response(status, b"", {"Location": f"{server.url}/completions"}))
    assert [kind(row) for row in asked(server, act, client)] == [name, name]
    assert len(server.seen()) == 2


@pytest.mark.parametrize("act", BROKEN.values(), ids=list(BROKEN))
def test_a_connection_that_breaks_is_a_failure(server: Server, client: OpenAI, act: Act) -> None:
    # This client takes any number of headers of any length, and then misses the body.
    name = "NotJSON" if act in (BROKEN["too many headers"], BROKEN["a header too long"]) else "ConnectionFailed"
    server.script(then_always=act)
    assert kind(completions(client, model="tiny")(["a"], 1)[0]) == name


@pytest.mark.parametrize("name", [name for name in SLOW if "hang" in name])
def test_a_hang_is_a_failure(server: Server, client: OpenAI, name: str) -> None:
    fault = Fault("TimedOut", "No whole answer within 0.3 s; raise timeout, or ask for fewer tokens.")
    assert [row.failure() for row in asked(server, SLOW[name], client) if isinstance(row, Result)] == [fault] * 2


def test_the_timeout_that_is_told_is_that_of_a_read(server: Server) -> None:
    server.script(then_always=Act(then="hang"))
    with OpenAI(api_key=KEY, base_url=server.url, max_retries=0, timeout=Timeout(9, read=0.1)) as client:
        [row] = completions(client, model="tiny")(["a"], 1)
    assert isinstance(row, Result)
    assert "within 0.1 s" in row.failure().message


@pytest.mark.parametrize("act", ECHOES, ids=range(len(ECHOES)))
def test_no_failure_shows_the_key_even_if_the_server_says_it(server: Server, client: OpenAI, act: Act) -> None:
    server.script(then_always=act)
    [row] = completions(client, model="tiny")(["a"], 1)
    assert isinstance(row, Result)
    shown = f"{row.failure()!r} {row.failure().trace}"
    assert KEY not in shown
    assert "sk-abc" not in shown


@pytest.mark.parametrize("act", NO_HTTP, ids=range(len(NO_HTTP)))
def test_what_is_no_http_is_not_quoted(server: Server, act: Act) -> None:
    server.script(then_always=act)
    with OpenAI(api_key=ESCAPED_KEY, base_url=server.url, max_retries=0) as client:
        [row] = completions(client, model="tiny")(["a"], 1)
    assert isinstance(row, Result)
    assert "sk-ab" not in f"{row.failure()!r} {row.failure().trace}"


def test_a_key_that_the_client_asks_for_is_hidden_from_the_first_request_on(server: Server) -> None:
    server.script(then_always=ECHOES[0])
    with OpenAI(api_key=lambda: KEY, base_url=server.url, max_retries=0) as client:
        [row] = completions(client, model="tiny")(["a"], 1)
    assert kind(row) == "BadStatus"
    assert KEY not in repr(row)


def test_what_the_client_itself_raises_fails_its_row_alone(server: Server, client: OpenAI) -> None:
    server.script()
    rows = completions(client, model="tiny")(["a", "\ud800", "b"], 1)
    assert [kind(row) for row in rows if isinstance(row, Result)] == ["NotSent"]
    assert rows[2] == [Completion("b", "stop", Usage(1, 1))]


def test_nobody_listens(server: Server) -> None:
    with OpenAI(api_key=KEY, base_url="http://127.0.0.1:1/v1", max_retries=0) as client:
        assert kind(completions(client, model="tiny")(["a"], 1)[0]) == "ConnectionFailed"


def test_retries_are_those_of_the_client(server: Server) -> None:
    server.script(Act(response(503, b"", {"Retry-After-Ms": "1"})), OK)
    assert waited(completions(made(server, retries=1), model="tiny")(["a"], 1)) == [DONE]


def test_a_deployment_of_azure_is_asked(server: Server) -> None:
    endpoint, version = server.url.removesuffix("/v1"), "2024-10-21"
    path = "/openai/deployments/tiny/chat/completions?api-version=2024-10-21"
    server.script(then_always=Act(response(400, f'{{"error": "not {KEY}"}}'.encode())))
    with AzureOpenAI(azure_endpoint=endpoint, api_version=version, api_key=KEY, max_retries=0) as azure:
        rows = chat(azure, model="tiny")([user("a")], 1)
    later = AsyncAzureOpenAI(azure_endpoint=endpoint, api_version=version, api_key=KEY, max_retries=0)
    rows = [*rows, *waited(chat(later, model="tiny")([user("a")], 1))]
    assert [(seen.path, seen.headers["api-key"]) for seen in server.seen()] == [(path, KEY)] * 2
    assert [kind(row) for row in rows] == ["BadStatus"] * 2
    assert KEY not in repr(rows)


def test_threads_share_a_client(server: Server, client: OpenAI) -> None:
    server.script()
    llm = LLM(TASK, AS_IT_IS, completions(client, model="tiny"), Threads(4))
    inputs = [str(place) for place in range(20)]
    assert [row.unwrap()[0].completion.text for row in llm.generate(inputs)] == inputs


def test_a_run_has_a_client_of_its_own_and_leaves_none_open(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.script()
    llm = LLM(TASK, AS_IT_IS, completions(made(server), model="tiny"), Asyncio(4))
    for _ in range(3):
        assert [row.unwrap()[0].completion.text for row in llm.generate(["a", "b"])] == ["a", "b"]
    gc.collect()  # a socket that is left open warns, which is an error here
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_client_that_is_given_is_closed_with_its_run(server: Server) -> None:
    server.script()
    client = made(server)()
    llm = LLM(TASK, AS_IT_IS, completions(client, model="tiny"), Asyncio(4))
    assert len([row.unwrap() for row in llm.generate(["a", "b"])]) == 2
    assert client.is_closed()
    [row] = llm.generate(["c"])
    assert "has been closed" in str(row.failure())
    gc.collect()


def test_a_backend_is_a_value(client: OpenAI) -> None:
    backend = chat(client, model="tiny", params={"seed": 7})
    assert backend == chat(client, model="tiny", extra_body={"seed": 7})
    assert backend != chat(client, model="other", params={"seed": 7})
    assert hash(backend) == hash(chat(client, model="tiny", extra_body={"seed": 7}))
    assert "sk-" not in repr(backend)
    assert chat(AsyncOpenAI, model="tiny") == chat(AsyncOpenAI, model="tiny")
