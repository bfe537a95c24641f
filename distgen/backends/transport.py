"""One HTTP request over aiohttp: its answer, or how it was lost."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

try:
    import aiohttp
except ModuleNotFoundError as _missing:  # pragma: no cover  (in another process)
    raise ModuleNotFoundError("distgen.backends.server needs aiohttp: pip install aiohttp") from _missing
from aiohttp.connector import Connection
from yarl import URL

from distgen.backends.retry import Fault
from distgen.backends.wire.decoding import MAX_ANSWER, TooLong
from distgen.errors import RequestFailed

_LARGE: Final = 2**20  # bytes of a body from which aiohttp wants a file, of which it sends a part at a time
_KEEP_ALIVE: Final = 4.0  # seconds; uvicorn, under vLLM and others, closes an idle connection after 5


Session: TypeAlias = aiohttp.ClientSession


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(NamedTuple):
    """A request without a whole answer."""

    error: RequestFailed
    fault: Fault


def open_session(timeout: float, proxy: str | None) -> aiohttp.ClientSession:
    """Open connections for the running event loop; `timeout` is the deadline of each request."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=timeout),
        request_class=_Request,
        auto_decompress=False,  # a few bytes of gzip may be gigabytes of text
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
    )


async def send(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: bytes) -> Reply | Lost:
    """Post a body; redirects are not followed."""
    data = body if len(body) <= _LARGE else io.BytesIO(body)
    has_begun = False
    try:
        async with session.post(URL(url, encoded=True), data=data, headers=headers, allow_redirects=False) as answer:
            has_begun = True
            return Reply(answer.status, answer.headers, await _receive(answer))
    except TimeoutError:
        return Lost(RequestFailed("timeout", f"no whole answer in {session.timeout.total:g} s"), "final")
    except TooLong:
        return Lost(RequestFailed("too_long", f"the answer is longer than {MAX_ANSWER:,} bytes"), "final")
    except Exception as error:
        return _lost(error, has_begun)


def _lost(error: Exception, has_begun: bool) -> Lost:
    match error:
        case aiohttp.ClientHttpProxyError(status=status):
            refused = RequestFailed("connection", f"the proxy opened no connection to the server, status {status}")
            return Lost(refused, "final" if status < 500 else "refused")
        case aiohttp.ClientSSLError():
            return Lost(RequestFailed("connection", f"{type(error).__name__}: {error}"), "final")
        case aiohttp.ClientConnectorError():
            return Lost(RequestFailed("connection", f"{type(error).__name__}: {error}"), "refused")
        case aiohttp.InvalidURL() | ValueError() | TypeError():  # not quoted: it may quote a header
            said = "a header or the URL cannot be sent; look for line breaks and characters that are not ASCII"
            return Lost(RequestFailed("not_sent", said), "final")
        case _:  # not quoted: it may quote the answer, and that the key, in pieces or escaped
            said = f"the answer broke off or is not HTTP ({type(error).__name__})"
            return Lost(RequestFailed("connection", said), "billed" if has_begun else "transient")


async def _receive(answer: aiohttp.ClientResponse) -> bytes:
    if (answer.content_length or 0) > MAX_ANSWER:
        raise TooLong
    parts: list[bytes] = []
    room = MAX_ANSWER
    async for part in answer.content.iter_any():
        parts.append(part)
        room -= len(part)
        if room < 0:
            raise TooLong
    return b"".join(parts)


class _Request(aiohttp.ClientRequest):  # aiohttp's own hook: `request_class`
    """A request over a connection on which the server sent nothing unasked.

    aiohttp would take those bytes for the answer.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise aiohttp.ClientOSError("the server sent bytes that were not asked for")
        return await super().send(conn)
