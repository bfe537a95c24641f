"""The laws of formats as functions, and Hypothesis strategies, to test a format of your own.

    def test_my_format() -> None:
        check_format(my_format)

Each law raises AssertionError with its name and the example that breaks it. The checks try fixed examples and then
generated ones, the same in each run. No law tells whether a format is right for its model: compare it with the model's own
chat template for that. Needs hypothesis.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Final, Protocol, TypeGuard, TypeVar, runtime_checkable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, Unsupported
from distgen.formats import FORMATS, Format, Formatter, openai
from distgen.formats.injection import find_markup, is_markup
from distgen.prompt import Exchange, Messages, Prompt, Segment

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


@runtime_checkable
class _HasSpecialTokens(Protocol):
    @property
    def special_tokens(self) -> tuple[str, ...]: ...


@runtime_checkable
class Segmented(Protocol):
    """A formatter of text that also renders to segments."""

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """Render the prompt as text."""
        ...

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Render the prompt as literals and texts."""
        ...


_PAST: Final = (Exchange("bravo", "charlie"), Exchange("delta", "echo"))
SHAPES: Final = (
    Prompt("foxtrot"),
    Prompt("foxtrot", "alfa"),
    Prompt("foxtrot", None, _PAST[:1]),
    Prompt("foxtrot", None, _PAST),
    Prompt("foxtrot", "alfa", _PAST),
)
"""A prompt of each shape, with a word of its own for each text."""


# Strategies.


def prompts(texts: st.SearchStrategy[str] | None = None, max_exchanges: int = 3) -> st.SearchStrategy[Prompt]:
    """Prompts of every shape. `texts` are their texts: by default any, from "" and lone surrogates to markup.

    >>> from distgen.formats import chatml
    >>> given(prompts())(lambda prompt: law_pure(chatml, prompt))()
    """
    said = _any_texts() if texts is None else texts
    exchanges = st.builds(Exchange, said, said)
    some = st.lists(exchanges, max_size=max_exchanges).map(tuple)
    return st.builds(Prompt, said, system=st.none() | said, history=some | st.builds(_long, exchanges, exchanges))


def conversations(texts: st.SearchStrategy[str] | None = None, max_exchanges: int = 3) -> st.SearchStrategy[Messages]:
    """Well-formed OpenAI-style messages, as `prompts` has them.

    >>> given(conversations())(lambda messages: law_parse(openai, messages))()
    """
    return prompts(texts, max_exchanges).map(lambda prompt: openai(prompt).unwrap())


def adversarial_prompts(format: Format[P]) -> st.SearchStrategy[Prompt]:
    """Prompts whose texts are made of the format's own control tokens and literals, whole and cut, and of white space.

    >>> from distgen.formats import chatml
    >>> given(adversarial_prompts(chatml))(lambda prompt: law_no_forgery(chatml, prompt))()
    """
    tokens = _tokens(format)
    whole = (*tokens, *_literals(format))
    ends = {cut for piece in whole for i in range(1, len(piece)) for cut in (piece[:i], piece[i:])}
    harmless = sorted(end for end in ends if not any(token in end for token in tokens))
    blunt = st.sampled_from((*harmless, *WHITE_SPACE, "x", "")) | st.sampled_from(("", " ", "\n", "x"))
    sharp = st.sampled_from((*whole, "")) | blunt
    return st.one_of(*(prompts(st.lists(pieces, max_size=4).map("".join)) for pieces in (blunt, sharp)))


def _any_texts() -> st.SearchStrategy[str]:
    # As often as there are formats that have it: the markup of many families is met more often.
    markup = [token for format in FORMATS.values() for token in _tokens(format)]
    said = st.sampled_from((*PROSE, "system", "user", "assistant")) | st.sampled_from(markup)
    odd = st.sampled_from(
        (*WHITE_SPACE, "\ud800", "\udfff", "\x00", "\u200b", "\ufeff", "e\u0301", "\r\n", "```", "{}", "x")
    )
    return st.text(st.characters(), max_size=20) | st.lists(said | odd, max_size=4).map("".join)


