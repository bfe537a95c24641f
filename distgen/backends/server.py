"""Backends for servers of the OpenAI-compatible API: `chat` and `completions`, async, and `blocking` for the rest.

    LLM(task, openai, chat("http://127.0.0.1:8000/v1", model="tiny"), Asyncio(512))
    LLM(task, chatml, blocking(completions("http://127.0.0.1:8000/v1", model="tiny")), Threads(64))

Answers are not streamed. A gateway that cuts a connection after 60 to 120 s without a byte cuts long answers too, and a
service that only streams its thinking gives none: there, ask for fewer tokens, or call the server without the gateway.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Generic, TypeAlias, TypeVar, final
from urllib.parse import urlsplit

from returns.result import Failure, Result, Success

from distgen.backends.blocking import Blocking, blocking
from distgen.backends.generate import Batch, Row
from distgen.backends.limiter import Limiter
from distgen.backends.loops import PerEventLoop
from distgen.backends.params import Params
from distgen.backends.redact import credentials
from distgen.backends.retry import Fault, Outcome, Retry, fault_of
from distgen.backends.transport import Lost, Session, open_session, send
from distgen.backends.wire import encode, json_params, read_answer, shift_seed
from distgen.completion import Completion, Usage
from distgen.errors import RequestFailed
from distgen.prompt import Messages

__all__ = ["Blocking", "Chat", "Completions", "Headers", "Params", "Retry", "Server", "blocking", "chat", "completions"]

P = TypeVar("P")
_T = TypeVar("_T")

Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""The user's own headers, or a function that is called for each request, for tokens that expire."""

_Answer: TypeAlias = Result[tuple[Completion, ...], RequestFailed]

_REFUSES_N: Final = (400, 422)  # statuses with which servers refuse n > 1; a validator, as FastAPI's, answers 422
_STOP_CHECK: Final = 0.1  # seconds
_BUSY_WAIT: Final = 0.05  # seconds; a server that answers others has a place soon
_RETRY: Final = Retry()


@dataclass(slots=True)
class _State:
    """The state of a backend in one event loop."""

    session: Session
    limiter: Limiter
    refuses_n: bool = False


