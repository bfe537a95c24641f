"""The session behind `Threads`, `Processes` and `Pool`: calls on a `concurrent.futures.Executor`.

It is a class and not a generator: the garbage collector may run a generator's `finally` on a thread that it waits for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from concurrent.futures import Executor as FuturesExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar, final

from distgen.backends.generate import Batch, SupportsEndWaits
from distgen.errors import Raised
from distgen.executors.call import Call, CallResult, call_backend
from distgen.executors.engine import Deliver, Submit

_P = TypeVar("_P")

_MAX_BREAKS: Final = 3
_END_WAITS_EVERY: Final = 0.1  # seconds


@final
class PoolSession:
    """Runs calls on a pool, by submit, Future.cancel and closing: the subset that all pools implement.

    `map` reads its whole iterable at once in the standard library and in loky, and Dask's raises. Dask's `shutdown` has no
    `cancel_futures`. If a pool breaks, the calls in it fail, and the next call opens a new pool, until pools have broken three
    times without an answer in between.
    """

    def __init__(self, open_pool: Callable[[], AbstractContextManager[FuturesExecutor]], deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        self._open_pool, self._deliver = open_pool, deliver
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(open_pool())
        self._ids = count(int.from_bytes(os.urandom(16)))
        self._pending: dict[Future[CallResult], object] = {}  # with the backend of each
        self._broken: FuturesExecutor | None = None
        self._breaks = 0
        self._is_leaving = False

    def __enter__(self) -> Submit[Batch]:
        return self._submit

    def __exit__(self, *_: object) -> None:
        self._is_leaving = True
        with self._stack:
            for future in list(self._pending):
                future.cancel()
            # A pool that stays open would still run calls whose results are not read. A call may begin to wait after `end_waits`.
            while pending := self._pending.copy():
                for backend in pending.values():
                    if isinstance(backend, SupportsEndWaits):
                        backend.end_waits()
                wait(pending, _END_WAITS_EVERY)

    def _submit(self, index: int, call: Call[_P, Batch]) -> None:
        try:
            future = self._start(call)
        except Exception as error:
            self._deliver((index, call.failed(_explain(error))))
            return
        self._pending[future] = call.backend
        try:
            future.add_done_callback(partial(self._done, index, call, self._pool))
        except KeyboardInterrupt:  # leaving would wait for this call without end
            self._pending.pop(future, None)
            raise

    def _start(self, call: Call[_P, Batch]) -> Future[CallResult]:
        while True:
            self._replace_broken()
            try:
                return self._pool.submit(_run_call, call, next(self._ids))
            except BrokenExecutor:  # the broken pool never had this call, so a new pool may run it
                self._broken = self._pool

    def _replace_broken(self) -> None:
        """Open a new pool if this one is broken. It runs in the consumer's thread: a thread of the pool could wait for itself."""
        if self._broken is self._pool:
            if self._breaks == _MAX_BREAKS - 1:
                raise RuntimeError(f"the pool broke {_MAX_BREAKS} times in a row and is not opened again")
            self._breaks += 1
            self._pool = self._stack.enter_context(self._open_pool())

    def _done(self, index: int, call: Call[Any, Batch], pool: FuturesExecutor, future: Future[CallResult]) -> None:
        result: CallResult | KeyboardInterrupt
        try:
            result = future.result()
            self._breaks = 0
        except KeyboardInterrupt as interrupt:
            result = interrupt
        except BaseException as error:
            if isinstance(error, BrokenExecutor):
                self._broken = pool
            result = call.failed(_explain(error))
        if not (self._is_leaving and future.cancelled()):  # else the call never began, so it has no result
            self._deliver((index, result))
        self._pending.pop(future, None)  # only now: leaving waits for what is pending, and then no result is read


def _run_call(call: Call[Any, Batch], _id: int) -> CallResult:
    # The id keeps calls apart: Dask computes calls with equal arguments once, and equal prompts would share one sample.
    return call_backend(call)


def _explain(error: BaseException) -> Raised:
    """Return the error of a call that got no answer from the pool."""
    raised = Raised.of(error)
    if isinstance(error, BrokenExecutor):
        why = "the pool broke while it had this row, as when a worker process is killed or runs out of memory"
    elif any(word in f"{raised.kind} {raised.message}".lower() for word in ("pickl", "serializ")):
        why = "the backend and the rendered prompts must pickle"
    else:
        return raised
    return replace(raised, message=f"{why}: {raised.message}")


def open_processes(max_workers: int) -> FuturesExecutor:
    """Open a pool of processes that inherit nothing: forking a process that has threads may hang the child."""
    spawn = multiprocessing.get_context("spawn")
    # Ctrl-C reaches worker processes too; the main process ends the run.
    return ProcessPoolExecutor(max_workers, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN))
