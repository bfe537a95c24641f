"""An `openai.OpenAI` or `openai.AsyncOpenAI` that you hold, as a Generate: its authentication, its address, its retries.

The client only carries the bytes; they are read as `distgen.backends.wire` reads them, since the client itself gives HTML, an
error object or a missing choice as values. Retries, proxies and timeouts are those of the client: a timeout is one of each read
and no deadline, and an answer of any length is read. What a server sends behind an answer, unasked, the client takes for the
next one: of a server that does, no row is sure. Redirects alone are not followed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar, final, overload

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    HttpxBinaryResponseContent,
    OpenAI,
    Timeout,
)
from returns.result import Failure

from distgen.backends import wire
from distgen.backends.loops import PerLoop
from distgen.backends.params import Params
from distgen.completion import Batch
from distgen.prompt import Messages

P = TypeVar("P")


@overload
def chat(
    client: OpenAI, *, model: str, params: Params | None = None, extra_body: Mapping[str, object] | None = None
) -> OverOpenAI[Messages]: ...
@overload
def chat(
    client: AsyncOpenAI | Callable[[], AsyncOpenAI],
    *,
    model: str,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
) -> OverAsyncOpenAI[Messages]: ...
def chat(
    client: OpenAI | AsyncOpenAI | Callable[[], AsyncOpenAI],
    *,
    model: str,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
) -> OverOpenAI[Messages] | OverAsyncOpenAI[Messages]:
    """A Generate from messages, async for an AsyncOpenAI; `params` and `extra_body` as in `distgen.backends.http`.

    The connections of an AsyncOpenAI belong to one event loop, and each run under `Asyncio` has its own: the client is
    closed when the run ends. For more runs than one give what makes a client, such as `AsyncOpenAI` itself.

    >>> from openai import OpenAI
    >>> chat(OpenAI(api_key="sk-1"), model="tiny", params={"temperature": 0.7})
    OverOpenAI(model='tiny', params={'temperature': 0.7})
    """
    sent = wire.json_params(params, extra_body)
    if isinstance(client, OpenAI):
        return OverOpenAI(model, sent, wire.CHAT, client)
    return OverAsyncOpenAI(model, sent, wire.CHAT, client)


@overload
def completions(
    client: OpenAI, *, model: str, params: Params | None = None, extra_body: Mapping[str, object] | None = None
) -> OverOpenAI[str]: ...
@overload
def completions(
    client: AsyncOpenAI | Callable[[], AsyncOpenAI],
    *,
    model: str,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
) -> OverAsyncOpenAI[str]: ...
def completions(
    client: OpenAI | AsyncOpenAI | Callable[[], AsyncOpenAI],
    *,
    model: str,
    params: Params | None = None,
    extra_body: Mapping[str, object] | None = None,
) -> OverOpenAI[str] | OverAsyncOpenAI[str]:
    """A Generate from text; all else as in `chat`.

    >>> from openai import AsyncOpenAI
    >>> completions(AsyncOpenAI(api_key="sk-1"), model="tiny", params={"stop": ("END",)})
    OverAsyncOpenAI(model='tiny', params={'stop': ['END']})
    """
    sent = wire.json_params(params, extra_body)
    if isinstance(client, OpenAI):
        return OverOpenAI(model, sent, wire.COMPLETIONS, client)
    return OverAsyncOpenAI(model, sent, wire.COMPLETIONS, client)


@final
@dataclass(frozen=True, slots=True)
class OverOpenAI(Generic[P]):
    """A generate callable over a client, which threads may share."""

    model: str
    params: Mapping[str, object] = field(hash=False)
    endpoint: wire.Endpoint[P] = field(repr=False)
    client: OpenAI = field(repr=False)

    def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """One row a prompt, asked one after the other."""
        return [wire.answered(self._row(prompt, num_generations), self._ask) for prompt in prompts]

    def _row(self, prompt: P, n: int) -> wire.Steps:
        return self.endpoint.row(prompt, n, model=self.model, params=self.params, secret=lambda: self.client.api_key)

    def _ask(self, request: wire.Body) -> wire.Answer:
        try:
            answer = self.client.post(
                self.endpoint.path,
                body=request,
                cast_to=HttpxBinaryResponseContent,
                options={"follow_redirects": False},
            )
        except Exception as error:
            return _failed(error, self.client, self.endpoint)
        return self.endpoint.read(answer.content)


@final
@dataclass(frozen=True)
class OverAsyncOpenAI(Generic[P]):
    """An async generate callable over a client, or over one for each event loop."""

    model: str
    params: Mapping[str, object] = field(hash=False)
    endpoint: wire.Endpoint[P] = field(repr=False)
    client: AsyncOpenAI | Callable[[], AsyncOpenAI] = field(repr=False)
    _clients: PerLoop[AsyncOpenAI] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_clients", PerLoop(partial(_opened, self.client)))

    async def __call__(self, prompts: Sequence[P], num_generations: int) -> Batch:
        """One row a prompt, asked one after the other."""
        client = await self._clients.here()
        ask = partial(self._ask, client)
        return [await wire.answered_async(self._row(client, prompt, num_generations), ask) for prompt in prompts]

    def _row(self, client: AsyncOpenAI, prompt: P, n: int) -> wire.Steps:
        return self.endpoint.row(prompt, n, model=self.model, params=self.params, secret=lambda: client.api_key)

    async def _ask(self, client: AsyncOpenAI, request: wire.Body) -> wire.Answer:
        try:
            answer = await client.post(
                self.endpoint.path,
                body=request,
                cast_to=HttpxBinaryResponseContent,
                options={"follow_redirects": False},
            )
        except Exception as error:
            return _failed(error, client, self.endpoint)
        return self.endpoint.read(answer.content)


async def _opened(client: AsyncOpenAI | Callable[[], AsyncOpenAI]) -> AsyncGenerator[AsyncOpenAI, None]:
    async with client if isinstance(client, AsyncOpenAI) else client() as opened:
        yield opened


def _failed(error: Exception, client: OpenAI | AsyncOpenAI, endpoint: wire.Endpoint[P]) -> wire.Answer:
    match error:
        case APIStatusError(response=response):
            return endpoint.answer(response.status_code, response.content, response.headers.get("location", ""))
        case APITimeoutError():
            seconds = client.timeout.read if isinstance(client.timeout, Timeout) else client.timeout
            return Failure(wire.TimedOut(seconds or 0))
        case APIConnectionError():
            cause = error.__cause__ or error
            name = type(cause).__name__
            # A protocol error is not quoted: it quotes the answer, and that may quote the key, escaped.
            told = f"the answer broke off or is no HTTP ({name})" if "Protocol" in name else f"{name}: {cause}"
            return Failure(wire.ConnectionFailed(told))
        case _:  # the client's own authentication, hooks and encoding
            return Failure(wire.NotSent(f"{type(error).__name__}: {error}"))
