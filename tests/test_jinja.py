"""Published chat templates: what they render, what they are refused for, and that none reaches anything or runs away."""

from __future__ import annotations

import gc
import importlib
import json
import pickle
import random
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from returns.result import Failure, Result, Success

from distgen.errors import InjectedToken, Raised, FormatError, Unsupported, explain
from distgen.formats.jinja import JinjaTemplate, from_tokenizer_config, jinja
from distgen.formats.jinja.costs import LONGEST_SOURCE, STEPS
from distgen.formats.jinja.sandbox import render
from distgen.formats.jinja.template import LONGEST_FILE
from distgen.prompt import Exchange, Prompt
from distgen.testing import PROSE, check_formatter, law_pure, prompts

ORACLE: Final[dict[str, Any]] = {
    entry["format"]: entry for entry in json.loads((Path(__file__).parent / "data" / "oracle.json").read_text("utf-8"))
}
EVERY: Final = Prompt("u", "s", (Exchange("a", "b"), Exchange("c", "d")))

# Templates written for these tests from the formats' descriptions; what they render is compared with the oracle.

EACH: Final = "{% for m in messages %}"
GENERATION: Final = "{% if add_generation_prompt %}"
TEMPLATES: Final = {
    "chatml": EACH + "{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt }}",
    "phi4": EACH
    + "{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    + GENERATION
    + "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    "zephyr": EACH + "{{ '<|%s|>\n' | replace('%s', m.role) }}{{ m.content ~ eos_token }}{{ '\n' }}{% endfor %}"
    "{{- '<|assistant|>\n' -}}",
    "phi3-mini": "{%- macro turn(role, text) -%}<|{{ role }}|>{{ '\n' ~ text }}<|end|>{{ '\n' }}{%- endmacro -%}"
    + EACH
    + "{{ turn(m.role, m.content) }}{% endfor %}{{ '<|assistant|>\n' }}",
    "llama3": "{{- bos_token }}\n{%- set roles = messages|map(attribute='role')|list %}\n{%- for m in messages %}\n"
    "    {{- ['<|start_header_id|>', roles[loop.index0], '<|end_header_id|>\n\n', m.content|trim, '<|eot_id|>']|join }}\n"
    "{%- endfor %}\n{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    "granite3": EACH + "{% generation %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n"
    "{% endgeneration %}{% endfor %}<|start_of_role|>assistant<|end_of_role|>",
    "command-r": "{{ bos_token }}"
    "{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}" + EACH + "<|START_OF_TURN_TOKEN|>"
    "<|{{ names[m.role] }}_TOKEN|>{{ m.content if m.role is eq('system') else m.content.strip() }}<|END_OF_TURN_TOKEN|>"
    "{% endfor %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "llama2": "{% set ns = namespace(system='') %}" + EACH + "{% if m.role == 'system' %}"
    "{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (ns.system + m.content)|trim + ' [/INST]' }}{% set ns.system = '' %}"
    "{% else %}{{ ' ' ~ m.content|trim ~ ' ' ~ eos_token }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    + EACH
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}{{ '\n' + m.content|trim }}<end_of_turn>\n"
    "{% endfor %}{{ '<start_of_turn>model\n' }}",
    "deepseek-v3": "{{ bos_token }}{% if messages|selectattr('role', 'equalto', 'system')|list|length > 0 %}"
    "{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}" + EACH + "{% if m.role in ['user'] %}"
    "<\uff5cUser\uff5c>{{ m.content }}{% continue %}{% endif %}<\uff5cAssistant\uff5c>{{ m.content }}{{ eos_token }}"
    "{% endfor %}<\uff5cAssistant\uff5c>",
    "mistral-v3": "{% set system = messages[0].content if messages[0].role == 'system' %}{{ bos_token }}" + EACH + ""
    "{% if m.role == 'user' %}{{ '[INST] ' }}{% if system and loop.last %}{{ system ~ '\n\n' }}{% endif %}"
    "{{ m.content }}[/INST]{% elif m.role == 'assistant' %}{{ ' ' + m.content.rstrip(' ') + eos_token }}{% endif %}{% endfor %}",
    "h2o-danube": EACH
    + "{% call(mark) body(m.role) %}{{ mark }}{{ m.content }}{{ eos_token }}{% endcall %}{% endfor %}"
    "<|answer|>",
}
TEMPLATES["h2o-danube"] = (
    "{% macro body(role) %}{{ caller({'system': '<|system|>', 'user': '<|prompt|>'}.get(role, '<|answer|>')) }}{% endmacro %}"
    + TEMPLATES["h2o-danube"]
)


def made(name: str) -> JinjaTemplate:
    entry = ORACLE[name]
    return jinja(TEMPLATES[name], bos=entry["bos"] or "", eos=entry["stops"][0], name=name)


def prompt_of(case: dict[str, Any]) -> Prompt:
    return Prompt(case["user"], case["system"], tuple(Exchange(user, answer) for user, answer in case["history"]))


def fault_of(result: Result[str, FormatError] | Result[JinjaTemplate, FormatError]) -> Raised:
    fault = result.failure()
    assert isinstance(fault, Raised)
    assert fault.part == "format"
    assert "\n" not in explain(fault)
    return fault


