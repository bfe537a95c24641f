"""Backends for servers of the OpenAI-compatible API: `chat` and `completions`, async, and `blocking` for the rest.

    LLM(task, openai, chat("http://127.0.0.1:8000/v1", model="tiny"), Asyncio(512))
    LLM(task, chatml, blocking(completions("http://127.0.0.1:8000/v1", model="tiny")), Threads(64))

Answers are not streamed. A gateway that cuts a connection after 60 to 120 s without a byte cuts long answers too: ask for
fewer tokens, or call the server without the gateway. Reasoning that a service only streams is not received.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import reduce
from typing import Final, Generic, TypeAlias, TypeVar, final
from urllib.parse import urlsplit

from returns.result import Failure, Success

from distgen.backends.blocking import Blocking, blocking
from distgen.backends.generate import Batch, Row
from distgen.backends.limiter import Limiter
from distgen.backends.params import Params
from distgen.backends.redact import find_secrets
from distgen.backends.retry import Outcome, Retry, failure_kind
from distgen.backends.transport import Session, open_session, send
from distgen.backends.wire import Answer, json_params, read_answer
from distgen.completion import Completion, Usage
from distgen.errors import RequestFailed
from distgen.prompt import Messages

__all__ = ["Blocking", "Chat", "Completions", "Headers", "Params", "Retry", "Server", "blocking", "chat", "completions"]

P = TypeVar("P")

Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""The user's own headers, or a function that returns them; it is called for each request, for tokens that expire."""

_REFUSES_N: Final = (("status", 400), ("status", 422))  # a validator, as FastAPI's, answers 422
_RETRY: Final = Retry()
_NOT_ASKED: Final = RequestFailed("stopped", "the run ended before this row was asked")
_WRONG_FORMAT: Final = "chat takes the format openai, and completions a text format, such as chatml"


@dataclass(slots=True)
class _State:
    """The state of a backend in one event loop."""

    session: Session
    closing: AsyncGenerator[None, None]
    limiter: Limiter
    refuses_n: bool = False


