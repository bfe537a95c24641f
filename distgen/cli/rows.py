"""Output of the command line: an answer as a row, a row read back to resume a file, and outputs that are no files."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from returns.result import Failure, Result, Success

from distgen.cli.records import RESERVED, BadRow, Fields, Record, has_text, is_list, is_object
from distgen.completion import Completion, TokenLogprob, Usage
from distgen.errors import Raised, RequestFailed, WrongCount, error_kind, explain
from distgen.llm import RowResult

# Source: OpenAI API reference, "The chat completion object": -9999.0 signifies that a token is very unlikely.
_NEVER: Final = -9999.0  # JSON has no -Infinity


def encode(model: str, num_generations: int, record: Record, answer: RowResult[str]) -> Fields:
    """Return the output row: the fields of the input, and the same keys for an answer and for a failure.

    >>> from distgen.cli.records import PromptFields, parse_records
    >>> (record,) = parse_records([b'{"user": "Hi"}'], PromptFields())
    >>> row = encode("m", 1, record, Failure(RequestFailed("timeout", "no whole answer in 60 s")))
    >>> row["user"], row["row"], row["error"], len(row["generations"])
    ('Hi', 1, 'timeout', 1)
    """
    generations = [_generation(completion) for completion in completions_of(answer)[:num_generations]]
    kind, message = error_of(record, answer) or ("", "")
    lost = num_generations - len(generations)
    generations += [_generation(Completion("", error=kind))] * lost
    if is_answered(answer):
        kind, message = "", ""
    own = {"row": record.number, "model": model, "error": kind, "error_message": message, "generations": generations}
    return {**record.fields, **own}


def decode(row: Mapping[str, object]) -> Result[tuple[Record, int], str]:
    """Read an output row for a journal: its record, and the number of its texts.

    >>> decode({"user": "Hi", "generations": [{"text": "Hello", "error": ""}]}).map(lambda found: found[1])
    <Success: 1>
    """
    generations = row.get("generations")
    if not is_list(generations):
        return Failure('it has no "generations"')
    texts = sum(is_object(each) and has_text(each) for each in generations)
    fields = {name: value for name, value in row.items() if name not in RESERVED}
    written = json.dumps(fields, ensure_ascii=False)
    return Success((Record(0, fields, written, BadRow("invalid_row", "it is an output row")), texts))


def error_of(record: Record, answer: RowResult[str]) -> tuple[str, str] | None:
    """Return the kind and the message of the first failure in a row, or None."""
    if isinstance(record.prompt, BadRow):
        return record.prompt
    if isinstance(answer, Failure):
        error = answer.failure()
        return error_kind(error), explain(error)
    for generation in answer.unwrap():
        if isinstance(generation.parsed, Failure):
            no_text = generation.parsed.failure()
            return error_kind(no_text), explain(no_text)
    return None


def is_answered(answer: RowResult[str]) -> bool:
    """Return True if a completion has text and no error."""
    return any(completion.text and completion.error is None for completion in completions_of(answer))


def completions_of(answer: RowResult[str]) -> tuple[Completion, ...]:
    """Return all completions that came, those before a failure too."""
    if isinstance(answer, Success):
        return tuple(generation.completion for generation in answer.unwrap())
    match answer.failure():
        case Raised(completions=came) | RequestFailed(completions=came) | WrongCount(completions=came):
            return came
        case _:
            return ()


def usages_of(answer: RowResult[str]) -> list[Usage]:
    """Return the tokens of a row as the server counted them, those of failed requests too."""
    usages = [completion.usage for completion in completions_of(answer)]
    match answer:
        case Failure(RequestFailed(usage=spent)):
            usages.append(spent)
        case _:
            pass
    return [usage for usage in usages if usage is not None]


def _generation(completion: Completion) -> Fields:
    usage = completion.usage or Usage()
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in completion.tool_calls]
    tokens = completion.logprobs
    listed = [{**_logprob(each), "top_logprobs": [*map(_logprob, each.top_logprobs)]} for each in tokens or ()]
    return {
        "text": completion.text,
        "reasoning": completion.reasoning or "",
        "finish_reason": completion.finish_reason or "",
        "refusal": completion.refusal or "",
        "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else "",
        "logprobs": "" if tokens is None else json.dumps(listed, ensure_ascii=False),
        "served_model": completion.served_model or "",
        "error": completion.error or "",
        "prompt_tokens": usage.prompt_tokens or 0,
        "completion_tokens": usage.completion_tokens or 0,
        "cached_tokens": usage.cached_tokens or 0,
        "reasoning_tokens": usage.reasoning_tokens or 0,
    }


def _logprob(token: TokenLogprob) -> Fields:
    return {"token": token.token, "logprob": _NEVER if token.logprob == -math.inf else token.logprob}


@contextmanager
def open_output(name: str) -> Generator[Callable[[str], None], None, None]:
    """Open stdout for "-", or a pipe or a device, once; yield a function that writes to it at once."""
    if name == "-":
        yield write_stdout
        return
    with Path(name).open("wb", buffering=0) as file:
        yield partial(_write, file.fileno())


def write_stdout(text: str) -> None:
    """Write to stdout at once; nothing stays in a buffer, so a closed pipe is met here and not at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # captured
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    _write(descriptor, text)


def _write(descriptor: int, text: str) -> None:
    left = memoryview(text.encode(errors="backslashreplace"))
    while left:
        left = left[os.write(descriptor, left) :]