@final
@dataclass(frozen=True)
class Server(Generic[P]):
    """An async backend that asks a server; `chat` and `completions` make it.

    One value may be used in several event loops at once; each has its own connections.
    """

    url: str
    """The whole URL, without its query string."""
    model: str
    prompt_key: str = field(repr=False)
    """The name of the prompt in a request: "messages" or "prompt"."""
    params: Mapping[str, object] = field(hash=False)
    timeout: float
    retry: Retry
    max_connections: int
    query: str = field(repr=False)
    api_key: str = field(repr=False)
    headers: Headers = field(repr=False, hash=False)
    proxy: str | None = field(repr=False)  # it may hold a password
    stop: threading.Event | None = field(repr=False, compare=False)
    _states: PerEventLoop[_State] = field(default_factory=PerEventLoop[_State], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty; name one, as the server lists them under /v1/models.")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout!r}: give a positive number of seconds.")
        if self.max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, got {self.max_connections}")
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://")):
            raise ValueError("proxy is no URL that begins with http:// or https://, as 'http://127.0.0.1:3128'.")

    def __reduce__(self) -> tuple[object, ...]:
        """Leave out `stop`, which another process does not see, and the connections."""
        fields = (self.url, self.model, self.prompt_key, self.params, self.timeout, self.retry, self.max_connections)
        return Server, (*fields, self.query, self.api_key, self.headers, self.proxy, None)

    def body(self, prompt: P, n: int, offset: int = 0) -> dict[str, object]:
        """Return the request for `n` choices; a seed in the parameters is shifted by `offset`."""
        several = {"n": n} if n > 1 else {}  # some servers refuse the key itself
        params = shift_seed(self.params, offset)
        return {**params, "model": self.model, self.prompt_key: prompt, **several, "stream": False}

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> _Answer:
        """Read an answer: its completions, at least one, or a RequestFailed."""
        own: Mapping[str, str] = {} if callable(self.headers) else self.headers
        return self._read(status, headers, body, own)

    def _read(self, status: int, headers: Mapping[str, str], body: bytes, own: Mapping[str, str]) -> _Answer:
        secrets = tuple(filter(None, (self.api_key, *own.values())))
        return read_answer(status, headers, body, secrets, credentials(self.api_key, own))

    async def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """Ask for all rows at once; a row that fails is a Failure of its own."""
        return await _all([self._row(prompt, num_generations) for prompt in prompts])

    async def _row(self, prompt: P, num_generations: int) -> Row:
        open_state = partial(_open, self.max_connections, self.timeout, self.proxy, self.stop)
        state = await self._states.get(open_state)
        ask = partial(self._ask, state, state.limiter.run)
        n = 1 if state.refuses_n else num_generations
        first = await ask(self.body(prompt, n))
        if n > 1 and isinstance(first, Failure) and _may_refuse_n(first.failure()):
            first = await ask(self.body(prompt, 1))
            state.refuses_n = state.refuses_n or isinstance(first, Success)
        if isinstance(first, Failure):
            return first
        came = first.unwrap()[:num_generations]
        places = range(len(came), num_generations)
        return join_row(came, await _all([ask(self.body(prompt, 1, place)) for place in places]))

    def end_waits(self) -> None:
        """End the waits of the rows under way in the running event loop: they become RequestFailed("stopped")."""
        if (state := self._states.find()) is not None:
            state.limiter.end_run()

    async def _ask(self, state: _State, run: int, request: Mapping[str, object]) -> _Answer:
        body, limiter = encode(request), state.limiter
        history: list[Outcome] = []
        waited, spent = 0.0, None
        failed = RequestFailed("stopped", "this row had not been asked")
        while await limiter.enter(run):
            try:
                answer, fault = await self._once(state, body)
                if isinstance(answer, Success):
                    limiter.answered()
                    return Success(_count(answer.unwrap(), spent))
                spent = _add(spent, answer.failure().usage)
                failed = replace(answer.failure(), usage=spent)
                outcome = Outcome(fault, failed.retry_after, waited)
                wait = self.retry.decide(history, outcome, waited, random.random())
                is_busy = outcome.fault == "overload" and outcome.hint is None and limiter.under_way > 1
                self._slow_down(limiter, run, outcome, wait)
            finally:
                limiter.leave()
            if wait is None:
                return Failure(failed)
            history.append(outcome)
            wait = min(wait, _BUSY_WAIT) if is_busy else wait
            if not await limiter.sleep(wait, run):
                break
            waited += wait
        last = f"the last answer was: {failed.message}" if history else failed.message
        return Failure(replace(failed, reason="stopped", message=last))

    async def _once(self, state: _State, body: bytes) -> tuple[_Answer, Fault]:
        try:
            own = self.headers() if callable(self.headers) else self.headers
        except Exception as error:
            return Failure(RequestFailed("not_sent", f"the headers function raised {type(error).__name__}")), "final"
        reply = await send(state.session, f"{self.url}{self.query}", self._all_headers(own), body)
        if isinstance(reply, Lost):
            return Failure(reply.error), reply.fault
        answer = self._read(*reply, own)
        if isinstance(answer, Success):
            return answer, "final"
        is_empty = 200 <= reply.status < 300 and not reply.body.strip()
        return answer, "billed" if is_empty else fault_of(answer.failure())

    def _all_headers(self, own: Mapping[str, str]) -> dict[str, str]:
        names = {name.lower() for name in own}
        ours = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.api_key:
            ours["Authorization"] = f"Bearer {self.api_key}"
        return {**{name: value for name, value in ours.items() if name.lower() not in names}, **own}

    def _slow_down(self, limiter: Limiter, run: int, outcome: Outcome, wait: float | None) -> None:
        """Ask less at once after a rejection, and nothing for a while if the server says so or answers nobody."""
        if outcome.fault not in ("rate_limit", "overload"):
            return
        limiter.rejected()
        if outcome.fault == "rate_limit" and outcome.hint is not None:
            limiter.pause(min(outcome.hint, self.retry.longest_wait), run)
        elif limiter.under_way == 1 and wait is not None:
            limiter.pause(wait, run)


Chat: TypeAlias = Server[Messages]
"""A backend for chat completions: the server renders the messages."""

Completions: TypeAlias = Server[str]
"""A backend for completions of a text that a format has rendered."""


def chat(
    base_url: str,
    *,
    model: str,
    api_key: str | None = None,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
    headers: Headers | None = None,
    timeout: float = 600.0,
    retry: Retry = _RETRY,
    max_connections: int = 512,
    proxy: str | None = None,
    stop: threading.Event | None = None,
) -> Chat:
    """Return an async backend of messages: POST {base_url}/chat/completions.

    `api_key` is that of the environment, OPENAI_API_KEY, if it is None. `timeout` is the time for one whole answer.
    Once `stop` is set, rows that wait for another request become RequestFailed("stopped"), and requests under way are
    finished. No proxy of the environment is used. A ValueError says what is wrong with an argument.

    >>> chat("http://127.0.0.1:8000/v1", model="tiny", api_key="sk-1", params={"temperature": 0.7})
    Server(url='http://127.0.0.1:8000/v1/chat/completions', model='tiny', params={'temperature': 0.7}, timeout=600.0, \
retry=Retry(attempts=6, patience=90.0, longest_wait=60.0), max_connections=512)
    """
    url, query = _url(base_url, "/chat/completions")
    sent, key = json_params(params, extra_body), _key(api_key)
    own = headers if callable(headers) else dict(headers or {})
    return Server(url, model, "messages", sent, timeout, retry, max_connections, query, key, own, proxy, stop)


