"""Every test is watched for what it leaves behind: threads of this library or of its pools, and child processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

OURS = ("distgen", "ThreadPoolExecutor", "asyncio")


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(OURS)}


def children() -> set[str]:
    """Numbers of child processes; Linux alone tells them without a look at every process of the machine."""
    numbers: set[str] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended meanwhile
            numbers.update(task.read_text().split())
    return numbers


def named(number: str) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(psutil.Process(int(number)).cmdline())
    return ""


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """What is left is waited for a moment: a stream that is dropped in a thread of its own ends a little later."""
    threads_before, children_before = threads(), children()
    yield
    deadline = time.monotonic() + 5
    while True:
        left = [thread.name for thread in threads() - threads_before]
        left += filter(None, map(named, children() - children_before))
        left = [name for name in left if "resource_tracker" not in name]  # of multiprocessing, kept for the next pool
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.01)
