"""Batch files: requests written for a batch service, and its result files read back as the rows of `generate`.

The batch services of OpenAI, Azure, Groq and Together take these files, most at half the price. `vllm run-batch` takes files
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
from itertools import chain, groupby, repeat
from typing import Any, Final, TypeGuard

from returns.result import Failure, Result

from distgen.backends.generate import Generate
from distgen.backends.server import Server, join_row
from distgen.backends.wire import Answer, parse_json
from distgen.errors import RequestFailed, RequestReason
from distgen.executors.call import RowAnswer
from distgen.llm import LLM, P, R, Request, RowResult
from distgen.task import In, Out

# Source: OpenAI API reference, "Create batch", endpoint.
_URLS: Final = {"messages": "/v1/chat/completions", "prompt": "/v1/completions"}

# The row, the sample, and a digest of the request. The row is an SQLite integer.
_CUSTOM_ID: Final = re.compile(rb'"custom_id"\s*:\s*"((\d{1,18})-\d+-[0-9a-f]{16})"')


# Source of the limits: OpenAI API reference, "Create batch", input_file_id: up to 50,000 requests and 200 MB a file.
def write(
    llm: LLM[In, Out, P, R],
    inputs: Iterable[In],
    num_generations: int = 1,
    rows: Iterable[int] = range(10**18),
    *,
    takes_n: bool = True,
    max_lines: int = 50_000,
    max_bytes: int = 200_000_000,
) -> Iterator[Iterator[bytes]]:
    """Yield request files, each as an iterator of its lines. Read all lines of a file before you take the next file.

    The backend of `llm` must be a `server.chat` or a `server.completions`. `rows` are the numbers of the inputs,
    from 0 if they are left out. An input without a prompt or a number has no line. With `takes_n` a request asks for all
    generations of its row; without it, each generation has a request of its own. A line that is longer than `max_bytes`
    has a file of its own.
    """
    server, prepared = _server_of(llm.backend), llm.prepare(inputs, num_generations)
    requests, n = (1, num_generations) if takes_n else (num_generations, 1)

    def lines() -> Iterator[tuple[int, bytes]]:
        file = lines = size = 0
        for row, asked in zip(chain(rows, repeat(-1)), prepared, strict=False):
            if isinstance(asked, Request) and row >= 0:
                for sample in range(requests):
                    body = server.body(asked.rendered, n, sample)
                    custom_id = f"{row}-{sample}-{_digest(server, asked.rendered)}"
                    request = {"custom_id": custom_id, "method": "POST", "url": _URLS[server.prompt_key], "body": body}
                    line = json.dumps(request).encode() + b"\n"
                    if lines >= max_lines or size + len(line) > max_bytes:
                        file, lines, size = file + 1, 0, 0
                    lines, size = lines + 1, size + len(line)
                    yield file, line

    return ((line for _, line in group) for _, group in groupby(lines(), lambda numbered: numbered[0]))


def read(
    llm: LLM[In, Out, P, R],
    inputs: Iterable[In],
    results: Iterable[Iterable[bytes]],
    num_generations: int = 1,
    rows: Iterable[int] = range(10**18),
) -> Iterator[RowResult[Out]]:
    """Yield the rows as `generate` answers them, in the order of the inputs, from the lines of the result files.

    `llm`, `inputs`, `num_generations` and `rows` must be those of `write`. The files and their lines may come in any order. A
    row is a `RequestFailed` that keeps the completions that came, if one of its requests has no line ("no_line"), a cut line
    ("cut_line"), several lines ("doubled_line"), or only lines for other inputs or parameters ("other_batch"). A line that
    belongs to no input is ignored.

    All lines are read before the first row, into a temporary file. Memory does not grow with their number.
    """
    server, prepared = _server_of(llm.backend), llm.prepare(inputs, num_generations)

    def answers() -> Iterator[RowResult[Out]]:
        # SQLite deletes the file when the connection is closed. Another thread may take the later rows.
        with closing(sqlite3.connect("", check_same_thread=False)) as table:
            table.execute("CREATE TABLE lines (row INTEGER, id TEXT, line BLOB)")
            found = filter(None, map(_CUSTOM_ID.search, chain.from_iterable(results)))
            values = ((int(match[2]), match[1].decode(), match.string.strip()) for match in found)
            table.executemany("INSERT INTO lines VALUES (?, ?, ?)", values)
            table.execute("CREATE INDEX rows ON lines (row)")
            for row, asked in zip(chain(rows, repeat(-1)), prepared, strict=False):
                lines = [*table.execute("SELECT id, line FROM lines WHERE row = ? ORDER BY length(id), id", (row,))]
                answer = _read_row(server, asked.rendered, lines, num_generations) if isinstance(asked, Request) else ()
                yield llm.read_row(asked, answer)

    return answers()


def _server_of(backend: Generate[P, R]) -> Server[P]:
    if _is_server(backend):
        return backend
    raise TypeError(f"the backend must be a server.chat or a server.completions itself, got {type(backend).__name__}")


def _is_server(backend: Generate[P, R]) -> TypeGuard[Server[P]]:
    return isinstance(backend, Server)


def _digest(server: Server[P], prompt: P) -> str:
    """Return a digest of all that the answers to a prompt depend on."""
    return hashlib.sha256(json.dumps(server.body(prompt, 1), sort_keys=True).encode()).hexdigest()[:16]


def _read_row(server: Server[P], prompt: P, lines: Sequence[tuple[str, bytes]], expected: int) -> RowAnswer:
    """Return the answer to a row from its result lines; the first error is the error of the row."""
    own = [(custom_id, line) for custom_id, line in lines if custom_id.endswith(_digest(server, prompt))]
    answers = [_read_line(server, *line) for line in dict.fromkeys(own)]
    came = tuple(completion for answer in answers for completion in answer.value_or(()))
    errors = [answer for answer in answers if isinstance(answer, Failure)]
    if len(own) > len(dict(own)):  # an id has two lines
        errors.insert(0, Failure(RequestFailed("doubled_line", "a request has several lines in the result files")))
    elif len(came) < expected:
        reason: RequestReason = "other_batch" if len(lines) > len(own) else "no_line"
        errors.append(Failure(RequestFailed(reason, f"the result files have {len(came)} of {expected} answers")))
    row = join_row(came, errors)
    return row.failure() if isinstance(row, Result) else tuple(row[:expected])


# Sources: OpenAI API reference, "The request output object":
#   line     = {"id": string, "custom_id": string, "response": response | null, "error": {"code", "message"} | null}
#   response = {"status_code": integer, "request_id": string, "body": object}
# Also read: a body in the place of the response, or a response without a status.
# vLLM, vllm/entrypoints/openai/run_batch.py: a request that failed has a response without a body, and as its error a text
# or the whole body of an HTTP error.
def _read_line(server: Server[P], custom_id: str, line: bytes) -> Answer:
    """Read a line with the reader of the backend."""
    try:
        fields: Any = parse_json(line)
        if fields["custom_id"] != custom_id:
            raise ValueError(f"it holds the id of another request, {custom_id}")
        response: dict[str, Any] = fields.get("response") or {}
        headers = {"x-request-id": str(response.get("request_id") or "")}
        body = response.get("body") or (response if "choices" in response else {"error": fields.get("error")})
        return server.read(int(response.get("status_code") or 200), headers, json.dumps(body).encode())
    except Exception as damage:
        return Failure(RequestFailed("cut_line", f"the result line is cut or damaged: {damage}"))
