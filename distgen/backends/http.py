"""The OpenAI-compatible protocol over urllib3, for `Threads`: `chat` and `completions` are values that are called.

One request a prompt, more only where a server ignores or refuses `n`. Whatever the network or the server does becomes a
Failure of that one row, a `Fault` whose kind is the name of a `distgen.backends.wire.WireError`. Connections are kept and
retries are made by urllib3; only the deadline, the limit of an answer's length and the hiding of the API key are ours.
TLS is verified by the system's certificates, or by those that SSL_CERT_FILE names, as OpenSSL has it.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final
from urllib.parse import unquote

from returns.result import Failure
from typing_extensions import Buffer
from urllib3 import HTTPConnectionPool, ProxyManager, Retry, Timeout, connection_from_url, make_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError
from urllib3.util import parse_url

from distgen.backends import wire
from distgen.backends.params import Params
from distgen.backends.server import LONGEST_ANSWER, Server, server
from distgen.backends.server import RETRIES as RETRIES
from distgen.completion import Batch
from distgen.prompt import Messages

P = TypeVar("P")


def chat(
    base_url: str,
    *,
    model: str,
    api_key: str | None = None,
    timeout: float = 60.0,
    retries: int | Retry = 4,
    connections: int = 512,
    proxy: str | None = None,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
) -> OverHTTP[Messages]:
    """A Generate from messages, by POST {base_url}/chat/completions.

    - `api_key`: None takes OPENAI_API_KEY from the environment; an empty one sends no Authorization header.
    - `timeout`: seconds from the start of each HTTP request to the last byte of its answer, however slowly it drips.
    - `retries`: how many times a request is made again after a 408, 409, 429, 5xx or a broken connection, or a Retry.
      So a request takes at most (retries + 1) * timeout and the waits between, of at most 60 s each.
    - `connections`: the most that are open at once, and kept; as many as there are threads, or calls wait in line.
    - `proxy`: its URL, with user and password where it wants them; those of the environment are not used.
    - `params`: how answers are sampled, in the protocol's own words.
    - `extra_body`: what a server takes beyond these, such as top_k or guided_json.

    A ValueError says what is wrong with an argument; it never shows the key.

    >>> chat("http://127.0.0.1:8000/v1", model="tiny", api_key="sk-1", params={"temperature": 0.7})
    OverHTTP(server=Server(url='http://127.0.0.1:8000/v1/chat/completions', model='tiny', timeout=60.0, retries=4, \
connections=512, params={'temperature': 0.7}))
    """
    return OverHTTP(
        server(wire.CHAT, base_url, model, api_key, timeout, retries, connections, proxy, params, extra_body)
    )


def completions(
    base_url: str,
    *,
    model: str,
    api_key: str | None = None,
    timeout: float = 60.0,
    retries: int | Retry = 4,
    connections: int = 512,
    proxy: str | None = None,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
) -> OverHTTP[str]:
    """A Generate from text, by POST {base_url}/completions; the arguments are those of `chat`.

    A format's stops end its answers: `params={"stop": chatml.stops}`.

    >>> completions("http://127.0.0.1:8000/v1/", model="tiny").server.url
    'http://127.0.0.1:8000/v1/completions'
    """
    return OverHTTP(
        server(wire.COMPLETIONS, base_url, model, api_key, timeout, retries, connections, proxy, params, extra_body)
    )


@final
@dataclass(frozen=True)
class OverHTTP(Generic[P]):
    """A generate callable over HTTP: safe to share between threads; a forked process or a copy opens its own connections."""

    server: Server[P]
    # By process: of a connection that two share, each may read what the other was answered.
    _pools: dict[int, HTTPConnectionPool] = field(
        init=False, repr=False, compare=False, default_factory=dict[int, HTTPConnectionPool]
    )
    _target: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        url, is_proxied = self.server.url, self.server.proxy is not None
        # RFC 9112, 3.2.2: a proxy is told the whole URL, save where it opens a tunnel.
        target = url if is_proxied and url.startswith("http:") else parse_url(url).request_uri
        object.__setattr__(self, "_target", target)

    def __reduce__(self) -> tuple[object, ...]:
        return OverHTTP, (self.server,)

    def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """One row a prompt, asked one after the other."""
        return [wire.answered(self.server.row(prompt, num_generations), self._ask) for prompt in prompts]

    def _ask(self, request: wire.Body) -> wire.Answer:
        body = wire.encoded(request)
        pool = self._pools.get(os.getpid()) or self._pools.setdefault(os.getpid(), _pool(self.server))
        try:
            # decode_content=False: no encoding was offered, and a few bytes of gzip may be gigabytes of text
            answer = pool.urlopen(
                "POST", self._target, body=body, redirect=False, assert_same_host=False, decode_content=False
            )
        except Exception as error:  # urllib3's own, and ValueError, OverflowError, MemoryError on absurd headers
            return Failure(_wire_error(error, self.server.timeout))
        return self.server.endpoint.answer(answer.status, answer.data, answer.headers.get("location", ""))


def _pool(server: Server[P]) -> HTTPConnectionPool:
    options: dict[str, Any] = {
        "maxsize": server.connections,
        "block": True,
        "timeout": Timeout(total=server.timeout),
        "retries": server.policy,
    }
    if server.proxy is None:
        pool = connection_from_url(server.url, **options)
    else:
        user = parse_url(server.proxy).auth
        known = make_headers(proxy_basic_auth=unquote(user)) if user else None
        pool = ProxyManager(server.proxy, proxy_headers=known, **options).connection_from_url(server.url)
    pool.headers = server.headers
    secure = server.url.startswith("https:")
    # The ignore: to pyright, urllib3's own HTTPConnection is no BaseHTTPConnection either, by a Final attribute.
    pool.ConnectionCls = _SecureConnection if secure else _Connection  # pyright: ignore[reportAttributeAccessIssue]
    return pool


def _wire_error(error: Exception, timeout: float) -> wire.WireError:
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    match cause:
        case _PastDeadline():
            return wire.TimedOut(timeout)
        case _PastLimit():
            return wire.TooLong(LONGEST_ANSWER)
        case Urllib3TimeoutError() if not isinstance(cause, NewConnectionError):  # which is a TimeoutError to urllib3
            return wire.TimedOut(timeout)
        case _:
            told = [cause, *(each for each in cause.args if isinstance(each, Exception))][-1]
            return wire.ConnectionFailed(f"{type(told).__name__}: {told}")


# The timeout of a socket starts anew with each byte, so a server that drips never meets it. The answer is therefore
# read through a raw stream that gives each recv only the time left; http.client and urllib3 read headers, body and
# chunk sizes alike through it. The classes below inherit because the hooks of these libraries want subclasses:
# HTTPConnectionPool.ConnectionCls, HTTPConnection.response_class, io.RawIOBase, and urllib3's HTTPError, since what is
# no HTTPError of its own kinds urllib3 neither wraps nor asks again.


class _PastDeadline(HTTPError):
    """The time for an answer is over."""


class _PastLimit(HTTPError):
    """The answer is longer than LONGEST_ANSWER."""


class _Bounded(io.RawIOBase):
    """What a socket receives, until a deadline and up to a length."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        # urllib3 has just set what Timeout(total=...) leaves for the answer: the first read need not, a system call each
        self._is_set = True
        self._deadline = time.monotonic() + (sock.gettimeout() or 0)
        self._room = LONGEST_ANSWER
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _PastDeadline
        if not self._is_set:
            self._sock.settimeout(left)
        self._is_set = False
        try:
            size = self._raw.readinto(buffer)
        except TimeoutError:
            raise _PastDeadline from None
        self._room -= size or 0
        if self._room < 0:
            raise _PastLimit
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer read through `_Bounded`; what is no HTTP fails without being quoted, since urllib3 logs the quote."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Bounded(sock, self.fp.detach()))

    def begin(self) -> None:
        try:
            super().begin()
            # Any number of interim answers may come before the final one (RFC 9110, 15.2); http.client knows 100 alone,
            # and an answer that has its headers has begun.
            while 101 < self.status < 200:
                vars(self)["headers"] = None
                super().begin()
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            raise http.client.HTTPException(f"the answer is no HTTP ({type(error).__name__})") from None
        if self.status == 101:  # what follows is no HTTP
            raise http.client.HTTPException("the server switches protocols, unasked")
        if self.msg.defects or self.msg.get_payload():
            raise http.client.HTTPException("the answer's headers are malformed")
        if self.length is not None and self.length > LONGEST_ANSWER:  # http.client would allocate it all at once
            raise _PastLimit


class _Connection(HTTPConnection):
    """Sends a request as one piece; http.client sends headers and body apart, which costs a fifth of a request's CPU."""

    response_class = _Response
    _held: list[bytes] | None = None

    def request(self, *args: Any, **options: Any) -> None:
        self._held = []
        super().request(*args, **options)
        request, self._held = b"".join(self._held), None
        self.send(request)

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class _SecureConnection(_Connection, HTTPSConnection): ...