def _plain_prompts() -> st.SearchStrategy[Prompt]:
    return prompts(st.sampled_from(("", "hi", "there", *PROSE)))


def _long(one: Exchange, other: Exchange) -> tuple[Exchange, ...]:
    return (one, other) * 25


def _damaged(format: Format[str]) -> st.SearchStrategy[str]:
    """Renderings cut short, and renderings in which one literal is lost, or stands in the place of another."""
    pieces = st.sampled_from((*_literals(format), "x", " ", "\n", ""))
    rendered = _plain_prompts().map(lambda prompt: format(prompt).value_or(""))
    return st.one_of(
        st.builds(_cut_short, rendered, st.integers(0)),
        st.builds(_changed, rendered, pieces, st.just("")),
        st.builds(_changed, rendered, pieces, pieces),
    )


def _cut_short(text: str, end: int) -> str:
    return text[: end % (len(text) + 1)]


def _changed(text: str, old: str, new: str) -> str:
    return text.replace(old, new, 1)


def _rivals(one: Prompt, between: Sequence[str]) -> Iterator[Prompt]:
    """Prompts that say the same elsewhere: what another prompt that renders alike would look like."""
    yield replace(one, system="" if one.system is None else None)
    for first in between:
        yield replace(one, user=one.user + first)
        yield replace(one, system=None, user=(one.system or "") + first + one.user)
        for second in between if one.history else ():
            last = one.history[-1]
            user = last.user + first + last.assistant + second + one.user
            yield replace(one, history=one.history[:-1], user=user)


# Laws of every Formatter.


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
    if not _is_result(first):
        raise AssertionError(f"law_pure: {prompt} gives {first!r}, which is no Result")
    if first != second:
        raise AssertionError(f"law_pure: {prompt} gives {first}, then {second}")


def law_complete(formatter: Formatter[P], prompt: Prompt) -> None:
    """Every text of the prompt, its ends stripped, is in the rendering: a text, or texts in lists, tuples and mappings.

    Past reasoning may be left out, as chat templates do it.

    >>> law_complete(lambda prompt: Success("Q: A:"), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_complete: user 'Hi' is not in 'Q: A:'
    """
    rendered = formatter(prompt).value_or(None)
    written = _strings(rendered)
    for where, text in prompt.texts() if written else ():
        if not where.endswith("reasoning") and not any(text.strip() in each for each in written):
            raise AssertionError(f"law_complete: {where} {text!r} is not in {rendered!r}")


def law_turns(formatter: Formatter[P], prompt: Prompt) -> None:
    """Each text is rendered once, past turns in their order, each under its role. The texts must differ, as in SHAPES.

    >>> law_turns(lambda prompt: Success(f"{prompt.system} {prompt.user} {prompt.system}"), Prompt("Hi", "Be brief."))
    Traceback (most recent call last):
    AssertionError: law_turns: system 'Be brief.' is rendered 2 times in 'Be brief. Hi Be brief.'
    """
    rendered = formatter(prompt).value_or(None)
    written = "\n".join(_strings(rendered))
    if not written:
        return
    for where, text in prompt.texts():
        if written.count(text) > 1:
            raise AssertionError(f"law_turns: {where} {text!r} is rendered {written.count(text)} times in {rendered!r}")
    turns = [text for where, text in prompt.texts() if where != "system"]
    if turns != sorted(turns, key=written.find):
        raise AssertionError(f"law_turns: the turns {turns} are not in this order in {rendered!r}")
    roles = {text: where.rpartition(".")[2] for where, text in prompt.texts()}
    for message in filter(_is_mapping, _items(rendered)):
        role, content = message.get("role"), message.get("content")
        if isinstance(content, str) and role in ("user", "assistant") and roles.get(content, role) != role:
            raise AssertionError(
                f"law_turns: the {roles[content]} text {content!r} is under role {role!r} in {rendered!r}"
            )
    if len(turns) >= 5:
        between = [written[written.find(a) + len(a) : written.find(b)] for a, b in pairwise(turns)]
        if between[-1] != between[1] and between[-1] in between[::2]:
            raise AssertionError(f"law_turns: past user texts have the assistant's literals in {rendered!r}")


