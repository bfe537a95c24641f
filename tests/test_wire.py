from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen.backends import wire
from distgen.backends.params import Params
from distgen.backends.wire import BadChoice, BadStatus, NoChoices, NoText, NotJSON, Redirected, ServerError
from distgen.completion import Completion, TokenLogprob, Usage
from distgen.errors import Raised, fold
from distgen.formats import chatml
from distgen.prompt import Messages
from tests.support.servers import chat_body, text_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
# Values of any type under the names the protocol has, which JSON at random would never meet.
NAMES = st.sampled_from(
    (
        "choices",
        "error",
        "usage",
        "index",
        "message",
        "content",
        "text",
        "finish_reason",
        "refusal",
        "prompt_tokens",
        "code",
        "logprobs",
        "tokens",
        "token",
        "logprob",
        "token_logprobs",
        "top_logprobs",
    )
)
NEAR = st.recursive(
    JSON | st.floats(),  # NaN too, which Python reads and writes
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
TEXT = st.text(st.characters(exclude_categories=[]))  # lone surrogates too
Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Reader: TypeAlias = Callable[[bytes], wire.Answer]
READERS: list[Reader] = [wire.read_chat, wire.read_completions]
LOGPROB = st.floats(max_value=0)  # -inf too
TOPS = st.dictionaries(TEXT, LOGPROB, max_size=3).map(lambda tops: tuple(map(TokenLogprob, tops, tops.values())))
TOKENS = st.lists(st.builds(TokenLogprob, TEXT, LOGPROB, TOPS), max_size=4)


def as_objects(tokens: Sequence[TokenLogprob]) -> list[object]:
    """Logprobs as a chat completion object has them."""
    return [
        {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": as_objects(tops)}
        for token, logprob, tops in tokens
    ]


def as_columns(tokens: Sequence[TokenLogprob]) -> object:
    """Logprobs as a completion object has them."""
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.token: top.logprob for top in token.top_logprobs} for token in tokens],
        "text_offset": [0 for _ in tokens],
    }


def told(answer: wire.Answer) -> wire.WireError:
    return answer.failure()


# Reading what was written


@given(st.lists(TEXT, min_size=1, max_size=4), st.sampled_from(["stop", "length"]), st.integers(0), st.integers(0))
def test_what_a_conforming_server_writes_is_read_back(texts: list[str], reason: str, prompt: int, new: int) -> None:
    first, *rest = texts
    read = Success((Completion(first, reason, Usage(prompt, new)), *(Completion(text, reason) for text in rest)))
    assert wire.read_chat(chat_body(*texts, finish_reason=reason, tokens=(prompt, new))) == read
    assert wire.read_completions(text_body(*texts, finish_reason=reason, tokens=(prompt, new))) == read


@given(st.lists(TEXT, min_size=1, max_size=3), TOKENS)
def test_logprobs_are_read_back(texts: list[str], tokens: list[TokenLogprob]) -> None:
    said = Success(tuple(Completion(text, "stop", None, tuple(tokens)) for text in texts))
    objects = {"content": as_objects(tokens), "refusal": None}
    assert wire.read_chat(chat_body(*texts, tokens=None, logprobs=objects)) == said
    assert wire.read_completions(text_body(*texts, tokens=None, logprobs=as_columns(tokens))) == said
    assert wire.read_completions(text_body(*texts, tokens=None, logprobs=objects)) == said


A = TokenLogprob("a", -0.5)
SEEN: Mapping[str, Sequence[TokenLogprob]] = {
    '{"tokens": ["x", "a"], "token_logprobs": [null, -0.5], "top_logprobs": [null, {"a": -0.5}]}': (
        *(TokenLogprob("x", None), TokenLogprob("a", -0.5, (A,))),
    ),
    '{"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": null}': (A,),
    '{"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": []}': (A,),
    '{"tokens": ["a"], "token_logprobs": [-0.5]}': (A,),
    '{"tokens": ["a"], "token_logprobs": [-Infinity]}': (TokenLogprob("a", -math.inf),),
    '{"tokens": [], "token_logprobs": [], "top_logprobs": []}': (),
    '{"content": [{"token": "a", "logprob": -0.5}]}': (A,),
    '{"content": [{"token": "a", "logprob": -0.5, "top_logprobs": null}]}': (A,),
    '{"content": [{"token": "a", "logprob": -9999, "top_logprobs": []}]}': (TokenLogprob("a", -9999),),
    '{"content": []}': (),
}


