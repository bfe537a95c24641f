"""A server in a process of its own, on loopback: OpenAI-compatible, and able to fail in every way an `Act` can write down.

`serving()` starts it, gives a `Server` and ends it. Run as a program it prints its port, then answers each line of JSON it
reads with one line, and ends when its input does, so that it cannot outlive the tests.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, TypeAlias, TypedDict, final

Then: TypeAlias = Literal["keep", "close", "reset", "hang"]
_Wired: TypeAlias = tuple[str, Then, float, int, str]  # an Act as JSON has it
_Command: TypeAlias = tuple[
    list[_Wired], _Wired | None, dict[str, list[_Wired]], bool, float, int, _Wired
]  # an empty one only asks


@final
@dataclass(frozen=True, slots=True)
class Act:
    """What a connection gets for one request: the bytes `send`, one each `drip` seconds, and what comes `then`.

    They are sent so many `times`, and `later`, 50 ms after, what nobody asked for.
    """

    send: bytes = b""
    then: Then = "keep"
    drip: float = 0.0
    times: int = 1
    later: bytes = b""


@final
@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: str

    def json(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.body)
        return value


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole answer as bytes; `headers` win over its own, so that Content-Length can lie."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chat_body(
    *texts: str, finish_reason: str = "stop", tokens: tuple[int, int] | None = (3, 5), logprobs: object = None
) -> bytes:
    """A conforming chat completion object; the `logprobs` are those of each choice."""
    messages: list[dict[str, object]] = [
        {"message": {"role": "assistant", "content": text, "refusal": None}} for text in texts
    ]
    return _completion("chat.completion", messages, finish_reason, tokens, logprobs)


def text_body(
    *texts: str, finish_reason: str = "stop", tokens: tuple[int, int] | None = (3, 5), logprobs: object = None
) -> bytes:
    """A conforming completion object; the `logprobs` are those of each choice."""
    return _completion("text_completion", [{"text": text} for text in texts], finish_reason, tokens, logprobs)


def _completion(
    kind: str,
    said: Sequence[Mapping[str, object]],
    finish_reason: str,
    tokens: tuple[int, int] | None,
    logprobs: object,
) -> bytes:
    choices = [
        {"index": index, "logprobs": logprobs, "finish_reason": finish_reason, **each}
        for index, each in enumerate(said)
    ]
    whole: dict[str, object] = {"id": "cmpl-1", "object": kind, "created": 1, "model": "tiny", "choices": choices}
    if tokens:
        whole["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return json.dumps(whole).encode()


@final
@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `url` is its base URL; after the acts of `script` it answers with an echo of each prompt."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(
        self,
        *acts: Act,
        then_always: Act | None = None,
        to: Mapping[str, Sequence[Act]] | None = None,
        ignore_n: bool = False,
        delay: float = 0.0,
        places: int = 0,
        busy: Act | None = None,
    ) -> None:
        """Forgets what was seen; the next requests get `acts` in turn, later ones `then_always`, or else an echo.

        Before these, a request whose prompt is a key of `to` gets the acts there in turn. An echo comes after `delay`
        seconds, and as a single choice with `ignore_n`. With `places`, more echoes at once than that are refused with `busy`, or
        else with status 503.
        """
        planned = {prompt: [_wired(act) for act in its] for prompt, its in (to or {}).items()}
        self._command(
            [_wired(act) for act in acts],
            then_always and _wired(then_always),
            planned,
            ignore_n,
            delay,
            places,
            _wired(busy or Act(response(503, b"busy"))),
        )

    def seen(self) -> list[Seen]:
        return [Seen(*request) for request in self._command()[2]]

    def connections(self) -> int:
        """How many connections were accepted since the last script."""
        return self._command()[0]

    def done(self) -> int:
        """How many requests were given all that they get since the last script."""
        return self._command()[1]

    def _command(self, *command: object) -> tuple[int, int, list[tuple[str, dict[str, str], str]]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        answer: tuple[int, int, list[tuple[str, dict[str, str], str]]] = json.loads(self.process.stdout.readline())
        return answer


def _wired(act: Act) -> _Wired:
    return act.send.decode("latin-1"), act.then, act.drip, act.times, act.later.decode("latin-1")


@contextlib.contextmanager
def serving(port: int = 0, certificate: str = "") -> Generator[Server]:
    """A server from here to the end of the block; `port` 0 is any free one. A PEM file with its key: it speaks TLS."""
    with subprocess.Popen(
        [sys.executable, "-I", __file__, str(port), certificate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Server(process, int(process.stdout.readline()))
        finally:
            process.kill()


# From here on, what runs in the process of the server.


@final
@dataclass(slots=True)
class _State:
    plan: deque[Act] = field(default_factory=deque[Act])
    always: Act | None = None
    to: Mapping[str, deque[Act]] = field(default_factory=dict[str, deque[Act]])
    ignore_n: bool = False
    delay: float = 0.0
    places: int = 0
    busy: Act = Act()
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: int = 0
    done: int = 0
    seen: list[Seen] = field(default_factory=list[Seen])


def _main(port: int, certificate: str) -> None:
    state = _State()
    with _listening(port, certificate) as server:
        threading.Thread(target=_accept, args=(server, state), daemon=True).start()
        print(server.getsockname()[1], flush=True)
        for line in sys.stdin:
            command: _Command | None = json.loads(line) or None
            if command:
                _obey(state, command)
            print(json.dumps([state.connections, state.done, [astuple(seen) for seen in state.seen]]), flush=True)


def _listening(port: int, certificate: str) -> socket.socket:
    server = socket.create_server(("127.0.0.1", port), backlog=1024)
    if not certificate:
        return server
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context.wrap_socket(server, server_side=True, do_handshake_on_connect=False)  # the first recv does it


def _obey(state: _State, command: _Command) -> None:
    plan, always, to, state.ignore_n, state.delay, state.places, busy = command
    state.busy = _act(*busy)
    state.plan = deque(_act(*each) for each in plan)
    state.always = always and _act(*always)
    state.to = {prompt: deque(_act(*each) for each in its) for prompt, its in to.items()}
    state.connections = state.done = 0
    state.seen = []


def _act(send: str, then: Then, drip: float, times: int, later: str) -> Act:
    return Act(send.encode("latin-1"), then, drip, times, later.encode("latin-1"))


def _accept(server: socket.socket, state: _State) -> None:
    while True:
        connection, _ = server.accept()
        state.connections += 1
        threading.Thread(target=_serve, args=(connection, state), daemon=True).start()


def _serve(connection: socket.socket, state: _State) -> None:
    with connection, contextlib.suppress(OSError):
        while (seen := _receive(connection)) is not None:
            state.seen.append(seen)
            act = _next(seen, state)
            _send(connection, act)
            state.done += 1
            if act.then == "hang":
                connection.recv(1)  # until the client has had enough
            if act.then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if act.then != "keep":
                return


def _next(seen: Seen, state: _State) -> Act:
    if state.to and (its := state.to.get(_said(json.loads(seen.body)))):
        return its.popleft()
    return state.plan.popleft() if state.plan else state.always or _echo(seen, state)


def _send(connection: socket.socket, act: Act) -> None:
    for _ in range(0 if act.drip else act.times):
        connection.sendall(act.send)
    for byte in act.send if act.drip else b"":
        connection.sendall(bytes([byte]))
        time.sleep(act.drip)
    if act.later:
        time.sleep(0.05)
        connection.sendall(act.later)


def _receive(connection: socket.socket) -> Seen | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, body = data.split(b"\r\n\r\n", 1)
    first, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Seen(first.split(" ")[1], headers, body.decode())


class _Request(TypedDict, total=False):
    prompt: str
    messages: list[dict[str, str]]
    n: int


def _echo(seen: Seen, state: _State) -> Act:
    with state.lock:
        if state.places and state.at_once >= state.places:
            return state.busy
        state.at_once += 1
    time.sleep(state.delay)
    with state.lock:
        state.at_once -= 1
    request: _Request = json.loads(seen.body)
    n = 1 if state.ignore_n else request.get("n", 1)
    text = _said(request)
    match seen.path:
        case "/v1/completions":
            return Act(response(200, text_body(*[text] * n, tokens=_count(text, n))))
        case "/v1/chat/completions":
            return Act(response(200, chat_body(*[text] * n, tokens=_count(text, n))))
        case _:
            return Act(response(404, b'{"error": {"message": "No such path", "type": "not_found", "code": null}}'))


def _said(request: _Request) -> str:
    messages = request.get("messages")
    return messages[-1]["content"] if messages else request.get("prompt", "")


def _count(text: str, n: int) -> tuple[int, int]:
    return len(text.split()), n * len(text.split())


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