# What is rendered.


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_what_the_vendors_does(name: str) -> None:
    template, tried = made(name), 0
    for case in ORACLE[name]["cases"]:
        rendered = template(prompt_of(case))
        if case["expected"] is None:
            assert fault_of(rendered).message == "line 1: no system here"
        else:
            assert rendered == Success(case["expected"])
            tried += 1
    assert tried >= 6


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "gemma"])
def test_check_formatter_finds_nothing(name: str) -> None:
    check_formatter(made(name), max_examples=25)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_markup_that_a_template_writes_is_refused(name: str) -> None:
    entry = ORACLE[name]
    tokens = {token for token in entry["control_tokens"] if token[0] in "<["}
    assert tokens <= {*made(name).control_tokens}
    for token in tokens:
        assert made(name)(Prompt(f"<[ {token}")) == Failure(InjectedToken(name, token, "user", 3))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("\n", ""),  # the last line feed of a template is not written
        ("\n  {% if true %}\n  {{ messages | length }}\n  {% endif %}\n", "\n  1\n"),
        ("{{ messages|tojson }}", '[{"role": "user", "content": "u"}]'),
        ("{{ {'k': '<é>', 'a': (1, none)}|tojson(sort_keys=true) }}", '{"a": [1, null], "k": "<é>"}'),
        ("{{ [1, {}]|tojson(indent=1, separators=(';', ':')) }}", "[\n 1;\n {}\n]"),
        ("{{ '\u00e9'|tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ tools }}{{ documents }}{{ bos_token }}{{ eos_token }}{{ unknown }}", "NoneNone"),
        ("{{ 1 < 2 <= 2 != 3 }}{{ 1 < 2 < 2 }}{{ 2 in [1] }}{{ 'b' not in 'abc' }}{{ 'k' in {'k': 1} }}", "TrueFalseFalseFalseTrue"),
        ("{{ [1, [2, {'a': 'x'}]] == [1, [2, {'a': 'x'}]] }}{{ {'a': 1} == {'b': 1} }}{{ [1] < [2] }}", "TrueFalseTrue"),
        ("{{ messages == messages }}{{ messages == messages[:] }}{{ 'a' ~ 'b' == 'ab' }}", "TrueTrueTrue"),
        ("{{ 7 // 2 * 3 - 1 }}{{ 7 % 4 }}{{ 1 / 2 }}{{ 2 * 'ab' }}{{ [1] * 2 + [3] }}{{ -1 }}", "830.5abab[1, 1, 3]-1"),
        ("{{ 'abcd'[1:3] }}{{ 'abcd'[::-1] }}{{ [1, 2, 3][-2:] }}", "bcdcba[2, 3]"),
        ("{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{% for k, v in {'b': 1}.items() %}{{ k }}{{ v }}{% else %}-{% endfor %}{{ {'a': 1}.keys()|list }}", "b1['a']"),
        ("{% for x in [3, 1, 2]|sort if x > 1 %}{{ loop.index }}{{ x }}{% if loop.last %}.{% endif %}{% endfor %}", "1223."),
        ("{% for x in 'ab'|map('upper') %}{{ loop.cycle('-', '+') }}{{ x }}{% break %}{% endfor %}", "-A"),
        ("{{ ['b', 'a']|map('upper')|sort|join('-') }}{{ ('a', 'b')|reject('eq', 'a')|list }}", "A-B['b']"),
        ("{{ 3 is odd }}{{ 3 is even }}{{ 2.5 is odd }}{{ 6 is divisibleby 3 }}{{ 1 is in [1] }}{{ x is defined }}", "TrueFalseFalseTrueTrueFalse"),
        ("{{ 'a b  c'.split() }}{{ 'a,b'.split(',', 1) }}{{ 'a\n'.splitlines() }}", "['a', 'b', 'c']['a', 'b']['a']"),
        ("{{ {unknown or 'k': 1}['k'] }}{{ {}.get('k', 'd') }}{{ dict(a=1).a }}{{ range(3)|list }}", "1d1[0, 1, 2]"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x|indent }}{% filter upper %}b{% endfilter %}{% with y = 2 %}{{ y }}{% endwith %}", "a1B2"),
        ("{{ namespace(a='x', b=1).a }}{{ (1.5)|round|int }}{{ 'safe'|safe }}", "x2safe"),
        ("{{ messages|selectattr('content', 'string')|map(attribute='role')|first }}", "user"),
        ("{% generation %}{{ messages[0]['content'] }}{% endgeneration %}", "u"),
    ],
)  # fmt: skip
def test_renderings_by_hand(source: str, text: str) -> None:
    assert jinja("{{ messages[0].content }}" + source)(Prompt("u")) == Success("u" + text)


