"""The session behind `Threads`, `Processes` and `Pool`: calls on a `concurrent.futures.Executor`.

A class and not a generator, since the garbage collector may run a generator's `finally` on a thread that it waits for.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from concurrent.futures import Executor as FuturesExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Final, TypeAlias, TypeVar, final

from distgen.backends.generate import Batch, SupportsEndWaits
from distgen.errors import Raised, Stage
from distgen.executors.call import Call, CallResult, call_backend
from distgen.executors.engine import Deliver, Submit, do_nothing

_P = TypeVar("_P")

OpenPool: TypeAlias = Callable[[], AbstractContextManager[FuturesExecutor]]

_MAX_BREAKS: Final = 3
_END_WAITS_EVERY: Final = 0.1  # seconds


@final
class PoolSession:
    """Calls on a pool. Uses only submit, Future.cancel and closing, the subset that all pools implement.

    `map` drains its iterable in the standard library and in loky and is refused by Dask, whose `shutdown` knows no
    `cancel_futures`; none has back-pressure. If a pool breaks, what was in it fails, and the next call opens a fresh one,
    until the pool has broken three times without an answer in between.
    """

    def __init__(self, open_pool: OpenPool, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        self._open_pool, self._deliver = open_pool, deliver
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(open_pool())
        self._session, self._numbers = os.urandom(16), count()
        self._pending: dict[Future[CallResult], object] = {}  # with the backend of each
        self._lock = threading.Lock()
        # Set by `_done` without the lock: a pool may run it while it holds its own lock, for which `submit` waits here.
        self._broken: tuple[FuturesExecutor, Raised] | None = None
        self._breaks = 0

    def __enter__(self) -> Submit[Batch]:
        return self._submit

    def __exit__(self, *_: object) -> None:
        with self._stack:
            for future in list(self._pending):
                future.cancel()
            # A pool that stays open would go on running calls that nobody reads. A call may begin to wait only now.
            while pending := self._pending.copy():
                for backend in pending.values():
                    if isinstance(backend, SupportsEndWaits):
                        backend.end_waits()
                wait(pending, _END_WAITS_EVERY)

    def _submit(self, index: int, call: Call[_P, Batch]) -> Callable[[], object]:
        try:
            with self._lock:
                pool, future = self._start(call)
        except Exception as error:
            self._deliver((index, call.failed(_explain(call, error))))
            return do_nothing
        self._pending[future] = call.backend
        future.add_done_callback(partial(self._done, index, call, pool))
        return future.cancel

    def _start(self, call: Call[_P, Batch]) -> tuple[FuturesExecutor, Future[CallResult]]:
        while True:
            pool = self._get_pool()
            try:
                return pool, pool.submit(_run_call, call, self._session, next(self._numbers))
            except BrokenExecutor as error:  # this call was not in it, so that a fresh pool may have it
                self._broken = pool, _explain_break(error)

    def _get_pool(self) -> FuturesExecutor:
        """Return the pool, a fresh one if it is broken. Runs in a caller's thread: a pool's own could wait for itself."""
        if self._broken is not None and self._broken[0] is self._pool:
            if self._breaks == _MAX_BREAKS - 1:
                raise BrokenExecutor(f"the pool broke {_MAX_BREAKS} times in a row; {self._broken[1].message}")
            self._breaks += 1
            self._pool = self._stack.enter_context(self._open_pool())
        return self._pool

    def _done(self, index: int, call: Call[Any, Batch], pool: FuturesExecutor, future: Future[CallResult]) -> None:
        self._pending.pop(future, None)
        result: CallResult | KeyboardInterrupt
        try:
            result = future.result()
            self._breaks = 0
        except KeyboardInterrupt as interrupt:
            result = interrupt
        except BrokenExecutor as error:
            broken = _explain_break(error)
            self._broken = pool, broken
            result = call.failed(broken)
        except BaseException as error:
            result = call.failed(_explain(call, error))
        self._deliver((index, result))


def _run_call(call: Call[Any, Batch], _session: bytes, _number: int) -> CallResult:
    # Dask's executor is pure by default: calls with equal arguments share one result, and equal prompts one sample.
    return call_backend(call)


def _explain_break(error: BrokenExecutor) -> Raised:
    raised = Raised.of(error)
    why = "the pool broke while it had this row, as when a worker process is killed or runs out of memory"
    return replace(raised, message=f"{why}: {raised.message}")


def _explain(call: Call[Any, Batch], error: BaseException) -> Raised:
    """Return why a pool brought no answer; if a part of the call does not pickle, name that part."""
    raised = Raised.of(error)
    if not any(word in f"{raised.kind} {raised.message}".lower() for word in ("pickl", "serializ")):
        return raised
    parts: tuple[tuple[Stage, str, object], ...] = (
        ("backend", "the backend", call.backend),
        ("prompt", "a rendered prompt", call.prompts),
    )
    for stage, name, value in parts:
        if not _pickles(value):
            return replace(raised, stage=stage, message=f"{name} does not pickle: {raised.message}")
    return raised


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def open_processes(max_workers: int) -> FuturesExecutor:
    """Open a pool of processes that inherit nothing: forking a process that has threads may hang the child."""
    spawn = multiprocessing.get_context("spawn")
    # Ctrl-C reaches worker processes too; the main process ends the run.
    return ProcessPoolExecutor(max_workers, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN))
