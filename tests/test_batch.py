"""Batch files: what is written, and what is read from whole, holed, doubled, cut and foreign result files."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Awaitable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, TypeAlias, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from distgen import LLM, Asyncio, Batch, Generation, Prompt, RowResult, Sequential, Task, error_kind, explain, fold
from distgen.backends.echo import echo
from distgen.backends.params import Params
from distgen.backends.retry import Retry
from distgen.backends.server import chat, completions
from distgen.batch import read, write
from distgen.completion import Completion, Usage
from distgen.errors import InvalidArgument, RequestFailed
from distgen.formats import chatml, openai
from distgen.formats.models.alibaba import qwq
from distgen.prompt import Messages
from tests.support.batches import BatchServiceDouble, requests_of, result_line
from tests.support.servers import Act, Server, chat_body, response, serving

KEY: Final = "sk-1234567890"
ONCE: Final = Retry(attempts=1)

ChatLLM: TypeAlias = LLM[str, str, Messages, Awaitable[Batch]]


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serving() as server:
        yield server


def to_prompt(text: str) -> Prompt:
    if text.startswith("raise"):
        raise ValueError(text)
    return Prompt(text)


def to_brief_prompt(text: str) -> Prompt:
    return Prompt(text, "Be brief.")


def make_llm(url: str = "http://127.0.0.1:1/v1", params: Params | None = None) -> ChatLLM:
    backend = chat(url, model="tiny", api_key=KEY, params=params, retry=ONCE)
    return LLM(Task(to_prompt, Success), openai, backend, Asyncio(8), "asked")


def echo_lines(llm: ChatLLM, inputs: Iterable[str], n: int = 1, *, takes_n: bool = True) -> list[bytes]:
    """Result lines of a conforming service: each text is the prompt and the number of its line."""
    lines: list[bytes] = []
    for number, request in enumerate(requests_of(write(llm, inputs, n, takes_n=takes_n))):
        body = request["body"]
        texts = [f"{body['messages'][-1]['content']}-{number}"] * body.get("n", 1)
        lines.append(result_line(request["custom_id"], chat_body(*texts)))
    return lines


def without_extra(row: RowResult[str]) -> RowResult[str]:
    match row:
        case Success(generations):
            plain = [replace(each, completion=replace(each.completion, extra={})) for each in generations]
            return Success(tuple(plain))
        case Failure(RequestFailed(completions=came) as error):
            return Failure(replace(error, completions=tuple(replace(each, extra={}) for each in came)))
        case _:
            return row


TEXTS: Final = st.sampled_from(["bad", "raise", "<|im_end|>", "two words", ""]) | st.text(max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.lists(TEXTS, max_size=6),
    n=st.integers(0, 3),
    seed=st.integers(0, 99),
    is_chat=st.booleans(),
    takes_n=st.booleans(),
    max_lines=st.integers(1, 4),
)
def test_results_of_a_conforming_service_are_the_rows_of_generate(
    server: Server, inputs: list[str], n: int, seed: int, is_chat: bool, takes_n: bool, max_lines: int
) -> None:
    refused = Act(response(400, b'{"error": {"message": "no", "code": "bad_prompt"}, "usage": {"prompt_tokens": 2}}'))
    prompt = chatml(Prompt("bad")).unwrap()
    server.script(to={"bad": [refused] * 200, prompt: [refused] * 200}, ignore_n=not takes_n)
    service, task = BatchServiceDouble(server), Task(to_prompt, Success)
    llm: LLM[str, str, Any, Awaitable[Batch]]
    if is_chat:
        llm = LLM(task, openai, chat(server.url, model="tiny", api_key=KEY, retry=ONCE), Asyncio(8))
    else:
        llm = LLM(task, chatml, completions(server.url, model="tiny", api_key=KEY, retry=ONCE), Asyncio(8))
    results = service.serve(write(llm, inputs, n, takes_n=takes_n, max_lines=max_lines), seed)
    rows = [without_extra(row) for row in read(llm, inputs, results, n)]
    expected = [without_extra(row) for row in llm.generate(inputs, n)]
    assert [shown(row) for row in rows] == [shown(row) for row in expected]
    for row, due in zip(rows, expected, strict=True):
        # `generate` ends a row with its first refused request; a batch has sent the others too, and counts their tokens.
        assert row == due or (not takes_n and isinstance(due.failure(), RequestFailed))


def shown(row: RowResult[Any]) -> Sequence[str]:
    return fold(row, lambda generations: [each.completion.text for each in generations], error_kind)


# Requests


def test_a_request_line(server: Server) -> None:
    llm = make_llm(params={"temperature": 0.5, "stop": ("END",)})
    (line,) = requests_of(write(llm, ["Hi"], 2))
    assert line.pop("custom_id").startswith("0-0-")
    assert line == {
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "temperature": 0.5,
            "stop": ["END"],
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hi"}],
            "n": 2,
            "stream": False,
        },
    }


def test_a_batch_of_an_earlier_version_can_be_read() -> None:
    (line,) = requests_of(write(make_llm(), ["Hi"], 2))
    assert line["custom_id"] == "0-0-a6d9f91f623fd36a"


def test_a_rendered_text_goes_to_completions() -> None:
    llm = LLM(Task(Prompt, Success), chatml, completions("http://127.0.0.1:1/v1", model="tiny"), Asyncio(8))
    (line,) = requests_of(write(llm, ["Hi"]))
    assert line["url"] == "/v1/completions"
    assert line["body"]["prompt"] == chatml(Prompt("Hi")).unwrap()


def test_a_service_without_n_gets_a_request_for_each_sample_with_its_own_seed() -> None:
    lines = requests_of(write(make_llm(params={"seed": 7}), ["a", "b"], 2, takes_n=False))
    assert [line["body"]["seed"] for line in lines] == [7, 8, 7, 8]
    assert [line["custom_id"][:4] for line in lines] == ["0-0-", "0-1-", "1-0-", "1-1-"]
    assert not any("n" in line["body"] for line in lines)


def test_ids_are_unique_and_short() -> None:
    ids = [line["custom_id"] for line in requests_of(write(make_llm(), ["same"] * 50, 3, takes_n=False))]
    assert len(set(ids)) == 150
    assert max(map(len, ids)) <= 64


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        pytest.param({}, [5], id="no limit is met"),
        pytest.param({"max_lines": 2}, [2, 2, 1], id="lines"),
        pytest.param({"max_bytes": 400}, [2, 2, 1], id="bytes"),
        pytest.param({"max_bytes": 1}, [1] * 5, id="each line is too long"),
        pytest.param({"max_lines": 0}, [1] * 5, id="no line at all"),
    ],
)
def test_files_end_at_the_limits(limits: dict[str, Any], counts: list[int]) -> None:
    files = [list(lines) for lines in write(make_llm(), ["a", "b", "c", "d", "e"], **limits)]
    assert [len(lines) for lines in files] == counts
    assert [len(list(lines)) for lines in write(make_llm(), ["a", "b", "c", "d", "e"])] == [5]
    assert all(len(lines) == 1 or sum(map(len, lines)) <= limits.get("max_bytes", 10**6) for lines in files)


def test_a_row_has_one_generation_unless_more_are_asked_for() -> None:
    (one,), (three,) = requests_of(write(make_llm(), ["a"])), requests_of(write(make_llm(), ["a"], 3))
    assert (one["body"].get("n", 1), three["body"]["n"]) == (1, 3)


def test_a_file_is_filled_to_its_last_byte() -> None:
    words = ["a", "b", "c", "d", "e"]
    ((line, *_),) = [list(lines) for lines in write(make_llm(), words)]
    assert [len(list(lines)) for lines in write(make_llm(), words, max_bytes=2 * len(line))] == [2, 2, 1]


def test_inputs_are_pulled_line_by_line() -> None:
    pulled = itertools.count()
    files = write(make_llm(), (str(next(pulled)) for _ in itertools.repeat(None)), max_lines=10)
    assert len(list(itertools.islice(next(files), 3))) == 3
    assert next(pulled) <= 4


def test_no_input_is_no_file() -> None:
    assert list(write(make_llm(), [])) == []
    assert list(read(make_llm(), [], [])) == []


def test_a_row_without_a_prompt_has_no_line_and_keeps_its_error(server: Server) -> None:
    llm, inputs = make_llm(server.url), ["a", "raise", "c"]
    server.script()
    lines = echo_lines(llm, inputs)
    assert [json.loads(line)["custom_id"][0] for line in lines] == ["0", "2"]
    assert [shown(row) for row in read(llm, inputs, [lines])] == [["a-0"], "ValueError", ["c-1"]]
    assert list(read(llm, inputs, [lines]))[1] == llm.generate(inputs)[1]


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(TypeError, match="inputs must be an iterable of inputs"):
        read(make_llm(), "text", [])
    other = LLM(Task(Prompt, Success), chatml, echo, Sequential())
    for call in (lambda: write(other, ["a"]), lambda: read(other, ["a"], [])):
        with pytest.raises(TypeError, match=r"the backend must be a server\.chat or a server\.completions"):
            call()


def test_a_wrong_number_of_generations_is_the_error_of_each_row() -> None:
    assert list(write(make_llm(), ["a", "b"], 0)) == []
    rows = list(read(make_llm(), ["a", "b"], [], 0))
    assert [isinstance(row.failure(), InvalidArgument) for row in rows] == [True, True]


def test_lines_are_as_the_openai_package_types_them() -> None:
    pytest.importorskip("openai")
    from openai.types import batch_create_params
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
    from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as TextParams
    from pydantic import TypeAdapter

    endpoint = TypeAdapter(batch_create_params.BatchCreateParams)
    params: Params = {"temperature": 0.5, "max_tokens": 5, "stop": ["END"], "seed": 1}
    task = Task(Prompt, Success)
    text = LLM(task, chatml, completions("http://127.0.0.1:1/v1", model="m", params=params), Asyncio(8))
    for files, kind in ((write(make_llm(params=params), ["Hi"], 2), ChatParams), (write(text, ["Hi"], 2), TextParams)):
        (line,) = requests_of(files)
        assert line.keys() == {"custom_id", "method", "url", "body"}
        endpoint.validate_python({"completion_window": "24h", "endpoint": line["url"], "input_file_id": "f"})
        assert line["body"].keys() <= get_type_hints(kind).keys()
        TypeAdapter(kind).validate_python(line["body"])


# Results


def spoil(lines: list[bytes], how: str) -> list[bytes]:
    """Spoil the line of row 1."""
    line = json.loads(lines[1])
    match how:
        case "missing":
            return [lines[0], lines[2]]
        case "doubled":
            return [*lines, lines[1]]
        case "doubled without a line break":
            return [*lines, lines[1].strip()]
        case "answered twice":
            return [*lines, lines[1].replace(b"b-1", b"b-2")]
        case "cut":
            return [lines[0], lines[2], lines[1][:120]]
        case "cut before its id":
            return [lines[0], lines[2], lines[1][:15]]
        case "foreign":
            return [lines[0], lines[2], lines[1].replace(line["custom_id"][-16:].encode(), b"0123456789abcdef")]
        case "expired":
            expired = {"code": "batch_expired", "message": "This request could not be executed."}
            return [lines[0], lines[2], json.dumps({**line, "response": None, "error": expired}).encode()]
        case "refused":
            body = b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
            return [lines[0], lines[2], result_line(line["custom_id"], body, 400)]
        case "error text":  # vLLM
            return [lines[0], lines[2], result_line(line["custom_id"], None, 400, error="it raised")]
        case "error body":  # vLLM
            error = {"error": {"message": "no such model", "code": 404}}
            return [lines[0], lines[2], result_line(line["custom_id"], None, 404, error=error)]
        case "nothing":
            return [lines[0], lines[2], json.dumps({**line, "response": None}).encode()]
        case "no status":
            return [lines[0], lines[2], json.dumps({**line, "response": {"body": {}}}).encode()]
        case "no object":
            return [lines[0], lines[2], json.dumps([line]).encode()]
        case _:
            return [lines[0], lines[2], result_line(line["custom_id"], b'{"choices": []}')]


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("missing", "no_line", "the result files have 0 of 1 answers"),
        ("doubled", "doubled_line", "a request has several lines in the result files"),
        ("answered twice", "doubled_line", "a request has several lines in the result files"),
        ("cut", "cut_line", "the result line is cut or damaged"),
        ("cut before its id", "no_line", "the result files have 0 of 1 answers"),
        (
            "foreign",
            "other_batch",
            "the result files have 0 of 1 answers; the files are for other inputs or parameters: read with those of write",
        ),
        ("expired", "error_object", "This request could not be executed"),
        ("refused", "prompt_too_long", "too long"),
        ("error text", "status 400", "it raised"),
        ("error body", "status 404", "status 404: no such model;"),
        ("nothing", "no_choices", "'choices' is not an array"),
        ("no object", "cut_line", "the result line is cut or damaged"),
        ("no status", "no_choices", "'choices' is not an array"),
        ("empty", "no_choices", "'choices' is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_spoiled_line_fails_its_row_alone(how: str, kind: str, said: str) -> None:
    llm, inputs = make_llm(), ["a", "b", "c"]
    lines = spoil(echo_lines(llm, inputs), how)
    for order in itertools.permutations(lines):
        rows = list(read(llm, inputs, [order]))
        assert [shown(row) for row in rows] == [["a-0"], kind, ["c-2"]]
        assert said in explain(rows[1].failure())


@pytest.mark.parametrize(("written", "text"), [(b"b\xff-1", "b\ufffd-1"), (b"b\t-1", "b\t-1")])
def test_a_line_is_read_as_an_answer_is(written: bytes, text: str) -> None:
    lines = [line.replace(b'"b-1"', b'"' + written + b'"') for line in echo_lines(make_llm(), ["a", "b"])]
    assert [shown(row) for row in read(make_llm(), ["a", "b"], [lines])] == [["a-0"], [text]]


def completions_of(row: RowResult[str]) -> tuple[Completion, ...]:
    error = row.failure()
    assert isinstance(error, RequestFailed)
    return error.completions


@pytest.mark.parametrize(
    ("how", "texts"),
    [("doubled", ["b-1"]), ("doubled without a line break", ["b-1"]), ("answered twice", ["b-1", "b-2"])],
)
def test_a_doubled_line_keeps_each_answer_once(how: str, texts: list[str]) -> None:
    lines = spoil(echo_lines(make_llm(), ["a", "b", "c"]), how)
    row = list(read(make_llm(), ["a", "b", "c"], [lines]))[1]
    assert [each.text for each in completions_of(row)] == texts
    assert all(each.usage == Usage(3, 5) for each in completions_of(row))


def test_the_other_samples_of_a_failed_request_are_kept() -> None:
    llm = make_llm()
    lines = echo_lines(llm, ["a"], 3, takes_n=False)
    (row,) = read(llm, ["a"], [[lines[0], lines[2]]], 3)
    assert shown(row) == "no_line"
    assert [each.text for each in completions_of(row)] == ["a-0", "a-2"]


def test_a_doubled_line_is_the_error_before_any_other() -> None:
    llm = make_llm()
    lines = echo_lines(llm, ["a"], 2, takes_n=False)
    refused = result_line(json.loads(lines[0])["custom_id"], b'{"error": {"message": "no"}}', 400)
    (row,) = read(llm, ["a"], [[refused, lines[1], lines[1]]], 2)
    assert shown(row) == "doubled_line"


def test_the_samples_of_a_row_are_in_their_order() -> None:
    lines = echo_lines(make_llm(), ["a"], 12, takes_n=False)
    (row,) = read(make_llm(), ["a"], [sorted(lines)], 12)
    assert shown(row) == [f"a-{sample}" for sample in range(12)]


def test_rows_are_numbered_as_they_are_told() -> None:
    llm, inputs, rows = make_llm(), ["b", "d"], [2, 4]
    requests = requests_of(write(llm, inputs, 1, rows))
    assert [request["custom_id"].partition("-")[0] for request in requests] == ["2", "4"]
    lines = echo_lines(llm, ["-", "-", "b", "-", "d"])
    assert [shown(row) for row in read(llm, inputs, [lines], 1, rows)] == [["b-2"], ["d-4"]]


def test_an_input_without_a_number_is_a_failure_of_its_own() -> None:
    llm, inputs = make_llm(), ["a", "b", "c"]
    for numbers in (list[int](), [4]):
        requests = requests_of(write(llm, inputs, 1, iter(numbers)))
        assert [request["custom_id"].partition("-")[0] for request in requests] == [*map(str, numbers)]
        lines = [result_line(request["custom_id"], chat_body("text")) for request in requests]
        read_rows = list(read(llm, inputs, [lines], 1, numbers))
        assert [shown(row) for row in read_rows] == [
            *[["text"]] * len(numbers),
            *["no_line"] * (3 - len(numbers)),
        ]


def test_the_request_id_of_a_result_line_is_kept() -> None:
    llm = make_llm()
    answered, refused = requests_of(write(llm, ["a", "b"]))
    lines = [result_line(answered["custom_id"], chat_body("x")), result_line(refused["custom_id"], b"{}", 400)]
    rows = list(read(llm, ["a", "b"], [lines]))
    error = rows[1].failure()
    assert isinstance(error, RequestFailed)
    assert (rows[0].unwrap()[0].completion.extra["request_id"], error.request_id) == ("req-1", "req-1")


def test_too_few_choices_fail_their_row_and_are_kept() -> None:
    llm = make_llm()
    (request,) = requests_of(write(llm, ["a"], 3))
    (row,) = read(llm, ["a"], [[result_line(request["custom_id"], chat_body("x", "y"))]], 3)
    assert explain(row.failure()).startswith("no_line: the result files have 2 of 3 answers;")
    assert [each.text for each in completions_of(row)] == ["x", "y"]


@pytest.mark.parametrize(
    ("response", "text"),
    [
        pytest.param(json.loads(chat_body("x")), "x", id="the response is the body"),
        pytest.param(
            {"status_code": 200, "request_id": "r", "body": {"choices": {"message": {"content": "x"}}}},
            "x",
            id="SGLang: one choice without a list",
        ),
        pytest.param({"body": json.loads(chat_body("x"))}, "x", id="a body without a status"),
        pytest.param({"status_code": "200", "body": json.loads(chat_body("x"))}, "x", id="a status that is a text"),
    ],
)
def test_lines_of_other_services_are_read(response: object, text: str) -> None:
    llm = make_llm()
    (request,) = requests_of(write(llm, ["a"]))
    line = json.dumps({"id": "r", "custom_id": request["custom_id"], "response": response, "error": None})
    assert [shown(row) for row in read(llm, ["a"], [[line.encode()]])] == [[text]]


def test_choices_beyond_n_are_dropped() -> None:
    llm = make_llm()
    (request,) = requests_of(write(llm, ["a"], 2))
    (row,) = read(llm, ["a"], [[result_line(request["custom_id"], chat_body("x", "y", "z"))]], 2)
    assert shown(row) == ["x", "y"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(make_llm(params={"temperature": 0.1}), id="parameters"),
        pytest.param(replace(make_llm(), backend=chat("http://127.0.0.1:1/v1", model="big")), id="model"),
        pytest.param(replace(make_llm(), task=Task(to_brief_prompt, Success)), id="prompt"),
    ],
)
def test_results_of_other_settings_are_not_read(other: ChatLLM) -> None:
    lines = echo_lines(make_llm(), ["a", "b"])
    assert [shown(row) for row in read(other, ["a", "b"], [lines])] == ["other_batch"] * 2


def test_the_order_of_parameters_is_no_setting() -> None:
    lines = echo_lines(make_llm(params={"temperature": 0.5, "seed": 1}), ["a"])
    assert [shown(row) for row in read(make_llm(params={"seed": 1, "temperature": 0.5}), ["a"], [lines])] == [["a-0"]]


def test_lines_of_no_input_are_ignored() -> None:
    lines = echo_lines(make_llm(), ["a", "b"])
    foreign = [result_line(name, chat_body("x")) for name in ("mine", f"{10**17}-0-0123456789abcdef")]
    rows = read(make_llm(), ["a"], [foreign, lines, [b"\n", b"no JSON", b""]])
    assert [shown(row) for row in rows] == [["a-0"]]


def test_an_answer_is_never_that_of_another_row() -> None:
    llm = make_llm()
    first, second = requests_of(write(llm, ["a", "b"]))
    answer = json.loads(result_line(first["custom_id"], chat_body("a")))
    line = json.dumps({"request": {"custom_id": second["custom_id"]}, **answer}).encode()
    assert [shown(row) for row in read(llm, ["a", "b"], [[line]])] == ["no_line", "cut_line"]


def test_no_secret_is_kept() -> None:
    llm = make_llm()
    (request,) = requests_of(write(llm, ["a"]))
    refused = json.dumps({"error": {"message": f"no such key: {KEY}"}}).encode()
    (row,) = read(llm, ["a"], [[result_line(request["custom_id"], refused, 401)]])
    error = row.failure()
    assert isinstance(error, RequestFailed)
    assert error.message == "no such key: ***"


def test_lines_may_end_as_they_like_and_texts_may_hold_ids() -> None:
    llm = make_llm()
    (request, other) = requests_of(write(llm, ["a", "b"]))
    text = json.dumps({"custom_id": other["custom_id"]}) + "\u2028\x85\r\n"
    line = result_line(request["custom_id"], chat_body(text)).rstrip(b"\n")
    rows = list(read(llm, ["a", "b"], [[line + b"\r\n"]]))
    assert [shown(row) for row in rows] == [[text], "no_line"]


def test_rows_may_be_taken_in_several_threads() -> None:
    rows = read(make_llm(), ["a", "b"], [echo_lines(make_llm(), ["a", "b"])])
    with ThreadPoolExecutor(1) as pool:
        assert shown(pool.submit(next, rows).result()) == ["a-0"]
    assert [shown(row) for row in rows] == [["b-1"]]


def test_an_exception_of_the_inputs_comes_after_the_rows_before_it() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise OSError("disk")

    rows = read(make_llm(), broken(), [echo_lines(make_llm(), ["a"])])
    assert shown(next(rows)) == ["a-0"]
    with pytest.raises(OSError, match="disk"):
        next(rows)


def test_reasoning_is_split_and_texts_are_parsed_as_in_generate() -> None:
    task = Task(Prompt, lambda text: Success(int(text)))
    llm = LLM(task, qwq, completions("http://127.0.0.1:1/v1", model="m"), Asyncio(8), "named")
    (request,) = requests_of(write(llm, ["2+2"]))
    body = json.dumps({"choices": [{"index": 0, "text": "add\n</think>\n\n4", "finish_reason": "stop"}]})
    (row,) = read(llm, ["2+2"], [[result_line(request["custom_id"], body.encode())]])
    (generation,) = row.unwrap()
    assert isinstance(generation, Generation)
    assert (generation.model, generation.completion.reasoning, generation.parsed) == ("named", "add", Success(4))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_files() -> None:
    """2,000 rows of 20 KB are 40 MB. What SQLite keeps of them is bounded by its own cache, and not counted here."""
    llm, count = make_llm(), 2_000
    body = chat_body("x" * 20_000)
    inputs = range(count)

    def lines() -> Iterator[bytes]:
        for files in write(llm, map(str, reversed(inputs))):
            for line in files:
                yield result_line(json.loads(line)["custom_id"], body)

    tracemalloc.start()
    try:
        answered = sum(isinstance(row, Success) for row in read(llm, map(str, reversed(inputs)), [lines()]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answered == count
    assert peak < 4 * 2**20
