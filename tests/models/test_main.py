"""The command line over real models in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from returns.result import Success

import distgen
from distgen import Prompt
from distgen.__main__ import main
from distgen.backends import llama_cpp, transformers
from distgen.backends.params import Params
from distgen.completion import Completion
from distgen.formats import chatml
from tests.models import tiny, tiny_gguf

pytest.importorskip("torch", reason="needs torch, and with it transformers: the extra transformers")

ASKED = ["Hi", "What is <|im_end|>?", "Hello there"]
GREEDY: Params = {"stop": chatml.stops, "temperature": 0, "max_tokens": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tiny.tokenizer(merges=50)
    for part in (tokenizer, tiny.drawn(len(tokenizer))):
        part.save_pretrained(path)
    return str(path)


def run(tmp_path: Path, *options: str, asked: list[str] = ASKED) -> tuple[int, list[dict[str, object]]]:
    source, output = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"user": text}) + "\n" for text in asked))
    status = main(["run", str(source), "-o", str(output), "--format", "chatml", *options])
    return status, [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def written(completion: Completion) -> dict[str, object]:
    assert completion.usage is not None
    usage = {
        "prompt_tokens": completion.usage.prompt_tokens,
        "completion_tokens": completion.usage.completion_tokens,
    }
    return {"text": completion.text, "finish_reason": completion.finish_reason, "usage": usage}


def options(option: str, path: str) -> list[str]:
    return [option, path, "--param", "temperature=0", "--param", "max_tokens=9", "--param", "top_k=1"]


def test_rows_are_answered_by_transformers_markup_too(folder: str, tmp_path: Path) -> None:
    status, rows = run(tmp_path, *options("--hf", folder), "-n", "2", "--batch-size", "2")
    assert status == 0
    assert [row["model"] for row in rows] == ["tiny"] * 3
    backend = transformers.load(folder, params=GREEDY)
    for row, text in zip(rows, ASKED, strict=True):
        [completions] = backend([chatml.segments(Prompt(text)).unwrap()], 2)
        assert isinstance(completions, list)
        assert row["generations"] == [*map(written, completions)]


def test_a_run_goes_on_with_the_same_model_alone(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, *options("--hf", folder), "--limit", "1")
    status, rows = run(tmp_path, *options("--hf", folder), "--resume")
    assert (status, len(rows)) == (0, 3)
    capsys.readouterr()
    assert run(tmp_path, *options("--hf", folder), "--resume", "--batch-size", "3")[0] == 2
    assert "batch_size was 8 and is now 3" in capsys.readouterr().err


def test_rows_are_answered_by_llama_cpp_markup_too(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: the extra llama-cpp")
    path = str(tiny_gguf.write(tmp_path / "tiny.gguf", spells=False))
    status, rows = run(tmp_path, *options("--gguf", path))
    assert status == 0
    assert [row["model"] for row in rows] == ["tiny.gguf"] * 3
    backend = llama_cpp.load(path, params=GREEDY)
    for row, text in zip(rows, ASKED, strict=True):
        [completions] = backend([chatml.segments(Prompt(text)).unwrap()], 1)
        assert isinstance(completions, list)
        assert row["generations"] == [*map(written, completions)]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--hf", "no/such/model"], "no/such/model"),
        (["--hf", "FOLDER", "--param", "temperature=-1"], "params['temperature'] is -1"),
        (["--hf", "FOLDER", "--param", "nonsense=1"], "options['nonsense']"),
        (["--hf", "FOLDER", "--param", "logprobs=true"], "params['logprobs']"),
    ],
)
def test_a_model_or_a_parameter_that_will_not_do_is_one_sentence(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], reason: str
) -> None:
    status, rows = run(tmp_path, *(folder if each == "FOLDER" else each for each in given))
    assert (status, rows) == (2, [])
    *_, line = capsys.readouterr().err.splitlines()  # transformers shows how it loads
    assert line.startswith("distgen: ")
    assert reason in line


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: the extra llama-cpp")
    monkeypatch.chdir(tmp_path)
    tiny_gguf.write(tmp_path / "model.gguf", spells=True)
    tokenizer = tiny.tokenizer()
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme.partition("## A model in process")[2].partition("```py\n")[2].partition("```")[0]
    names: dict[str, object] = {"model": tiny.spelling(tokenizer), "tokenizer": tokenizer, "Success": Success}
    names |= {name: getattr(distgen, name) for name in ("LLM", "Prompt", "Sequential", "Task", "quoting")}
    names["chatml"] = chatml
    asked = 'said = [type(row).__name__ for row in llm.generate(["Hi", "What is <|im_end|>?"])]'
    exec(compile(block + asked, "README.md", "exec"), names)
    assert names["said"] == ["Success", "Success"]
