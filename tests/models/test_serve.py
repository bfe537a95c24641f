"""The HTTP backend against a server that others wrote: `transformers serve`, in a process of its own, on a tiny model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest
import urllib3
from returns.result import Result, Success

from distgen import LLM, Prompt, Task, Threads
from distgen.backends import http
from distgen.backends.params import Params
from distgen.backends.transformers import InProcess
from distgen.backends.generate import Row
from distgen.completion import Completion
from distgen.formats import chatml, openai
from distgen.prompt import Messages
from tests.models import tiny
from tests.test_second_oracle import SOURCES

pytest.importorskip("torch", reason="needs torch, and with it transformers: the extra transformers")
pytest.importorskip("fastapi", reason="needs what transformers serves with: transformers[serving]")

FAST = http.RETRIES.new(total=2, backoff_factor=0.01, backoff_jitter=0)
HI: Messages = [{"role": "user", "content": "Hi"}]


@final
@dataclass(frozen=True)
class Served:
    url: str
    name: str
    model: InProcess
    """The model that is served, in this process."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    tokenizer = tiny.tokenizer(merges=50)
    model = tiny.drawn(len(tokenizer), do_sample=True, top_k=0)
    folder = tmp_path_factory.mktemp("served")
    tokenizer.save_pretrained(folder / "tiny")
    model.save_pretrained(folder / "tiny")
    (folder / "tiny" / "chat_template.jinja").write_text(SOURCES["chatml"].removesuffix("\n"))
    (folder / "home" / "hub").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder / "tiny"), "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home")}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **offline},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, folder / "log")
            backend = InProcess(model, tokenizer, {"temperature": 0, "max_tokens": 8})
            yield Served(f"http://127.0.0.1:{port}/v1", str(folder / "tiny"), backend)
        finally:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert urllib3.request("GET", url, retries=False, timeout=5).status == 200
        except urllib3.exceptions.HTTPError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return


def asked(row: Row, n: int) -> Sequence[Completion]:
    assert not isinstance(row, Result), row
    assert len(row) == n
    return row


def kind(row: Row) -> str:
    assert isinstance(row, Result), row
    return row.failure().kind


def test_it_answers_as_the_same_model_in_this_process(served: Served) -> None:
    greedy: Params = {"temperature": 0, "max_tokens": 8}
    chat = http.chat(served.url, model=served.name, api_key="", retries=0, params=greedy)
    text = http.completions(served.url, model=served.name, api_key="", retries=0, params=greedy)
    prompt = chatml(Prompt("Hi")).unwrap()
    [expected] = served.model([prompt], 1)
    assert chat([HI], 1) == [expected]
    assert text([prompt], 1) == [expected]
    assert asked(expected, 1)[0].finish_reason == "length"


@pytest.mark.parametrize("params", [{}, {"seed": 5}])
def test_the_choices_that_it_leaves_out_are_asked_for(served: Served, params: Params) -> None:
    params = {**params, "max_tokens": 8}
    chat = http.chat(served.url, model=served.name, api_key="", retries=0, params=params)
    text = http.completions(served.url, model=served.name, api_key="", retries=0, params=params)
    for row in (*chat([HI], 3), *text(["Hi"], 3)):
        completions = asked(row, 3)
        assert len({completion.text for completion in completions}) == 3
        assert all(each.usage and 0 < each.usage.completion_tokens <= 8 for each in completions)


def test_what_it_cannot_answer_is_the_failure_of_that_row(served: Served) -> None:
    text = http.completions(served.url, model=served.name, api_key="", retries=FAST, params={"max_tokens": 4})
    empty, surrogate, good = text(["", "\ud800", "Hi"], 1)  # after each 500 it drops the connection
    assert (kind(empty), kind(surrogate)) == ("BadStatus", "BadStatus")
    asked(good, 1)
    for body in ({"nonsense": 1}, {"max_tokens": "x"}, {"temperature": -1}):
        backend = http.chat(served.url, model=served.name, api_key="", retries=0, extra_body=body)
        assert [kind(row) for row in backend([HI], 1)] == ["BadStatus"]
    [other] = http.chat(served.url, model="other", api_key="", retries=0)([HI], 1)
    assert kind(other) == "BadStatus"


def test_a_run_from_many_threads_is_whole(served: Served) -> None:
    task: Task[str, str] = Task(Prompt, Success)
    backend = http.chat(served.url, model=served.name, api_key="", retries=FAST, params={"max_tokens": 4})
    rows = LLM(task, openai, backend, Threads(8)).generate([f"row {n}" for n in range(24)], num_generations=2)
    assert [row.unwrap()[0].prompt.user for row in rows] == [f"row {n}" for n in range(24)]
