"""The OpenAI-compatible protocol over urllib3, for `Threads`: `chat` and `completions` are values that are called.

One request a prompt, more only where a server ignores `n`. Whatever the network or the server does becomes a Failure of
that one row, a `Fault` whose kind is the name of a `distgen.backends.wire.WireError`. Connections are kept and retries are
made by urllib3; only the deadline, the limit of an answer's length and the hiding of the API key are ours.
"""

from __future__ import annotations

import http.client
import io
import logging
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, final

from returns.result import Failure
from typing_extensions import Buffer
from urllib3 import HTTPConnectionPool, Retry, Timeout, connection_from_url
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError
from urllib3.util import parse_url

from distgen.backends import wire
from distgen.completion import Batch, Completion, Row
from distgen.prompt import Messages

P = TypeVar("P")

_LOG = logging.getLogger(__name__)

LONGEST_ANSWER: Final = 64 * 2**20
"""Bytes of an answer, its headers included; a longer one is `TooLong`."""


class _Retry(Retry):
    """urllib3.Retry raises on a Retry-After that is no date and no whole number, and servers send 0.5 or worse."""

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return super().parse_retry_after(retry_after)
        except Exception:  # InvalidHeader, ValueError, OverflowError
            return 0  # the back-off then


RETRIES: Final = _Retry(
    total=4,
    allowed_methods=None,  # a completion is a POST
    status_forcelist=frozenset({408, 409, 429, *range(500, 600)}),
    backoff_factor=0.5,  # seconds: none before the first retry, then 1, 2, 4, each and up to half a second more
    backoff_jitter=0.5,
    backoff_max=30,
    retry_after_max=60,
)
"""What is asked again, and when; `RETRIES.new(...)` is another policy. An answer past its deadline is not asked again."""


def chat(
    base_url: str,
    *,
    model: str,
    api_key: str | None = None,
    timeout: float = 60.0,
    retries: int | Retry = 4,
    connections: int = 128,
    params: Mapping[str, object] | None = None,
) -> OverHTTP[Messages]:
    """A Generate from messages, by POST {base_url}/chat/completions.

    - `api_key`: None takes OPENAI_API_KEY from the environment; an empty one sends no Authorization header.
    - `timeout`: seconds from the start of each HTTP request to the last byte of its answer, however slowly it drips.
    - `retries`: how many times a request is made again after a 408, 409, 429, 5xx or a broken connection, or a Retry.
    - `connections`: the most that are open at once, and kept; as many as there are threads, or calls wait in line.
    - `params`: further keys of each request, such as temperature, max_tokens, stop, seed.

    A ValueError says what is wrong with an argument; it never shows the key.

    >>> chat("http://127.0.0.1:8000/v1", model="tiny", api_key="sk-1", params={"temperature": 0.7})
    OverHTTP(url='http://127.0.0.1:8000/v1/chat/completions', model='tiny', timeout=60.0, retries=4, connections=128, \
params={'temperature': 0.7})
    """
    url = _url(base_url, wire.CHAT.path)
    return OverHTTP(url, model, timeout, retries, connections, params or {}, wire.CHAT, _key(api_key))


def completions(
    base_url: str,
    *,
    model: str,
    api_key: str | None = None,
    timeout: float = 60.0,
    retries: int | Retry = 4,
    connections: int = 128,
    params: Mapping[str, object] | None = None,
) -> OverHTTP[str]:
    """A Generate from text, by POST {base_url}/completions; the arguments are those of `chat`.

    >>> completions("http://127.0.0.1:8000/v1/", model="tiny").url
    'http://127.0.0.1:8000/v1/completions'
    """
    url = _url(base_url, wire.COMPLETIONS.path)
    return OverHTTP(url, model, timeout, retries, connections, params or {}, wire.COMPLETIONS, _key(api_key))


