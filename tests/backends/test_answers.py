"""Answers of servers: each case over a real socket, and bytes of any kind."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen.backends.generate import Batch, Row
from distgen.backends.params import Params
from distgen.backends.redact import Secrets, find_secrets, may_hold, redact
from distgen.backends.retry import Retry
from distgen.backends.server import chat, completions
from distgen.backends.wire import read_answer
from distgen.completion import Completion, ToolCall, Usage
from distgen.errors import RequestFailed
from tests.support.servers import Act, Server, response, serving


class Case(TypedDict):
    name: str
    n: int
    status: int
    headers: dict[str, str]
    body: str


CASES: list[Case] = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text().splitlines()]
U = Usage(9, 12)
EMPTY = """'choices' is empty: {"model": "m", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12}}"""
# By the name of the case: the fields of each completion, or of the failure, and the number of requests.
RIGHT: Mapping[str, tuple[object, int]] = {
    "reasoning_content beside a text": ([Completion("4", reasoning="2 and 2", finish_reason="stop", usage=U)], 1),
    "reasoning beside a text": ([Completion("4", reasoning="2 and 2", finish_reason="stop", usage=U)], 1),
    "thinking ate max_tokens": ([Completion("", reasoning="2 and", finish_reason="length", usage=U)], 1),
    "thinking ate max_tokens, empty text": ([Completion("", reasoning="2 and", finish_reason="length", usage=U)], 1),
    "think block inside the text": ([Completion("<think>2 and 2</think>\n4", "stop", U)], 1),
    "tool call, no text": (
        [Completion("", "tool_calls", U, tool_calls=(ToolCall("call_1", "add", '{"a": 2}'),))],
        1,
    ),
    "refusal": ([Completion("", "stop", U, refusal="I cannot.")], 1),
    "content as text parts": ([Completion("The answer is 4.", "stop", U)], 1),
    "content as thinking and text parts": ([Completion("4", "stop", U, reasoning="2 and 2")], 1),
    "one of four choices without text": (
        [Completion("a", "stop", Usage(9, 40)), *(Completion(text, "stop") for text in ("b", "", "d"))],
        1,
    ),
    "cached and reasoning tokens, served model": ([Completion("4", "stop", Usage(900, 30, 640, 22))], 1),
    "an error object in a 200 with a transient code": (
        RequestFailed("error_object", "Upstream error from provider", 200, "502"),
        2,
    ),
    "out of quota": (RequestFailed("status", "You exceeded your current quota.", 429, "insufficient_quota"), 1),
    "JSON, then data: [DONE]": ([Completion("4", "stop", U)], 1),
    "a lone surrogate": ([Completion("half \ud83d", "stop", U)], 1),
    "a raw line break inside a JSON string": ([Completion("a\nb", "stop", U)], 1),
    "usage without choices": (RequestFailed("no_choices", EMPTY, 200, usage=U), 1),
    "rate limit, OpenAI's headers": (
        RequestFailed("status", "Rate limit reached. Please try again in 7.3s.", 429, "rate_limit_exceeded", 7.3),
        1,
    ),
    "rate limit, float seconds": (RequestFailed("status", "slow down", 429, retry_after=2.5), 1),
}


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


def ask(url: str, n: int, retry: Retry) -> Row:
    backend = chat(url, model="m", api_key="sk-0123456789", retry=retry)

    async def main() -> Batch:
        return await backend([[{"role": "user", "content": "Hi"}]], n)

    return asyncio.run(main())[0]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_case_is_read_over_a_socket(server: Server, case: Case) -> None:
    body = case["body"].encode("utf-8", "surrogatepass")
    server.script(then_always=Act(response(case["status"], body, case["headers"])))
    row = ask(server.url, case["n"], Retry(attempts=2, patience=0))
    right, requests = RIGHT[case["name"]]
    assert len(server.seen()) == requests
    assert server.seen()[0].json()["stream"] is False
    if isinstance(row, Failure):
        assert row.failure() == right
    else:
        assert isinstance(row, list)
        assert [plain(completion) for completion in row] == right


def plain(completion: Completion) -> Completion:
    """A completion without the model's name and `extra`, which every answer has."""
    return Completion(
        completion.text,
        completion.finish_reason,
        completion.usage,
        completion.reasoning,
        completion.refusal,
        completion.tool_calls,
        error=completion.error,
    )


