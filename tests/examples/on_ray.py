"""Run a backend on a Ray cluster: `RayExecutor` is a `concurrent.futures.Executor`, as `Pool` takes it.

Ray joins the cluster of RAY_ADDRESS, or starts one here. distgen has to be installed on its machines.

Run it with: python tests/examples/on_ray.py
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib import import_module
from typing import ParamSpec, TypeVar

from returns.result import Success

from distgen import LLM, Pool, Prompt, Task, each, single
from distgen.formats import default

ray = import_module("ray")  # not `import ray`: its annotations do not pass strict type checks

A = ParamSpec("A")
T = TypeVar("T")


def call(fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> T:
    """Call a function; Ray takes plain functions only, and this one calls any."""
    return fn(*args, **kwargs)


remote_call = ray.remote(call)


class RayExecutor(Executor):
    """Run each call as a Ray task. If its worker dies, Ray runs the call again, 3 times by default."""

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        """Return the future of a call. Cancelling it cancels the task too, which Ray does not do by itself."""
        task = remote_call.remote(fn, *args, **kwargs)
        future: Future[T] = task.future()
        future.add_done_callback(lambda done: ray.cancel(task) if done.cancelled() else None)
        return future


def main(inputs: list[str]) -> list[str]:
    """Answer each input on Ray, four at once."""
    llm = LLM(Task(Prompt, Success), default, each(str.upper), Pool(RayExecutor, 4))
    return [str(single(row)) for row in llm.stream(inputs)]


if __name__ == "__main__":
    print(main(["a", "b"]))
