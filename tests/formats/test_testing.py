"""Each law, seen to fail: a format with one fault seeded is caught, by the law that the fault breaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from operator import attrgetter
from typing import Final, TypeAlias

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, NotParsed, Unsupported
from distgen.formats import (
    ChatTemplate,
    Format,
    Formatter,
    TextFormat,
    chatml,
    default,
    formatter_of,
    llama3,
    openai,
)
from distgen.formats.injection import find_parts
from distgen.formats.template import find_straddling
from distgen.prompt import Exchange, Messages, Prompt
from distgen.testing import (
    PROSE,
    SHAPES,
    WHITE_SPACE,
    adversarial_prompts,
    check_format,
    check_formatter,
    law_canonical,
    law_complete,
    law_exact,
    law_injective,
    law_inverse,
    law_no_forgery,
    law_parse,
    law_prose,
    law_pure,
    law_refusal,
    law_turns,
    prompts,
)
from tests.support.formats import OPEN_ENDS, OPEN_STARTS, OWN, TEXTS, WORDS

Answer: TypeAlias = Result[str, FormatError]
Parsed: TypeAlias = Result[Prompt, FormatError]
Kind: TypeAlias = Callable[[Prompt], bool]


def same(prompt: Prompt) -> Prompt:
    return prompt


def swapped(prompt: Prompt) -> Prompt:
    return replace(prompt, history=tuple(Exchange(each.assistant, each.user) for each in prompt.history))


@dataclass(frozen=True)
class Seeded:
    """A format made of another, in which any function can be replaced by a faulty one."""

    of: TextFormat = chatml
    before: Callable[[Prompt], Prompt] = same
    after: Callable[[str], str] = str
    write: Callable[[Prompt], Answer] | None = None
    read: Callable[[str], Parsed] | None = None
    normal: Callable[[Prompt], Prompt] | None = None
    special_tokens: tuple[str, ...] = chatml.special_tokens

    @property
    def name(self) -> str:
        return "seeded"

    def __call__(self, prompt: Prompt, /) -> Answer:
        return self.of(self.before(prompt)).map(self.after) if self.write is None else self.write(prompt)

    def parse(self, rendered: str, /) -> Parsed:
        return self.of.parse(rendered) if self.read is None else self.read(rendered)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        return self.of.canonical(prompt) if self.normal is None else self.normal(prompt)


def user(change: Callable[[str], str]) -> Callable[[Prompt], Prompt]:
    return lambda prompt: replace(prompt, user=change(prompt.user))


def parsed(change: Callable[[Prompt], Prompt]) -> Callable[[str], Parsed]:
    return lambda rendered: chatml.parse(rendered).map(change)


def always(error: FormatError) -> Callable[[Prompt], Answer]:
    return lambda _: Failure(error)


def shifted(prompt: Prompt) -> Answer:
    return chatml(prompt).alt(lambda error: replace(error, offset=1) if isinstance(error, InjectedToken) else error)


def misplaced(prompt: Prompt) -> Answer:
    return chatml(prompt).alt(lambda error: replace(error, where="tail") if isinstance(error, InjectedToken) else error)


def reassembled(text: str) -> str:
    return text.replace("-", "")


def raising(_: Prompt) -> Answer:
    raise ValueError("no")


def first_of_history(prompt: Prompt) -> str:
    return prompt.history[0].user


def lenient(rendered: str) -> Parsed:
    answer = chatml.parse(rendered)
    return answer if isinstance(answer, Success) else chatml.parse(rendered + chatml.generation_prompt)


def mending(rendered: str) -> Parsed:
    return chatml.parse(re.sub(r"^\|im_start", "<|im_start", rendered))


def joining(rendered: str) -> Parsed:
    return chatml.parse(rendered.replace("<|im_start|>us\ner", "<|im_start|>user"))


def without_empty_system(prompt: Prompt) -> Prompt:
    return replace(prompt, system=prompt.system or None)


def remembering(of: Callable[[Prompt], Answer] = default) -> Seeded:
    """Text in which nothing can be found again, and a parse that knows the answer from before."""
    said: dict[str, Prompt] = {}

    def write(prompt: Prompt) -> Answer:
        answer = of(prompt)
        said[answer.value_or("")] = prompt
        return answer

    def read(rendered: str) -> Parsed:
        return Success(said[rendered]) if rendered in said else Failure(NotParsed("seeded", "new"))

    return Seeded(write=write, read=read, normal=same, special_tokens=())


def measured(prompt: Prompt) -> Answer:
    """All texts, each after its length, but an empty system text as if there were none."""
    return Success("\n".join(f"{where} {len(text)} {text}" for where, text in without_empty_system(prompt).texts()))


def parse_raising(rendered: str) -> Parsed:
    return Success(Prompt(rendered.split("assistant")[1]))


def counting(numbers: Iterator[int]) -> Callable[[Prompt], Answer]:
    return lambda prompt: chatml(prompt).map(lambda text: f"{next(numbers)}{text}")


no_history = Seeded(before=lambda prompt: replace(prompt, history=()))
last_exchange_only = Seeded(before=lambda prompt: replace(prompt, history=prompt.history[-1:]))
turned_history = Seeded(before=lambda prompt: replace(prompt, history=prompt.history[::-1]))
no_system = Seeded(before=lambda prompt: replace(prompt, system=None))
always_a_system = Seeded(before=lambda prompt: replace(prompt, system=prompt.system or "You are a bot."))
strips_too_much = Seeded(before=user(str.strip))
bare_lines = ChatTemplate("bare", "", "", "\n", "\n", "\n", "")
unguarded = replace(chatml, special_tokens=(), stop=())


def refuse_philosophy(prompt: Prompt) -> Answer:
    at = prompt.user.find("sop")
    return chatml(prompt) if at < 0 else Failure(InjectedToken("chatml", "sop", "user", at))


words = Seeded(write=refuse_philosophy)

# A text that is not where it was, or not at all, is missed by parse, or its token by a refusal.
MOVED: Final = "law_inverse law_refusal law_no_forgery law_complete law_turns law_injective"
# The fault, and the law it breaks; some where some are broken and any may be found first.
FAULTS: Final[tuple[tuple[str, Format[str], str], ...]] = (
    ("it raises", Seeded(write=raising), "law_pure"),
    ("it counts its calls", Seeded(write=counting(count())), "law_pure"),
    ("it drops the history", no_history, MOVED),
    ("it swaps the roles", Seeded(before=swapped), MOVED),
    ("it keeps one exchange", last_exchange_only, MOVED),
    ("it drops the system text", no_system, MOVED),
    ("it cuts at 60 characters", Seeded(after=lambda text: text[:60]), "law_inverse law_no_forgery law_complete"),
    ("it turns the history round", turned_history, MOVED),
    ("it adds a system text", always_a_system, "law_inverse"),
    ("it strips too much", strips_too_much, MOVED),
    ("it has a newline too few", Seeded(after=str.rstrip), "law_inverse"),
    ("parse drops a newline", Seeded(read=parsed(user(lambda text: text.removesuffix("\n")))), "law_inverse"),
    ("parse drops the history", Seeded(read=parsed(lambda prompt: replace(prompt, history=()))), "law_inverse"),
    ("parse knows nothing", Seeded(read=lambda _: Failure(NotParsed("seeded", "no"))), "law_inverse"),
    ("parse takes what is cut short", Seeded(read=lenient), "law_parse"),
    ("parse takes what lacks a character", Seeded(read=mending), "law_parse"),
    ("parse takes a line feed too many", Seeded(read=joining), "law_parse"),
    ("canonical strips too much", Seeded(normal=user(str.strip)), "law_canonical law_inverse"),
    ("canonical is not one form", Seeded(normal=user(lambda text: text + " ")), "law_canonical"),
    ("canonical forgets a fold", Seeded(of=default, normal=same, special_tokens=()), "law_inverse"),
    ("parse remembers", remembering(), "law_injective"),
    (
        "parse remembers an empty system text",
        remembering(measured),
        "law_injective",
    ),
    ("it refuses no token", Seeded(of=unguarded), "law_no_forgery law_markup"),
    ("it says a wrong offset", Seeded(write=shifted), "law_refusal"),
    ("it says a wrong place", Seeded(write=misplaced), "law_refusal"),
    (
        "it refuses as if there were a system text",
        Seeded(write=always(Unsupported("seeded", "system"))),
        "law_refusal",
    ),
    ("it refuses as if there were history", Seeded(write=always(Unsupported("seeded", "history"))), "law_refusal"),
    ("it refuses for another's reason", Seeded(write=always(NotParsed("seeded", "no"))), "law_refusal"),
    ("it refuses for an empty token", Seeded(write=always(InjectedToken("seeded", "", "user", 0))), "law_refusal"),
    ("it refuses philosophy", words, "law_prose"),
)


@pytest.mark.parametrize(("fault", "laws"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_check_format_names_the_law_that_a_fault_breaks(fault: Format[str], laws: str) -> None:
    with pytest.raises(AssertionError) as broken:
        check_format(fault, max_examples=80)
    assert str(broken.value).partition(":")[0] in laws.split()


@pytest.mark.parametrize(
    ("fault", "example"),
    [
        (Seeded(write=raising), "Prompt(user='foxtrot', system=None, history=())"),
        (Seeded(after=str.rstrip), "Prompt(user='foxtrot', system=None, history=())"),
        (always_a_system, "system='You are a bot.'"),
        (Seeded(of=unguarded), "the literal '<|im_"),  # in which text, is for Hypothesis to choose
    ],
    ids=["it raises", "a newline too few", "always a system text", "no token refused"],
)
def test_what_check_format_finds_is_small(fault: Format[str], example: str) -> None:
    with pytest.raises(AssertionError) as broken:
        check_format(fault, max_examples=80)
    assert example in str(broken.value)
    assert len(str(broken.value)) < 500


def no_markup(prompt: Prompt) -> Answer:
    return raising(prompt) if "<|" in prompt.user else plain_lines(prompt)


def test_what_a_random_prompt_finds_is_its_smallest_example() -> None:
    with pytest.raises(AssertionError) as broken:
        check_formatter(no_markup)
    assert str(broken.value) == f"law_pure: ValueError('no') is raised on {Prompt('<|')}"


@pytest.mark.parametrize(
    "sound",
    [
        Seeded(),
        Seeded(of=llama3, special_tokens=llama3.special_tokens),
        Seeded(before=without_empty_system, normal=without_empty_system),
    ],
    ids=["as it is", "stripped", "an empty system text is none"],
)
def test_check_format_finds_nothing_where_nothing_is_seeded(sound: Seeded) -> None:
    check_format(sound, max_examples=30)


def test_a_format_that_declares_no_token_still_refuses_a_forged_turn() -> None:
    forged = f"a{unguarded.before_assistant}b{unguarded.after_assistant}c"
    assert isinstance(unguarded(Prompt(forged)), Failure)


# Faults that a user's own formatter has.


def lines(prompt: Prompt) -> Iterator[str]:
    yield from () if prompt.system is None else [f"System: {prompt.system}"]
    for exchange in prompt.history:
        yield f"User: {exchange.user}\nAssistant: {exchange.assistant}"
    yield f"User: {prompt.user}\nAssistant:"


def plain_lines(prompt: Prompt) -> Answer:
    return Success("\n".join(lines(prompt)))


def roles_swapped(prompt: Prompt) -> Answer:
    past = "".join(f"Assistant: {each.user}\nUser: {each.assistant}\n" for each in prompt.history)
    system = "" if prompt.system is None else f"System: {prompt.system}\n"
    return Success(f"{system}{past}User: {prompt.user}\nAssistant:")


def messages_swapped(prompt: Prompt) -> Result[Messages, FormatError]:
    *past, last = openai(prompt).unwrap()
    for message in past:
        if message["role"] != "system":
            message["role"] = "assistant" if message["role"] == "user" else "user"
    return Success([*past, last])


def encoded(prompt: Prompt) -> Answer:
    return plain_lines(prompt).map(lambda text: text.encode().decode())


# The fault, the formatter that has it, and the law that finds it.
OWN_FAULTS: Final[tuple[tuple[str, Formatter[object], str], ...]] = (
    ("history reversed", lambda p: plain_lines(replace(p, history=p.history[::-1])), "law_turns"),
    ("texts of history swapped", lambda p: plain_lines(swapped(p)), "law_turns"),
    ("roles of history swapped", roles_swapped, "law_turns"),
    ("roles of messages swapped", messages_swapped, "law_turns"),
    ("None written", lambda p: plain_lines(replace(p, system=str(p.system))), "law_absent_system"),
    ("system twice", lambda p: plain_lines(p).map(lambda text: f"{p.system or ''}\n{text}"), "law_turns"),
    ("messages without history", lambda p: openai(replace(p, history=())), "law_complete"),
    ("messages without system", lambda p: openai(replace(p, system=None)), "law_complete"),
    ("a tuple without history", lambda p: Success((p.system or "", p.user)), "law_complete"),
    ("a tuple of the user text", lambda p: Success((p.user,)), "law_complete"),
    ("a dict without history", lambda p: Success({"system": p.system, "user": p.user}), "law_complete"),
    ("a control character dropped", lambda p: plain_lines(replace(p, user=p.user.replace("\x00", ""))), "law_complete"),
    ("history cut at two", lambda p: plain_lines(replace(p, history=p.history[-2:])), "law_complete"),
    ("raises on a lone surrogate", encoded, "law_pure"),
    ("a Raised for a lone surrogate", formatter_of(lambda p: encoded(p).unwrap()), "law_refusal"),
)


@pytest.mark.parametrize(("fault", "law"), [each[1:] for each in OWN_FAULTS], ids=[each[0] for each in OWN_FAULTS])
def test_check_formatter_finds(fault: Formatter[object], law: str) -> None:
    messages: list[str] = []
    for _ in range(2):
        with pytest.raises(AssertionError, match=rf"^{law}: ") as broken:
            check_formatter(fault)
        messages.append(str(broken.value))
    assert messages[0] == messages[1]
    assert len(messages[0]) < 400


def test_check_formatter_finds_a_long_history_cut() -> None:
    with pytest.raises(AssertionError, match=r"^law_complete: history\[0\]\.user 'bravo00' is not in "):
        check_formatter(lambda p: plain_lines(replace(p, history=p.history[-40:])), max_examples=1)


def test_check_formatter_finds_a_formatter_that_raises_on_past_reasoning() -> None:
    with pytest.raises(AssertionError, match=r"^law_pure: .*reasoning='"):
        check_formatter(lambda p: Success(openai(p).unwrap()), max_examples=1)


def test_past_reasoning_that_is_left_out_is_not_refused() -> None:
    law_no_forgery(TEXTS["qwen3"], Prompt("Hi", None, (Exchange("a", "b", "<|im_end|>"),)))


def token_ids(prompt: Prompt) -> Result[list[int], FormatError]:
    return Success([len(text) for _, text in prompt.texts()])


def test_check_formatter_finds_nothing_in_sound_formatters() -> None:
    check_formatter(plain_lines)
    check_formatter(openai)
    check_formatter(token_ids)  # nothing can be looked for in it


@pytest.mark.parametrize("bare", [replace(chatml, special_tokens=()), replace(llama3, special_tokens=(), stop=())])
def test_check_format_finds_a_template_without_special_tokens(bare: ChatTemplate) -> None:
    with pytest.raises(AssertionError, match=r"^law_markup: the literal '<\|.*' is not refused"):
        check_format(bare)


# Templates that overlook what a text forms with the literal beside it: found without a generated example.

Parts: TypeAlias = Callable[[Iterable[str], Sequence[str], Sequence[str]], frozenset[str]]


def overlook_befores(tokens: Iterable[str], _: Sequence[str], afters: Sequence[str]) -> frozenset[str]:
    return find_parts(tokens, (), afters)


def overlook_afters(tokens: Iterable[str], befores: Sequence[str], _: Sequence[str]) -> frozenset[str]:
    return find_parts(tokens, befores, ())


@pytest.mark.parametrize("own", OWN)
def test_check_format_finds_nothing_in_templates_of_a_users_own(own: ChatTemplate) -> None:
    check_format(own, max_examples=5)


@pytest.mark.parametrize(
    ("own", "overlooks"),
    [
        *((own, overlook_befores) for _, own in OPEN_STARTS),
        *((own, overlook_afters) for _, own in OPEN_ENDS),
        (WORDS, overlook_afters),
    ],
)
def test_check_format_finds_what_a_text_forms_with_a_literal(
    monkeypatch: pytest.MonkeyPatch, own: ChatTemplate, overlooks: Parts
) -> None:
    monkeypatch.setattr("distgen.formats.template.find_parts", overlooks)
    with pytest.raises(AssertionError, match=r"^law_(no_forgery|inverse): ") as broken:
        check_format(replace(own), max_examples=1)
    assert len(str(broken.value)) < 500


@pytest.mark.parametrize(("role", "own"), [*OPEN_STARTS, *OPEN_ENDS])
def test_check_format_finds_a_role_whose_texts_are_overlooked(
    monkeypatch: pytest.MonkeyPatch, role: str, own: ChatTemplate
) -> None:
    def overlooks(template: ChatTemplate, roles: Sequence[str], tokens: Sequence[str]) -> frozenset[str]:
        return find_straddling(template, [each for each in roles if each != role], tokens)

    monkeypatch.setattr("distgen.formats.template.find_straddling", overlooks)
    with pytest.raises(AssertionError, match=r"^law_(no_forgery|inverse): "):
        check_format(replace(own), max_examples=1)


@pytest.mark.parametrize("roles", [("system",), ("user", "reasoning", "assistant")])
def test_check_format_finds_hazards_of_plain_words_that_are_missing(
    monkeypatch: pytest.MonkeyPatch, roles: Sequence[str]
) -> None:
    def overlooks(template: ChatTemplate, asked: Sequence[str], tokens: Sequence[str]) -> frozenset[str]:
        return frozenset() if asked == roles else find_straddling(template, asked, tokens)

    monkeypatch.setattr("distgen.formats.template.find_straddling", overlooks)
    with pytest.raises(AssertionError, match=r"^law_inverse: "):
        check_format(replace(WORDS), max_examples=1)


def test_a_format_that_fails_otherwise_is_not_hidden() -> None:
    @dataclass(frozen=True)
    class Careless(Seeded):
        def canonical(self, prompt: Prompt, /) -> Prompt:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        check_format(Careless(), max_examples=5)


class Readable:
    """A formatter that parses and has no canonical form."""

    def __call__(self, prompt: Prompt, /) -> Answer:
        return plain_lines(prompt)

    def parse(self, rendered: str, /) -> Parsed:
        return chatml.parse(rendered)


def test_a_function_in_place_of_a_format_is_a_type_error() -> None:
    for wrong in (plain_lines, Readable(), "chatml", ChatTemplate):
        with pytest.raises(TypeError, match="check_format needs a Format, with parse and canonical, got "):
            check_format(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for other in ("chatml", None, ChatTemplate):
        said = re.escape(f"check_formatter needs a function of a Prompt, or a format of FORMATS, got {other!r}")
        with pytest.raises(TypeError, match=said):
            check_formatter(other)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_format_that_fails_now_and_then_is_one_assertion_error() -> None:
    calls = count()

    def flaky(prompt: Prompt) -> Answer:
        text = plain_lines(prompt)
        return text.map(lambda each: f"{each}{next(calls)}") if len(prompt.user) > 3 and next(calls) % 3 else text

    with pytest.raises(AssertionError, match=r"^law_"):
        check_formatter(flaky)


def test_a_format_that_fails_once_is_an_assertion_error() -> None:
    faulty = iter([Success("")])

    def once(prompt: Prompt) -> Answer:
        return next(faulty, plain_lines(prompt)) if "<|" in prompt.user else plain_lines(prompt)

    with pytest.raises(AssertionError, match=r"^law_"):
        check_formatter(once)


def test_check_format_takes_formats_that_are_no_text() -> None:
    @dataclass(frozen=True)
    class Silent:
        name: str = "silent"

        def __call__(self, prompt: Prompt, /) -> Result[Messages, FormatError]:
            return openai(replace(prompt, system=None))

        def parse(self, rendered: Messages, /) -> Parsed:
            return openai.parse(rendered)

        def canonical(self, prompt: Prompt, /) -> Prompt:
            return prompt

    with pytest.raises(AssertionError, match=r"^law_complete: system "):
        check_format(Silent())


@pytest.mark.parametrize(
    ("formatter", "law"),
    [
        (raising, "law_pure"),
        (attrgetter("user"), "law_pure"),
        (no_history, "law_complete"),
        (shifted, "law_refusal"),
        (words, "law_prose"),
        (formatter_of(first_of_history), "law_(refusal|complete)"),
    ],
)
def test_check_formatter_names_the_law_too(formatter: Callable[[Prompt], Answer], law: str) -> None:
    with pytest.raises(AssertionError, match=rf"^{law}: "):
        check_formatter(formatter, max_examples=50)


# What each law says, on one prompt.


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: law_pure(raising, Prompt("a")),
            "law_pure: ValueError('no') is raised on Prompt(user='a', system=None, history=())",
        ),
        (
            lambda: law_pure(lambda prompt: next(answers), Prompt("a")),
            "law_pure: Prompt(user='a', system=None, history=()) gives <Success: 1>, then <Success: 2>",
        ),
        (
            lambda: law_pure(attrgetter("user"), Prompt("a")),
            "law_pure: Prompt(user='a', system=None, history=()) gives 'a', which is no Result",
        ),
        (
            lambda: law_complete(lambda prompt: Success("ab"), Prompt("b", None, (Exchange("a", "c"),))),
            "law_complete: history[0].assistant 'c' is not in 'ab'",
        ),
        (
            lambda: law_refusal(always(Unsupported("f", "history")), Prompt("a")),
            "law_refusal: Unsupported(format='f', what='history') does not hold of Prompt(user='a', system=None, history=())",
        ),
        (
            lambda: law_refusal(always(Unsupported("f", "no system")), Prompt("a", "b")),
            "law_refusal: Unsupported(format='f', what='no system') does not hold of Prompt(user='a', system='b', history=())",
        ),
        (
            lambda: law_refusal(always(NotParsed("f", "no")), Prompt("a")),
            "law_refusal: NotParsed(format='f', reason='no', index=None) does not hold of Prompt(user='a', system=None, history=())",
        ),
        (
            lambda: law_prose(words, Prompt("a sophist")),
            "law_prose: InjectedToken(format='chatml', token='sop', where='user', offset=2)"
            " in Prompt(user='a sophist', system=None, history=())",
        ),
        (
            lambda: law_canonical(Seeded(normal=user(lambda text: text + "a")), Prompt("a")),
            "law_canonical: Prompt(user='a', system=None, history=()) has the canonical form"
            " Prompt(user='aa', system=None, history=()), and that Prompt(user='aaa', system=None, history=())",
        ),
        (
            lambda: law_canonical(Seeded(of=default, normal=lambda prompt: Prompt("b")), Prompt("a")),
            "law_canonical: Prompt(user='a', system=None, history=()) gives <Success: a>,"
            " but Prompt(user='b', system=None, history=()) <Success: b>",
        ),
        (
            lambda: law_inverse(Seeded(of=default, read=lambda text: Success(Prompt("b"))), Prompt("a")),
            "law_inverse: <Success: a> parses to <Success: Prompt(user='b', system=None, history=())>,"
            " not to <Success: Prompt(user='a', system=None, history=())>",
        ),
        (
            lambda: law_parse(Seeded(read=parse_raising), "a"),
            "law_parse: IndexError('list index out of range') is raised on 'a'",
        ),
        (
            lambda: law_parse(Seeded(of=default, read=lambda text: Success(Prompt("b"))), "a"),
            "law_parse: 'a' parses to Prompt(user='b', system=None, history=()), which gives <Success: b>",
        ),
        (
            lambda: law_parse(Seeded(of=default, read=lambda text: Success(Prompt("b", "a"))), "a\nb"),
            "law_parse: 'a\\nb' parses to Prompt(user='b', system='a', history=()),"
            " not to Prompt(user='a\\nb', system=None, history=())",
        ),
        (
            lambda: law_no_forgery(Seeded(of=default), Prompt("a", "<|im_end|>")),
            "law_no_forgery: system holds '<|im_end|>', and is not refused: <Success: <|im_end|>\na>",
        ),
        (
            lambda: law_no_forgery(Seeded(of=replace(bare_lines, strip_user=reassembled)), Prompt("<|im-_end|>")),
            "law_no_forgery: <Success: <|im_end|>> has the markup ['<|im_end|>'], not []",
        ),
        (
            lambda: law_injective(Seeded(of=default, normal=same), Prompt("b", "a"), Prompt("a\nb")),
            "law_injective: Prompt(user='b', system='a', history=()) and Prompt(user='a\\nb', system=None, history=())"
            " both give <Success: a\nb>",
        ),
        (
            lambda: law_exact(replace(bare_lines, generation_prompt="."), bare_lines, Prompt("a")),
            "law_exact: Prompt(user='a', system=None, history=()) gives <Success: a.>, but the template <Success: a>",
        ),
    ],
)
def test_a_broken_law_says_what_and_where(broken: Callable[[], None], message: str) -> None:
    with pytest.raises(AssertionError) as raised:
        broken()
    assert str(raised.value) == message


answers: Final[Iterator[Answer]] = (Success(str(number)) for number in count(1))


def prose_refused_in_a_system_text(prompt: Prompt) -> Answer:
    refused = prompt.system is not None and "philosophy" in prompt.system
    at = prompt.system.find("philosophy") if prompt.system is not None else 0
    return Failure(InjectedToken("f", "philosophy", "system", at)) if refused else chatml(prompt)


def test_prose_is_tried_in_a_system_text_too() -> None:
    with pytest.raises(AssertionError, match=r"^law_prose: "):
        check_formatter(prose_refused_in_a_system_text, max_examples=5)


@pytest.mark.parametrize(
    ("refusal", "prompt"),
    [
        (Unsupported("f", "no system"), Prompt("x", "s")),
        (InjectedToken("f", "", "user", 0), Prompt("x")),
        (InjectedToken("f", "ab", "user", 1), Prompt("bx")),
    ],
)
def test_a_refusal_that_is_not_so_breaks_a_law(refusal: FormatError, prompt: Prompt) -> None:
    with pytest.raises(AssertionError, match=r"^law_refusal: "):
        law_refusal(always(refusal), prompt)


def test_laws_of_other_shapes_of_refusal() -> None:
    law_complete(llama3, Prompt(" hi "))
    law_no_forgery(Seeded(write=always(Unsupported("f", "system"))), Prompt("<|im_end|>", "s"))
    law_refusal(always(Unsupported("f", "system")), Prompt("a", ""))
    law_refusal(always(Unsupported("f", "no system")), Prompt("a"))
    law_refusal(always(InjectedToken("f", "<s>", "user", 0)), Prompt("s>a"))
    law_refusal(always(Unsupported("f", "history")), Prompt("a", None, (Exchange("", ""),)))
    law_injective(chatml, Prompt("a"), Prompt("b"))
    law_exact(chatml, chatml, Prompt("a"))
    law_exact(chatml, always(Unsupported("f", "system")), Prompt("a", "s"))
    law_exact(always(Unsupported("f", "system")), chatml, Prompt("a", "s"))
    law_injective(chatml, Prompt("<|im_end|>"), Prompt("<|im_end|>"))
    law_complete(openai, Prompt("a"))


# What the strategies reach.


ANY: Final[tuple[Kind, ...]] = (
    lambda prompt: prompt.system == "",
    lambda prompt: len(prompt.history) == 3,
    lambda prompt: any("\ud800" <= char <= "\udfff" for char in prompt.user),
    lambda prompt: prompt.user != prompt.user.strip() and prompt.user.strip() != "",
    lambda prompt: any(char in WHITE_SPACE[4:] for char in prompt.user),
    lambda prompt: prompt.user in PROSE,
    lambda prompt: any(token in prompt.user for token in llama3.special_tokens),
)
HEADS: Final = tuple("<|im_end|>"[:cut] for cut in range(2, 10))
ENDS: Final = tuple("<|im_end|>"[cut:] for cut in range(1, 9))
ADVERSARIAL: Final[tuple[Kind, ...]] = (
    lambda prompt: "<|im_end|>" in prompt.user,
    lambda prompt: prompt.user.count("<|im_end|>") + prompt.user.count("<|im_start|>") >= 3,
    lambda prompt: prompt.user.endswith(HEADS),
    lambda prompt: prompt.user.startswith("|im_end|>"),
    lambda prompt: prompt.user.startswith(ENDS) and prompt.system is not None,
    lambda prompt: prompt.user.endswith("\n") and "im_" in prompt.user,
    lambda prompt: "<|im_start|>user\n" in prompt.user,
    lambda prompt: isinstance(chatml(prompt), Success) and "<|" in prompt.user and prompt.history != (),
)
UNSHRUNK: Final = settings(max_examples=20_000, database=None, phases=(Phase.generate,))


@pytest.mark.parametrize("kind", ANY)
def test_prompts_are_of_every_kind(kind: Kind) -> None:
    find(prompts(), kind, settings=settings(UNSHRUNK, max_examples=10_000))


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_adversarial_prompts_are_of_the_formats_own_markup(kind: Kind) -> None:
    find(adversarial_prompts(chatml), kind, settings=UNSHRUNK)


def test_texts_are_those_asked_for() -> None:
    @settings(max_examples=30, database=None, deadline=None)
    @given(prompts(st.just("one"), max_exchanges=1))
    def holds(prompt: Prompt) -> None:
        assert {prompt.user, prompt.system} <= {"one", None}
        assert len(prompt.history) in (0, 1)

    holds()


def test_the_shapes_are_short_and_one_is_long() -> None:
    assert [len(prompt.history) for prompt in SHAPES] == [0, 1, 2, 3, 0, 1, 2, 3, 50]
    assert [prompt.system is None for prompt in SHAPES] == [True] * 4 + [False] * 5


def say(text: str) -> Callable[[Prompt], Answer]:
    return lambda _: Success(text)


def test_all_characters_of_a_text_count() -> None:
    for rendered in ("bc", "ab"):
        with pytest.raises(AssertionError, match=r"^law_complete: user 'abc' is not in "):
            law_complete(say(rendered), Prompt("abc"))


TWO: Final = Prompt("e", None, (Exchange("a", "b"), Exchange("c", "d")))


@pytest.mark.parametrize(
    ("rendered", "is_sound"),
    [
        ("a;b\nc;d\ne", True),
        ("a\nb\nc;d\ne", True),  # its first turn is told otherwise
        ("a;b\nc;d;e", False),
    ],
)
def test_roles_are_told_from_two_exchanges(rendered: str, is_sound: bool) -> None:
    with (
        nullcontext() if is_sound else pytest.raises(AssertionError, match=r"^law_turns: past texts have the literals")
    ):
        law_turns(say(rendered), TWO)


def test_a_refusal_for_reasoning_needs_reasoning() -> None:
    refuse = always(Unsupported("f", "thinking"))
    law_refusal(refuse, Prompt("a", None, (Exchange("b", "c"), Exchange("d", "e", "because"))))
    with pytest.raises(AssertionError, match=r"^law_refusal: "):
        law_refusal(refuse, TWO)