@final
@dataclass(frozen=True)
class OverHTTP(Generic[P]):
    """A generate callable over HTTP: safe to share between threads; a pickled copy opens connections of its own."""

    url: str
    model: str
    timeout: float
    retries: int | Retry
    connections: int
    params: Mapping[str, object] = field(hash=False)
    endpoint: wire.Endpoint[P] = field(repr=False)
    api_key: str = field(repr=False)
    pool: HTTPConnectionPool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "params", wire.json_params(self.params))
        object.__setattr__(self, "pool", _pool(self.url, self.timeout, self.retries, self.connections))

    def __reduce__(self) -> tuple[object, ...]:
        policy = (self.url, self.model, self.timeout, self.retries, self.connections, self.params)
        return OverHTTP, (*policy, self.endpoint, self.api_key)

    def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """One row a prompt, asked one after the other."""
        return [self._row(prompt, num_generations) for prompt in prompts]

    def _row(self, prompt: P, num_generations: int) -> Row:
        row: list[Completion] = []
        while len(row) < num_generations:  # at most num_generations times, since a Success holds one or more
            missing = num_generations - len(row)
            asked = self._ask(prompt, missing, wire.seeded(self.params, len(row)))
            answer = asked.alt(lambda error: wire.fault(error, self.api_key))
            if isinstance(answer, Failure):
                return answer
            choices = answer.unwrap()
            if len(choices) < missing:
                _LOG.info("%s answered %d of %d choices; asking for the rest", self.url, len(choices), missing)
            row.extend(choices[:missing])
        return row

    def _ask(self, prompt: P, n: int, params: Mapping[str, object]) -> wire.Answer:
        body = self.endpoint.request(prompt, model=self.model, n=n, params=params)
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            # decode_content=False: no encoding was offered, and a few bytes of gzip may be gigabytes of text
            answer = self.pool.urlopen(
                "POST",
                parse_url(self.url).request_uri,
                body=body,
                headers=headers,
                redirect=False,
                decode_content=False,
            )
        except Exception as error:  # urllib3's own, and ValueError, OverflowError, MemoryError on absurd headers
            return Failure(_wire_error(error, self.timeout))
        return self.endpoint.answer(answer.status, answer.data, answer.headers.get("location", ""))


def _key(api_key: str | None) -> str:
    key = os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key
    # RFC 6750, 2.1: a bearer token is of visible ASCII; a line break in it would begin another header.
    if not all("!" <= character <= "~" for character in key):
        raise ValueError("The API key holds a space, a line break or a character that is not ASCII; strip() it.")
    return key


def _url(base_url: str, path: str) -> str:
    if "@" in base_url:  # not shown: a password may stand before it
        raise ValueError("base_url holds a user name; leave it out, and give the key as api_key=....")
    try:
        url = parse_url(base_url)
    except LocationParseError:
        url = parse_url("")
    if url.scheme not in ("http", "https") or not url.host or url.query is not None or url.fragment is not None:
        raise ValueError(f"base_url={base_url!r} is no base URL; it looks like 'http://127.0.0.1:8000/v1'.")
    return url.url.rstrip("/") + path


def _check(backend: OverHTTP[P]) -> None:
    if not backend.model:
        raise ValueError("model is empty; name one, as the server lists them under /v1/models.")
    if not 0 < backend.timeout < math.inf:
        raise ValueError(f"timeout={backend.timeout!r}: give a positive number of seconds.")
    if backend.connections < 1:
        raise ValueError(f"connections={backend.connections!r}: give at least 1.")
    if isinstance(backend.retries, int) and backend.retries < 0:
        raise ValueError(f"retries={backend.retries!r}: give 0 or more.")


def _pool(url: str, timeout: float, retries: int | Retry, connections: int) -> HTTPConnectionPool:
    policy = RETRIES.new(total=retries) if isinstance(retries, int) else retries
    pool = connection_from_url(
        url,
        maxsize=connections,
        block=True,
        timeout=Timeout(total=timeout),
        retries=policy.new(raise_on_status=False),  # the last answer is wanted, for its message
    )
    secure = url.startswith("https:")
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
        # urllib3 has just set what Timeout(total=...) leaves for the answer
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
        self._sock.settimeout(left)
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
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            raise http.client.HTTPException(f"the answer is no HTTP ({type(error).__name__})") from None
        if self.msg.defects or self.msg.get_payload():
            raise http.client.HTTPException("the answer's headers are malformed")
        if self.length is not None and self.length > LONGEST_ANSWER:  # http.client would allocate it all at once
            raise _PastLimit


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response
