"""The OpenAI-compatible protocol over aiohttp, for `Asyncio`: `chat` and `completions` are values that are called.

All that `distgen.backends.http` promises holds here too: the same arguments, the same kinds of Faults, the same retries.
An event loop is given connections of its own, kept until it ends.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar, final

from aiohttp import (
    ClientHttpProxyError,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.connector import Connection
from returns.result import Failure
from urllib3 import Retry
from yarl import URL

from distgen.backends import wire
from distgen.backends.loops import PerLoop
from distgen.backends.params import Params
from distgen.backends.server import LONGEST_ANSWER, Server, asked_again, server
from distgen.backends.server import RETRIES as RETRIES
from distgen.backends.generate import Batch
from distgen.prompt import Messages

P = TypeVar("P")

_LARGE: Final = 2**20  # bytes of a body from which aiohttp wants a file, of which it sends a part at a time


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
) -> OverAiohttp[Messages]:
    """An async Generate from messages, by POST {base_url}/chat/completions; the arguments are those of `http.chat`.

    >>> chat("http://127.0.0.1:8000/v1", model="tiny", api_key="sk-1", params={"temperature": 0.7})
    OverAiohttp(server=Server(url='http://127.0.0.1:8000/v1/chat/completions', model='tiny', timeout=60.0, retries=4, \
connections=512, params={'temperature': 0.7}))
    """
    return OverAiohttp(
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
) -> OverAiohttp[str]:
    """An async Generate from text, by POST {base_url}/completions; the arguments are those of `http.chat`.

    >>> completions("http://127.0.0.1:8000/v1/", model="tiny").server.url
    'http://127.0.0.1:8000/v1/completions'
    """
    return OverAiohttp(
        server(wire.COMPLETIONS, base_url, model, api_key, timeout, retries, connections, proxy, params, extra_body)
    )


class _Open(NamedTuple):
    """What a loop has: a session, and the places in which a request may be under way."""

    session: ClientSession
    places: asyncio.Semaphore


class _Reply(NamedTuple):
    status: int
    body: bytes
    location: str
    retry_after: str | None


@final
@dataclass(frozen=True)
class OverAiohttp(Generic[P]):
    """An async generate callable over HTTP: it may be used by several loops at once; a copy opens its own connections."""

    server: Server[P]
    _url: URL = field(init=False, repr=False, compare=False)
    _policy: Retry = field(init=False, repr=False, compare=False)
    _sessions: PerLoop[_Open] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_url", URL(self.server.url, encoded=True))
        object.__setattr__(self, "_policy", self.server.policy)
        object.__setattr__(self, "_sessions", PerLoop(partial(_opened, self.server)))

    def __reduce__(self) -> tuple[object, ...]:
        return OverAiohttp, (self.server,)

    async def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """One row a prompt, asked one after the other."""
        return [await wire.answered_async(self.server.row(prompt, num_generations), self._ask) for prompt in prompts]

    async def _ask(self, request: wire.Body) -> wire.Answer:
        body, policy = wire.encoded(request), self._policy
        while True:
            reply = await self._once(body)
            again = _again(policy, reply)
            if again is None:
                return self._read(reply)
            policy, seconds = again
            await asyncio.sleep(seconds)

    def _read(self, reply: _Reply | wire.WireError) -> wire.Answer:
        if isinstance(reply, _Reply):
            return self.server.endpoint.answer(reply.status, reply.body, reply.location)
        return Failure(reply)

    async def _once(self, body: bytes) -> _Reply | wire.WireError:
        session, places = await self._sessions.here()
        # A place is waited for here and not in aiohttp's connector, whose wait would be part of the deadline.
        async with places:
            try:
                data = body if len(body) <= _LARGE else io.BytesIO(body)
                async with session.post(self._url, data=data, allow_redirects=False) as answer:
                    headers = answer.headers
                    return _Reply(
                        answer.status, await _received(answer), headers.get("Location", ""), headers.get("Retry-After")
                    )
            except TimeoutError:
                return wire.TimedOut(self.server.timeout)
            except _PastLimit:
                return wire.TooLong(LONGEST_ANSWER)
            except ClientHttpProxyError as error:
                return wire.ConnectionFailed(f"the proxy opened no way to the server, status {error.status}")
            except ClientOSError as error:
                return wire.ConnectionFailed(f"{type(error).__name__}: {error}")
            except Exception as error:  # not quoted: it may quote the answer, and that the key, in pieces or escaped
                return wire.ConnectionFailed(f"the answer broke off or is no HTTP ({type(error).__name__})")


async def _opened(server: Server[P]) -> AsyncGenerator[_Open, None]:
    async with ClientSession(
        connector=TCPConnector(limit=0),
        timeout=ClientTimeout(total=server.timeout),
        request_class=_Request,
        headers={"Accept-Encoding": "identity", **server.headers},
        auto_decompress=False,  # a few bytes of gzip may be gigabytes of text
        cookie_jar=DummyCookieJar(),
        proxy=server.proxy,
    ) as session:
        yield _Open(session, asyncio.Semaphore(server.connections))


class _Request(ClientRequest):  # which is aiohttp's hook: the parameter wants a subclass
    """A request over a connection on which nobody spoke unasked; aiohttp takes that for its answer, with no deadline."""

    async def send(self, conn: Connection) -> ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise ClientOSError("the server spoke unasked")
        return await super().send(conn)


def _again(policy: Retry, reply: _Reply | wire.WireError) -> tuple[Retry, float] | None:
    match reply:
        case _Reply(status=status, retry_after=retry_after):
            return asked_again(policy, None, status, retry_after)
        case wire.ConnectionFailed(reason):
            return asked_again(policy, reason, 0, None)
        case _:  # what came too late, or too long, would do so again
            return None


class _PastLimit(Exception):
    """The answer is longer than LONGEST_ANSWER."""


async def _received(answer: ClientResponse) -> bytes:
    if (answer.content_length or 0) > LONGEST_ANSWER:
        raise _PastLimit
    parts: list[bytes] = []
    room = LONGEST_ANSWER
    async for part in answer.content.iter_any():
        parts.append(part)
        room -= len(part)
        if room < 0:
            raise _PastLimit
    return b"".join(parts)