def law_absent_system(formatter: Formatter[P], prompt: Prompt) -> None:
    """No system text is not rendered as the system text "None".

    >>> law_absent_system(lambda prompt: Success(f"{prompt.system}: {prompt.user}"), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_absent_system: a prompt without a system text gives <Success: None: Hi>
    """
    absent = formatter(replace(prompt, system=None))
    if isinstance(absent, Success) and absent == formatter(replace(prompt, system="None")):
        raise AssertionError(f"law_absent_system: a prompt without a system text gives {absent}")


def law_refusal(formatter: Formatter[P], prompt: Prompt) -> None:
    """A prompt is refused for what it holds: a token at the very place named, whole or the half of it, a system text or none, history.

    >>> law_refusal(lambda prompt: Failure(InjectedToken("mine", "###", "user", 0)), Prompt("Hi"))
    Traceback (most recent call last):
    AssertionError: law_refusal: InjectedToken(format='mine', token='###', where='user', offset=0) is not so of Prompt(user='Hi', system=None, history=())
    """
    refusal = _failure(formatter(prompt))
    match refusal:
        case None:
            just = True
        case InjectedToken(_, token, where, offset):
            just = token != "" and _stands(token, dict(prompt.texts()).get(where, ""), offset)
        case Unsupported(_, "system"):
            just = prompt.system is not None
        case Unsupported(_, "history"):
            just = prompt.history != ()
        case Unsupported(_, "thinking"):
            just = any(exchange.reasoning is not None for exchange in prompt.history)
        case Unsupported():
            just = prompt.system is None
        case _:
            just = False
    if not just:
        raise AssertionError(f"law_refusal: {refusal} is not so of {prompt}")


def law_prose(formatter: Formatter[P], prompt: Prompt) -> None:
    """A prompt made of ordinary prose, as that of PROSE, is never refused for its text.

    >>> law_prose(lambda prompt: Failure(InjectedToken("mine", ":", "user", 5)), Prompt("Human: a word"))
    Traceback (most recent call last):
    AssertionError: law_prose: InjectedToken(format='mine', token=':', where='user', offset=5) in Prompt(user='Human: a word', system=None, history=())
    """
    refusal = _failure(formatter(prompt))
    if isinstance(refusal, InjectedToken):
        raise AssertionError(f"law_prose: {refusal} in {prompt}")


# Laws of every Format.


def law_canonical(format: Format[P], prompt: Prompt) -> None:
    """`f.canonical(f.canonical(p)) == f.canonical(p)` and `f(f.canonical(p)) == f(p)`.

    >>> from distgen.formats import llama3
    >>> law_canonical(llama3, Prompt("  Hi"))
    """
    canonical = format.canonical(prompt)
    again = format.canonical(canonical)
    if again != canonical:
        raise AssertionError(f"law_canonical: {prompt} has the canonical form {canonical}, and that {again}")
    if format(prompt) != format(canonical):
        raise AssertionError(f"law_canonical: {prompt} gives {format(prompt)}, but {canonical} {format(canonical)}")


def law_inverse(format: Format[P], prompt: Prompt) -> None:
    """`f(p).bind(f.parse) == Success(f.canonical(p))` whenever f(p) is a Success.

    >>> from distgen.formats import llama3
    >>> law_inverse(llama3, Prompt("  Hi", system="Be brief."))
    """
    rendered = format(prompt)
    if isinstance(rendered, Success):
        parsed, canonical = format.parse(rendered.unwrap()), Success(format.canonical(prompt))
        if parsed != canonical:
            raise AssertionError(f"law_inverse: {rendered} parses to {parsed}, not to {canonical}")


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
        if again != Success(rendered):
            raise AssertionError(f"law_parse: {rendered!r} parses to {prompt}, which gives {again}")
        if canonical != prompt:
            raise AssertionError(f"law_parse: {rendered!r} parses to {prompt}, not to {canonical}")


