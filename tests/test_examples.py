"""Every example runs and does what it says. Those that ask a server ask a real one."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from secrets import token_hex
from threading import Barrier
from time import sleep
from types import ModuleType

import pytest
from returns.result import Failure, Result, Success, safe

from distgen import LLM, Batch, Completion, Generate, Prompt, Task, Threads, each
from distgen.backends.generate import Row
from distgen.completion import Usage
from distgen.errors import RequestFailed, WrongCount
from distgen.formats import openai
from distgen.formats.models.alibaba import qwen3
from distgen.prompt import Messages
from tests.examples import ask_again, cache, distil, judge, rate_limit
from tests.support.servers import Act, Server, chat_body, response, serving

REFUSED = Act(response(404, b'{"error": {"message": "No such model", "code": "model_not_found"}}'))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def says(*texts: str, tokens: tuple[int, int] = (3, 5)) -> Act:
    return Act(response(200, chat_body(*texts, tokens=tokens)))


class TestCache:
    def test_a_second_run_asks_nothing(self, server: Server, tmp_path: Path) -> None:
        path = str(tmp_path / "answers.sqlite")
        questions = ["Name a river.", "Name a river.", "Name a lake."]
        server.script(
            to={"Name a river.": [says("Nile", "Po"), says("Rhine", "Oder")], "Name a lake.": [says("A", "B")]}
        )
        first = cache.main(server.url, "m", path, questions)
        assert sorted(first) == [["A", "B"], ["Nile", "Po"], ["Rhine", "Oder"]]
        server.script(then_always=REFUSED)
        assert sorted(cache.main(server.url, "m", path, questions)) == sorted(first)
        assert server.seen() == []

    def test_failed_rows_and_other_models_are_asked(self, server: Server, tmp_path: Path) -> None:
        path = str(tmp_path / "answers.sqlite")
        server.script(REFUSED, says("Nile", "Po"), says("Rhine", "Oder"))
        answers = [cache.main(server.url, model, path, ["Name a river."]) for model in ("m", "m", "other", "m")]
        assert answers == [[[]], [["Nile", "Po"]], [["Rhine", "Oder"]], [["Nile", "Po"]]]

    def test_equal_prompts_in_threads_keep_their_own_samples(self) -> None:
        barrier, numbers = Barrier(8), count()

        def sample(prompts: Sequence[str], num_generations: int) -> Batch:
            barrier.wait()
            return [[Completion(str(next(numbers))) for _ in range(num_generations)] for _ in prompts]

        def samples(backend: Generate[str, Batch]) -> set[str]:
            with ThreadPoolExecutor(8) as pool:
                batches = [pool.submit(backend, ["same"], 2) for _ in range(8)]
            return {text for batch in batches for text in texts(batch.result())}

        with closing(sqlite3.connect(":memory:", check_same_thread=False)) as db:
            assert samples(cache.cached(sample, db, "")) == {str(n) for n in range(16)}
            assert samples(cache.cached(each(str.upper), db, "")) == {str(n) for n in range(16)}

    def test_only_new_prompts_of_a_batch_are_asked(self) -> None:
        asked: list[str] = []

        def answer(prompt: str) -> str:
            asked.append(prompt)
            return prompt.upper()

        with closing(sqlite3.connect(":memory:")) as db:
            cache.cached(each(answer), db, "")(["a", "b"], 1)
            assert texts(cache.cached(each(answer), db, "")(["x", "a", "y", "b"], 1)) == ["X", "A", "Y", "B"]
            assert texts(cache.cached(each(answer), db, "other settings")(["a"], 1)) == ["A"]
        assert asked == ["a", "b", "x", "y", "a"]

    def test_fields_come_back(self) -> None:
        row = [Completion("4", "stop", Usage(9, 12, cached_tokens=3), "2 and 2"), Completion("\ud800")]
        text = cache.to_json(row, 2)
        assert text is not None
        assert cache.from_json(text) == row

    @pytest.mark.parametrize(
        "row",
        [
            pytest.param(Failure(RequestFailed("timeout", "late")), id="failed"),
            pytest.param([Completion("4")], id="too few"),
            pytest.param([Completion("4"), Completion("", "length")], id="no text"),
            pytest.param([Completion("4"), Completion("4", error="overloaded")], id="broken off"),
        ],
    )
    def test_a_row_that_is_not_whole_is_not_kept(self, row: Row) -> None:
        assert cache.to_json(row, 2) is None


def texts(batch: Batch) -> list[str]:
    rows = [row.unwrap() if isinstance(row, Result) else row for row in batch]
    return [completion.text for row in rows for completion in row]


class TestRateLimit:
    def test_answers_of_a_server(self, server: Server) -> None:
        server.script()
        answers = rate_limit.main(server.url, "m", requests_per_minute=1e6, tokens_per_minute=1e9)
        assert answers == [f"<Success: What is {n} squared?>" for n in range(10)]

    @pytest.mark.parametrize(
        ("requests", "tokens", "usage", "waits"),
        [
            pytest.param(60, 1e9, None, [0, 1, 2], id="requests"),
            pytest.param(1e9, 600, None, [0, 10, 20], id="tokens as estimated"),
            pytest.param(1e9, 600, Usage(10, 10), [0, 2, 4], id="fewer tokens than estimated"),
            pytest.param(1e9, 600, Usage(100, 100), [0, 20, 40], id="more tokens than estimated"),
            pytest.param(60, 6000, Usage(100, 100), [0, 2, 4], id="the tighter limit"),
        ],
    )
    def test_waits(
        self, requests: float, tokens: float, usage: Usage | None, waits: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []

        async def record(seconds: float) -> None:
            waited.append(seconds)

        async def answer(prompts: Sequence[str], _: int) -> Batch:
            return [[Completion("4", usage=usage)] for _ in prompts]

        async def ask_three_times() -> None:
            backend = rate_limit.limited(answer, requests, tokens, lambda _: 100)
            for _ in range(3):
                await backend(["2+2?"], 1)

        monkeypatch.setattr(rate_limit, "monotonic", lambda: 1000.0)
        monkeypatch.setattr(rate_limit, "sleep", record)
        asyncio.run(ask_three_times())
        assert waited == pytest.approx(waits, abs=1e-3)

    def test_generations_and_prompts_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[float] = []

        async def record(seconds: float) -> None:
            waited.append(seconds)

        async def fail(prompts: Sequence[str], _: int) -> Batch:
            return [Failure(RequestFailed("timeout", "late")) for _ in prompts]

        async def ask_three_times() -> None:
            backend = rate_limit.limited(fail, 60, 600, lambda _: 1)
            await backend(["a", "b"], 1)
            await backend(["a"], 50)
            await backend(["a"], 1)

        monkeypatch.setattr(rate_limit, "monotonic", lambda: 1000.0)
        monkeypatch.setattr(rate_limit, "sleep", record)
        asyncio.run(ask_three_times())
        assert waited == pytest.approx([0, 2, 7])


class TestStructured:
    def test_one_schema_for_the_server_and_the_parser(self, server: Server) -> None:
        pytest.importorskip("pydantic")
        from tests.examples import structured

        good = '{"reason": "True.", "stars": 4}'
        server.script(to={"good": [says(good)], "bad": [says('{"reason": "", "stars": 9}')]})
        reviews = structured.main(server.url, "m", ["good", "bad"])
        assert reviews[0] == Success(structured.Review(reason="True.", stars=4))
        assert "less than or equal to 5" in reviews[1].failure()
        assert {str(seen.json()["response_format"]) for seen in server.seen()} == {str(structured.RESPONSE_FORMAT)}
        assert structured.RESPONSE_FORMAT["json_schema"] == {
            "name": "Review",
            "strict": True,
            "schema": {
                "title": "Review",
                "description": "A judgement of one answer.",
                "type": "object",
                "additionalProperties": False,
                "required": ["reason", "stars"],
                "properties": {
                    "reason": {"title": "Reason", "type": "string"},
                    "stars": {"title": "Stars", "type": "integer", "minimum": 1, "maximum": 5},
                },
            },
        }


class TestAskAgain:
    def test_a_bad_answer_and_its_reason_are_shown(self, server: Server) -> None:
        reason = "the answer does not parse: ValueError: invalid literal for int() with base 10: 'four'."
        correction = f"This was not accepted: {reason} Answer again."
        server.script(to={"2+2?": [says("four")], correction: [says("4")], "3+3?": [says("6")]})
        assert ask_again.main(server.url, "m", ["2+2?", "3+3?"]) == [Success(4), Success(6)]
        assert [seen.json()["messages"] for seen in server.seen()[2:]] == [
            [
                {"role": "system", "content": "Answer with a number only."},
                {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "four"},
                {"role": "user", "content": correction},
            ]
        ]

    def test_it_gives_up(self, server: Server) -> None:
        server.script(then_always=says("I do not know."))
        (answer,) = ask_again.main(server.url, "m", ["2+2?"])
        assert "I do not know." in answer.failure()
        assert [seen.body.count('"role"') for seen in server.seen()] == [2, 4, 6]

    @pytest.mark.parametrize("act", [pytest.param(REFUSED, id="no answer"), pytest.param(says(""), id="no text")])
    def test_nothing_to_correct(self, server: Server, act: Act) -> None:
        server.script(then_always=act)
        (answer,) = ask_again.main(server.url, "m", ["2+2?"])
        assert isinstance(answer, Failure)
        assert len(server.seen()) == 1


class TestDistil:
    def test_what_the_teacher_thought_and_said_is_trained(self) -> None:
        (line,) = distil.main(qwen3, ["Name a river."])
        row = json.loads(line)
        prompt = "<|im_start|>user\nName a river.<|im_end|>\n<|im_start|>assistant\n"
        answer = "<think>\nThey ask 'Name a river.'. I say so.\n</think>\n\nYou asked: Name a river.<|im_end|>"
        assert row["text"] == prompt + answer
        assert "".join(row["text"][start:end] for start, end in row["trained"]) == answer

    def test_an_answer_without_text_is_left_out_and_a_cut_one_has_no_stop(self) -> None:
        answers = {"a": Completion("", "length", reasoning="Hm"), "b": Completion("yes", "length", reasoning="Hm")}

        def answer(messages: Messages) -> Completion:
            return answers[messages[-1]["content"]]

        teacher = LLM(Task(Prompt, Success), openai, each(answer), Threads(2))
        (written,) = distil.distil(teacher, qwen3, ["a", "b"])
        assert written.unwrap().text.endswith("<think>\nHm\n</think>\n\nyes")


class TestJudge:
    def test_the_good_ones_are_kept(self, server: Server) -> None:
        def judged(question: str, answer: str) -> str:
            return judge.ask(judge.Draft(question, answer)).user

        server.script(
            to={
                "2+2?": [says("4", "5")],
                "3+3?": [says("6", "7")],
                judged("2+2?", "4"): [says("5")],
                judged("2+2?", "5"): [says("1")],
                judged("3+3?", "6"): [says("4")],
                judged("3+3?", "7"): [says("Hm.")],
                "4+4?": [REFUSED],
                "5+5?": [says("", "")],
            }
        )
        kept = list(judge.main(server.url, "m", ["2+2?", "3+3?", "4+4?", "5+5?"]))
        assert kept == [("2+2?", "4"), ("3+3?", "6")]
        assert len(server.seen()) == 4 + 4  # nothing is judged that was not written

    def test_memory_is_bounded(self) -> None:
        pulled = count()

        def questions() -> Iterator[str]:
            while True:
                yield f"question {next(pulled)}"

        writer = LLM(Task(Prompt, Success), openai, each(lambda messages: "answer"), Threads(2, buffer=4))
        points = LLM(Task(judge.ask, safe(int)), openai, each(lambda messages: "5"), Threads(2, buffer=4))
        with closing(judge.keep(points, judge.write(writer, questions(), 1), least=4)) as kept:
            assert [draft.question for draft in islice(kept, 100)] == [f"question {n}" for n in range(100)]
        assert next(pulled) < 150


class TestCost:
    def test_failed_rows_are_counted(self, server: Server) -> None:
        prices = pytest.importorskip("genai_prices")
        from tests.examples import cost

        server.script(
            to={
                "2+2?": [says("4", "5", tokens=(1000, 200))],
                "3+3?": [says("6", tokens=(100, 20)), REFUSED],  # one choice of two, then none
            }
        )
        paid = cost.main(server.url, "gpt-5-mini", ["2+2?", "3+3?"])
        assert paid == prices.calc_price(prices.Usage(input_tokens=1100, output_tokens=220), "gpt-5-mini").total_price
        assert paid > 0

    def test_usages_of_errors(self) -> None:
        pytest.importorskip("genai_prices")
        from tests.examples import cost

        answered = Completion("4", usage=Usage(3, 5))
        assert cost.failed_usages(RequestFailed("timeout", "", usage=Usage(1), completions=(answered,))) == [
            Usage(3, 5),
            Usage(1),
        ]
        assert cost.failed_usages(WrongCount("generations", 2, 1, (answered,))) == [Usage(3, 5)]
        assert cost.failed_usages(RequestFailed("timeout", "")) == []

    def test_cached_tokens_are_cheaper_and_unknown_counts_cost_nothing(self) -> None:
        pytest.importorskip("genai_prices")
        from tests.examples import cost

        assert 0 < cost.price(Usage(1000, 0, cached_tokens=900), "gpt-5-mini") < cost.price(Usage(1000), "gpt-5-mini")


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """Ray, with a local cluster of one CPU."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", token_hex(32))  # Ray would else write one to the home directory
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.mark.slow
class TestRay:
    def test_calls_run_on_the_cluster(self, ray: ModuleType) -> None:
        from tests.examples import on_ray

        assert on_ray.main(["a", "b"]) == ["<Success: A>", "<Success: B>"]

    def test_a_future_that_is_cancelled_cancels_its_task(self, ray: ModuleType, tmp_path: Path) -> None:
        from tests.examples import on_ray

        def wait_for(path: Path) -> None:
            while not path.exists():
                sleep(0.01)

        with on_ray.RayExecutor() as pool:
            first = pool.submit(wait_for, tmp_path / "go")
            second = pool.submit((tmp_path / "second").touch)
            third = pool.submit((tmp_path / "third").touch)
            assert second.cancel()
            (tmp_path / "go").touch()
            first.result()
            third.result()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["go", "third"]
