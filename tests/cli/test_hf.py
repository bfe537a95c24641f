"""The command line with a tiny transformers model in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distgen.cli import main

pytestmark = pytest.mark.slow
pytest.importorskip("torch", reason="needs torch: pip install torch transformers")
pytest.importorskip("transformers", reason="needs transformers: pip install torch transformers")

from tests.support import tiny  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, tokenizer = tmp_path_factory.mktemp("alphabet"), tiny.tokenizer()
    tokenizer.save_pretrained(path)
    tiny.alphabet_model(tokenizer).save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"user": "abc"}\n{"user": "w"}\n')


def run(folder: str, *more: str) -> int:
    return main(["run", "in.jsonl", "-o", "out.jsonl", "--hf", folder, *more])


def test_a_model_answers_in_batches(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    params = ["--param", "max_tokens=4", "--param", "temperature=0", "--extra", "repetition_penalty=1.0"]
    assert run(folder, "--format", "default", "--batch-size", "2", *params) == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["generations"][0]["text"] for row in rows] == ["defg", "xyz"]
    assert rows[0]["model"] == Path(folder).name
    said = capsys.readouterr().err
    assert "distgen: running on " in said
    assert "(float32)" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--format", "openai"], "--hf needs --format"),
        (
            ["--format", "chatml", "--param", "temperature=-1"],
            "`temperature` (=-1.0) has to be a strictly positive float",
        ),
        (["--format", "chatml", "--param", "temprature=1"], "did you mean 'temperature'?"),
    ],
    ids=["openai", "value", "name"],
)
def test_options_that_it_does_not_take_are_refused(
    folder: str, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert run(folder, *more) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("./nowhere", "--format", "chatml") == 2
    assert capsys.readouterr().err.count("\n") == 1