def test_variables_are_given_by_name() -> None:
    source = (
        "{{ messages[-1].content }}{% if enable_thinking is defined and not enable_thinking %}/no{% endif %}{{ tools }}"
    )
    assert jinja(source)(Prompt("u")) == Success("uNone")
    tools = [{"name": "f"}]
    given: dict[str, object] = {"enable_thinking": False, "tools": tools, "messages": []}
    template = jinja(source, variables=given)
    assert template(Prompt("u")) == Success("u/no[{'name': 'f'}]")
    tools.clear()
    given.clear()
    assert template(Prompt("u")) == Success("u/no[{'name': 'f'}]")


@pytest.mark.parametrize(
    ("today", "format", "text"),
    [
        (date(2026, 3, 5), "%d %b %Y", "05 Mar 2026"),
        (date(2026, 3, 5), "%A %-d. %B %y, %a %j %%", "Thursday 5. March 26, Thu 064 %"),
        (datetime(2024, 12, 31, 13, 5), "%Y-%m-%d %H:%M:%S %I %p", "2024-12-31 13:05:00 01 PM"),
        (date(2024, 1, 1), "%p\ud800%-m", "AM\ud8001"),
    ],
)
def test_the_date_is_the_one_given(today: date, format: str, text: str) -> None:
    template = jinja("{{ messages[0].content }}{{ strftime_now(f) }}", variables={"f": format}, today=today)
    assert template(Prompt("u")) == Success("u" + text)


@pytest.mark.parametrize("format", ["%Q", "%", "%1000000000d", "%-", "%c", "%:z"])
def test_other_directives_are_refused(format: str) -> None:
    fault = fault_of(jinja("{{ strftime_now(f) }}", variables={"f": format}, today=date(2026, 3, 5))(Prompt("u")))
    assert fault.kind == "jinja2.exceptions.TemplateError"
    assert fault.message.startswith("line 1: strftime_now writes no '%")


def test_a_template_that_wants_a_date_says_so() -> None:
    fault = fault_of(jinja("{{ messages[0].content }}\n{{ strftime_now('%Y') }}")(Prompt("u")))
    assert fault.message == "line 2: the template writes the date: give it as today="


class Foreign(date):
    """A date in a process whose locale has other names."""

    def strftime(self, format: str) -> str:
        return "Dienstag" if format in ("%A", "%a", "%B", "%b", "%p") else super().strftime(format)


def test_the_names_of_days_are_english_whatever_the_locale() -> None:
    template = jinja("{{ messages[0].content }}{{ strftime_now('%A %b %p %d') }}", today=Foreign(2026, 5, 5))
    assert template(Prompt("u")) == Success("uTuesday May AM 05")


# The same as a plain environment.


