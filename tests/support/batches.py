"""Result lines of batch services, and a double of such a service."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterable
from typing import Any

from tests.support.servers import Server


def requests_of(files: Iterable[Iterable[bytes]]) -> list[dict[str, Any]]:
    return [json.loads(line) for lines in files for line in lines]


def result_line(custom_id: str, body: bytes | None, status: int = 200, **rest: object) -> bytes:
    answer = {"status_code": status, "request_id": "req-1", "body": body and json.loads(body)}
    return json.dumps({"id": "r", "custom_id": custom_id, "response": answer, "error": None, **rest}).encode() + b"\n"


class BatchServiceDouble:
    """Stands for a batch service: sends each request of a file to a server, and returns the result lines, shuffled."""

    def __init__(self, server: Server) -> None:
        self.port = server.port

    def serve(self, files: Iterable[Iterable[bytes]], seed: int) -> list[list[bytes]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        lines: list[bytes] = []
        try:
            for request in requests_of(files):
                connection.request(request["method"], request["url"], json.dumps(request["body"]))
                answer = connection.getresponse()
                lines.append(result_line(request["custom_id"], answer.read(), answer.status))
        finally:
            connection.close()
        lines = [line.replace(b'"request_id": "req-1"', b'"request_id": null') for line in lines]
        random.Random(seed).shuffle(lines)
        return [lines[0::2], lines[1::2]]
