"""What a client keeps for an event loop: opened in the loop that asks for it first, and closed when that loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar, final

T = TypeVar("T")


# Connections belong to one event loop and have to be closed in it, before it ends; but a backend is a value that outlives
# the loops that use it, several at once, and nobody tells it of their end. An async generator is told: a loop that is shut
# down, by asyncio.run, by `Asyncio` or by loop.shutdown_asyncgens(), closes those that were begun in it, and one that
# nobody holds any more is closed by its loop too (PEP 525, "Finalization"). So what is kept lives in a generator that
# yields once. It holds no other generator, as asynccontextmanager is one, since a loop closes all of them at once; and it
# does not know its PerLoop, since of a cycle any part may be collected first.
@final
class PerLoop(Generic[T]):
    """What `open` yields first, once for each running event loop. It must not wait before, lest two calls open two."""

    __slots__ = ("_kept", "_open")

    def __init__(self, open: Callable[[], AsyncGenerator[T, None]]) -> None:  # noqa: D107  (the class says it)
        self._open = open
        # By no weak keys: what is kept knows its loop, so that none would ever go.
        self._kept: dict[asyncio.AbstractEventLoop, tuple[AsyncGenerator[T, None], T]] = {}

    async def here(self) -> T:
        """That of this loop."""
        loop = asyncio.get_running_loop()
        if (kept := self._kept.get(loop)) is not None:
            return kept[1]
        for ended in [each for each in list(self._kept) if each.is_closed()]:
            self._kept.pop(ended, None)  # which another thread may have done
        life = self._open()
        opened = await anext(life)
        self._kept[loop] = life, opened
        return opened