def read(answer: object, headers: Mapping[str, str] | None = None) -> Sequence[Completion]:
    return read_answer(200, headers or {}, json.dumps(answer).encode()).unwrap()


def test_a_number_of_too_many_digits_costs_no_text() -> None:
    body = b'{"choices": [{"text": "a"}], "created": -%s, "id": 7}' % (b"9" * 5_000)
    (completion,) = read_answer(200, {}, body).unwrap()
    assert (completion.text, completion.extra) == ("a", {"created": -math.inf, "id": 7})


def test_tool_calls_that_cannot_be_read_are_kept_as_they_came() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    strange, plain = read({"choices": [{"message": {"tool_calls": each}} for each in ("add", [call])]})
    assert (strange.tool_calls, strange.extra) == ((), {"tool_calls": "add"})
    assert (plain.tool_calls, plain.extra) == ((ToolCall("1", "add", "{}"),), {})


def test_letters_of_a_secret_are_found_as_they_are_written() -> None:
    assert may_hold('{"error": "pässwörd"}'.encode(), Secrets("pässwörd-geheim"))


def test_all_else_is_kept() -> None:
    choice = {"index": 0, "text": "a", "finish_reason": 3, "stop_reason": "x", "logprobs": {"tokens": 1}}
    answer = {"id": "c-1", "service_tier": "flex", "choices": [choice], "usage": {"cost": 0.5}, "model": "m"}
    (completion,) = read(answer, {"X-Request-Id": "r-1"})
    assert completion.extra == {
        "id": "c-1",
        "service_tier": "flex",
        "usage": {"cost": 0.5},
        "request_id": "r-1",
        "finish_reason": 3,
        "stop_reason": "x",
        "logprobs": {"tokens": 1},
    }
    assert (completion.served_model, completion.usage, completion.finish_reason) == ("m", None, None)


def test_the_request_id_of_a_body_is_kept_where_no_header_has_one() -> None:
    answer = {"choices": [{"text": "a"}], "request_id": "r-2"}
    assert read(answer)[0].extra == {"request_id": "r-2"}
    assert read(answer, {"X-Request-Id": "r-1"})[0].extra == {"request_id": "r-1"}


SECRET = "sk-/abcdefghijklmno"
ESCAPED = "".join(f"\\u{ord(character):04x}" for character in SECRET)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f'{{"error": "no such key: {ESCAPED}'.encode(), id="escaped, in a cut answer"),
        pytest.param(b'{"error": "no such key: sk-\\/abcdefghijklmno', id="with an escaped slash, in a cut answer"),
        pytest.param(f"no such key: {SECRET}".encode("utf-16"), id="in UTF-16"),
    ],
)
def test_no_secret_is_shown_in_a_body_that_is_not_json(status: int, body: bytes) -> None:
    message = read_answer(status, {}, body, find_secrets(SECRET, {})).failure().message
    assert message.partition("no such key: ")[2] == "***"


QUOTED = 'keyId="ab/cd",sig="ef\\gh",v="1"'


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        pytest.param(307, {"Location": f"/at?key={quote(QUOTED, safe='')}"}, b"", id="in an address"),
        pytest.param(307, {"Location": f"/at?key={''.join(f'%{ord(c):02x}' for c in QUOTED)}"}, b"", id="all of it"),
        pytest.param(400, {}, json.dumps({"key": QUOTED}).encode(), id="in JSON"),
        pytest.param(400, {}, json.dumps({"key": QUOTED}).encode() + b"}", id="in damaged JSON"),
        pytest.param(400, {}, json.dumps({"error": f"no {QUOTED} in {quote(QUOTED)}"}).encode(), id="twice"),
    ],
)
def test_no_piece_of_a_header_with_quotes_is_shown(status: int, headers: Mapping[str, str], body: bytes) -> None:
    message = read_answer(status, headers, body, find_secrets("", {"Authorization": QUOTED})).failure().message
    assert "***" in message
    assert not [piece for piece in ("ab", "cd", "sig", "ef", "gh", "%") if piece in message]


