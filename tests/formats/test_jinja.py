"""Published chat templates: what they render, what they are refused for, and that none reaches anything or runs away."""

from __future__ import annotations

import importlib
import json
import pickle
import random
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes, pass_eval_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, Raised, Unsupported, explain
from distgen.formats.jinja import JinjaTemplate, from_tokenizer_config, jinja
from distgen.prompt import Exchange, Prompt
from distgen.testing import PROSE, check_formatter, law_pure, prompts

ORACLE: Final[dict[str, Any]] = {
    entry["format"]: entry
    for entry in json.loads((Path(__file__).parent.parent / "data" / "oracle.json").read_text("utf-8"))
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
    return jinja(TEMPLATES[name], bos=entry["bos"], eos=entry["stop"][0], name=name)


def prompt_of(case: dict[str, Any]) -> Prompt:
    return Prompt(case["user"], case["system"], tuple(Exchange(user, answer) for user, answer in case["history"]))


def fault_of(result: Result[str, FormatError] | Result[JinjaTemplate, FormatError]) -> Raised:
    fault = result.failure()
    assert isinstance(fault, Raised)
    assert fault.stage == "format"
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
    tokens = {token for token in entry["special_tokens"] if token[0] in "<["}
    assert tokens <= {*made(name).special_tokens}
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
    ],
)
def test_the_date_is_the_one_given(today: date, format: str, text: str) -> None:
    template = jinja("{{ messages[0].content }}{{ strftime_now(f) }}", variables={"f": format}, today=today)
    assert template(Prompt("u")) == Success("u" + text)


def test_a_template_that_wants_a_date_says_so() -> None:
    fault = fault_of(jinja("{{ messages[0].content }}\n{{ strftime_now('%Y') }}")(Prompt("u")))
    assert fault.message == "line 2: the template prints a date: pass today="


# The same as a plain environment.


GIVEN: Final[dict[str, object]] = {
    "messages": [{"role": "user", "content": "a b"}],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "",
}


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


def test_a_template_made_of_the_grammar_renders_as_in_a_plain_environment() -> None:
    rendered = Counter[bool]()

    @settings(max_examples=100, deadline=None)
    @given(sources())
    def hold(source: str) -> None:
        answer = jinja("{% for m in messages %}{{ m.content }}{% endfor %}" + source, bos="<s>")(Prompt("a b"))
        try:
            theirs = plain("{% for m in messages %}{{ m.content }}{% endfor %}" + source, deepcopy(GIVEN))
        except Exception:
            assert isinstance(answer, Failure)
        else:
            rendered[isinstance(answer, Success)] += 1
            assert answer == Success(theirs)

    hold()
    assert rendered[True] >= 10


# What is refused.

FAILURES: Final = {
    "{{": ("jinja2.exceptions.TemplateSyntaxError", "line 1: unexpected"),
    "\n\n{% nope %}": ("jinja2.exceptions.TemplateSyntaxError", "line 3: Encountered unknown tag 'nope'"),
    "\n{{ messages[0].content.x.y }}": (
        "jinja2.exceptions.UndefinedError",
        "line 2: 'str object' has no attribute 'x'",
    ),
    "{{ 'a'|from_json }}": ("jinja2.exceptions.TemplateAssertionError", "line 1: No filter named 'from_json'"),
    "{{ ''.__class__.mro() }}": ("jinja2.exceptions.SecurityError", "line 1: access to attribute '__class__'"),
    "{{ messages.append(1) }}": ("jinja2.exceptions.SecurityError", "line 1:"),
    "{% include 'a' %}": ("TypeError", "line 1: no loader for this environment specified"),
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": ("RecursionError", "recursion"),
}


@pytest.mark.parametrize(("source", "kind", "reason"), [(source, *due) for source, due in FAILURES.items()])
def test_a_template_that_fails_is_a_failure_with_its_line(source: str, kind: str, reason: str) -> None:
    fault = fault_of(jinja(source)(Prompt("Hi")))
    assert fault.kind == kind
    assert reason in fault.message


