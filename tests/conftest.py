"""Every test is watched for what it leaves behind; one cluster of Dask serves all tests that do not kill its workers."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

import pytest
from hypothesis import settings

from tests.support.parts import child_processes, command_lines, dask_cluster

OURS: Final = ("distgen", "ThreadPoolExecutor", "asyncio")

settings.register_profile("any machine", parent=settings.default, deadline=None)  # a slow one fails no example
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def dask() -> Iterator[Any]:
    """A client, or None where Dask is not installed. Of the session, so that a test does not leave it behind."""
    if find_spec("distributed") is None:
        yield None
        return
    with dask_cluster() as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Threads of the library or of its pools, and processes. They have a moment: what is dropped ends a little later."""
    threads_before, children_before = threads(), child_processes()
    yield
    deadline = time.monotonic() + 30
    while left := [thread.name for thread in threads() - threads_before] + command_lines(
        child_processes() - children_before
    ):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.01)


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(OURS)}