@pytest.mark.parametrize(("logprobs", "read"), SEEN.items())
def test_logprobs_as_servers_were_seen_to_write_them(logprobs: str, read: Sequence[TokenLogprob]) -> None:
    body = f'{{"choices": [{{"text": "a", "logprobs": {logprobs}}}]}}'.encode()
    assert wire.read_completions(body).unwrap()[0].logprobs == tuple(read)


NO_LOGPROB = ("NaN", "Infinity", "1e999", "true", '"-0.5"', "[]", "{}", "9" * 400, "-" + "9" * 400)
NO_LOGPROBS = (
    *("null", "[]", "7", '"a"', "{}", '{"content": null}', '{"content": {}}', '{"content": [null]}'),
    *('{"content": ["a"]}', '{"content": [{}]}', '{"content": [{"token": "a", "logprob": -1, "top_logprobs": 7}]}'),
    *('{"content": [{"token": "a", "logprob": -1}, {"token": null, "logprob": -1}]}',),
    *('{"content": [{"token": "a", "logprob": -1, "top_logprobs": [null]}]}',),
    *('{"tokens": ["a"]}', '{"token_logprobs": [-1]}', '{"tokens": ["a"], "token_logprobs": []}'),
    *('{"tokens": [7], "token_logprobs": [-1]}', '{"tokens": {"a": 1}, "token_logprobs": {"a": 1}}'),
    *(
        f'{{"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": {tops}}}'
        for tops in ("[{}, {}]", "7", "[[7]]", "[7]")
    ),
    *(f'{{"tokens": ["a"], "token_logprobs": [{number}]}}' for number in NO_LOGPROB),
    *(f'{{"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{{"a": {number}}}]}}' for number in NO_LOGPROB),
    *(f'{{"content": [{{"token": "a", "logprob": {number}}}]}}' for number in NO_LOGPROB),
)


@pytest.mark.parametrize("logprobs", NO_LOGPROBS)
def test_malformed_logprobs_are_none_and_never_a_failure(logprobs: str) -> None:
    body = f'{{"choices": [{{"text": "a", "logprobs": {logprobs}}}]}}'.encode()
    assert wire.read_completions(body) == Success((Completion("a"),))


def test_logprobs_take_no_room_in_a_repr() -> None:
    assert repr(Completion("a", logprobs=(A,))) == repr(Completion("a"))


@given(st.permutations(range(5)))
def test_choices_are_put_in_the_order_of_their_indexes(order: list[int]) -> None:
    choices = [{"index": index, "text": str(index)} for index in order]
    read = wire.read_completions(json.dumps({"choices": choices}).encode()).unwrap()
    assert [completion.text for completion in read] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "indexes", [[1, 1], [1, 2], [-1, 0], [True, False], [1.0, 0.0], ["1", "0"], [None, 0], [[], {}]]
)
def test_choices_stay_as_they_stand_where_indexes_are_no_order(indexes: list[object]) -> None:
    choices = [{"index": index, "text": text} for index, text in zip(indexes, "ab", strict=True)]
    read = wire.read_completions(json.dumps({"choices": choices}).encode()).unwrap()
    assert [completion.text for completion in read] == ["a", "b"]


@pytest.mark.parametrize(
    "usage",
    [None, [1], 7, "7", {}, {"prompt_tokens": 1}, {"completion_tokens": 1}]
    + [{"prompt_tokens": bad, "completion_tokens": 1} for bad in (None, -1, 1.5, "1", True)]
    + [{"prompt_tokens": 1, "completion_tokens": bad} for bad in (None, -1, 1.5, "1", False)],
)
def test_a_malformed_usage_is_none_and_never_a_failure(usage: object) -> None:
    body = json.dumps({"choices": [{"text": "a"}], "usage": usage}).encode()
    assert wire.read_completions(body) == Success((Completion("a"),))