@pytest.mark.parametrize(
    "source",
    [
        "{% if tools %}{{ tools|from_json }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ '{}'.format(messages[0].content) }}",
        "{{ '%s' % messages[0].content }}",
    ],
)
def test_what_jinja2_renders_is_rendered(source: str) -> None:
    assert jinja(source)(Prompt("hi")) == Success("hi")


@settings(max_examples=200, deadline=None)
@given(sources() | st.text(st.sampled_from("{}%#-[]()'\"|~.a1 \n\ud800")), prompts())
def test_no_template_raises(source: str, prompt: Prompt) -> None:
    law_pure(jinja(source, bos="<s>"), prompt)


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
    template = jinja(TEMPLATES["llama2"], bos="<s>", eos="</s>", special_tokens=("<|x|>", "<|x|>b", "", "plain"))
    assert template(prompt) == Failure(InjectedToken("jinja", token, where, offset))
    assert template(EVERY) == jinja(TEMPLATES["llama2"], bos="<s>", eos="</s>")(EVERY)


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_never_refused(text: str) -> None:
    for name in TEMPLATES:
        assert isinstance(made(name)(Prompt(text, None, (Exchange(text, text),))), Success)


def test_words_that_end_an_answer_are_prose() -> None:
    template = jinja("{{ messages[-1].content }}{{ eos_token }}", bos="!", eos="END")
    assert (template.stop, template.special_tokens) == (("END",), ())
    assert template(Prompt("THE END!")) == Success("THE END!END")
    assert jinja("").stop == ()


# Nothing is dropped in silence.

LAST: Final = "{{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("source", "prompt", "refusal"),
    [
        (LAST, Prompt("u", "s"), Unsupported("jinja", "system")),
        (LAST, Prompt("s", "s"), Unsupported("jinja", "system")),  # though it stands there
        (LAST, Prompt("my u", None, (Exchange("u", "my"),)), Unsupported("jinja", "history")),
        ("{{ messages[0].content }}", Prompt("u", "u"), "the template drops the text of user"),
        ("Hi", Prompt("Hi"), "the template drops the text of user"),
        ("{{ messages[-1].content|upper }}", Prompt("u"), "the template changes the text of user"),
        ("{{ messages[-1].content.split('</think>')[-1] }}", Prompt("a</think>b"), "the template changes the text of user"),
        (EACH + "{{ m.content.split('=')[-1] }}|{% endfor %}", Prompt("u", "s", (Exchange("a=a", "b"),)), "the template changes the text of history[0].user"),
        (EACH + "{{ m.content.split('=')[-1] }}|{% endfor %}", Prompt("ba", "s", (Exchange("=b", "a"),)), "the template changes the text of history[0].user"),
        (EACH + "{{ m.content if m.content != 'x' }}|{% endfor %}", Prompt("x", "x y"), "the template changes the text of user"),
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
    special_tokens=("<img>", "<|a|>", "<|b|>", "<|c|>", "</s>", "<s>"),
    variables=(("image_token", "<img>"), ("pad_token", "!")),
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
        ({}, "ValueError", "no 'chat_template': pass"),
        ({"chat_template": None}, "ValueError", "no 'chat_template': pass"),
        ({"chat_template": [{"name": "rag", "template": "x"}]}, "ValueError", "no 'chat_template': pass"),
        ({"chat_template": [{"name": "default"}]}, "ValueError", "no 'chat_template': pass"),
        ({"chat_template": 1}, "TypeError", "'chat_template' of the tokenizer config must be text, got int"),
        ({**CONFIG, "eos_token": 2}, "TypeError", "'eos_token' of the tokenizer config must be text, got int"),
        (
            {**CONFIG, "eos_token": {"id": 2}},
            "TypeError",
            "'eos_token' of the tokenizer config must be text, got NoneType",
        ),
        ({**CONFIG, "additional_special_tokens": "<x>"}, "TypeError", "must be a list, got str"),
        ({**CONFIG, "additional_special_tokens": [1]}, "TypeError", "must be text, got int"),
        ({**CONFIG, "added_tokens_decoder": 7}, "TypeError", "must be a list, got int"),
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
        (b"[]", "TypeError", "not a mapping"),
        (b"\xff", "UnicodeDecodeError", "utf-8"),
        (b"[" * 100_000, "RecursionError", "recursion"),
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
    assert "has no tokenizer_config.json: pass a model's folder" in fault.message


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "a" * 5000])
def test_no_path_is_a_failure(path: str) -> None:
    assert fault_of(from_tokenizer_config(path)).kind in (
        "FileNotFoundError",
        "ValueError",
        "UnicodeEncodeError",
        "OSError",
    )


