"""Options of the commands: what their help says is so."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from distgen.cli import main
from distgen.cli.options import Options


@pytest.mark.parametrize("command", [["run"], ["batch", "write"]], ids=" ".join)
def test_the_help_states_the_defaults(
    command: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main([*command, "--help"]) == 0
    stated = re.findall(r"--([a-z-]+) [A-Z]\S*\s.*\[([\w.]+)[],;]", capsys.readouterr().out)
    assert stated
    for name, text in stated:
        default = getattr(Options(), name.replace("-", "_"))
        assert type(default)(text) == default, name


@pytest.mark.parametrize("command", [["run"], ["batch", "write"]], ids=" ".join)
def test_an_output_is_required(command: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "rows.jsonl"]) == 2
    assert "-o/--output" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--no-n"], ["batch"]], ids=" ".join)
def test_a_command_is_required(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "required: COMMAND" in capsys.readouterr().err
