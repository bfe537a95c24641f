"""A call of the protocol, and a row: as many requests as it takes to have all its completions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar, final

from returns.result import Failure

from distgen.backends.wire.answers import Answer, read_chat, read_completions, read_error
from distgen.backends.wire.errors import BadStatus, Redirected, fault
from distgen.backends.wire.requests import Body, Request, chat_request, completions_request, seeded
from distgen.backends.generate import Row
from distgen.completion import Completion
from distgen.prompt import Messages

P = TypeVar("P")

_LOG = logging.getLogger(__name__)

Steps: TypeAlias = Generator[Body, Answer, Row]
"""A row in the making: it yields each request, is sent its answer, and returns what became of the row."""

_N_REFUSED: Final = (400, 422)  # how servers were seen to refuse n > 1; a validator, as FastAPI's, answers 422


@final
@dataclass(frozen=True, slots=True)
class Endpoint(Generic[P]):
    """One call of the protocol: its path below the base URL, and both directions of it."""

    path: str
    request: Request[P]
    read: Callable[[bytes], Answer]

    def answer(self, status: int, body: bytes, location: str = "") -> Answer:
        """Reads a whole HTTP answer; a Success holds at least one completion."""
        if 200 <= status < 300:
            return self.read(body)
        return Failure(Redirected(status, location) if 300 <= status < 400 else read_error(status, body))

    def row(
        self,
        prompt: P,
        num_generations: int,
        *,
        model: str,
        params: Mapping[str, object],
        secret: Callable[[], str] = str,
    ) -> Steps:
        """Asks for what is missing until nothing is, one choice a request once a server refuses several.

        A server that takes no `n` is asked once more with one: what it refuses costs nothing. A row that then fails has
        the last reason. A Failure hides `secret()`, the key.

        >>> from returns.result import Success
        >>> steps = COMPLETIONS.row("Once", 2, model="m", params={})
        >>> next(steps)
        {'model': 'm', 'prompt': 'Once', 'n': 2}
        >>> steps.send(Success((Completion("upon"),)))
        {'model': 'm', 'prompt': 'Once'}
        """
        row: list[Completion] = []
        most = num_generations  # choices a request
        while len(row) < num_generations:  # ends: a Success holds one or more, and a refusal of several comes once
            missing = num_generations - len(row)
            n = min(most, missing)
            answer = yield self.request(prompt, model=model, n=n, params=seeded(params, len(row)))
            if isinstance(answer, Failure):
                error = answer.failure()
                if n == 1 or not isinstance(error, BadStatus) or error.status not in _N_REFUSED:
                    return Failure(fault(error, secret()))
                _LOG.info("%s refused %d choices at once (status %d); asking for one at a time", model, n, error.status)
                most = 1
                continue
            choices = answer.unwrap()
            row.extend(choices[:missing])
            if len(choices) < n:
                _LOG.info("%s answered %d of %d choices; asking for the rest", model, len(choices), n)
        return row


def answered(steps: Steps, ask: Callable[[Body], Answer]) -> Row:
    """Asks what a row wants asked, and gives what became of it."""
    try:
        request = next(steps)
        while True:
            request = steps.send(ask(request))
    except StopIteration as end:
        row: Row = end.value
        return row


async def answered_async(steps: Steps, ask: Callable[[Body], Awaitable[Answer]]) -> Row:
    """`answered`, awaited."""
    try:
        request = next(steps)
        while True:
            request = steps.send(await ask(request))
    except StopIteration as end:
        row: Row = end.value
        return row


CHAT: Final[Endpoint[Messages]] = Endpoint("/chat/completions", chat_request, read_chat)
COMPLETIONS: Final[Endpoint[str]] = Endpoint("/completions", completions_request, read_completions)
