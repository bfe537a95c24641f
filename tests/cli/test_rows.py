"""Lines of the input: every kind of bad line is a row with its reason, and costs no other line."""

from __future__ import annotations

import json

import pytest
from returns.result import Failure, Result, Success

from distgen.backends.wire import is_array, is_object
from distgen.cli.options import Options
from distgen.cli.rows import completions_of, decode, encode, parse_records
from distgen.completion import Completion, Usage
from distgen.errors import FormatError, Raised, RequestFailed
from distgen.prompt import Exchange, Prompt

PLAIN = Options()
BAD = {
    "not JSON": (b"nonsense", "not a JSON row: Expecting value: line 1 column 1 (char 0)"),
    "not an object": (b"[1]", "not a JSON row: it is an array, not an object"),
    "text": (b'"Hi"', "not a JSON row: it is a string, not an object"),
    "a number": (b"7", "not a JSON row: it is a number, not an object"),
    "true": (b"true", "not a JSON row: it is a boolean, not an object"),
    "not UTF-8": (b'{"user": "\xff"}', "not a JSON row: 'utf-8' codec can't decode byte 0xff in position 10"),
    "NaN": (b'{"user": "Hi", "score": NaN}', "not a JSON row: Out of range float values are not JSON compliant"),
    "too deep": (b'{"user": ' + b"[" * 200_000, "not a JSON row: maximum recursion depth exceeded"),
    "null user": (b'{"user": null}', '"user" is null, not text'),
    "a user of another type": (b'{"user": {}}', '"user" is an object, not text'),
    "a number as user": (b'{"user": 7}', "\"user\" is a number, not text; --template '{user}' takes numbers"),
    "system": (b'{"user": "Hi", "system": 1}', '"system" is a number, not text'),
    "history": (b'{"user": "Hi", "history": [["a"]]}', '"history" is not a list of [user, assistant] pairs of texts'),
    "history is text": (
        b'{"user": "Hi", "history": "a"}',
        '"history" is not a list of [user, assistant] pairs of texts',
    ),
    "no list": (b'{"messages": "Hi"}', '"messages" is a string, not an array'),
    "no conversation": (b'{"messages": []}', '"messages" is not a conversation: there is no user message'),
    "no message": (b'{"messages": [7]}', '"messages" is not a conversation at 0: the message is int, not an object'),
    "no role": (b'{"messages": [{"content": "Hi"}]}', '"messages" is not a conversation at 0: role is None where'),
    "both": (b'{"messages": [], "user": "Hi"}', 'it has both "user" and "messages"; choose one with --user-field'),
    "empty": (
        b"{}",
        'it has no field "user"; it is empty; name another with --user-field or --template',
    ),
}


def read(*lines: bytes, options: Options = PLAIN) -> list[Result[Prompt, FormatError]]:
    return [record.prompt for record in parse_records(lines, options)]


def kind_and_message(found: Result[Prompt, FormatError]) -> tuple[str, str]:
    error = found.failure()
    assert isinstance(error, Raised)
    return error.kind, error.message


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD)
def test_a_bad_line_has_its_reason_and_costs_no_other_line(line: bytes, reason: str) -> None:
    bad, good = read(line, b'{"user": "Hi"}')
    assert kind_and_message(bad)[1].startswith(reason)
    assert good == Success(Prompt("Hi"))


def test_a_byte_order_mark_carriage_returns_and_blank_lines_are_no_text() -> None:
    found = parse_records([b'\xef\xbb\xbf{"user": "a"}\r\n', b"\r\n", b"  \n", b'{"user": "b"}'], PLAIN)
    assert [(record.number, record.prompt) for record in found] == [
        (1, Success(Prompt("a"))),
        (2, Success(Prompt("b"))),
    ]


def test_a_lone_surrogate_is_replaced() -> None:
    assert read(b'{"user": "\\ud800"}') == [Success(Prompt("\ufffd"))]


GOOD: dict[str, tuple[dict[str, object], Options, Prompt]] = {
    "all": (
        {"user": "Hi", "system": "S", "history": [["a", "b"]]},
        Options(system="T"),
        Prompt("Hi", "S", (Exchange("a", "b"),)),
    ),
    "messages": ({"messages": [{"role": "user", "content": "Hi"}]}, Options(system="T"), Prompt("Hi", "T")),
    "field": ({"question": "Hi", "messages": 7}, Options(user_field="question"), Prompt("Hi")),
    "template": (
        {"n": 1.5, "q": "{a}", "ok": True},
        Options(template="{{{q}}} is {n}, {ok} {"),
        Prompt("{{a}} is 1.5, true {"),
    ),
    "reserved": ({"model": "m"}, Options(template="{model}"), Prompt("m")),
}