def test_a_message_without_a_secret_is_shown_as_it_came() -> None:
    said = 'C:\\\\new "100%25" \\u0041'
    secrets = find_secrets(SECRET, {})
    assert read_answer(400, {}, json.dumps({"error": said}).encode(), secrets).failure().message == said
    assert read_answer(307, {"Location": "/a%20b"}, b"", secrets).failure().message == "status 307 points to /a%20b"


def test_a_secret_is_taken_out_of_log_probabilities() -> None:
    tokens = ["It is ", *SECRET, ".", SECRET]
    content = [
        {"token": token, "logprob": -0.5, "top_logprobs": [{"token": top, "logprob": -0.5} for top in (token, "x")]}
        for token in tokens
    ]
    call = {"id": "1", "function": {"name": "f", "arguments": json.dumps({"said": QUOTED})}}
    choice = {"message": {"content": "".join(tokens), "tool_calls": [call]}, "logprobs": {"content": content}}
    secrets = find_secrets(SECRET, {"Authorization": QUOTED})
    (completion,) = read_answer(200, {}, json.dumps({"choices": [choice]}).encode(), secrets).unwrap()
    logprobs = completion.logprobs or ()
    assert "".join(entry.token for entry in logprobs) == f"It is {'*' * len(SECRET)}.{'*' * len(SECRET)}"
    assert [entry.logprob for entry in logprobs] == [-0.5] * len(tokens)
    assert {top.token for entry in logprobs for top in entry.top_logprobs} == {"It is ", ".", "x"}
    assert completion.tool_calls[0].arguments == '{"said": "***"}'


def test_no_secret_that_is_not_ascii_is_shown() -> None:
    secret = "пароль-секрет"
    secrets = find_secrets("", {"X-Key": secret})
    assert read_answer(400, {}, json.dumps({"said": secret}).encode(), secrets).failure().message == '{"said": "***"}'
    call = {"id": "1", "function": {"name": "f", "arguments": {"said": secret}}}
    answer = {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}
    (completion,) = read_answer(200, {}, json.dumps(answer).encode(), secrets).unwrap()
    assert completion.tool_calls[0].arguments == '{"said": "***"}'


def test_reasoning_in_two_places_is_kept_twice() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "one"}]}, {"type": "text", "text": "4"}, 5]
    (completion,) = read({"choices": [{"message": {"content": parts, "reasoning": "two"}}]})
    assert (completion.text, completion.reasoning, completion.extra) == (
        "4",
        "one",
        {"content": parts, "reasoning": "two"},
    )


def test_arguments_of_a_tool_call_may_be_an_object() -> None:
    functions = [{"name": "add", "arguments": {"a": 2}}, {"name": "now"}, {"name": "now", "arguments": None}]
    (completion,) = read({"choices": [{"message": {"tool_calls": [{"function": each} for each in functions]}}]})
    assert completion.tool_calls == (ToolCall("", "add", '{"a": 2}'), ToolCall("", "now", ""), ToolCall("", "now", ""))


def test_a_function_call_is_a_tool_call() -> None:
    message = {"content": None, "function_call": {"name": "add", "arguments": "{}"}}
    (completion,) = read({"choices": [{"message": message}]})
    assert completion.tool_calls == (ToolCall("", "add", "{}"),)


def test_parts_of_a_content_may_be_texts_or_reasoning() -> None:
    parts = ["a", {"type": "reasoning", "text": "2 and 2"}, {"type": "output_text", "text": "b"}, None, 5]
    (completion,) = read({"choices": [{"message": {"content": parts}}]})
    assert (completion.text, completion.reasoning, completion.extra) == ("ab", "2 and 2", {"content": parts})


def test_a_stream_may_end_several_times_after_the_answer() -> None:
    assert (
        read_answer(200, {}, b'{"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\ndata: [DONE]\n\n').unwrap()[0].text
        == "a"
    )


