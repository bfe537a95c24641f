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

from distgen.completion import Batch
from distgen.errors import Fault, Part
from distgen.executors.calls import Answer, Call, RowAnswer, attempt
from distgen.executors.window import Deliver, Submit, nothing

_P = TypeVar("_P")
_Open: TypeAlias = Callable[[], AbstractContextManager[FuturesExecutor]]

_Job: TypeAlias = list[tuple[int, Call[Any, Batch]]]
"""A call in a list of its own: who pops it owns it, the worker that begins it or the one who cancels it."""


_HIRERS: Final = 4


@final
class ThreadsSession:
    """`n` threads, hired as calls come in. No ThreadPoolExecutor: a Future a row costs as much as all else.

    They are daemons, so that an interpreter that ends does not wait for calls that nobody will read. To start a thread
    is to wait until it runs: on a busy machine 512 took a second one after the other, a tenth of that by four hirers.
    """

    def __init__(self, n: int, deliver: Deliver) -> None:  # noqa: D107  (the class says it)
        if n < 1:
            raise ValueError(f"{n} threads answer nothing; give 1 or more")
        self._n, self._deliver, self._hired = n, deliver, 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._vacancies: SimpleQueue[bool] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._hirers: list[threading.Thread] = []

    def __enter__(self) -> Submit[Batch]:
        return self._submit

    def __exit__(self, *_: object) -> None:
        for queue in (self._vacancies, self._jobs):  # what has not begun
            while not queue.empty():
                with suppress(Empty):
                    queue.get_nowait()
        for _hirer in self._hirers:
            self._vacancies.put(False)
        for hirer in self._hirers:
            hirer.join()
        for _worker in self._workers:
            self._jobs.put(None)
        for worker in self._workers:
            worker.join()

    def _submit(self, index: int, call: Call[_P, Batch]) -> Callable[[], object]:
        job: _Job = [(index, call)]
        self._jobs.put(job)
        if self._hired < self._n:
            try:
                self._hire()
            except RuntimeError as error:  # the system has no more threads; those hired do the work
                if not self._workers:
                    job.clear()
                    self._deliver((index, call.failed(Fault.of(error))))
        return job.clear

    def _hire(self) -> None:
        if self._hired >= 2 * _HIRERS:
            if len(self._hirers) < _HIRERS:
                _start(self._hirers, self._hiring)
            self._vacancies.put(True)
        else:
            _start(self._workers, self._working)
        self._hired += 1

    def _hiring(self) -> None:
        for _vacancy in iter(self._vacancies.get, False):
            with suppress(RuntimeError):
                _start(self._workers, self._working)

    def _working(self) -> None:
        deliver = self._deliver
        for job in iter(self._jobs.get, None):
            try:
                index, call = job.pop()
            except IndexError:  # cancelled
                continue
            try:
                deliver((index, attempt(call)))
            except KeyboardInterrupt as interrupt:
                deliver((index, interrupt))


def _start(threads: list[threading.Thread], run: Callable[[], None]) -> None:
    thread = threading.Thread(target=run, name="distgen", daemon=True)
    thread.start()
    threads.append(thread)


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
        self._mender: threading.Thread | None = None
        self._lock = threading.Lock()
        self._leaving = False

    def __enter__(self) -> Submit[Batch]:
        return self._submit

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        with self._stack:
            self._cancel()
            if self._mender is not None:
                self._broken.put(None)
                self._mender.join()
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
        with self._lock:
            if self._mender is None:
                self._mender = threading.Thread(target=self._mending, name="distgen-mender", daemon=True)
                self._mender.start()
        self._broken.put((asked, error))

    def _mending(self) -> None:
        for asked, error in iter(self._broken.get, None):
            if self._leaving:
                self._deliver((asked.key, asked.call.failed(Fault.of(error))))
            elif asked.times > 1:
                self._deliver((asked.key, tuple([self._alone(row) for row in asked.call.rows()])))
            else:
                self._again(asked)

    def _again(self, asked: _Asked) -> None:
        try:
            if asked.pool is self._pool:
                self._pool = self._stack.enter_context(self._open())
        except Exception as error:
            self._deliver((asked.key, asked.call.failed(Fault.of(error))))
        else:
            self._ask(asked._replace(times=asked.times + 1, pool=self._pool))

    def _alone(self, row: Call[Any, Batch]) -> RowAnswer:
        answers: list[RowAnswer] = []
        try:
            with self._open() as pool:
                answers += self._hand_over(pool, row).result()
        except BaseException as error:
            answers.append(Fault.of(error))
        return answers[0]

    def _cancel(self) -> None:
        for future in list(self._pending):
            future.cancel()


def _attempt_as(call: Call[Any, Batch], _identity: tuple[bytes, int]) -> Answer:
    # Dask's executor is pure by default: calls with equal arguments share one result, and equal prompts one sample.
    return attempt(call)


def _lost(call: Call[Any, Batch], error: BaseException) -> Fault:
    """Why a pool brought no answer; where a part of the call does not pickle, that part is named."""
    fault = Fault.of(error)
    if not any(word in f"{fault.kind} {fault.message}".lower() for word in ("pickl", "serializ")):
        return fault
    parts: tuple[tuple[Part, object], ...] = (("backend", call.backend), ("prompt", call.prompts))
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def spawned(n: int) -> FuturesExecutor:
    """A pool of processes that inherit nothing: forking a process that has threads may hang the child."""
    return ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)