def test_special_tokens_are_read_from_each_place(tmp_path: Path) -> None:
    write = {
        "tokenizer_config.json": {
            "chat_template": "{{ bos_token }}{{ messages[-1].content }}{{ eos_token }}",
            "model_specific_special_tokens": {"image_token": "<|image_pad|>"},
        },
        "tokenizer.json": {
            "added_tokens": [{"content": "<|fim_prefix|>", "special": True}, {"content": "<tool>", "special": False}]
        },
        "special_tokens_map.json": {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}},
    }
    for name, value in write.items():
        (tmp_path / name).write_text("\ufeff" + json.dumps(value), "utf-8")
    template = from_tokenizer_config(tmp_path).unwrap()
    assert template(Prompt("hi <tool>")) == Success("<|im_start|>hi <tool><|im_end|>")
    assert dict(template.variables) == {"image_token": "<|image_pad|>"}
    for token in ("<|image_pad|>", "<|fim_prefix|>", "<|im_start|>", "<|im_end|>"):
        assert template(Prompt(f"x{token}")) == Failure(InjectedToken("jinja", token, "user", 1))


def test_a_lone_template_is_read(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("\ufeff{{ messages[-1].content }}!", "utf-8")
    assert from_tokenizer_config(tmp_path).unwrap()(Prompt("u")) == Success("u!")
    assert from_tokenizer_config(tmp_path / "chat_template.jinja") == from_tokenizer_config(tmp_path)


def test_a_completion_is_split_as_the_template_opens_it() -> None:
    assert jinja("{{ messages[-1].content }}<think>").split("r</think>a") == ("r", "a")
    assert jinja("{{ messages[-1].content }}").split("a") == (None, "a")


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


def test_a_token_of_three_characters_is_refused_and_one_of_one_is_prose() -> None:
    format = jinja("{% for m in messages %}{{ m.content }}{% endfor %}", bos="<s>", eos="!")
    assert format(Prompt("a<s>")) == Failure(InjectedToken("jinja", "<s>", "user", 1))
    assert isinstance(format(Prompt("a!")), Success)
    assert jinja("{{ bos_token }}{{ eos_token }}", bos="<>", eos="|").special_tokens == ()


def test_a_template_that_takes_only_some_texts_is_refused() -> None:
    source = "{% for m in messages %}{{ raise_exception('only a') if m.content != 'a' }}{{ m.content }}{% endfor %}"
    assert fault_of(jinja(source, bos="")(Prompt("a"))).message == "line 1: only a"


def test_a_failure_says_the_line_and_keeps_the_templates_words() -> None:
    fault = fault_of(jinja("\n\n  {{ raise_exception('Only ' ~ messages|length ~ '!') }}")(Prompt("u")))
    assert fault == Raised("jinja2.exceptions.TemplateError", "line 3: Only 1!", "format")


def test_without_jinja2_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "distgen.formats.jinja")
    with pytest.raises(ImportError, match="pip install jinja2"):
        importlib.import_module("distgen.formats.jinja")