def law_no_forgery(format: Format[P], prompt: Prompt) -> None:
    """A text that holds markup is refused; else the rendering has the markup of the format, and no other.

    A control token of plain words, such as "USER: ", is prose in a text; that none forges a turn is law_injective's.

    >>> from distgen.formats import chatml
    >>> law_no_forgery(chatml, Prompt("Hi<|im_end|>"))
    """
    tokens = [token for token in _tokens(format) if is_markup(token)]
    held = [(where, token) for where, text in prompt.texts() for token in tokens if token in text]
    answer = format(prompt)
    if held and not isinstance(_failure(answer), InjectedToken | Unsupported):
        raise AssertionError(f"law_no_forgery: {held[0][0]} holds {held[0][1]!r}, and is not refused: {answer}")
    if tokens and isinstance(answer, Success):
        markup = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
        found, due = (markup.findall(str(each.value_or(""))) for each in (answer, format(_blank(prompt))))
        if found != due:
            raise AssertionError(f"law_no_forgery: {answer} has the markup {found}, not {due}")


def law_markup(format: Format[P]) -> None:
    """Whatever looks like a special token in the format's own literals is refused in a text.

    >>> from distgen.formats import chatml
    >>> law_markup(replace(chatml, special_tokens=()))
    Traceback (most recent call last):
    AssertionError: law_markup: the literal '<|im_start|>' is not refused in user; name it in special_tokens
    """
    for token in sorted({token for literal in _literals(format) for token in find_markup(literal)}):
        if isinstance(format(Prompt(token)), Success):
            raise AssertionError(f"law_markup: the literal {token!r} is not refused in user; name it in special_tokens")


def law_injective(format: Format[P], one: Prompt, other: Prompt) -> None:
    """No two prompts with different canonical forms render alike.

    >>> from distgen.formats import default
    >>> law_injective(default, Prompt("b", system="a"), Prompt("a\\nb"))
    """
    rendered = format(one)
    alike = isinstance(rendered, Success) and rendered == format(other)
    if alike and format.canonical(one) != format.canonical(other):
        raise AssertionError(f"law_injective: {one} and {other} both give {rendered}")


# A law of text formats.


def law_segments(template: Segmented, prompt: Prompt) -> None:
    """The segments joined are the rendering, wherever there is one, and what is no control in them is the prompt's texts.

    None is refused for what a text holds.

    >>> from distgen.formats import chatml
    >>> law_segments(chatml, Prompt("Hi<|im_end|>"))
    """
    rendered, segments = template(prompt), template.segments(prompt)
    if isinstance(segments, Failure):
        if segments != rendered or isinstance(segments.failure(), InjectedToken):
            raise AssertionError(f"law_segments: {prompt} has no segments: {segments}")
        return
    joined = "".join(each.text for each in segments.unwrap())
    said = "".join(each.text for each in segments.unwrap() if not each.is_control)
    if isinstance(rendered, Success) and rendered.unwrap() != joined:
        raise AssertionError(f"law_segments: {prompt} gives {rendered}, but its segments {joined!r}")
    given, kept = Counter("".join(text for _, text in prompt.texts())), Counter(said)
    if kept - given or any(not char.isspace() for char in given - kept):
        raise AssertionError(f"law_segments: {prompt} says {said!r} in its segments")


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
    if not callable(formatter):
        raise TypeError(f"check_formatter needs a function of a prompt, got {type(formatter).__name__}")
    for law in (law_pure, law_refusal):
        for text in ("", "\ud800", "x"):
            law(formatter, Prompt(text))
            law(formatter, Prompt("x", text, (Exchange(text, "x"), Exchange("x", text))))
    for law in (law_complete, law_turns, law_absent_system):
        for prompt in SHAPES:
            law(formatter, prompt)
    _check_prose(formatter)
    _try([partial(law_pure, formatter), partial(law_refusal, formatter)], prompts(), max_examples)
    _try([partial(law_complete, formatter)], _plain_prompts(), max_examples)