@pytest.mark.parametrize(("fields", "options", "prompt"), GOOD.values(), ids=GOOD)
def test_a_prompt_is_made_of_fields(fields: dict[str, object], options: Options, prompt: Prompt) -> None:
    (found,) = parse_records([json.dumps(fields).encode()], options)
    assert found.prompt == Success(prompt)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}], ids=["null", "list", "object"])
def test_a_template_refuses_what_is_no_text_by_name(value: object) -> None:
    (bad,) = read(json.dumps({"q": value}).encode(), options=Options(template="Rate {q}"))
    kind, message = kind_and_message(bad)
    assert kind == "invalid_row"
    assert message.startswith('"q" is ')
    assert message.endswith(", not text")


def test_a_template_names_the_field_that_is_missing() -> None:
    (bad,) = read(b'{"a": 1}', options=Options(template="Rate {q}"))
    kind, message = kind_and_message(bad)
    assert kind == "missing_field"
    assert message.startswith('it has no field "q"; its fields are "a"')


def test_each_generation_keeps_fields_of_its_own_names() -> None:
    row = {"text": "t", "source_row": 3, "row": 5, "generations": [{"text": "new", "error": ""}, {"text": ""}]}
    bare = {"generations": [{"text": "x"}]}
    found = parse_records([json.dumps(each).encode() for each in (row, bare)], Options(each_generation=True))
    assert [record.fields for record in found] == [
        {"input_text": "t", "input_source_row": 3, "text": "new", "generation": 1, "source_row": 5},
        {"text": "x", "generation": 1, "source_row": 0},
    ]


def test_each_generation_needs_an_answers_file() -> None:
    bad, broken = read(b'{"user": "Hi"}', b"nonsense", options=Options(each_generation=True))
    message = 'not a JSON row: it has no "generations", as the rows of an answers file have'
    assert kind_and_message(bad) == ("invalid_row", message)
    assert kind_and_message(broken)[0] == "invalid_row"


def test_a_line_that_is_no_output_row_cannot_be_resumed() -> None:
    assert str(decode({"user": "Hi"}).failure()).startswith('it has no "generations"')


def test_records_with_numbers_of_other_types_differ() -> None:
    one, same, other, true = parse_records([b'{"a": 1}', b'{"a":1}', b'{"a": 1.0}', b'{"a": true}'], PLAIN)
    assert one == same
    assert one not in (other, true)


def test_generations_that_did_not_come_have_the_error_and_the_first_one_its_tokens() -> None:
    (record,) = parse_records([b'{"user": "Hi"}'], PLAIN)
    came = Completion("4", usage=Usage(3, 5))
    failed = RequestFailed("timeout", "no whole answer in 60 s", usage=Usage(7, 9), completions=(came,))
    row = encode(Options(num_generations=3), record, Failure(failed))
    assert row["error"] == row["error_message"] == ""  # it has a text
    generations = row["generations"]
    assert is_array(generations)
    names = ("text", "error", "prompt_tokens", "completion_tokens")
    assert [[each[name] for name in names] for each in generations if is_object(each)] == [
        ["4", "", 3, 5],
        ["", "timeout", 7, 9],
        ["", "timeout", 0, 0],
    ]


def test_a_row_has_no_more_generations_than_were_asked_for() -> None:
    (record,) = parse_records([b'{"user": "Hi"}'], PLAIN)
    doubled = RequestFailed("doubled_line", "two lines", completions=(Completion("a"), Completion("b")))
    generations = encode(Options(num_generations=1), record, Failure(doubled))["generations"]
    assert is_array(generations)
    assert [each["text"] for each in generations if is_object(each)] == ["a"]


def test_an_answer_with_an_error_answers_no_row() -> None:
    (record,) = parse_records([b'{"user": "Hi"}'], PLAIN)
    failed = RequestFailed("status", "no", status=400, completions=(Completion("a part", error="cut"),))
    row = encode(Options(num_generations=1), record, Failure(failed))
    assert (row["error"], row["error_message"]) == ("status 400", "status 400: no.")


def test_completions_that_did_not_come_are_made_only_for_a_number_of_generations() -> None:
    failed = Failure(RequestFailed("timeout", "no whole answer in 60 s"))
    assert completions_of(failed) == []
    assert completions_of(failed, 2) == [Completion("", error="timeout")] * 2
