"""In a real kernel of Jupyter, inside its running loop: every verb, and the interrupt of its stop button."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.parts import ROOT

pytestmark = pytest.mark.slow

PREAMBLE = """
    import itertools
    from distgen import LLM, Asyncio, Threads
    from distgen.formats import default
    from tests.support.parts import PLAIN, slow_echo, slow_echo_async

    LLMS = {
        "threads": LLM(PLAIN, default, slow_echo, Threads(4)),
        "asyncio": LLM(PLAIN, default, slow_echo_async, Asyncio(4)),
    }
    seen = []
    def keep(*row):
        seen.append(row)
        if len(seen) == 20:
            print("running", flush=True)
    def left():
        import threading
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("distgen")]
"""


class Kernel:
    """Runs cells, and gives what they print and the name of what they raise."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager, self.client = manager, client

    def run(self, cell: str, interrupt_at: str | None = None) -> tuple[str, str]:
        asked: str = self.client.execute(textwrap.dedent(cell))
        printed = raised = ""
        while True:
            message = self.client.get_iopub_msg(timeout=100)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "stream":
                printed += content["text"]
                if interrupt_at is not None and interrupt_at in content["text"]:
                    self.manager.interrupt_kernel()
            elif kind == "error":
                raised = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, raised


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    pytest.importorskip("ipykernel")
    client_library = pytest.importorskip("jupyter_client.manager")
    manager, client = client_library.start_new_kernel(cwd=str(ROOT), extra_arguments=["--ip=127.0.0.1"])
    try:
        kernel = Kernel(manager, client)
        assert kernel.run(PREAMBLE) == ("", "")
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


CELLS = {
    "generate": "LLMS[{name!r}].generate((str(n) for n in itertools.count()), on_progress=keep)",
    "stream": "for row in LLMS[{name!r}].stream(str(n) for n in itertools.count()): keep(row)",
    "as_completed": "for row in LLMS[{name!r}].as_completed(str(n) for n in itertools.count()): keep(row)",
    "async for": "async for row in LLMS[{name!r}].stream(str(n) for n in itertools.count()): keep(row)",
}


@pytest.mark.parametrize("name", ["threads", "asyncio"])
@pytest.mark.parametrize("verb", CELLS)
def test_an_interrupt_in_a_notebook_leaves_nothing_behind(kernel: Kernel, verb: str, name: str) -> None:
    assert kernel.run("seen.clear()") == ("", "")
    printed, raised = kernel.run(CELLS[verb].format(name=name), interrupt_at="running")
    assert (printed.strip(), raised) in [("running", "KeyboardInterrupt"), ("running", "CancelledError")]
    assert kernel.run("print(left(), len(seen) >= 20)") == ("[] True\n", "")
    again = "print([row.unwrap()[0].completion.text for row in LLMS[{name!r}].generate(['a', 'b'])])"
    assert kernel.run(again.format(name=name)) == ("['a', 'b']\n", "")