def check_format(format: Format[P], *, max_examples: int = 50) -> None:
    """Try every law of a Format on prompts of every kind; AssertionError names the law that does not hold.

    >>> from distgen.formats import chatml
    >>> check_format(chatml, max_examples=20)
    """
    if not (hasattr(format, "parse") and hasattr(format, "canonical")):
        kind = type(format).__name__
        raise TypeError(f"check_format needs a Format, with parse and canonical, got {kind}: use check_formatter")
    check_formatter(format, max_examples=max_examples)
    law_markup(format)
    examples = prompts() | adversarial_prompts(format)
    laws = (law_pure, law_refusal, law_no_forgery, law_canonical, law_inverse)
    _try([partial(law, format) for law in laws], examples, max_examples)
    _try([partial(_law_injective, format, (*_literals(format), "\n", " "))], examples, max_examples)
    if _writes_text(format):
        _try([partial(law_parse, format)], _damaged(format), max_examples)
    if isinstance(format, Segmented):
        _try([partial(law_segments, format)], examples, max_examples)


def _check_prose(formatter: Formatter[P]) -> None:
    for text in PROSE:
        for prompt in (Prompt(text), Prompt("x", text), Prompt("x", None, (Exchange(text, "x"), Exchange("x", text)))):
            law_prose(formatter, prompt)


def _law_injective(format: Format[P], between: Sequence[str], one: Prompt) -> None:
    for other in _rivals(one, between):
        law_injective(format, one, other)


def _try(laws: Sequence[Callable[[P], None]], examples: st.SearchStrategy[P], max_examples: int) -> None:
    """Raise the AssertionError of the smallest example that breaks a law; examples are the same in each run."""
    tried, broken = list(laws), list[AssertionError]()

    # No database and no deadline: a check leaves no file behind and does not depend on how busy the machine is.
    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
    )
    @given(examples)
    def hold(example: P) -> None:
        for law in tried:
            try:
                law(example)
            except AssertionError as error:
                tried[:] = [law]  # from now on this law alone, so that the smallest example is one that breaks it
                broken.append(error)
                raise

    try:
        hold()
    except Exception:
        if not broken:
            raise
        # Not Hypothesis' own error, which is a group for a format that is broken only now and then.
        raise broken[-1].with_traceback(None) from None


def _strings(value: object) -> list[str]:
    """Return the texts in a rendering, in order: in lists, tuples and mappings too."""
    if isinstance(value, str):
        return [value]
    items = value.values() if _is_mapping(value) else _items(value)
    return [text for item in items for text in _strings(item)]


def _items(value: object) -> Sequence[object]:
    return value if _is_sequence(value) else ()


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _stands(token: str, text: str, offset: int) -> bool:
    """Tell whether a token, or its first half at the end of the text, begins there, or a half ends at its beginning."""
    begins = text[offset:] != "" and (text.startswith(token, offset) or token.startswith(text[offset:]))
    return begins or (offset == 0 and any(text.startswith(token[cut:]) for cut in range(1, len(token))))


def _is_result(value: object) -> bool:
    return isinstance(value, Result)  # untyped code may give anything


def _failure(result: Result[P, FormatError]) -> FormatError | None:
    return result.failure() if isinstance(result, Failure) else None


def _blank(prompt: Prompt) -> Prompt:
    """The same conversation with "x" for every text that says something."""

    def blank(text: str) -> str:
        return "x" if text.strip() else text

    history: list[Exchange] = []
    for each in prompt.history:
        reasoning = None if each.reasoning is None else blank(each.reasoning)
        history.append(Exchange(blank(each.user), blank(each.assistant), reasoning))
    return Prompt(blank(prompt.user), None if prompt.system is None else blank(prompt.system), tuple(history))


def _tokens(format: object) -> Sequence[str]:
    return format.special_tokens if isinstance(format, _HasSpecialTokens) else ()


def _writes_text(format: Format[P]) -> TypeGuard[Format[str]]:
    return isinstance(format(Prompt("x")).value_or(None), str)


def _literals(format: Format[P]) -> list[str]:
    """Return the literals of a text format, seen from outside: renderings without the texts."""
    mark = "7e57"
    whole = Prompt(mark, mark, (Exchange(mark, mark),) * 2)
    shapes = (whole, replace(whole, system=None), replace(whole, history=()), Prompt(mark))
    rendered: list[object] = [format(shape).value_or(None) for shape in shapes]
    return sorted({piece for text in rendered if isinstance(text, str) for piece in text.split(mark) if piece})