def test_a_byte_order_mark_is_no_part_of_an_answer() -> None:
    assert wire.read_chat(b"\xef\xbb\xbf" + chat_body("a", tokens=None)) == Success((Completion("a", "stop"),))


# What is no answer


@settings(deadline=None)
@given(NEAR, st.integers(100, 599))
def test_any_json_whatsoever_is_a_result(value: object, status: int) -> None:
    body = json.dumps(value).encode()
    for reader in READERS:
        assert fold(reader(body), len, _words) >= 1
    assert isinstance(wire.read_error(status, body), BadStatus)


@given(st.binary())
def test_any_bytes_whatsoever_are_a_result(body: bytes) -> None:
    for reader in READERS:
        assert fold(reader(body), len, _words) >= 1
    assert isinstance(wire.read_error(500, body), BadStatus)


WHOLE = (
    chat_body("Hi", "Ho", logprobs={"content": as_objects([A])}),
    text_body("Hi", "Ho", logprobs=as_columns([A])),
)


@settings(deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 3), st.binary(max_size=4)), max_size=5),
)
def test_any_bytes_in_place_of_some_are_a_result(body: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
    for place, length, instead in cuts:
        body = body[:place] + instead + body[place + length :]
    for reader in READERS:
        assert fold(reader(body), len, _words) >= 1


def _words(error: wire.WireError) -> int:
    return len(wire.explain_wire(error).split())


@settings(deadline=None)
@given(st.data())
def test_a_wrong_value_at_any_place_invents_no_text(data: st.DataObject) -> None:
    whole: Json = json.loads(chat_body("a", "b", logprobs={"content": as_objects([TokenLogprob("a", -0.5, (A,))])}))
    body = json.dumps(_with_one_replaced(whole, data)).encode()
    answer = wire.read_chat(body)
    if isinstance(answer, Success):
        said: list[str] = [choice["message"]["content"] for choice in json.loads(body)["choices"]]
        assert sorted(completion.text for completion in answer.unwrap()) == sorted(said)


def _with_one_replaced(node: Json, data: st.DataObject) -> object:
    if node and isinstance(node, dict) and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(node)))
        return {**node, key: _with_one_replaced(node[key], data)}
    if node and isinstance(node, list) and data.draw(st.integers(0, 3)):
        place = data.draw(st.integers(0, len(node) - 1))
        return [*node[:place], _with_one_replaced(node[place], data), *node[place + 1 :]]
    return data.draw(NEAR)


@given(st.integers(0, len(chat_body("Hello")) - 1))
def test_a_cut_answer_is_no_json(length: int) -> None:
    body = chat_body("Hello")[:length]
    error = told(wire.read_chat(body))
    assert isinstance(error, NotJSON)
    assert error.body == body.decode()


NO_JSON = (
    *(b"", b"<html>Bad gateway</html>", b'{"choices": [', b"data: {}\n\n"),
    *(b"\xff", b'"\xed\xa0\x80"'),  # the second would be a surrogate, were UTF-8 to have them
    *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000),
)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json(reader: Reader, body: bytes) -> None:
    assert isinstance(told(reader(body)), NotJSON)