@pytest.mark.parametrize(
    ("usage", "right"),
    [
        ({"prompt_tokens": None, "completion_tokens": 5}, Usage(None, 5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 9.0, "completion_tokens": 1.5}, Usage(9)),
        ({"prompt_tokens": True, "completion_tokens": -1}, None),
        ({"prompt_tokens": 1e300, "completion_tokens": 2**63}, None),
        ({"prompt_tokens": 2**63 - 1, "completion_tokens": math.inf}, Usage(2**63 - 1)),
    ],
)
def test_a_count_that_is_none_leaves_the_others(usage: object, right: Usage | None) -> None:
    assert read({"choices": [{"text": "a"}], "usage": usage})[0].usage == right


@pytest.mark.parametrize(
    ("answer", "texts", "errors"),
    [
        ({"choices": [{"text": "a"}, 3, {"text": "c"}]}, ["a", "", "c"], [None, "the choice is not a JSON object", None]),
        ({"error": {}, "choices": [{"text": "a"}]}, ["a"], [None]),
        ({"error": {"message": "", "code": None}, "choices": [{"text": "a"}]}, ["a"], [None]),
        ({"error": "died", "choices": [{"text": "a"}]}, ["a"], ["died"]),
        ({"error": ["died"], "choices": [{"text": "a"}]}, ["a"], ["died"]),
        ({"error": True, "choices": [{"text": "a"}]}, ["a"], ["true"]),
        ({"error": {"message": ["one", "two"]}, "choices": [{"text": "a"}]}, ["a"], ['["one", "two"]']),
        ({"choices": [{"text": "a", "error": {"code": 502, "message": "cut"}}, {"text": "b"}]}, ["a", "b"], ["cut", None]),
        ({"choices": [{"message": {"content": "a"}, "finish_reason": "error"}]}, ["a"], ["finish_reason is 'error'"]),
        ({"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]}, ["a", "b"], [None, None]),
        ({"choices": [{"index": 1.0, "text": "b"}, {"index": 0.0, "text": "a"}]}, ["a", "b"], [None, None]),
        ({"choices": [{"index": 1, "text": "b"}, {"text": "a"}]}, ["a", "b"], [None, None]),
    ],
)  # fmt: skip
def test_each_choice_is_read_on_its_own(answer: object, texts: list[str], errors: list[str | None]) -> None:
    choices = read(answer)
    assert [choice.text for choice in choices] == texts
    assert [choice.error for choice in choices] == errors


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>proxy</html>", "not_json"),
        (200, b"", "not_json"),
        (200, b"[" * 100_000, "not_json"),
        (200, b'{"choices": [{"text": "a"}]} {}', "not_json"),
        (200, b"[]", "no_choices"),
        (200, b'{"choices": null}', "no_choices"),
        (200, b'{"choices": [1]}', "bad_choice"),
        (200, b'{"error": {"message": "died"}}', "error_object"),
        (200, b'{"error": "died", "choices": [{"text": ""}]}', "error_object"),
        (300, b"", "redirect"),
        (399, b"", "redirect"),
        (400, b"", "status"),
        (404, b"<html>", "status"),
        (400, b'{"error": {"message": "long", "code": "context_length_exceeded"}}', "prompt_too_long"),
        (500, b'{"error": {"message": "long", "code": "context_length_exceeded"}}', "status"),
        (400, b'{"message": "This model\'s maximum context length is 8", "code": 400}', "prompt_too_long"),
        (400, b'{"error": {"code": 400, "message": "long", "type": "exceed_context_size_error"}}', "prompt_too_long"),
        (400, b'{"error": {"message": "prompt is too long: 9 tokens > 8 maximum", "type": "x"}}', "prompt_too_long"),
    ],
)
def test_an_answer_without_completions_has_a_reason(status: int, body: bytes, reason: str) -> None:
    assert read_answer(status, {}, body).failure().reason == reason


