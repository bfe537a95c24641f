"""A value for each event loop, such as its connections: opened in the loop, and closed when the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar, final

T = TypeVar("T")


# Connections belong to one event loop and must be closed in it, before it ends. A backend outlives the loops that use it,
# and nobody tells it when one ends. An async generator is told: a loop that shuts down (asyncio.run, `Asyncio`,
# loop.shutdown_asyncgens()) closes the generators that began in it, and closes those that nobody holds any more (PEP 525,
# "Finalization"). So each value lives in a generator that yields once. The generator must hold no other async generator
# (an asynccontextmanager is one), since a loop closes all of them at once, and no reference to its PerEventLoop, since
# the parts of a cycle are finalized in any order.
@final
class PerEventLoop(Generic[T]):
    """Keeps one value for each running event loop."""

    def __init__(self) -> None:  # noqa: D107  (the class says it)
        # Not weak keys: a value holds its loop, so that no entry would ever go.
        self._values: dict[asyncio.AbstractEventLoop, tuple[AsyncGenerator[T, None], T]] = {}

    def __reduce__(self) -> tuple[type[PerEventLoop[T]], tuple[()]]:
        """Leave the values behind: another process has loops of its own."""
        return PerEventLoop, ()

    def find(self) -> T | None:
        """Return the value of the running loop, if it has one."""
        found = self._values.get(asyncio.get_running_loop())
        return found[1] if found else None

    async def get(self, open: Callable[[], AsyncGenerator[T, None]]) -> T:
        """Return the value of the running loop. `open` yields it first; it must not await before that, or two may be opened."""
        if (found := self.find()) is not None:
            return found
        loop = asyncio.get_running_loop()
        for ended in [known for known in list(self._values) if known.is_closed()]:
            self._values.pop(ended, None)  # another thread may have done that
        generator = open()
        value = await anext(generator)
        self._values[loop] = generator, value
        return value
