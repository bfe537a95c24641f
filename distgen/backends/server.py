"""A server that is asked over HTTP: what `distgen.backends.http` and `distgen.backends.aiohttp` have in common.

Its address, its key, its patience and its retries, as one value that is checked when it is made. Nothing is sent here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, final

from urllib3 import HTTPResponse, Retry
from urllib3.exceptions import HTTPError, LocationParseError, ProtocolError
from urllib3.util import parse_url

from distgen.backends import wire
from distgen.backends.params import Params

P = TypeVar("P")

LONGEST_ANSWER: Final = 64 * 2**20
"""Bytes of an answer; a longer one is `TooLong`."""


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


@final
@dataclass(frozen=True, slots=True)
class Server(Generic[P]):
    """An endpoint at an address, and how it is asked; a ValueError says what is wrong, and never shows the key."""

    url: str
    model: str
    timeout: float
    retries: int | Retry
    connections: int
    params: Mapping[str, object] = field(hash=False)
    endpoint: wire.Endpoint[P] = field(repr=False)
    api_key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty; name one, as the server lists them under /v1/models.")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout!r}: give a positive number of seconds.")
        if self.connections < 1:
            raise ValueError(f"connections={self.connections!r}: give at least 1.")
        if isinstance(self.retries, int) and self.retries < 0:
            raise ValueError(f"retries={self.retries!r}: give 0 or more.")

    @property
    def policy(self) -> Retry:
        """What is asked again; the last answer to it is wanted, for its message."""
        policy = RETRIES.new(total=self.retries) if isinstance(self.retries, int) else self.retries
        return policy.new(raise_on_status=False)

    @property
    def headers(self) -> dict[str, str]:
        """Those of each request."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": "application/json", **key}

    def row(self, prompt: P, num_generations: int) -> wire.Steps:
        """What a prompt's row wants asked."""
        return self.endpoint.row(
            prompt, num_generations, model=self.model, params=self.params, secret=lambda: self.api_key
        )


def server(
    endpoint: wire.Endpoint[P],
    base_url: str,
    model: str,
    api_key: str | None,
    timeout: float,
    retries: int | Retry,
    connections: int,
    params: Params | None,
    extra_body: Mapping[str, object] | None,
) -> Server[P]:
    """A Server of the arguments that every transport takes.

    >>> server(wire.CHAT, "http://127.0.0.1:8000/v1", "tiny", "sk-1", 60, 4, 128, {"seed": 7}, {"top_k": 20})
    Server(url='http://127.0.0.1:8000/v1/chat/completions', model='tiny', timeout=60, retries=4, connections=128, \
params={'seed': 7, 'top_k': 20})
    """
    sent = wire.json_params(params, extra_body)
    url, key = _url(base_url, endpoint.path), _key(api_key)
    return Server(url, model, timeout, retries, connections, sent, endpoint, key)


def asked_again(policy: Retry, error: str | None, status: int, retry_after: str | None) -> tuple[Retry, float] | None:
    """What is left of a policy after one more attempt, and the seconds to wait until the next; None for no next.

    The attempt ended in `error`, a connection that broke, or else in an answer of that status and Retry-After header.
    urllib3's own connections do the same by themselves; this is for a transport that has no retries of its own.

    >>> policy, seconds = asked_again(RETRIES, None, 429, "120")
    >>> policy.total, seconds
    (3, 60)
    >>> asked_again(RETRIES, None, 400, None)
    """
    broken = ProtocolError(error) if error is not None else None
    if broken is None and not policy.is_retry("POST", status, retry_after is not None):
        return None
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    answer = None if broken else HTTPResponse(status=status, headers=headers)
    try:
        left = policy.increment("POST", error=broken, response=answer)
    except HTTPError:  # MaxRetryError, or the error itself where the policy says so
        return None
    told = left.get_retry_after(answer) if answer and left.respect_retry_after_header else None
    return left, told or left.get_backoff_time()


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