# Connections belong to one event loop and must be closed in it, before it ends. A backend outlives the loops that use it,
# and gets no notice when one ends. An async generator does: a loop that shuts down (asyncio.run, `Asyncio`,
# loop.shutdown_asyncgens()) closes the generators that began in it, and those that are no longer referenced (PEP 525,
# "Finalization"). This one must hold no other async generator (an asynccontextmanager is one), since a loop closes all of
# them at once, and no reference to its backend, since the parts of a cycle are finalized in any order.
async def _close_with_loop(session: Session) -> AsyncGenerator[None, None]:
    async with session:
        yield


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
    _states: dict[asyncio.AbstractEventLoop, _State] = field(
        default_factory=dict[asyncio.AbstractEventLoop, _State], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty; name one, as the server lists them under /v1/models.")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout={self.timeout!r}: give a positive number of seconds.")
        if self.max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, got {self.max_connections}")
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://")):
            raise ValueError("proxy must be a URL that begins with http:// or https://, as 'http://127.0.0.1:3128'.")

    def __getstate__(self) -> dict[str, object]:
        """Pickle without the states: another process has its own event loops."""
        if isinstance(self.stop, threading.Event):
            raise TypeError("'stop' works in one process only: leave it out, or run on Threads or Asyncio")
        return {**self.__dict__, "_states": {}}

    def body(self, prompt: P, n: int, offset: int = 0) -> dict[str, object]:
        """Return the request for `n` choices. `offset` is added to a seed: the same seed would give the same texts."""
        several = {"n": n} if n > 1 else {}  # some servers refuse the key itself
        seed = self.params.get("seed")
        shifted = {"seed": seed + offset} if isinstance(seed, int) else {}
        return {**self.params, **shifted, "model": self.model, self.prompt_key: prompt, **several, "stream": False}

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        """Read an answer: its completions, at least one, or a RequestFailed."""
        own: Mapping[str, str] = {} if callable(self.headers) else self.headers
        return read_answer(status, headers, body, find_secrets(self.api_key, own))

    async def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """Ask for all rows at once. A row that fails is a Failure; the others are not affected."""
        if len(prompts) == 1:  # a task would cost a tenth of the CPU of a row
            return [await self._ask_row(prompts[0], num_generations)]
        return await asyncio.gather(*[self._ask_row(prompt, num_generations) for prompt in prompts])

    def end_waits(self) -> None:
        """End the waits of the rows under way in the running event loop: they become RequestFailed("stopped")."""
        if (state := self._states.get(asyncio.get_running_loop())) is not None:
            state.limiter.end_run()

    async def _open(self) -> _State:
        """Open connections in the running event loop."""
        for ended in [loop for loop in list(self._states) if loop.is_closed()]:
            self._states.pop(ended, None)  # another thread may have done that
        session = open_session(self.timeout, self.api_key, self.proxy)
        state = _State(session, _close_with_loop(session), Limiter(self.max_connections, self.stop))
        self._states[asyncio.get_running_loop()] = state  # before the first await, or another row would open it too
        await anext(state.closing)
        return state

    async def _ask_row(self, prompt: P, num_generations: int) -> Row:
        if isinstance(prompt, str) != (self.prompt_key == "prompt"):  # in untyped code
            return Failure(RequestFailed("not_sent", _WRONG_FORMAT))
        state = self._states.get(asyncio.get_running_loop()) or await self._open()
        run = state.limiter.run
        n = 1 if state.refuses_n else num_generations
        first = await self._ask(state, run, self.body(prompt, n))
        if n > 1 and isinstance(first, Failure) and (first.failure().reason, first.failure().status) in _REFUSES_N:
            first = await self._ask(state, run, self.body(prompt, 1))
            state.refuses_n = state.refuses_n or isinstance(first, Success)
        if not isinstance(first, Success):
            return first
        came = first.unwrap()[:num_generations]
        places = range(len(came), num_generations)
        rest = [self._ask(state, run, self.body(prompt, 1, place)) for place in places]
        return join_row(came, await asyncio.gather(*rest) if rest else [])

    async def _ask(self, state: _State, run: int, request: Mapping[str, object]) -> Answer:
        """Send a request until it is answered or given up. The tokens of all attempts are counted."""
        body = json.dumps(request).encode()  # ASCII, so that a lone surrogate is sent as JSON escapes it
        limiter, history = state.limiter, list[Outcome]()
        failed, waited = _NOT_ASKED, 0.0
        wait: float | None = 0.0
        while wait is not None:
            period = await limiter.enter(run, wait)
            if not period:
                said = f"the run ended; the last answer was: {failed.message}" if history else failed.message
                return Failure(replace(failed, reason="stopped", message=said))
            try:
                answer = await self._send(state.session, body)
                if isinstance(answer, Success):
                    limiter.answered()
                    if failed.usage is None:
                        return answer
                    first, *others = answer.unwrap()
                    return Success((replace(first, usage=_add(failed.usage, first.usage)), *others))
                failed = replace(answer.failure(), usage=_add(failed.usage, answer.failure().usage))
                waited += wait
                outcome = Outcome(failure_kind(failed), failed.retry_after, waited)
                wait = self.retry.decide(history, outcome, waited, random.random())
                history.append(outcome)
                # A rejection of a run that was ended holds no other run back.
                if outcome.kind in ("rate_limit", "overload") and run == limiter.run:
                    hint = outcome.hint if outcome.kind == "rate_limit" else None
                    limiter.reject(period, min(hint or 0.0, self.retry.longest_wait), wait or 0.0)
            finally:
                limiter.leave()
        if failed.reason == "connection" and waited:
            failed = replace(failed, message=f"{failed.message} (tried for {waited:.1f} s)")
        return Failure(failed)

    async def _send(self, session: Session, body: bytes) -> Answer:
        try:
            own = dict(self.headers()) if callable(self.headers) else self.headers
        except Exception as error:
            return Failure(RequestFailed("not_sent", f"the headers function raised {type(error).__name__}"))
        reply = await send(session, f"{self.url}{self.query}", own, body)
        if isinstance(reply, RequestFailed):
            return Failure(reply)
        return read_answer(*reply, find_secrets(self.api_key, own))


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

    `api_key` defaults to the environment's OPENAI_API_KEY. `timeout` is the seconds for one whole answer. Once `stop` is
    set, rows that wait for a request become RequestFailed("stopped"), and requests under way are finished. Proxies of the
    environment are not used: pass `proxy`. A wrong argument raises a ValueError.

    >>> chat("http://127.0.0.1:8000/v1", model="tiny", api_key="sk-1", params={"temperature": 0.7})
    Server(url='http://127.0.0.1:8000/v1/chat/completions', model='tiny', params={'temperature': 0.7}, timeout=600.0, \
retry=Retry(attempts=6, patience=90.0, longest_wait=60.0), max_connections=512)
    """
    url, query = _split_url(base_url, "/chat/completions")
    sent, key = json_params(params, extra_body), _read_key(api_key)
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
    url, query = _split_url(base_url, "/completions")
    sent, key = json_params(params, extra_body), _read_key(api_key)
    own = headers if callable(headers) else dict(headers or {})
    return Server(url, model, "prompt", sent, timeout, retry, max_connections, query, key, own, proxy, stop)


def join_row(came: tuple[Completion, ...], singles: Sequence[Answer]) -> Row:
    """Return a row of the answers to its requests. If one failed, its Failure keeps the completions of the others."""
    completions = [*came, *(single.unwrap()[0] for single in singles if isinstance(single, Success))]
    failed = [single.failure() for single in singles if isinstance(single, Failure)]
    if not failed:
        return completions
    spent = reduce(_add, [failure.usage for failure in failed])
    return Failure(replace(failed[0], usage=spent, completions=tuple(completions)))


def _add(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    pairs = zip(astuple(one), astuple(other), strict=True)
    return Usage(*(a if b is None else b if a is None else a + b for a, b in pairs))


def _read_key(api_key: str | None) -> str:
    key = os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key
    # RFC 6750, 2.1: a bearer token is of visible ASCII; a line break in it would begin another header.
    if not all("!" <= character <= "~" for character in key):
        raise ValueError("The API key holds a space, a line break or a character that is not ASCII; strip() it.")
    return key


def _split_url(base_url: str, path: str) -> tuple[str, str]:
    """Return the URL without its query string, and the query string with its question mark."""
    base, mark, query = base_url.partition("?")
    try:
        parts = urlsplit(base_url)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or any(character <= " " or character in "@#" for character in base_url):
        raise ValueError("base_url must be an http or https URL without a user name, as 'http://127.0.0.1:8000/v1'.")
    return base.rstrip("/") + path, mark + query
