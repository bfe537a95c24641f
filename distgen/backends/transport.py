"""Sends one HTTP request over aiohttp and returns its answer, or the reason why there is none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final, TypeAlias

try:
    import aiohttp
except ModuleNotFoundError as _missing:  # pragma: no cover  (in another process)
    raise ModuleNotFoundError("distgen.backends.server needs aiohttp: pip install aiohttp") from _missing
from aiohttp.connector import Connection
from yarl import URL

from distgen.errors import RequestFailed

MAX_ANSWER: Final = 64 * 2**20
"""The most bytes of an answer after decompression; a longer one is not read to its end."""

_KEEP_ALIVE: Final = 4.0  # seconds; uvicorn, under vLLM and others, closes an idle connection after 5

Session: TypeAlias = aiohttp.ClientSession
Reply: TypeAlias = tuple[int, Mapping[str, str], bytes]
"""The status, the headers and the body of a whole answer."""


def open_session(timeout: float, api_key: str, proxy: str | None) -> Session:
    """Open connections for the running event loop; `timeout` is the deadline of each request."""
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **key},
        request_class=_Request,
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
    )


async def send(session: Session, url: str, headers: Mapping[str, str], body: bytes) -> Reply | RequestFailed:
    """Post a body. Redirects are not followed. `headers` replace those of the session with the same names."""
    has_begun = False
    # aiohttp warns of a body of more than 1 MiB, which blocks its loop, unless it is a file.
    data = body if len(body) <= 2**20 else io.BytesIO(body)
    try:
        async with session.post(URL(url, encoded=True), data=data, headers=headers, allow_redirects=False) as answer:
            has_begun = True
            received = bytearray()
            while part := await answer.content.readany():
                received += part
                if len(received) > MAX_ANSWER:
                    return RequestFailed("too_long", f"the answer is longer than {MAX_ANSWER:,} bytes")
            return answer.status, answer.headers, bytes(received)
    except TimeoutError:
        return RequestFailed("timeout", f"no whole answer in {session.timeout.total:g} s")
    except Exception as error:
        return _explain(error, has_begun)


def _explain(error: Exception, has_begun: bool) -> RequestFailed:
    match error:
        case aiohttp.ClientHttpProxyError(status=status):
            said = f"the proxy opened no connection to the server, status {status}"
            return RequestFailed("connection", said, code="proxy" if status < 500 else "refused")
        case aiohttp.ClientConnectorError():
            code = "tls" if isinstance(error, aiohttp.ClientSSLError) else "refused"
            return RequestFailed("connection", f"{type(error).__name__}: {error}", code=code)
        case ValueError() | TypeError():  # not quoted: it may hold a header
            said = "a header or the URL cannot be sent; look for line breaks and characters that are not ASCII"
            return RequestFailed("not_sent", said)
        case _:  # not quoted: it may hold the answer, which may hold the key
            said = f"the answer broke off or is not HTTP ({type(error).__name__})"
            is_cut = has_begun or isinstance(error, aiohttp.ClientResponseError)  # there were bytes, perhaps paid for
            return RequestFailed("connection", said, code="cut" if is_cut else "reset")


class _Request(aiohttp.ClientRequest):  # aiohttp's own hook: `request_class`
    """A request that fails if the server sent bytes before it: aiohttp would take them for the answer."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise aiohttp.ClientOSError("the server sent bytes that were not asked for")
        return await super().send(conn)