def completions(
    base_url: str,
    *,
    model: str,
    api_key: str | None = None,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
    headers: Headers | None = None,
    timeout: float = 600.0,
    retry: Retry = _RETRY,
    max_connections: int = 512,
    proxy: str | None = None,
    stop: threading.Event | None = None,
) -> Completions:
    """Return an async backend of rendered texts: POST {base_url}/completions. The arguments are those of `chat`.

    >>> completions("http://127.0.0.1:8000/v1/", model="tiny").url
    'http://127.0.0.1:8000/v1/completions'
    """
    url, query = _url(base_url, "/completions")
    sent, key = json_params(params, extra_body), _key(api_key)
    own = headers if callable(headers) else dict(headers or {})
    return Server(url, model, "prompt", sent, timeout, retry, max_connections, query, key, own, proxy, stop)


async def _all(coroutines: Sequence[Coroutine[object, object, _T]]) -> list[_T]:
    return await asyncio.gather(*coroutines)


async def _open(
    most: int, timeout: float, proxy: str | None, stop: threading.Event | None
) -> AsyncGenerator[_State, None]:
    limiter = Limiter(most, stop)
    watch = asyncio.create_task(_watch(stop, limiter)) if stop else None
    try:
        async with open_session(timeout, proxy) as session:
            yield _State(session, limiter)
    finally:
        if watch:
            watch.cancel()


async def _watch(stop: threading.Event, limiter: Limiter) -> None:
    while not stop.is_set():
        await asyncio.sleep(_STOP_CHECK)
    limiter.end_run()


def _may_refuse_n(error: RequestFailed) -> bool:
    return error.reason == "status" and error.status in _REFUSES_N


def join_row(came: tuple[Completion, ...], singles: Sequence[_Answer]) -> Row:
    """Put a row together; if one of its requests failed, its Failure keeps the completions of the others."""
    completions, failures = [*came], list[RequestFailed]()
    for single in singles:
        if isinstance(single, Success):
            completions.append(single.unwrap()[0])
        else:
            failures.append(single.failure())
    if not failures:
        return completions
    spent: Usage | None = None
    for failure in failures:
        spent = _add(spent, failure.usage)
    return Failure(replace(failures[0], usage=spent, completions=tuple(completions)))


def _count(completions: tuple[Completion, ...], spent: Usage | None) -> tuple[Completion, ...]:
    """Add to the first completion the usage of the attempts before: usage is the price of the row."""
    if spent is None:
        return completions
    first, *others = completions
    return replace(first, usage=_add(first.usage, spent)), *others


def _add(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    pairs = (
        (one.prompt_tokens, other.prompt_tokens),
        (one.completion_tokens, other.completion_tokens),
        (one.cached_tokens, other.cached_tokens),
        (one.reasoning_tokens, other.reasoning_tokens),
    )
    return Usage(*(None if a is None and b is None else (a or 0) + (b or 0) for a, b in pairs))


def _key(api_key: str | None) -> str:
    key = os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key
    # RFC 6750, 2.1: a bearer token is of visible ASCII; a line break in it would begin another header.
    if not all("!" <= character <= "~" for character in key):
        raise ValueError("The API key holds a space, a line break or a character that is not ASCII; strip() it.")
    return key


def _url(base_url: str, path: str) -> tuple[str, str]:
    """Return the URL without its query string, and the query string with its question mark."""
    if "@" in base_url:  # not shown: a password may stand before it
        raise ValueError("base_url holds a user name; leave it out, and give the key as api_key=....")
    shown = base_url.partition("?")[0]
    try:
        parts = urlsplit(base_url)
        is_good = parts.scheme in ("http", "https") and parts.hostname and not parts.fragment and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or any(character <= " " or character == "#" for character in base_url):
        raise ValueError(f"base_url={shown!r} is no base URL; it looks like 'http://127.0.0.1:8000/v1'.")
    _, mark, query = base_url.partition("?")
    return shown.rstrip("/") + path, mark + query
