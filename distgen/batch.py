"""Batch files: requests written for a batch service, and its result files read back as the rows of `generate`.

The batch services of OpenAI, Azure, Groq and Together take these files, most at half the price; `vllm run-batch` takes those
of chat requests. Nothing here sends a file.

    for number, lines in enumerate(write(llm, inputs)):
        with open(f"requests-{number}.jsonl", "wb") as file:
            file.writelines(lines)
    ...  # upload them, wait, download the results
    with open("output.jsonl", "rb") as output, open("errors.jsonl", "rb") as errors:
        rows = list(read(llm, inputs, [output, errors]))
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Final, TypeAlias, TypeGuard

from returns.result import Failure, Result

from distgen.backends.generate import Generate
from distgen.backends.server import Server, join_row
from distgen.backends.wire import is_object, parse_json
from distgen.completion import Completion
from distgen.errors import RequestFailed
from distgen.executors.call import Call, RowAnswer, check_batch
from distgen.llm import LLM, Asked, P, R, RowResult
from distgen.task import In, Out

_Request: TypeAlias = tuple[dict[str, object], str]
_Answer: TypeAlias = Result[tuple[Completion, ...], RequestFailed]

# Source: OpenAI API reference, "Create batch", input_file_id: up to 50,000 requests and 200 MB a file.
_MAX_LINES: Final = 50_000
_MAX_BYTES: Final = 200_000_000

# Source: OpenAI API reference, "Create batch", endpoint.
_URLS: Final = {"messages": "/v1/chat/completions", "prompt": "/v1/completions"}

_DIGEST: Final = 16  # hexadecimal digits
_CUSTOM_ID: Final = re.compile(rb'"custom_id"\s*:\s*"(\d+-\d+)-([0-9a-f]{16})"')


def write(
    llm: LLM[In, Out, P, R],
    inputs: Iterable[In],
    num_generations: int = 1,
    *,
    takes_n: bool = True,
    max_lines: int = _MAX_LINES,
    max_bytes: int = _MAX_BYTES,
) -> Iterator[Iterator[bytes]]:
    """Yield the lines of each request file, lazily; take the lines of a file before the next file.

    The backend of `llm` must be a `server.chat` or a `server.completions`. An input without a prompt has no line. With
    `takes_n` a request asks for all generations of its row; without it, each generation has a request of its own. A line
    that is longer than `max_bytes` has a file of its own.
    """
    server, rows = _server_of(llm.backend), llm.prepare(inputs, num_generations)

    def lines() -> Iterator[bytes]:
        for number, row in enumerate(rows):
            if isinstance(row, Asked):
                for body, custom_id in _requests(server, row.rendered, number, num_generations, takes_n):
                    request = {"custom_id": custom_id, "method": "POST", "url": _URLS[server.prompt_key], "body": body}
                    yield json.dumps(request).encode() + b"\n"

    return _split(lines(), max_lines, max_bytes)


def read(
    llm: LLM[In, Out, P, R],
    inputs: Iterable[In],
    results: Iterable[Iterable[bytes]],
    num_generations: int = 1,
    *,
    takes_n: bool = True,
) -> Iterator[RowResult[Out]]:
    """Yield the rows as `generate` answers them, in the order of the inputs, from the lines of the result files.

    All else must be as it was for `write`; the files and their lines may come in any order. A request without a line, or
    with a cut line, several lines, or a line of other inputs or parameters makes its row a `RequestFailed` ("no_line",
    "cut_line", "doubled_line", "other_batch") that keeps the completions that came. Lines of no input are ignored.

    All lines are read before the first row, into a temporary file. Memory does not grow with their number.
    """
    server, rows = _server_of(llm.backend), llm.prepare(inputs, num_generations)

    def answers() -> Iterator[RowResult[Out]]:
        with closing(_open_table()) as table:
            _store(results, table)
            for number, row in enumerate(rows):
                answer: RowAnswer = ()
                if isinstance(row, Asked):
                    requests = _requests(server, row.rendered, number, num_generations, takes_n)
                    answer = _read_row(server, row.rendered, [*requests], table, num_generations)
                yield llm.read_row(row, answer)

    return answers()


def _server_of(backend: Generate[P, R]) -> Server[P]:
    if _is_server(backend):
        return backend
    kind = type(backend).__name__
    raise TypeError(f"the backend must be a server.chat or a server.completions, got {kind}; `blocking` is not needed")


def _is_server(backend: Generate[P, R]) -> TypeGuard[Server[P]]:
    return isinstance(backend, Server)


def _requests(server: Server[P], prompt: P, row: int, num_generations: int, takes_n: bool) -> Iterator[_Request]:
    """Yield the body of each request of a row, and its id: row, sample and a digest of the body."""
    count, n = (1, num_generations) if takes_n else (num_generations, 1)
    for sample in range(count):
        body = server.body(prompt, n, sample)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:_DIGEST]
        yield body, f"{row}-{sample}-{digest}"


def _split(lines: Iterator[bytes], max_lines: int, max_bytes: int) -> Iterator[Iterator[bytes]]:
    def numbered() -> Iterator[tuple[int, bytes]]:
        number = count = size = 0
        for line in lines:
            if count >= max_lines or size + len(line) > max_bytes:
                number, count, size = number + 1, 0, 0
            count, size = count + 1, size + len(line)
            yield number, line

    for _, group in groupby(numbered(), lambda pair: pair[0]):
        yield (line for _, line in group)


def _open_table() -> sqlite3.Connection:
    """Open a temporary database with a table for result lines. SQLite deletes its file when the connection is closed."""
    table = sqlite3.connect("", check_same_thread=False)  # another thread may take the later rows
    table.execute("CREATE TABLE lines (place TEXT, digest TEXT, line BLOB)")
    return table


def _store(results: Iterable[Iterable[bytes]], table: sqlite3.Connection) -> None:
    for lines in results:
        for line in lines:
            if found := _CUSTOM_ID.search(line):
                table.execute("INSERT INTO lines VALUES (?, ?, ?)", (found[1].decode(), found[2].decode(), line))
    table.execute("CREATE INDEX places ON lines (place)")


def _read_row(
    server: Server[P], prompt: P, requests: Sequence[_Request], table: sqlite3.Connection, expected: int
) -> RowAnswer:
    """Put the answer to a row together from its lines, with the checks of every backend."""
    answers = [answer for _, custom_id in requests for answer in _find(server, custom_id, table)]
    came = [each for answer in answers for each in answer.value_or(())[: expected // len(requests)]]
    row = join_row(tuple(came), [answer for answer in answers if isinstance(answer, Failure)])
    checked = check_batch(Call(server, [prompt], expected), [row])
    return checked[0] if isinstance(checked, tuple) else checked


def _find(server: Server[P], custom_id: str, table: sqlite3.Connection) -> list[_Answer]:
    """Return the answer to a request; if it has several, they come after a Failure that says so."""
    place, _, digest = custom_id.rpartition("-")
    found = table.execute("SELECT digest, line FROM lines WHERE place = ? ORDER BY rowid", (place,)).fetchall()
    own = [line for other, line in found if other == digest]
    answers = [_read_line(server, line) for line in dict.fromkeys(own)]
    if len(own) == 1:
        return answers
    if own:
        error = RequestFailed("doubled_line", f"the result files have {len(own)} lines for request {custom_id}")
    elif found:
        error = RequestFailed("other_batch", f"the line for request {place} answers another input, or other parameters")
    else:
        error = RequestFailed("no_line", f"no result file has a line for request {custom_id}")
    return [Failure(error), *answers]


# Sources: OpenAI API reference, "The request output object":
#   line     = {"id": string, "custom_id": string, "response": response | null, "error": {"code", "message"} | null}
#   response = {"status_code": integer, "request_id": string, "body": object}
# vLLM, vllm/entrypoints/openai/run_batch.py: a request that failed has a response without a body, and as its error a text
# or the whole body of an HTTP error.
def _read_line(server: Server[P], line: bytes) -> _Answer:
    """Read a line with the reader of the backend."""
    try:
        root = parse_json(line)
    except ValueError as damage:
        return Failure(RequestFailed("cut_line", f"the result line is cut or damaged: {damage}"))
    fields = root if is_object(root) else {}
    response, error = fields.get("response"), fields.get("error")
    if not is_object(response):
        return server.read(200, {}, json.dumps({"error": error}).encode())
    status, request_id, body = response.get("status_code"), response.get("request_id"), response.get("body")
    if body is None:
        body = error if is_object(error) and "error" in error else {"error": error}
    headers = {"x-request-id": request_id} if isinstance(request_id, str) else {}
    return server.read(status if isinstance(status, int) else 200, headers, json.dumps(body).encode())
