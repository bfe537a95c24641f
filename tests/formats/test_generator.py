"""The program that writes the expected texts, on a template of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import oracle
from tests.support.oracle import ORACLE, Case, Source, find_mistake, render

CASE: Case = {"name": "", "system": "s", "history": [["a", "b"]], "user": "u", "expected": None}
TEMPLATE = """\
{{ bos_token }}{% for message in messages %}
    {% if message.role == "tool" %}{{ raise_exception("no tools") }}{% endif %}
    {% if message.role == "system" %}{% continue %}{% endif %}
    {% generation %}
[{{ message.role }}]{{ message.content }}
    {% endgeneration %}
{% endfor %}
{{ [bos_token, "é"] | tojson }} {{ strftime_now("%d %b %Y") }} {{ "asked" if add_generation_prompt }}
"""


def test_a_template_is_rendered_as_transformers_does() -> None:
    (case,) = render(TEMPLATE, {"bos_token": "<s>"}, "2024-02-29", [CASE])
    assert case["expected"] == '<s>[user]a\n[assistant]b\n[user]u\n["<s>", "é"] 29 Feb 2024 asked'
    assert case.get("error") is None


def test_a_template_that_raises_has_no_text() -> None:
    (case,) = render("{{ raise_exception('no system role') }}", {}, "2024-02-29", [CASE])
    assert (case["expected"], case.get("error")) == (None, "TemplateError: no system role")


def test_a_folder_that_helps_nothing_is_a_mistake(tmp_path: Path) -> None:
    assert find_mistake(tmp_path / "none") == f"{tmp_path / 'none'}: no such folder"
    assert find_mistake(tmp_path) == (
        f"{tmp_path} has none of the templates that oracle.json names, such as {ORACLE[0].get('template')}"
    )


def test_a_new_entry_needs_its_keys_and_its_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry: Source = {
        "format": "zephyrine2",
        "source": "",
        "authority": "vendor",
        "bos": "",
        "stop": ["<end>"],
        "special_tokens": [],
        "template": "zephyr/z2.jinja",
        "cases": [],
    }
    monkeypatch.setattr(oracle, "ORACLE", [entry])
    assert find_mistake(tmp_path) == (
        f"oracle.json: zephyrine2 has no cases, and {tmp_path} has no template 'zephyr/z2.jinja' to render them"
    )
    (tmp_path / "zephyr").mkdir()
    (tmp_path / "zephyr" / "z2.jinja").write_text("{{ messages }}", "utf-8")
    assert find_mistake(tmp_path) is None
    monkeypatch.setattr(oracle, "ORACLE", [{key: value for key, value in entry.items() if key != "stop"}])
    assert find_mistake(tmp_path) == "oracle.json: the entry of zephyrine2 lacks stop"
