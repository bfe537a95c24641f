"""The program that writes the expected texts, on a template of its own."""

from __future__ import annotations

from tests.support.oracle import Case, render

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
