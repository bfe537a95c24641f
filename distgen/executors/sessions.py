"""Sessions on threads and on pools: imported when a run begins, since concurrent.futures imports logging.

Classes, not generators: what a generator does at its end, the garbage collector would run in any thread.
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
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, final

from distgen.backends.generate import Batch
from distgen.errors import Raised, Stage
from distgen.executors.calls import Answer, Call, RowAnswer, attempt
from distgen.executors.window import Deliver, Submit, nothing

_P = TypeVar("_P")
_Open: TypeAlias = Callable[[], AbstractContextManager[FuturesExecutor]]

_Job: TypeAlias = list[tuple[int, Call[Any, Batch]]]
"""A call in a list of its own: who pops it owns it, the worker that begins it or the one who cancels it."""


_LINES: Final = 2


@final
class ThreadsSession:
    """`n` threads, hired as calls come in. No ThreadPoolExecutor: a Future a row costs as much as all else.

    They are daemons, so that an interpreter that ends does not wait for calls that nobody will read. To start a thread
    is to wait until it runs, and one who starts 512 takes half a second on a busy machine. So each that is hired hires
    the next before its own first call, in two such lines; more would only wait for each other.
    """

    def __init__(self, n: int, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        if n < 1:
            raise ValueError(f"{n} threads answer nothing; give 1 or more")
        self._n, self._deliver, self._lines = n, deliver, 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Submit[Batch]:
        return self._submit

    def __exit__(self, *_: object) -> None:
        self._n = 0
        while not self._jobs.empty():  # what has not begun
            with suppress(Empty):
                self._jobs.get_nowait()
        self._jobs.put(None)
        for worker in self._workers:  # it grows where one is hiring still
            if worker.is_alive():  # not where an interrupt came before it was
                worker.join()

    def _submit(self, index: int, call: Call[_P, Batch]) -> Callable[[], object]:
        job: _Job = [(index, call)]
        self._jobs.put(job)
        if len(self._workers) < self._n and self._lines < _LINES:
            with self._lock:
                self._lines += 1
            try:
                self._hire()
            except RuntimeError as error:
                if not self._workers:  # pragma: no branch  (it may be a worker that was refused the next)
                    job.clear()
                    self._deliver((index, call.failed(Raised.of(error))))
        return job.clear

    def _hire(self) -> None:
        """Goes on with a line, or ends it where no call waits or all are hired."""
        with self._lock:
            self._lines -= 1
            if self._jobs.empty() or len(self._workers) >= self._n:
                return
            self._lines += 1
            worker = threading.Thread(target=self._working, name="distgen", daemon=True)
            self._workers.append(worker)
        try:
            worker.start()
        except RuntimeError:  # the system has no more threads; those hired do the work
            with self._lock:
                self._lines -= 1
                self._workers.remove(worker)
                self._n = len(self._workers) or self._n
            raise

    def _working(self) -> None:
        with suppress(RuntimeError):
            self._hire()
        deliver = self._deliver
        for job in iter(self._jobs.get, None):
            try:
                index, call = job.pop()
            except IndexError:  # cancelled
                continue
            try:
                is_open = deliver((index, attempt(call)))
            except KeyboardInterrupt as interrupt:
                is_open = deliver((index, interrupt))
            except BaseException as error:  # of a callback of the row's future; the thread is still needed
                is_open = deliver((index, call.failed(Raised.of(error))))
            if not is_open and self._jobs.empty():  # an idle thread takes as long to be woken and to end as to start
                return
        self._jobs.put(None)  # for the next


class _Asked(NamedTuple):
    """A call handed over to `pool` for the `times`-th time."""

    key: int
    call: Call[Any, Batch]
    times: int
    pool: FuturesExecutor


@final
class PoolSession:
    """Calls on a `concurrent.futures.Executor`: submit, Future.cancel and closing, since no more is kept by every pool.

    `map` drains its iterable in the stdlib and in loky and is refused by Dask, whose `shutdown` knows no
    `cancel_futures`; none has back-pressure. A pool that breaks takes all that is pending with it, guilty or not: those
    calls are asked again together on a fresh pool, and, where that breaks too, a third and last time each row alone.
    """

    def __init__(self, open: _Open, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        self._open, self._deliver = open, deliver
        self._run, self._numbers = os.urandom(8), count()
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(open())
        self._pending: set[Future[Answer]] = set()
        self._broken: SimpleQueue[tuple[_Asked, BrokenExecutor] | None] = SimpleQueue()
        self._menders: list[threading.Thread] = []  # one, once it is needed
        self._lock = threading.Lock()
        self._leaving = False

    def __enter__(self) -> Submit[Batch]:
        return self._submit

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        with self._stack:
            self._cancel()
            self._broken.put(None)
            for mender in self._menders:
                mender.join()
            self._cancel()
            wait(list(self._pending))  # a pool that stays open would else keep running calls that nobody reads

    def _submit(self, index: int, call: Call[_P, Batch]) -> Callable[[], object]:
        return self._ask(_Asked(index, call, 1, self._pool))

    def _ask(self, asked: _Asked) -> Callable[[], object]:
        try:
            future = self._hand_over(asked.pool, asked.call)
        except BrokenExecutor as error:
            self._mend(asked, error)
        except Exception as error:
            self._deliver((asked.key, asked.call.failed(_lost(asked.call, error))))
        else:
            self._pending.add(future)
            future.add_done_callback(partial(self._done, asked))
            return future.cancel
        return nothing

    def _hand_over(self, pool: FuturesExecutor, call: Call[Any, Batch]) -> Future[Answer]:
        return pool.submit(_attempt_as, call, (self._run, next(self._numbers)))

    def _done(self, asked: _Asked, future: Future[Answer]) -> None:
        self._pending.discard(future)
        try:
            self._deliver((asked.key, future.result()))
        except KeyboardInterrupt as interrupt:
            self._deliver((asked.key, interrupt))
        except BrokenExecutor as error:
            self._mend(asked, error)
        except BaseException as error:
            self._deliver((asked.key, asked.call.failed(_lost(asked.call, error))))

    def _mend(self, asked: _Asked, error: BrokenExecutor) -> None:
        """Leaves it to a thread: in a pool's own thread a fresh one may not be opened (loky would wait for itself)."""
        self._broken.put((asked, error))
        with self._lock:
            if not self._menders:
                mender = threading.Thread(target=self._mending, name="distgen", daemon=True)
                self._menders.append(mender)
                mender.start()

    def _mending(self) -> None:
        for asked, error in iter(self._broken.get, None):
            if self._leaving:
                self._deliver((asked.key, asked.call.failed(Raised.of(error))))
            elif asked.times > 1:
                self._deliver((asked.key, tuple([self._alone(row) for row in asked.call.rows()])))
            else:
                self._again(asked)

    def _again(self, asked: _Asked) -> None:
        try:
            if asked.pool is self._pool:
                self._pool = self._stack.enter_context(self._open())
        except Exception as error:
            self._deliver((asked.key, asked.call.failed(Raised.of(error))))
        else:
            self._ask(asked._replace(times=asked.times + 1, pool=self._pool))

    def _alone(self, row: Call[Any, Batch]) -> RowAnswer:
        answers: list[RowAnswer] = []
        try:
            with self._open() as pool:
                answers += self._hand_over(pool, row).result()
        except BaseException as error:
            answers.append(Raised.of(error))
        return answers[0]

    def _cancel(self) -> None:
        for future in list(self._pending):
            future.cancel()


def _attempt_as(call: Call[Any, Batch], _identity: tuple[bytes, int]) -> Answer:
    # Dask's executor is pure by default: calls with equal arguments share one result, and equal prompts one sample.
    return attempt(call)


def _lost(call: Call[Any, Batch], error: BaseException) -> Raised:
    """Why a pool brought no answer; where a part of the call does not pickle, that part is named."""
    fault = Raised.of(error)
    if not any(word in f"{fault.kind} {fault.message}".lower() for word in ("pickl", "serializ")):
        return fault
    parts: tuple[tuple[Stage, object], ...] = (("backend", call.backend), ("prompt", call.prompts))
    stuck = [part for part, value in parts if not _pickles(value)]
    if len(stuck) != 1:
        return fault
    name = "the backend" if stuck[0] == "backend" else "a rendered prompt"
    return replace(fault, part=stuck[0], message=f"{name} does not pickle: {fault.message}")


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def _ignore_interrupts() -> None:
    """For worker processes: Ctrl-C reaches them too, and it is for the main process to end the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pragma: no cover  (in another process)


def spawned(n: int) -> FuturesExecutor:
    """A pool of processes that inherit nothing: forking a process that has threads may hang the child."""
    return ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)
