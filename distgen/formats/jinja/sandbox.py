"""Somebody else's Jinja template, run on a budget: it ends soon, in bounded memory, and reaches nothing it is not given.

A template is rewritten once, so that each loop, macro, `*` of arguments, comparison, slice and join of texts pays before
it is done; each call, filter, operator and output pays by the size of its values. Nothing is timed, and no thread, signal
or process is used: the same template does the same on every machine. It is no general Jinja: statements are those that
chat templates use, words those of `distgen.formats.jinja.words`, and any other is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, Final, final

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from distgen.formats.jinja.costs import (
    CHARACTERS_A_STEP,
    LONGEST_SOURCE,
    NODES_A_STEP,
    STEPS_A_CALL,
    Budget,
    Cost,
    is_items,
)
from distgen.formats.jinja.words import (
    BUDGET,
    FILTERS,
    FUNCTIONS,
    LOOP,
    METHODS,
    TESTS,
    TODAY,
    budget_of,
    key,
    pay_operator,
    read,
)

_FILE: Final = "<template>"


def render(source: str, variables: Mapping[str, object], today: date | None, steps: int) -> str:
    """The template's text, or what it raises: any Exception, jinja2's SecurityError where it takes more than `steps`.

    >>> render("{% for x in xs %}{{ x }},{% endfor %}", {"xs": ["a", "b"]}, None, 100)
    'a,b,'
    >>> render("{% for x in xs %}{{ x }},{% endfor %}", {"xs": ["a", "b"] * 100}, None, 100)
    Traceback (most recent call last):
    jinja2.exceptions.SecurityError: the template does more than a template may do for a prompt of this size
    """
    template = _compiled(source)
    context = template.new_context({**variables, BUDGET: Budget(steps), TODAY: today})
    try:
        # Not Template.render: it rewrites the traceback of what is raised into a circle, which holds all that was made.
        return "".join(template.root_render_func(context))
    finally:
        context.vars.clear()  # a macro and its context are a circle too


def line_of(source: str, error: BaseException) -> int | None:
    """The line of the template at which an exception came about, from 1; None where it is not known."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == _FILE:
            line = step.tb_lineno
        step = step.tb_next
    return None if line is None else _compiled(source).get_corresponding_lineno(line)


# The rewriting.

_NODES: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock),
    *(nodes.FilterBlock, nodes.Assign, nodes.AssignBlock, nodes.With, nodes.Scope, nodes.Break, nodes.Continue),
    *(nodes.Name, nodes.NSRef, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword),
    *(nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat),
    *(nodes.Compare, nodes.Operand, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
    *(nodes.Not, nodes.Neg, nodes.Pos, nodes.And, nodes.Or),
)


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    if len(source) > LONGEST_SOURCE:
        raise SecurityError(f"the template has {len(source)} characters, more than {LONGEST_SOURCE}")
    tree = _ENVIRONMENT.parse(source)
    _rewrite(tree)
    return Template.from_code(_ENVIRONMENT, _ENVIRONMENT.compile(tree, filename=_FILE), _ENVIRONMENT.globals)


def _rewrite(node: nodes.Node) -> nodes.Node:
    """The node, and in place what is under it, so that it pays; TemplateAssertionError for what no template may use."""
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, name, _rewrite(value))
        elif is_items(value):
            setattr(node, name, [_rewrite(one) if isinstance(one, nodes.Node) else one for one in value])
    refused = _refused(node)
    if refused:
        raise TemplateAssertionError(f"{refused} is not for chat templates", node.lineno)
    return _paying_statement(node) if isinstance(node, nodes.Stmt | nodes.Template) else _paying(node)


def _refused(node: nodes.Node) -> str:
    """What a node uses that no template may use; "" for nothing."""
    match node:
        case nodes.Filter(name=name) if name not in FILTERS:
            return f"the filter {name!r}"
        case nodes.Test(name=name) if name not in TESTS:
            return f"the test {name!r}"
        case nodes.For(recursive=True):
            return "a recursive loop"
        case _:
            return "" if isinstance(node, _NODES) else f"'{type(node).__name__.lower()}'"