CHAT_FAILURES: Mapping[str, wire.WireError] = {
    "{}": NoChoices("'choices' is null"),
    "[]": NoChoices("the answer is an array"),
    "null": NoChoices("the answer is null"),
    '"Hi"': NoChoices("the answer is a string"),
    '{"choices": null}': NoChoices("'choices' is null"),
    '{"choices": []}': NoChoices("'choices' is empty"),
    '{"choices": {}}': NoChoices("'choices' is an object"),
    '{"choices": 1.5, "error": null}': NoChoices("'choices' is a number"),
    '{"choices": true}': NoChoices("'choices' is a boolean"),
    '{"error": {"message": "upstream died", "code": 502}}': ServerError("upstream died (502)"),
    '{"error": "overloaded", "choices": []}': ServerError("overloaded"),
    '{"error": {"type": "x"}}': ServerError('{"error": {"type": "x"}}'),
    '{"error": true}': ServerError('{"error": true}'),
    '{"choices": [null]}': BadChoice(0, "it is null"),
    '{"choices": [{}]}': BadChoice(0, "'message' is null"),
    '{"choices": [{"message": "Hi"}]}': BadChoice(0, "'message' is a string"),
    '{"choices": [{"message": {"content": 7}}]}': BadChoice(0, "'content' is a number"),
    '{"choices": [{"message": {"content": ["Hi"]}}]}': BadChoice(0, "'content' is an array"),
    '{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}, "finish_reason": 0}]}': BadChoice(
        1, "'finish_reason' is a number"
    ),
    '{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}': NoText(
        0, "content_filter", None
    ),
    '{"choices": [{"message": {"content": null, "refusal": "I cannot."}, "finish_reason": "stop"}]}': NoText(
        0, "stop", "I cannot."
    ),
    '{"choices": [{"message": {"refusal": 7}}]}': NoText(0, None, None),
}


@pytest.mark.parametrize(("body", "error"), CHAT_FAILURES.items())
def test_each_malformed_chat_answer_is_told_apart(body: str, error: wire.WireError) -> None:
    assert wire.read_chat(body.encode()) == Failure(error)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"choices": [7]}', BadChoice(0, "it is a number")),
        ('{"choices": [{"text": {}}]}', BadChoice(0, "'text' is an object")),
        ('{"choices": [{"text": null, "finish_reason": "length"}]}', NoText(0, "length", None)),
    ],
)
def test_each_malformed_completion_is_told_apart(body: str, error: wire.WireError) -> None:
    assert wire.read_completions(body.encode()) == Failure(error)


# Refusals


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"error": {"message": "No.", "type": "invalid_request_error", "code": null}}',
            "No. (invalid_request_error)",
        ),
        (b'{"error": {"message": "No.", "type": "t", "code": "model_not_found"}}', "No. (model_not_found)"),
        (b'{"error": {"message": "No.", "code": []}}', "No."),
        (b'{"error": "No."}', "No."),
        (b'{"object": "error", "message": "No.", "code": 40001}', "No. (40001)"),
        (b'{"detail": "No."}', "No."),
        (b'{"detail": [{"loc": ["body"]}]}', '{"detail": [{"loc": ["body"]}]}'),
        (b"[1]", "[1]"),
        (b"<html>no</html>", "<html>no</html>"),
        (b"\xff", "\ufffd"),
        (b"", ""),
    ],
)
def test_a_refusal_keeps_the_message_of_the_server(body: bytes, message: str) -> None:
    assert wire.read_error(400, body) == BadStatus(400, message)


@pytest.mark.parametrize("endpoint", [wire.CHAT, wire.COMPLETIONS], ids=["chat", "completions"])
def test_the_status_decides_how_a_body_is_read(endpoint: wire.Endpoint[Messages] | wire.Endpoint[str]) -> None:
    body = chat_body("a", tokens=None) if endpoint is wire.CHAT else text_body("a", tokens=None)
    assert endpoint.answer(200, body) == endpoint.answer(299, body) == Success((Completion("a", "stop"),))
    assert endpoint.answer(300, body, "/v2") == Failure(Redirected(300, "/v2"))
    assert endpoint.answer(399, body) == Failure(Redirected(399, ""))
    assert endpoint.answer(199, body) == Failure(BadStatus(199, body.decode()))
    assert endpoint.answer(400, b"no") == Failure(BadStatus(400, "no"))


EXPLAINED: Mapping[wire.WireError, str] = {
    NotJSON("Expecting value", "<html>"): "<html>",
    ServerError("upstream died"): "upstream died",
    NoChoices("'choices' is null"): "'choices' is null",
    BadChoice(2, "it is null"): "Choice 2",
    NoText(0, "content_filter", None): "'content_filter'",
    NoText(0, "stop", "I cannot."): "I cannot.",
    BadStatus(401, "No key"): "OPENAI_API_KEY",
    BadStatus(404, "No such model"): "base_url",
    BadStatus(418, "teapot"): "the request is at fault",
    BadStatus(503, ""): "(no message); the server is at fault",
    Redirected(307, "http://elsewhere/"): "http://elsewhere/",
    Redirected(304, ""): "nowhere",
    wire.TimedOut(0.5): "0.5 s; raise timeout",
    wire.TooLong(2**20): "1,048,576 bytes",
    wire.ConnectionFailed("refused"): "refused",
    wire.NotSent("UnicodeEncodeError: surrogates"): "could not make the request: UnicodeEncodeError: surrogates",
}