@pytest.mark.parametrize(
    ("status", "body", "message", "code"),
    [
        (400, b'[{"error": {"code": 400, "message": "API key not valid"}}]', "API key not valid", "400"),
        (422, b'{"detail": [{"loc": ["body", "n"], "msg": "bad"}]}', '[{"loc": ["body", "n"], "msg": "bad"}]', None),
        (400, b'{"error": {}, "message": "bad"}', "bad", None),
        (400, b'{"error": {}, "other": "bad"}', '{"error": {}, "other": "bad"}', None),
        (400, b'"bad"', "bad", None),
        (200, b'{"choices": null, "said": "log in"}', "'choices' is not an array: {\"choices\": null, \"said\": \"log in\"}", None),
    ],
)  # fmt: skip
def test_the_words_of_a_server_are_shown(status: int, body: bytes, message: str, code: str | None) -> None:
    error = read_answer(status, {}, body).failure()
    assert (error.message, error.code) == (message, code)


@pytest.mark.parametrize(
    ("headers", "said"),
    [({"location": "http://127.0.0.1:1"}, "points to http://127.0.0.1:1"), ({}, "points to no address")],
    ids=["somewhere", "nowhere"],
)
def test_a_redirect_names_where_to(headers: Mapping[str, str], said: str) -> None:
    assert read_answer(307, headers, b"").failure().message == f"status 307 {said}"


@pytest.mark.parametrize(
    ("said", "shown"),
    [("x" * 1_000, "x" * 1_000), ("x" * 1_001, f"{'x' * 1_000} ... (cut)"), ("a\n b\t c ", "a b c")],
    ids=["as long as may be", "too long", "lines"],
)
@pytest.mark.parametrize("is_json", [False, True])
def test_a_message_is_one_line_and_says_that_it_is_cut(said: str, shown: str, is_json: bool) -> None:
    body = json.dumps({"error": said}) if is_json else said
    assert read_answer(400, {}, body.encode()).failure().message == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "error",
                    "usage",
                    "index",
                    "message",
                    "content",
                    "text",
                    "type",
                    "thinking",
                    "finish_reason",
                    "refusal",
                    "reasoning",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "prompt_tokens",
                    "code",
                    "logprobs",
                    "tokens",
                    "token_logprobs",
                    "top_logprobs",
                    "model",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after-ms", "x-ratelimit-reset-tokens", "Content-Encoding", "Location"]),
    st.text() | st.sampled_from(["gzip", "deflate", "1", "Fri, 31 Dec 9999 23:59:59 GMT", "1m", "9" * 30]),
)


@given(st.integers(100, 599), HEADERS, st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_no_bytes_raise(status: int, headers: dict[str, str], body: bytes) -> None:
    answer = read_answer(status, headers, body, Secrets("sk-12345678", ("sk-12345678",)))
    if isinstance(answer, Success):
        assert answer.unwrap()
        assert all(type(completion.text) is str for completion in answer.unwrap())


@given(st.text(st.characters(exclude_categories=[]), min_size=1), JSON, JSON, st.dictionaries(st.sampled_from(
    ["finish_reason", "logprobs", "index", "error", "refusal", "tool_calls", "reasoning"]), JSON), st.booleans())  # fmt: skip
@settings(deadline=None)
def test_no_text_is_lost(text: str, usage: object, error: object, beside: dict[str, object], is_chat: bool) -> None:
    choice = {"message": {"content": text, **beside}} if is_chat else {"text": text, **beside}
    body = json.dumps({"choices": [choice], "usage": usage, "error": error}).encode()
    assert [completion.text for completion in read_answer(200, {}, body).unwrap()] == [text]


def test_body_and_read_are_the_two_directions() -> None:
    backend = completions("http://127.0.0.1/v1", model="m", params={"seed": 7}, api_key="")
    assert backend.body("Hi", 2) == {"seed": 7, "model": "m", "prompt": "Hi", "n": 2, "stream": False}
    assert backend.read(200, {}, b'{"choices": [{"text": "a"}]}').unwrap() == (Completion("a"),)


def test_of_a_long_page_a_part_is_read() -> None:
    message = read_answer(400, {}, b"x" * 9_999).failure().message
    assert message == f"{'x' * 1_000} ... (cut)"


def test_a_word_that_only_a_part_of_a_secret_ends_is_shown() -> None:
    secrets = Secrets("sk-12345678")
    assert [redact(text, secrets) for text in ("my sk-1234", "my sk-12345")] == ["my sk-1234", "my ***"]


def test_every_parameter_may_be_left_out() -> None:
    assert Params.__required_keys__ == frozenset()
