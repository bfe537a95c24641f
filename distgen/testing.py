"""The laws of formats as functions, and Hypothesis strategies, to test a format of your own.

    def test_my_format() -> None:
        check_format(my_format)

Each law raises AssertionError with its name and the example that breaks it. The checks try fixed examples, the same in
each run. Then they try generated ones, which may differ with the version of Hypothesis and the modules imported. Only
`law_exact` tells whether a format is right for its model: give it the model's own chat template. Needs hypothesis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, product
from typing import Final, TypeGuard, TypeVar

from returns.result import Failure, Success

from distgen.errors import InjectedToken, Unsupported
from distgen.formats import FORMATS, Format, Formatter
from distgen.formats.injection import find_markup, is_markup
from distgen.prompt import Exchange, Prompt

try:
    from hypothesis import Phase, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Flaky, NoSuchExample
except ImportError as _missing:  # pragma: no cover  (in another process)
    raise ImportError("distgen.testing needs hypothesis: pip install hypothesis") from _missing

P = TypeVar("P")

WHITE_SPACE: Final = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"
"""The characters that `str.strip` strips, except six spaces that are like U+2003."""

PROSE: Final = (
    "A sophomore reads philosophy. Human: a word (USER: another). Is 2 < 3 > 1? \u201cYes\u201d, says the Assistant: yes.",
    "Réponds en français — toujours « oui » ; jamais « non » !",
    "Wie heißt «{x}»? Grüße aus Köln, Straße 5.",
    "¿Qué tal? ¡Muy bien! El niño comió 3/4 de la piña.",
    "Что такое философия? Ответь: «любовь к мудрости».",
    "哲学とは何ですか。「知を愛すること」です。",
    "请用一句话回答:什么是哲学?【提示】",
    "ما هي الفلسفة؟ أجب في سطر واحد.",
    "दर्शन क्या है? एक वाक्य में उत्तर दें।",
    "철학이란 무엇입니까? 한 문장으로.",
    "מהי פילוסופיה? 🙂 ענה בקצרה.",
    "### Title\n\n```sh\nls -l | wc\n```\n\n- [x] done\n- [ ] open\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[link](https://example.org?a=1&b=2)",
    "if (a < b && b > c) { x[i] = y | z; } // <T> List<String> [1, 2]\n#include <stdio.h>",
    'def f(x: dict[str, int]) -> None:\n    """<b>bold</b>"""\n    return {"k": [1, {}]}  # %s {0} $z \\n',
    "<html><body><p class='x'>a</p><!-- c --></body></html> <<EOF\nSELECT * FROM t WHERE a <> 'b';\nEOF",
)
"""Ordinary text that no format refuses: eleven languages, Markdown and source code."""


_PAST: Final = tuple(Exchange(f"bravo{index:02}", f"charlie{index:02}") for index in range(50))
_SHORT: Final = tuple(Prompt("foxtrot", system, _PAST[:count]) for system in (None, "alfa") for count in (0, 1, 2, 3))
SHAPES: Final = (*_SHORT, Prompt("foxtrot", "alfa", _PAST))
"""A prompt of each shape, the last one long, with a word of its own for each text."""


_ODD: Final = ("x", "", "\ud800", "\n\nx\n\n", " x ", f"{WHITE_SPACE}x{WHITE_SPACE}", "x\x00x\u200bx\ufeffx\r\nx")
"""White space, characters and lone surrogates that a formatter may lose or fail on."""


# Strategies.


def prompts(texts: st.SearchStrategy[str] | None = None, max_exchanges: int = 3) -> st.SearchStrategy[Prompt]:
    """Prompts of every shape. `texts` are their texts: by default any, from "" and lone surrogates to markup.

    >>> from hypothesis import given
    >>> from distgen.formats import chatml
    >>> given(prompts())(lambda prompt: law_pure(chatml, prompt))()
    """
    said = _any_texts() if texts is None else texts
    history = st.lists(st.builds(Exchange, said, said), max_size=max_exchanges)
    return st.builds(Prompt, said, system=st.none() | said, history=history.map(tuple))


def adversarial_prompts(format: Format[P]) -> st.SearchStrategy[Prompt]:
    """Prompts whose texts are made of the format's own control tokens and literals, whole and cut, and of white space.

    >>> from hypothesis import given
    >>> from distgen.formats import chatml
    >>> given(adversarial_prompts(chatml))(lambda prompt: law_no_forgery(chatml, prompt))()
    """
    tokens = _tokens(format)
    cuts = sorted({cut for token in tokens for i in range(1, len(token)) for cut in (token[:i], token[i:])})
    blunt = st.sampled_from((*cuts, *WHITE_SPACE)) | st.sampled_from(("", " ", "\n", "x"))
    sharp = st.sampled_from(("", *tokens, *_completions(format))) | blunt
    return st.one_of(*(prompts(st.lists(pieces, max_size=4).map("".join)) for pieces in (blunt, sharp)))


def _any_texts() -> st.SearchStrategy[str]:
    # Markup that many formats share is drawn more often.
    markup = [token for format in FORMATS.values() for token in _tokens(format)]
    said = st.sampled_from((*PROSE, "system", "user", "assistant")) | st.sampled_from(markup)
    odd = st.sampled_from((*WHITE_SPACE, *"\ud800\udfff\x00\u200b\ufeffx", "e\u0301", "\r\n", "```", "{}"))
    return st.text(st.characters(), max_size=20) | st.lists(said | odd, max_size=4).map("".join)


# Laws of every Formatter.


def law_exact(formatter: Formatter[P], template: Formatter[P], prompt: Prompt) -> None:
    """The formatter renders what the model's own chat template does, for a prompt that both render.

    `template` is `distgen.formats.jinja.jinja(source)`, or any other Formatter.

    >>> law_exact(lambda prompt: Success(prompt.user), lambda prompt: Success(prompt.user + "."), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_exact: Prompt(user='Hi', system=None, history=()) gives <Success: Hi>, but the template <Success: Hi.>
    """
    rendered, due = formatter(prompt), template(prompt)
    is_known = isinstance(rendered, Success) and isinstance(due, Success)
    _check(not is_known or rendered == due, f"law_exact: {prompt} gives {rendered}, but the template {due}")


def law_pure(formatter: Formatter[P], prompt: Prompt) -> None:
    """Each prompt gives a Result, an equal one each time, and none raises.

    >>> law_pure(lambda prompt: Success(prompt.history[0].user), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_pure: IndexError('tuple index out of range') is raised on Prompt(user='Hi', system=None, history=())
    """
    try:
        first, second = formatter(prompt), formatter(prompt)
    except Exception as error:
        raise AssertionError(f"law_pure: {error!r} is raised on {prompt}") from error
    is_result = isinstance(first, Success | Failure)  # untyped code may give anything
    _check(is_result, f"law_pure: {prompt} gives {first!r}, which is no Result")
    _check(first == second, f"law_pure: {prompt} gives {first}, then {second}")


def law_complete(formatter: Formatter[P], prompt: Prompt) -> None:
    """Every text of the prompt, its ends stripped, is in the rendering: a text, or texts in lists, tuples and mappings.

    Past reasoning may be left out, as chat templates do it.

    >>> law_complete(lambda prompt: Success("Q: A:"), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_complete: user 'Hi' is not in 'Q: A:'
    """
    rendered = formatter(prompt).value_or(None)
    written = _write_json(rendered)
    for where, text in prompt.texts() if written else ():
        is_written = where.endswith("reasoning") or _write_json(text.strip())[1:-1] in written
        _check(is_written, f"law_complete: {where} {text!r} is not in {rendered!r}")


def law_turns(formatter: Formatter[P], prompt: Prompt) -> None:
    """Each text is rendered once, past turns in their order, each under its role. The texts must differ, as in SHAPES.

    >>> law_turns(lambda prompt: Success(f"{prompt.system} {prompt.user} {prompt.system}"), Prompt("Hi", "Be brief."))
    Traceback (most recent call last):
    AssertionError: law_turns: system 'Be brief.' is rendered 2 times in 'Be brief. Hi Be brief.'
    """
    rendered = formatter(prompt).value_or(None)
    written = _write_json(rendered)
    if not written:
        return
    for where, text in prompt.texts():
        times = written.count(text)
        _check(times <= 1, f"law_turns: {where} {text!r} is rendered {times} times in {rendered!r}")
    turns = [text for where, text in prompt.texts() if where != "system"]
    in_order = sorted(turns, key=written.find)
    _check(turns == in_order, f"law_turns: the turns {turns} are not in this order in {rendered!r}")
    if len(turns) >= 5:
        between = [written[written.find(a) + len(a) : written.find(b)] for a, b in pairwise(turns)]
        is_mixed = between[-1] != between[1] and between[-1] in between[::2]
        _check(not is_mixed, f"law_turns: past texts have the literals of the other role in {rendered!r}")


def law_absent_system(formatter: Formatter[P], prompt: Prompt) -> None:
    """An absent system text is not rendered as "None".

    >>> law_absent_system(lambda prompt: Success(f"{prompt.system}: {prompt.user}"), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_absent_system: a prompt without a system text gives <Success: None: Hi>
    """
    absent = formatter(replace(prompt, system=None))
    is_written = isinstance(absent, Success) and absent == formatter(replace(prompt, system="None"))
    _check(not is_written, f"law_absent_system: a prompt without a system text gives {absent}")


def law_refusal(formatter: Formatter[P], prompt: Prompt) -> None:
    """A refusal is true of the prompt: its token stands at the place that it names, or its feature is in the prompt.

    >>> law_refusal(lambda prompt: Failure(InjectedToken("mine", "###", "user", 0)), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_refusal: InjectedToken(format='mine', token='###', where='user', offset=0) does not hold of Prompt(user='Hi', system=None, history=())
    """
    refusal = formatter(prompt).swap().value_or(None)
    thoughts = any(exchange.reasoning is not None for exchange in prompt.history)
    holds = {"system": prompt.system is not None, "history": prompt.history != (), "thinking": thoughts}
    match refusal:
        case None:
            just = True
        case InjectedToken(_, token, where, offset):
            just = token != "" and _stands(token, dict(prompt.texts()).get(where, ""), offset)
        case Unsupported(_, what):
            just = holds.get(what, prompt.system is None)
        case _:
            just = False
    _check(just, f"law_refusal: {refusal} does not hold of {prompt}")


def law_prose(formatter: Formatter[P], prompt: Prompt) -> None:
    """A prompt made of ordinary prose, as that of PROSE, is never refused for its text.

    >>> law_prose(lambda prompt: Failure(InjectedToken("mine", ":", "user", 5)), Prompt("Human: a word"))
    Traceback (most recent call last):
    AssertionError: law_prose: InjectedToken(format='mine', token=':', where='user', offset=5) in Prompt(user='Human: a word', system=None, history=())
    """
    refusal = formatter(prompt).swap().value_or(None)
    _check(not isinstance(refusal, InjectedToken), f"law_prose: {refusal} in {prompt}")


# Laws of every Format.


def law_canonical(format: Format[P], prompt: Prompt) -> None:
    """`f.canonical(f.canonical(p)) == f.canonical(p)` and `f(f.canonical(p)) == f(p)`.

    >>> from distgen.formats import llama3
    >>> law_canonical(llama3, Prompt("  Hi"))
    """
    canonical = format.canonical(prompt)
    again = format.canonical(canonical)
    _check(again == canonical, f"law_canonical: {prompt} has the canonical form {canonical}, and that {again}")
    one, other = format(prompt), format(canonical)
    _check(one == other, f"law_canonical: {prompt} gives {one}, but {canonical} {other}")


def law_inverse(format: Format[P], prompt: Prompt) -> None:
    """`f(p).bind(f.parse) == Success(f.canonical(p))` whenever f(p) is a Success.

    >>> from distgen.formats import llama3
    >>> law_inverse(llama3, Prompt("  Hi", system="Be brief."))
    """
    rendered = format(prompt)
    if isinstance(rendered, Success):
        parsed, canonical = format.parse(rendered.unwrap()), Success(format.canonical(prompt))
        _check(parsed == canonical, f"law_inverse: {rendered} parses to {parsed}, not to {canonical}")


def law_parse(format: Format[P], rendered: P) -> None:
    """A prompt that parse returns, for any text, is canonical and renders to exactly that text; parse never raises.

    >>> from distgen.formats import chatml
    >>> law_parse(chatml, "<|im_start|>user\\nHi<|im_end|>")
    """
    try:
        parsed = format.parse(rendered)
    except Exception as error:
        raise AssertionError(f"law_parse: {error!r} is raised on {rendered!r}") from error
    if isinstance(parsed, Success):
        prompt = parsed.unwrap()
        again, canonical = format(prompt), format.canonical(prompt)
        _check(again == Success(rendered), f"law_parse: {rendered!r} parses to {prompt}, which gives {again}")
        _check(canonical == prompt, f"law_parse: {rendered!r} parses to {prompt}, not to {canonical}")


def law_no_forgery(format: Format[P], prompt: Prompt) -> None:
    """A text that holds markup is refused, and a rendering has no markup but that of the format's own literals.

    Past reasoning may be left out in place of a refusal.
    A control token of plain words, such as "USER: ", is prose in a text; `law_injective` finds one that forges a turn.

    >>> from distgen.formats import chatml
    >>> law_no_forgery(chatml, Prompt("Hi<|im_end|>"))
    """
    tokens = [token for token in _tokens(format) if is_markup(token)]
    said = [(where, text) for where, text in prompt.texts() if not where.endswith("reasoning")]
    held = [(where, token) for where, text in said for token in tokens if token in text]
    answer = format(prompt)
    if held and not isinstance(answer.swap().value_or(None), InjectedToken | Unsupported):
        raise AssertionError(f"law_no_forgery: {held[0][0]} holds {held[0][1]!r}, and is not refused: {answer}")
    if tokens and isinstance(answer, Success):
        markup = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
        found, due = (markup.findall(str(each.value_or(""))) for each in (answer, format(_blank(prompt))))
        _check(found == due, f"law_no_forgery: {answer} has the markup {found}, not {due}")


def law_markup(format: Format[P]) -> None:
    """Whatever looks like a special token in the format's own literals is refused in a text.

    >>> from distgen.formats import chatml
    >>> law_markup(replace(chatml, special_tokens=()))
    Traceback (most recent call last):
    AssertionError: law_markup: the literal '<|im_start|>' is not refused in user; name it in special_tokens
    """
    for token in sorted({token for literal in _literals(format) for token in find_markup(literal)}):
        is_refused = isinstance(format(Prompt(token)), Failure)
        _check(is_refused, f"law_markup: the literal {token!r} is not refused in user; name it in special_tokens")


def law_injective(format: Format[P], one: Prompt, other: Prompt) -> None:
    """No two prompts with different canonical forms render alike.

    >>> from distgen.formats import default
    >>> law_injective(default, Prompt("b", system="a"), Prompt("a\\nb"))
    """
    rendered = format(one)
    if isinstance(rendered, Success) and rendered == format(other):
        is_one = format.canonical(one) == format.canonical(other)
        _check(is_one, f"law_injective: {one} and {other} both give {rendered}")


# All laws at once.


def check_formatter(formatter: Formatter[P], *, max_examples: int = 50) -> None:
    """Try the laws of a Formatter on prompts of every kind; AssertionError names the law that does not hold.

    >>> from distgen.formats import formatter_of
    >>> try:
    ...     check_formatter(formatter_of(lambda prompt: prompt.user))
    ... except AssertionError as broken:
    ...     print(str(broken)[:12])
    law_complete
    """
    if isinstance(formatter, type) or not callable(formatter):
        raise TypeError(f"check_formatter needs a function of a Prompt, or a format of FORMATS, got {formatter!r}")

    def hold(prompt: Prompt) -> None:
        for law in (law_pure, law_refusal, law_complete):
            law(formatter, prompt)

    for prompt in SHAPES:
        hold(prompt)
    for prompt in SHAPES:
        law_turns(formatter, prompt)
        law_absent_system(formatter, prompt)
    for prompt in _each_place(*_ODD, *PROSE):
        hold(prompt)
    for prompt in _each_place(*_literals(formatter)):
        hold(prompt)
    for prompt in _each_place(*PROSE):
        law_prose(formatter, prompt)
    _try(hold, prompts(), max_examples)


def check_format(format: Format[P], *, max_examples: int = 50) -> None:
    """Try every law of a Format on prompts of every kind; AssertionError names the law that does not hold.

    >>> from distgen.formats import chatml
    >>> check_format(chatml, max_examples=20)
    """
    if isinstance(format, type) or not (hasattr(format, "parse") and hasattr(format, "canonical")):
        raise TypeError(f"check_format needs a Format, with parse and canonical, got {format!r}; see check_formatter")
    check_formatter(format, max_examples=max_examples)
    law_markup(format)
    rendered: dict[str, Prompt] = {}

    def hold(prompt: Prompt) -> None:
        for law in (law_pure, law_refusal, law_no_forgery, law_canonical, law_inverse):
            law(format, prompt)
        law_injective(format, rendered.setdefault(str(format(prompt)), prompt), prompt)

    for prompt in (*SHAPES, *_each_place(*_ODD, *_completions(format))):
        hold(prompt)
    _try(hold, prompts() | adversarial_prompts(format), max_examples)
    if _writes_text(format):
        for prompt in _SHORT:
            for text in _damage(format(prompt).value_or("")):
                law_parse(format, text)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _each_place(*texts: str) -> Iterator[Prompt]:
    """Yield prompts with each of the texts in each place, between any two neighbours, and "x" in the others."""
    for text, system, past in product(texts, (None, "x"), ((), (Exchange("x", "x"),))):
        yield Prompt(text, system, past)
        yield Prompt("x", text, past)
        for exchange in (Exchange(text, "x"), Exchange("x", text), Exchange("x", "x", text)):
            yield Prompt("x", system, (*past, exchange))


def _completions(format: Format[P]) -> Sequence[str]:
    """Return texts that complete a token or a literal with the end of the literal before them, or the start of that after."""
    literals, found = _literals(format), set[str]()
    for whole in (*_tokens(format), *literals):
        starts = [i for i in range(len(whole)) if i == 0 or any(each.endswith(whole[:i]) for each in literals)]
        rests = [whole[i:] for i in range(1, len(whole)) if any(each.startswith(whole[i:]) for each in literals)]
        for start, rest in product(starts, ("", *rests)):
            before, after = "" if start else "x", "" if rest else "x"
            text = before + whole[start:].removesuffix(rest) + after
            found |= {text, f"\n{text} "}
    return sorted(found)


def _damage(rendered: str) -> Iterator[str]:
    """Yield the rendering cut short anywhere, without any one character, and with a line feed anywhere."""
    for index in range(len(rendered)):
        yield rendered[:index]
        yield rendered[:index] + rendered[index + 1 :]
        yield rendered[:index] + "\n" + rendered[index:]


def _try(law: Callable[[Prompt], None], examples: st.SearchStrategy[Prompt], max_examples: int) -> None:
    """Raise the AssertionError of the smallest generated example that breaks a law."""
    errors: list[AssertionError] = []

    def breaks(example: Prompt) -> bool:
        try:
            law(example)
        except AssertionError as error:
            errors.append(error)
            return True
        return False

    # No database and no deadline: a check leaves no file behind and does not depend on how busy the machine is.
    phases = (Phase.generate, Phase.shrink)
    options = settings(max_examples=max_examples, database=None, deadline=None, derandomize=True, phases=phases)
    with suppress(NoSuchExample, Flaky):  # Flaky: a format that is broken only now and then
        find(examples, breaks, settings=options)
    if errors:
        raise errors[-1].with_traceback(None)


def _write_json(rendered: object) -> str:
    """Return the rendering as JSON, which escapes each character alone; "" if it has no text."""
    try:
        written = json.dumps(rendered)
    except TypeError:
        return ""
    return written if '"' in written else ""


def _stands(token: str, text: str, offset: int) -> bool:
    """Return True if a token begins there, whole or cut by the end of the text, or if its end is at the start of the text."""
    begins = text[offset:] != "" and (text.startswith(token, offset) or token.startswith(text[offset:]))
    return begins or (offset == 0 and any(text.startswith(token[cut:]) for cut in range(1, len(token))))


def _blank(prompt: Prompt) -> Prompt:
    """Return the same conversation with "x" for every text that is not blank."""

    def blank(text: str) -> str:
        return "x" if text.strip() else text

    history = tuple(
        Exchange(blank(each.user), blank(each.assistant), each.reasoning and blank(each.reasoning))
        for each in prompt.history
    )
    return Prompt(blank(prompt.user), prompt.system and blank(prompt.system), history)


def _tokens(format: object) -> Sequence[str]:
    tokens: tuple[str, ...] = getattr(format, "special_tokens", ())
    return tokens


def _writes_text(format: Format[P]) -> TypeGuard[Format[str]]:
    return isinstance(format(Prompt("x")).value_or(None), str)


def _literals(format: Formatter[P]) -> list[str]:
    """Return the literals of a text format, seen from outside: renderings without the texts."""
    mark = "7e57"
    whole = Prompt(mark, mark, (Exchange(mark, mark),) * 2)
    thought = Prompt(mark, history=(Exchange(mark, mark, mark),))
    shapes = (whole, replace(whole, system=None), replace(whole, history=()), Prompt(mark), thought)
    rendered: list[object] = [format(shape).value_or(None) for shape in shapes]
    return sorted({piece for text in rendered if isinstance(text, str) for piece in text.split(mark) if piece})