@pytest.mark.parametrize(("error", "part"), EXPLAINED.items())
def test_each_error_is_explained(error: wire.WireError, part: str) -> None:
    assert part in wire.explain_wire(error)
    assert wire.fault(error) == Raised(type(error).__name__, wire.explain_wire(error))


@pytest.mark.parametrize("before", [0, *range(970, 1_010)])
def test_no_part_of_the_key_is_left_wherever_the_message_is_cut(before: int) -> None:
    fault = wire.fault(BadStatus(500, "x" * before + "sk-1234567890" + "x" * 1_200), "sk-1234567890")
    assert "sk" not in fault.message
    assert len(fault.message) < 1_050


# Requests


@given(TEXT, st.text(), st.integers(1, 9), st.dictionaries(st.sampled_from(["temperature", "stop", "extra"]), JSON))
def test_a_request_says_what_was_asked(prompt: str, model: str, n: int, values: Mapping[str, object]) -> None:
    params = wire.json_params(None, values)
    several = {"n": n} if n > 1 else {}
    messages: Messages = [{"role": "user", "content": prompt}]
    chat: object = json.loads(wire.encoded(wire.chat_request(messages, model=model, n=n, params=params)))
    text: object = json.loads(wire.encoded(wire.completions_request(prompt, model=model, n=n, params=params)))
    assert chat == {"model": model, "messages": messages, **several, **params}
    assert text == {"model": model, "prompt": prompt, **several, **params}


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": {1, 2}}, b"bytes", object(), "circle"])
def test_a_parameter_that_cannot_be_sent_is_named(value: object) -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError, match=r"extra_body\['top_k'\] is no JSON value"):
        wire.json_params({"temperature": 0}, {"top_k": circle if value == "circle" else value})
    with pytest.raises(ValueError, match=r"params\['temperature'\] is no JSON value"):
        wire.json_params({"temperature": math.nan})


@pytest.mark.parametrize("name", ["model", "messages", "prompt", "n", "stream"])
def test_a_parameter_of_the_backend_itself_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"extra_body\\['{name}'\\] is set by the backend"):
        wire.json_params({}, {name: 1})


def test_a_parameter_that_stands_in_both_is_refused() -> None:
    with pytest.raises(ValueError, match="'seed' stands in params and in extra_body"):
        wire.json_params({"seed": 1}, {"top_k": 2, "seed": 1})


def test_parameters_are_copied_in_depth() -> None:
    stop, schema = ["END"], {"type": ["object"]}
    params: Params = {"stop": stop}
    sent = wire.json_params(params, {"guided_json": schema})
    stop.append("more")
    schema["type"].append("array")
    assert sent == {"stop": ["END"], "guided_json": {"type": ["object"]}}


def test_the_stops_of_a_format_are_sent_as_an_array() -> None:
    request = wire.completions_request("Once", model="m", n=1, params=wire.json_params({"stop": chatml.stops}))
    assert wire.encoded(request) == b'{"stop": ["<|im_end|>"], "model": "m", "prompt": "Once"}'


@pytest.mark.parametrize(("params", "done", "sent"), [({}, 2, {}), ({"seed": None}, 2, {"seed": None})])
def test_without_a_seed_there_is_none_to_advance(
    params: Mapping[str, object], done: int, sent: Mapping[str, object]
) -> None:
    assert wire.seeded(params, done) == sent


def test_a_seed_is_advanced_by_what_is_there() -> None:
    assert [wire.seeded({"seed": 7, "top_p": 1}, done)["seed"] for done in range(3)] == [7, 8, 9]