def _paying_statement(node: nodes.Node) -> nodes.Node:
    match node:
        case nodes.Template() | nodes.Macro() | nodes.CallBlock():
            toll = _filter("<step>", nodes.Const(_toll(node.body), lineno=node.lineno))
            node.body.insert(0, nodes.ExprStmt(toll, lineno=node.lineno))
        case nodes.For():
            toll_each = _toll([*node.body, *([node.test] if node.test else [])])
            node.iter = _filter("<each>", node.iter, nodes.Const(toll_each))
        case _:
            pass
    return node


def _paying(node: nodes.Node) -> nodes.Node:
    match node:
        case nodes.Concat():
            return _filter("<concat>", *node.nodes)
        case nodes.Compare(expr=left, ops=[nodes.Operand(op=name, expr=right)]):
            literal = isinstance(left, nodes.Const) or isinstance(right, nodes.Const)
            cheap = literal and name in ("eq", "ne")  # no more is compared than the literal has
            return node if cheap else _filter("<compare>", left, nodes.Const(name), right)
        case nodes.Compare():
            operands = [nodes.Operand(one.op, _filter("<read>", one.expr)) for one in node.ops]
            return nodes.Compare(_filter("<read>", node.expr), operands, lineno=node.lineno)
        case nodes.Getitem(arg=nodes.Slice(start=start, stop=stop, step=step)):
            return _filter("<slice>", node.node, *(one or nodes.Const(None) for one in (start, stop, step)))
        case nodes.Call() | nodes.Filter() | nodes.Test() if node.dyn_args is not None:
            node.dyn_args = _filter("<each>", node.dyn_args, nodes.Const(1))
            return node
        case nodes.Pair() if not isinstance(node.key, nodes.Const):
            return nodes.Pair(_filter("<key>", node.key), node.value, lineno=node.lineno)
        case _:
            return node


def _filter(name: str, node: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [*args], [], None, None, lineno=node.lineno)


def _toll(body: Iterable[nodes.Node]) -> int:
    """The steps of running through these nodes once, loops and calls in them aside."""
    count, rest = 0, [*body]
    while rest:
        node = rest.pop()
        count += 1 + (len(node.data) * NODES_A_STEP // CHARACTERS_A_STEP if isinstance(node, nodes.TemplateData) else 0)
        rest += node.iter_child_nodes()
    return 1 + count // NODES_A_STEP


# The environment.


class _Generation(Extension):
    """`{% generation %}` marks what a model learns to write; it writes its body, in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@final
class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a template reaches what is on a list and nothing else, and pays for what it does."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%"))

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return attr in _methods(obj) or (isinstance(obj, LoopContext) and attr in LOOP)

    def unsafe_undefined(self, obj: object, attribute: str) -> Undefined:
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is not for chat templates")

    def getitem(self, obj: object, argument: object) -> object:
        return super().getitem(obj, key(argument))

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        pay_operator(budget_of(context), operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        given = [*args, *(value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars"))]
        if isinstance(obj, Macro | Undefined):
            budget_of(context).spend(STEPS_A_CALL + len(given))
        elif obj in FUNCTIONS.values():
            budget_of(context).read(*given)
        else:
            owner: object = getattr(obj, "__self__", None)
            cost = _methods(owner).get(getattr(obj, "__name__", ""))
            if cost is None:
                raise SecurityError(f"a {type(obj).__name__} is not to be called by chat templates")
            cost(budget_of(context), owner, given)
        return super().call(context, obj, *args, **kwargs)


def _methods(obj: object) -> Mapping[str, Cost]:
    """What a template may call of a value, and what each costs."""
    for kind, methods in METHODS:
        if isinstance(obj, kind):
            return methods
    return {}


def _environment() -> _Environment:
    """As transformers sets it up. Source: transformers, utils/chat_template_utils.py, 5.23.0."""
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
        finalize=read,
    )
    filters: dict[str, Any] = {**FILTERS}
    tests: dict[str, Any] = {**TESTS}
    functions: dict[str, Any] = {**FUNCTIONS}
    environment.filters, environment.tests, environment.globals = filters, tests, functions
    return environment


_ENVIRONMENT: Final = _environment()