def plain(source: str, variables: dict[str, object]) -> str:
    """What transformers' environment renders."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    return environment.from_string(source).render(variables)


def tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class Generation(Extension):
    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _written(self, context: object, caller: Callable[[], str]) -> str:
        return caller()


def expressions() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(
        ("messages", "m", "m.role", "m['content']", "x", "ns.a", "unknown", "none", "true", "1", "0", "-3", "2.5", "'a'", "''", "'a b'", "[]", "{}", "loop.index0", "bos_token", "range(3)", "messages[0]")
    )  # fmt: skip
    return st.recursive(leaves, _larger, max_leaves=8)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(
        ("+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or")
    )
    filters = st.sampled_from(
        ("trim", "length", "upper", "list", "join", "join('-')", "first", "last", "default('d')", "string", "int", "float", "tojson", "tojson(indent=2)", "sort", "unique|list", "items|list", "dictsort", "replace('a', 'bb')", "indent(2)", "map(attribute='role')|list", "map('upper')|join", "selectattr('role', 'equalto', 'user')|list", "reject('none')|list", "title", "capitalize", "abs", "round(1)", "safe", "reverse|list")
    )  # fmt: skip
    methods = st.sampled_from(
        ("strip()", "split()", "split('a')", "upper()", "replace('a', 'b')", "get('role')", "items()|list", "startswith('a')", "join(['a', 'b'])", "lstrip('a')", "keys()|list", "content")
    )  # fmt: skip
    tests = st.sampled_from(
        ("defined", "none", "string", "mapping", "iterable", "sequence", "odd", "eq(1)", "in [1]", "number")
    )
    return st.one_of(
        st.builds("({} {} {})".format, inner, operators, inner),
        st.builds("({})|{}".format, inner, filters),
        st.builds("({}).{}".format, inner, methods),
        st.builds("(({}) is {})".format, inner, tests),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{'k': {}, 'l': ({},)}}".format, inner, inner),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("(x ~ {})[{}:]".format, inner, inner),
        st.builds("messages[{}:]".format, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("f({})".format, inner),
        st.builds("f(*{})".format, inner),
        st.builds("(1 < {} <= {})".format, inner, inner),
    )


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    said = expressions()
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% for m in {} %}}{}{{% endfor %}}".format, said, inner),
        st.builds("{{% for m in messages if {} %}}{}{{% else %}}e{{% endfor %}}".format, said, inner),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, said, inner, inner),
        st.builds("{{% set x = {} %}}{}".format, said, inner),
        st.builds("{{% set ns.a = {} %}}{}".format, said, inner),
        st.builds("{{% set x %}}{}{{% endset %}}{}".format, inner, inner),
        st.builds("{{% call f({}) %}}{}{{% endcall %}}".format, said, inner),
        st.builds("{{% filter upper %}}{}{{% endfilter %}}".format, inner),
        st.builds("{{% generation %}}{}{{% endgeneration %}}".format, inner),
        st.builds("{{% with x = {} %}}{}{{% endwith %}}".format, said, inner),
    )


def sources() -> st.SearchStrategy[str]:
    """Small templates made of the grammar of chat templates."""
    leaves = st.sampled_from(("text\n", "  ", "{# c #}")) | expressions().map("{{{{ {} }}}}".format)
    head = "{%- set ns = namespace(a=0) -%}{% macro f(y) %}({{ y }}{{ caller() if caller }}){% endmacro %}"
    return st.recursive(leaves, _statements, max_leaves=6).map(head.__add__)


@settings(max_examples=400, deadline=None)
@given(sources())
def test_a_template_made_of_the_grammar_renders_as_in_a_plain_environment_or_is_refused(source: str) -> None:
    messages = [{"role": "user", "content": " a b"}, {"role": "assistant", "content": ""}]
    given: dict[str, object] = {"messages": messages, "bos_token": "<s>"}
    try:
        ours: object = render(source, given, None, 100_000)
    except SecurityError:
        return
    except Exception:
        ours = None
    try:
        theirs: object = plain(source, given)
    except Exception:
        theirs = None
    assert ours == theirs


# What runs away, and what reaches for something.

GROWN: Final = "{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(100) %}{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
LONG: Final = "{% set x = 'a' * 1000000 %}"
SPENT: Final = "jinja2.exceptions.SecurityError"
ASSERTED: Final = "jinja2.exceptions.TemplateAssertionError"
RUNAWAYS: Final = {
    "nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "nested loops of nothing": "{% for a in range(100000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(10 * 10000000000) %}{% endfor %}",
    "a recursive macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "callers": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call f() %}" * 30
    + "a"
    + "{% endcall %}" * 30,
    "a long text": "{{ 'a' * 10000000000 }}",
    "a long list": "{{ 10000000000 * ['a'] }}",
    "doubled by ~": "{% set ns = namespace(x='aaaa') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubled by +": "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "shared parts written": GROWN + "{{ ns.x }}",
    "shared parts as JSON": GROWN + "{{ ns.x|tojson }}",
    "shared parts compared": GROWN + "{{ ns.x == ns.y }}",
    "shared parts sorted": GROWN + "{{ [ns.x, ns.y]|sort }}",
    "shared parts hashed": GROWN + "{{ {}.get(ns.x) }}",
    "shared parts found": GROWN + "{{ ns.x in {} }}",
    "shared parts raised": GROWN + "{{ raise_exception(ns.x) }}",
    "replace": LONG + "{{ x|replace('a', x) }}",
    "replace of nothing": LONG + "{{ x.replace('', x) }}",
    "join": LONG + "{{ x|join(x) }}",
    "strip": LONG + "{{ x.strip('b' * 1000000) }}",
    "slices": LONG + "{% for a in range(100000) %}{{ x[1:]|length }}{% endfor %}",
    "searches": LONG + "{% for a in range(100000) %}{{ 'b' in x }}{% endfor %}",
    "methods": LONG + "{% for a in range(100000) %}{{ x.upper()|length }}{% endfor %}",
    "comparisons": LONG + "{% for a in range(100000) %}{{ x == x ~ '' }}{% endfor %}",
    "pieces": "{% set x = 'a ' * 6000000 %}{{ x.split(' ')|length }}",
    "letters": "{{ ('\u00e9' * 12000000)|list|length }}",
    "wide letters": "{% set x = '\U0001f642' * 30000000 %}{{ x ~ x }}",
    "an indent": "{{ 'a\n'|indent(1000000000) }}",
    "an indent of JSON": "{{ [1]|tojson(indent=1000000000) }}",
    "a round": "{{ 1.5|round(1000000000, 'ceil') }}",
    "set blocks": "{% set x %}{% for i in range(100000) %}" + "a" * 300 + "{% endfor %}{% endset %}{{ x }}{{ x }}",
    "output": "{% for i in range(100000) %}" + "a" * 60_000 + "{% endfor %}",
    "filter blocks": "{% filter replace('a', 'a' * 100000) %}{{ 'a' * 1000000 }}{% endfilter %}",
    "filters of a loop": "{% for i in range(100000) %}{{ {'b': 1, 'a': 2}|dictsort|first }}{% endfor %}",
    "maps": "{% for i in range(100000) %}{{ range(100000)|map('string')|join|length }}{% endfor %}",
    "long attributes": "{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns]|map(attribute='x.' * 1000000)|list }}",
    "arguments of a macro": "{% macro f() %}{% endmacro %}{{ f(*range(1000000000000000000)) }}",
    "arguments of a filter": "{{ 'a'|replace(*range(1000000000000000000)) }}",
    "arguments of a test": "{{ 4 is divisibleby(*range(1000000000000000000)) }}",
    "letters as arguments": "{{ namespace(*'a' * 20000000) }}",
    "sorts": "{% for i in range(100000) %}{{ range(100000)|sort|first }}{% endfor %}",
    "refunds": "{% set x = [-1000000000]|map('<step>')|list %}{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
}  # fmt: skip
REACHES: Final = {
    "{% include 'a' %}": (ASSERTED, "'include'"),
    "{% import 'a' as a %}": (ASSERTED, "'import'"),
    "{% from 'a' import b %}": (ASSERTED, "'fromimport'"),
    "{% extends 'a' %}": (ASSERTED, "'extends'"),
    "{% block a %}{% endblock %}": (ASSERTED, "'block'"),
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}": (ASSERTED, "recursive"),
    "{{ 9**9**9 }}": (ASSERTED, "'pow'"),
    "{{ 'a'|center(1000000000) }}": (ASSERTED, "the filter 'center'"),
    "{{ ''|attr('__class__') }}": (ASSERTED, "the filter 'attr'"),
    '{{ "%1000000000d"|format(1) }}': (ASSERTED, "the filter 'format'"),
    "{{ 1 is filter }}": (ASSERTED, "the test 'filter'"),
    '{{ "%1000000000d" % 1 }}': (SPENT, "'%' of a text"),
    '{{ "%1000000000d" is odd }}': (SPENT, "'%' of a text"),
    "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}": (
        SPENT,
        "bits is not",
    ),
    "{{ ('1' * 1000000)|int(0, 2) is defined }}": (SPENT, "a number of 1000000 bits"),
    "{% set x = 1 %}{{ [x, " + "9" * 400 + "] }}": (SPENT, "a number of 1329 bits"),
    "{{ range(10 * " + "9" * 30 + ")|list }}": ("OverflowError", "too large"),
    "{{ ''.__class__ }}": (SPENT, "'__class__' of a str"),
    "{{ ''['__class__'] }}": (SPENT, "'__class__' of a str"),
    "{{ [''] | map(attribute='__class__') | list }}": (SPENT, "'__class__' of a str"),
    "{{ 'a'.center(1000000000) }}": (SPENT, "'center' of a str"),
    "{{ '{:>1000000000}'.format(1) }}": (SPENT, "not to be called"),
    "{{ '{0.a}'['format_map']({}) }}": (SPENT, "not to be called"),
    "{{ messages() }}": (SPENT, "a list is not to be called"),
    "{{ messages.append(1) }}": (SPENT, "'append' of a list"),
    "{{ messages[0].update({}) }}": (SPENT, "'update' of a dict"),
    "{{ raise_exception.__globals__ }}": (SPENT, "'__globals__' of a function"),
    "{{ namespace().__class__ }}": (SPENT, "'__class__' of a Namespace"),
    "{{ self._TemplateReference__context }}": (SPENT, "_TemplateReference__context"),
    "{% for a in [1] %}{{ loop._iterable }}{% endfor %}": (SPENT, "'_iterable' of a LoopContext"),
    "{% for a in [1] %}{{ loop }}{% endfor %}": (SPENT, "a LoopContext is no text"),
    "{% set ns = namespace(x=1) %}{% set ns.x = [ns] %}{{ ns.x|tojson }}": (SPENT, "a Namespace is no text"),
    "{{ {messages[0]: 1} }}": ("TypeError", "unhashable"),
    "{% set t = (1,) %}{{ {t: 1} }}": (SPENT, "a tuple is no key"),
    "{{ {}[(1,)] }}": (SPENT, "a tuple is no key"),
    "{{ lipsum() }}": ("jinja2.exceptions.UndefinedError", "'lipsum' is undefined"),
    "{{ cycler('a') }}": ("jinja2.exceptions.UndefinedError", "'cycler' is undefined"),
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": ("RecursionError", "recursion"),
    "{{ " + "(" * 3000: ("RecursionError", "recursion"),
    "{{ 1" + "+1" * 5000 + " }}": ("RecursionError", "recursion"),
    "{% for a in [1] %}" * 30 + "{% endfor %}" * 30: ("SyntaxError", "nested blocks"),
    "{{ " + "9" * 5000 + " }}": ("ValueError", "4300 digits"),
    "a" * (LONGEST_SOURCE + 1): (SPENT, f"more than {LONGEST_SOURCE}"),
    "{{": ("jinja2.exceptions.TemplateSyntaxError", "line 1: unexpected"),
    "{#" * 30_000: ("jinja2.exceptions.TemplateSyntaxError", "line 1: Missing end of comment"),
    "\n\n{% nope %}": ("jinja2.exceptions.TemplateSyntaxError", "line 3: Encountered unknown tag 'nope'"),
    "\n{{ messages[0].content.x.y }}": (
        "jinja2.exceptions.UndefinedError",
        "line 2: 'str object' has no attribute 'x'",
    ),
}


@pytest.mark.parametrize("source", RUNAWAYS.values(), ids=RUNAWAYS.keys())
@pytest.mark.no_cover
def test_a_template_that_runs_away_is_stopped(source: str) -> None:
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    fault = fault_of(jinja(source)(Prompt("Hi")))
    assert (fault.kind, fault.message.partition(": ")[2][:21]) == (SPENT, "the template does mor")
    assert time.process_time() - started < 15  # a second or two, without coverage and with a machine to itself
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB


@pytest.mark.parametrize(
    "source",
    [
        "{% set x = 1 %}" * 1000,
        "a" * 6000,
        "{% macro f() %}" + "{% set x = 1 %}" * 1000 + "{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}" + "{% set x = 1 %}" * 1000 + "{% endcall %}",
        "{% for x in [1] %}" + "{% set y = 1 %}" * 1000 + "{% endfor %}",
        "{% macro f() %}{% endmacro %}" + "{{ f() }}" * 12,
        "{% for x in range(100) %}{% endfor %}",
        "{% macro f() %}{{ varargs|length }}{% endmacro %}{{ f(*range(100)) }}",
        "{% for x in 'ab' if [" + "1, " * 1000 + "] %}{% endfor %}",
        "{{ range(100)|string }}",
    ],
)
def test_syntax_is_paid_for_by_its_length(source: str) -> None:
    with pytest.raises(SecurityError, match="does more than"):
        render(source, {}, None, 100)
    assert isinstance(render(source, {}, None, 1000), str)


def test_a_failure_holds_nothing_that_the_template_made() -> None:
    template = jinja("{% set x = 'a' * 20000000 %}{% macro f() %}{{ x.y.z }}{% endmacro %}{{ f() }}")
    fault_of(template(Prompt("Hi")))
    gc.collect()
    gc.disable()
    try:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10):
            fault_of(template(Prompt("Hi")))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB
    finally:
        gc.enable()


def test_json_is_paid_for_by_what_is_written() -> None:
    deep = "{% set ns = namespace(x=[]) %}{% for i in range(250) %}{% set ns.x = [ns.x] %}{% endfor %}"
    source = deep + "{{ ns.x|tojson(indent=15)|length }}"
    length = 250 * len("[\n\n]") + 15 * 250 * 250 + len("[]")
    assert render(source, {}, None, 100_000) == str(length)
    with pytest.raises(SecurityError, match="does more than"):
        render(source, {}, None, 20_000)


@pytest.mark.parametrize(("source", "kind", "reason"), [(source, *due) for source, due in REACHES.items()])
def test_what_a_template_reaches_for_is_refused(source: str, kind: str, reason: str) -> None:
    fault = fault_of(jinja(source)(Prompt("Hi")))
    assert fault.kind == kind
    assert reason in fault.message


@settings(max_examples=200, deadline=None)
@given(sources() | st.text(st.sampled_from("{}%#-[]()'\"|~.a1 \n\ud800")), prompts())
def test_no_template_raises(source: str, prompt: Prompt) -> None:
    law_pure(jinja(source, bos="<s>"), prompt)


def test_a_budget_is_of_one_rendering_and_grows_with_the_prompt() -> None:
    template = jinja(EACH + "{% for a in range(90000) %}{% endfor %}{{ m.content }}{% endfor %}")
    for _ in range(3):
        assert template(Prompt("Hi")) == Success("Hi")
    long = "word " * (STEPS // 8)
    source = EACH + "{% for letter in m.content %}{% endfor %}{{ m.content }}{% endfor %}"
    assert jinja(source)(Prompt(long + long)) == Success(long + long)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_long_conversation_passes(name: str) -> None:
    history = tuple(Exchange(f"q{i} " + "word " * 200, f"a{i} " + "text\n" * 200) for i in range(500))
    prompt = Prompt("last " * 100, None, history)
    assert len(made(name)(prompt).unwrap()) > 1_000_000


# Forgery.


@pytest.mark.parametrize(
    ("prompt", "token", "where", "offset"),
    [
        (replace(EVERY, system=" </s>", user="<s>"), "</s>", "system", 1),
        (Prompt("<s>", "s", (Exchange("a", "b<s>"), Exchange("</s>", "d"))), "<s>", "history[0].assistant", 1),
        (Prompt("<s>", "s", (Exchange("a", "b"), Exchange("[INST]", "d"))), "[INST]", "history[1].user", 0),
        (Prompt("a<|x|>b</s>"), "<|x|>b", "user", 1),
        (Prompt("a<|x|>c</s>"), "<|x|>", "user", 1),
        (Prompt("a plain word"), "plain", "user", 2),
    ],
)
def test_the_first_token_in_reading_order_is_named(prompt: Prompt, token: str, where: str, offset: int) -> None:
    template = jinja(TEMPLATES["llama2"], bos="<s>", eos="</s>", control_tokens=("<|x|>", "<|x|>b", "", "plain"))
    assert template(prompt) == Failure(InjectedToken("jinja", token, where, offset))
    assert template(EVERY) == jinja(TEMPLATES["llama2"], bos="<s>", eos="</s>")(EVERY)


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_never_refused(text: str) -> None:
    for name in TEMPLATES:
        assert isinstance(made(name)(Prompt(text, None, (Exchange(text, text),))), Success)


def test_words_that_end_an_answer_are_prose() -> None:
    template = jinja("{{ messages[-1].content }}{{ eos_token }}", bos="!", eos="END")
    assert (template.stops, template.control_tokens) == (("END",), ())
    assert template(Prompt("THE END!")) == Success("THE END!END")
    assert jinja("").stops == ()


# Nothing is dropped in silence.

LAST: Final = "{{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("source", "prompt", "refusal"),
    [
        (LAST, Prompt("u", "s"), Unsupported("jinja", "system")),
        (LAST, Prompt("s", "s"), Unsupported("jinja", "system")),  # though it stands there
        (LAST, Prompt("my u", None, (Exchange("u", "my"),)), Unsupported("jinja", "history")),
        ("{{ messages[0].content }}", Prompt("u", "u"), "the template leaves out the text of user"),
        ("Hi", Prompt("Hi"), "the template leaves out the text of user"),
        ("{{ messages[-1].content|upper }}", Prompt("u"), "the template changes the text of user"),
        ("{{ messages[-1].content.split('</think>')[-1] }}", Prompt("a</think>b"), "the template changes the text of user"),
        (EACH + "{{ m.content.split('=')[-1] }}|{% endfor %}", Prompt("u", "s", (Exchange("a=a", "b"),)), "the template changes the text of history[0].user"),
        (EACH + "{{ m.content.split('=')[-1] }}|{% endfor %}", Prompt("ba", "s", (Exchange("=b", "a"),)), "the template changes the text of history[0].user"),
        (EACH + "{{ m.content if m.content != 'x' }}|{% endfor %}", Prompt("x", "x y"), "the template changes the text of user"),
        ("{% if '\ue000' in messages[-1].content %}{{ raise_exception('x') }}{% endif %}{{ messages[-1].content[1:] }}", Prompt("u"), "the template changes the text of user"),
    ],
)  # fmt: skip
def test_a_text_left_out_or_changed_is_a_failure(source: str, prompt: Prompt, refusal: Unsupported | str) -> None:
    answer = jinja(source)(prompt)
    if isinstance(refusal, str):
        assert fault_of(answer) == Raised("TextChanged", refusal, "format")
    else:
        assert answer == Failure(refusal)


@pytest.mark.parametrize(
    ("source", "prompt", "text"),
    [
        (LAST, Prompt(" u ", "  "), " u "),  # nothing was said
        (LAST, Prompt("", None, (Exchange("\n", ""),)), ""),
        (EACH + "{{ m.content|trim }}{% endfor %}", Prompt("a", " a ", (Exchange("a ", " a"),)), "aaaa"),
        ("{{ messages[-1].content }}{{ messages[0].content }}", Prompt("u", "s"), "us"),
        ("{{ messages[0].content }}" + EACH + "{{ m.content }}{% endfor %}", Prompt("u", "s"), "ssu"),
        (LAST + "{{ '!' if '/think' in messages[-1].content }}", Prompt("u /think"), "u /think!"),
        ("{% if '\ue000' in messages[-1].content %}{{ raise_exception('x') }}{% endif %}" + LAST, Prompt("u"), "u"),
    ],
)
def test_texts_that_all_stand_there_are_rendered(source: str, prompt: Prompt, text: str) -> None:
    assert jinja(source)(prompt) == Success(text)


# Configurations.

CONFIG: Final[dict[str, object]] = {
    "chat_template": "{{ bos_token }}{{ messages[-1].content }}{{ pad_token }}{{ eos_token }}",
    "bos_token": {"content": "<s>", "lstrip": False},
    "eos_token": "</s>",
    "pad_token": "!",
    "unk_token": None,
    "additional_special_tokens": ["<|a|>", {"content": "<|b|>"}, "word"],
    "extra_special_tokens": {"image_token": "<img>"},
    "added_tokens_decoder": {
        "1": {"content": "<|c|>", "special": True},
        "2": {"content": "<tool>", "special": False},
        "3": "odd",
    },
}
READ: Final = replace(
    jinja("{{ bos_token }}{{ messages[-1].content }}{{ pad_token }}{{ eos_token }}", bos="<s>", eos="</s>"),
    control_tokens=("<img>", "<|a|>", "<|b|>", "<|c|>", "</s>", "<s>"),
    variables=(("pad_token", "!"),),
)


def test_a_config_gives_the_template_and_its_tokens() -> None:
    assert from_tokenizer_config(CONFIG) == Success(READ)
    template = from_tokenizer_config(CONFIG, name="mine", variables={"pad_token": "?"}, today=date(2026, 3, 5)).unwrap()
    assert (template.name, template.today) == ("mine", date(2026, 3, 5))
    assert template(Prompt("Hi word <tool>!")) == Success("<s>Hi word <tool>!?</s>")
    assert template(Prompt("<|c|>")) == Failure(InjectedToken("mine", "<|c|>", "user", 0))


def test_of_several_templates_the_default_is_taken() -> None:
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CONFIG["chat_template"]}, 1]
    assert from_tokenizer_config({**CONFIG, "chat_template": several}) == Success(READ)


def test_a_file_or_a_folder_is_read(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(CONFIG), "utf-8")
    assert from_tokenizer_config(file) == from_tokenizer_config(str(tmp_path)) == Success(READ)
    (tmp_path / "chat_template.jinja").write_text("é{{ messages[-1].content }}", "utf-8")
    assert from_tokenizer_config(tmp_path).unwrap().source == "é{{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("config", "kind", "reason"),
    [
        ({}, "ValueError", "no 'chat_template': give"),
        ({"chat_template": None}, "ValueError", "no 'chat_template': give"),
        ({"chat_template": [{"name": "rag", "template": "x"}]}, "ValueError", "no 'chat_template': give"),
        ({"chat_template": [{"name": "default"}]}, "KeyError", "'template'"),
        ({"chat_template": 1}, "TypeError", "'chat_template' of the tokenizer config is int, where a text is due"),
        ({**CONFIG, "eos_token": 2}, "TypeError", "'eos_token' of the tokenizer config is int"),
        ({**CONFIG, "eos_token": {"id": 2}}, "TypeError", "'eos_token' of the tokenizer config is NoneType"),
        ({**CONFIG, "additional_special_tokens": "<x>"}, "TypeError", "is str, where a list is due"),
        ({**CONFIG, "additional_special_tokens": [1]}, "TypeError", "is int, where a text is due"),
        ({**CONFIG, "extra_special_tokens": [f"<{i}>" for i in range(40_000)]}, "ValueError", "more than 200000"),
        ({**CONFIG, "added_tokens_decoder": 7}, "TypeError", "is int, where a list is due"),
    ],
)
def test_a_bad_config_is_a_failure(config: dict[str, object], kind: str, reason: str) -> None:
    fault = fault_of(from_tokenizer_config(config))
    assert fault.kind == kind
    assert reason in fault.message


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"{", "json.decoder.JSONDecodeError", "Expecting"),
        (b"[]", "TypeError", "holds no JSON object"),
        (b"\xff", "UnicodeDecodeError", "utf-8"),
        (b"[" * 100_000, "RecursionError", "recursion"),
        (b" " * (LONGEST_FILE + 1), "ValueError", "more than 16777216 bytes"),
        (b'{"bos_token": ' + b"9" * 5000 + b"}", "ValueError", "4300 digits"),
    ],
)
def test_a_bad_file_is_a_failure(tmp_path: Path, content: bytes, kind: str, reason: str) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    fault = fault_of(from_tokenizer_config(tmp_path))
    assert fault.kind == kind
    assert reason in fault.message


@pytest.mark.parametrize("path", ["nowhere", "/dev/zero", ""])
def test_no_file_is_a_failure(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fault = fault_of(from_tokenizer_config(path))
    assert fault.kind == "FileNotFoundError"
    assert "is no file: give a model's folder" in fault.message


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "a" * 5000])
def test_no_path_is_a_failure(path: str) -> None:
    assert fault_of(from_tokenizer_config(path)).kind in (
        "FileNotFoundError",
        "ValueError",
        "UnicodeEncodeError",
        "OSError",
    )


# Values.


def test_a_template_is_a_value() -> None:
    template = jinja(TEMPLATES["llama2"], bos="<s>", eos="</s>", variables={"b": [1], "a": {}}, today=date(2026, 3, 5))
    again = jinja(TEMPLATES["llama2"], bos="<s>", eos="</s>", variables={"a": {}, "b": [1]}, today=date(2026, 3, 5))
    copy = pickle.loads(pickle.dumps(template))
    assert template == again == copy
    assert len({template, again, copy}) == 1
    assert copy(EVERY) == template(EVERY) == Success(ORACLE_LLAMA2)
    assert replace(template, bos="")(Prompt("u")) == Success("[INST] u [/INST]")
    assert template != replace(template, variables=())
    with pytest.raises(AttributeError):
        setattr(template, "name", "other")  # noqa: B010


ORACLE_LLAMA2: Final = "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST] d </s><s>[INST] u [/INST]"


def test_templates_do_not_disturb_one_another() -> None:
    def answer(name: str) -> Result[str, FormatError]:
        return made(name)(EVERY)

    once = {name: answer(name) for name in TEMPLATES}
    shuffled = random.Random(7).sample(list(TEMPLATES), len(TEMPLATES)) * 20
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, shuffled)) == [once[name] for name in shuffled]


def test_a_failure_says_the_line_and_keeps_the_templates_words() -> None:
    fault = fault_of(jinja("\n\n  {{ raise_exception('Only ' ~ messages|length ~ '!') }}")(Prompt("u")))
    assert fault == Raised("jinja2.exceptions.TemplateError", "line 3: Only 1!", "format")
    with pytest.raises(TemplateError):
        render("{{ raise_exception('x') }}", {}, None, 100)


def test_without_jinja2_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2.exceptions", None)
    for name in ("", ".template", ".sandbox", ".words", ".costs"):
        monkeypatch.delitem(sys.modules, f"distgen.formats.jinja{name}")
    with pytest.raises(ImportError, match=r"pip install 'distgen\[jinja\]'"):
        importlib.import_module("distgen.formats.jinja")
