"""How a prompt is written for a model: `Formatter`, its invertible kind `Format`, and the record `ChatTemplate`.

A format is a pure function of a `Prompt`, with its inverse. Each is byte for byte what the model's own template renders,
with the opening of the answer last, so that a base completion continues it. A text that holds the markup of the format
is refused and never rendered: it would forge a turn. Nothing here tokenizes, downloads a template or runs Jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar, final

from returns.result import Failure, Result, Success

from distgen.errors import ControlToken, Fault, FormatError, NotRendered, NotSupported
from distgen.prompt import Exchange, Prompt

P = TypeVar("P")

Formatter: TypeAlias = Callable[[Prompt], Result[P, FormatError]]
"""What an LLM needs: a pure, total function that writes a prompt as P, what the backend takes."""

Strip: TypeAlias = Callable[[str], str]
"""What a template does to the ends of a text: `str.strip`, `str.lstrip`, or `str`, which changes nothing."""


_MARKUP = "<>[]|"


class Format(Protocol[P]):
    """A Formatter with its inverse: `f(p).bind(f.parse) == Success(f.canonical(p))` whenever f(p) is a Success."""

    @property
    def name(self) -> str:
        """The name that errors carry."""
        ...

    def __call__(self, prompt: Prompt, /) -> Result[P, FormatError]:
        """The prompt as the model is to see it."""
        ...

    def parse(self, rendered: P, /) -> Result[Prompt, FormatError]:
        """The canonical prompt of a rendering; a Failure for what this format cannot have rendered."""
        ...

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """The one prompt that stands for all those which render alike; a prompt that is refused stands for itself."""
        ...


class _Derived(NamedTuple):
    """What follows from a ChatTemplate."""

    opening: str
    system_opening: str
    default_system: str | None
    """The system text that `head` is written with, if it is written with one: giving it is the same as giving none."""
    refused: tuple[str, ...]
    """The markup, longest first: of two tokens at one place the longer is reported."""
    openings: tuple[str, ...]
    """What opens an answer in plain words, such as "\\n\\nAssistant:": refused where it stands in a text just so."""
    guards: str
    """Characters of which every token of `refused` holds one, rare in prose: a text without them is cheap to see."""
    read_back: bool
    """Whether a text without markup may still forge a turn."""
    searched: bool
    """Whether a prompt may be refused for more than the markup in its texts."""


@final
@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A text format as data; every one is a value of this class, and `dataclasses.replace` makes the next.

    A prompt is written as its `bos`, then `head`, or `before_system`, the system text and `after_system`; then each past
    exchange as its user text, `before_answer`, its answer and `after_answer`; then the user text and `tail`.

    >>> from dataclasses import replace
    >>> from distgen.formats import chatml, llama2
    >>> llama2(Prompt("Hi")), replace(llama2, name="llama2-no-bos", bos="")(Prompt("Hi"))
    (<Success: <s>[INST] Hi [/INST]>, <Success: [INST] Hi [/INST]>)
    >>> chatml(Prompt("Hi<|im_end|>"))
    <Failure: ControlToken(format='chatml', token='<|im_end|>', where='user', offset=2)>
    """

    name: str
    head: str
    """What opens the first user text where there is no system text: a literal of its own, which may hold a default one."""
    before_system: str
    after_system: str
    """What stands between the system text and the first user text."""
    before_answer: str
    after_answer: str
    """What stands between an answer and the user text after it."""
    tail: str
    """What follows the last user text and opens the answer; it differs from `before_answer` in many formats."""
    bos: str = ""
    """The text of the beginning-of-sequence token; "" for a server that adds the token itself."""
    stops: tuple[str, ...] = ()
    """The texts that end an answer, for the backend; refused in contents as `control_tokens` are."""
    control_tokens: tuple[str, ...] = ()
    """What delimits turns: markup is refused in any text, plain words ("USER: ") only where they would forge a turn."""
    strip_system: Strip = str
    strip_user: Strip = str
    strip_assistant: Strip = str
    strip_joined: bool = False
    """Whether the system block and the first user text are stripped as one text; `before_system` begins with markup."""
    system_place: Literal["first", "last", "refused", "required"] = "first"
    """Before the first user text, or before the last one; refused where the model has no system role, or drops it."""
    empty_system: Literal["written", "absent"] = "written"
    """Whether an empty system text is written as an empty block, or is as none."""
    takes_history: bool = True
    folds: Literal["nothing", "system", "conversation"] = "nothing"
    """What the rendering does not tell apart from the user text: the canonical prompt holds it there."""
    _derived: _Derived | None = field(default=None, init=False, repr=False, compare=False)

    def _given(self) -> _Derived:
        """What each call would derive anew from the record: kept from the first call on, since an import makes many."""
        derived = self._derived or _derive(self)
        if self._derived is None:
            object.__setattr__(self, "_derived", derived)
        return derived

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """The prompt as text, or the reason why it is refused: for a token, the first in it, in reading order.

        >>> from distgen.formats import zephyr
        >>> zephyr(Prompt("Hi", system="Be brief.")).unwrap()
        '<|system|>\\nBe brief.</s>\\n<|user|>\\nHi</s>\\n<|assistant|>\\n'
        """
        system, user, history = prompt.system, prompt.user, prompt.history
        given = self._derived or self._given()
        if given.searched:
            return self._searched(prompt)
        for guard in given.guards:
            if guard in user or (system is not None and guard in system):
                return self._searched(prompt)
            for exchange in history:
                if guard in exchange.user or guard in exchange.assistant:
                    return self._searched(prompt)
        return Success("".join(self._parts(prompt)))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        """The canonical prompt that renders to exactly this text, or `NotRendered`; total, in linear time.

        >>> from distgen.formats import chatml
        >>> chatml.parse("<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n")
        <Success: Prompt(user='Hi', system=None, history=())>
        >>> chatml.parse("<|im_start|>user\\nHi")
        <Failure: NotRendered(format='chatml', reason="it does not end with '<|im_end|>\\\\n<|im_start|>assistant\\\\n'", index=None)>
        """
        read = self._read(rendered)
        if isinstance(read, Prompt):
            read = self._verified(rendered, read)
        return Failure(NotRendered(self.name, read)) if isinstance(read, str) else Success(read)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """The prompt with what the format strips taken off, and what it folds folded; a refused prompt as it is.

        >>> from distgen.formats import default, llama3
        >>> llama3.canonical(Prompt("  Hi\\n")), default.canonical(Prompt("Hi", system="Be brief."))
        (Prompt(user='Hi', system=None, history=()), Prompt(user='Be brief.\\nHi', system=None, history=()))
        """
        return prompt if self._refusal(prompt) is not None else self._normal(prompt)

    def _parts(self, prompt: Prompt) -> list[str]:
        """The rendering, cut up: literals at even places and the texts of the prompt, stripped, at odd ones."""
        strip, system = self.strip_user, self._system(prompt)
        before = system is not None and self.system_place != "last"
        given = self._given()
        parts = [given.system_opening, system or "", self.after_system] if before else [given.opening]
        for exchange in prompt.history:
            answer = self.strip_assistant(exchange.assistant)
            parts += (strip(exchange.user), self.before_answer, answer, self.after_answer)
        if system is not None and not before:
            parts += (system, self.after_system)
        parts += (strip(prompt.user), self.tail)
        if self.strip_joined and before:
            first = prompt.history[0].user if prompt.history else prompt.user
            joined, cut = self._joined(first), len(self.after_system)
            parts[2:4] = joined[:cut], joined[cut:]
        return parts

    def _system(self, prompt: Prompt) -> str | None:
        if prompt.system is None:
            return None
        system = self.strip_system(prompt.system)
        return None if system == "" and self.empty_system == "absent" else system

    def _joined(self, user: str) -> str:
        """The end of the system block and the first user text, stripped as one; the block begins with markup."""
        return self.strip_user("|" + self.after_system + user)[1:]

    def _searched(self, prompt: Prompt) -> Result[str, FormatError]:
        """The same answer as a call gives, for a prompt that may be refused."""
        refusal = self._refusal(prompt)
        return Failure(refusal) if refusal is not None else Success(self._text(prompt))

    def _text(self, prompt: Prompt) -> str:
        return "".join(self._parts(prompt))

    def _refusal(self, prompt: Prompt) -> ControlToken | NotSupported | None:
        system = self._system(prompt)
        if system is not None and self.system_place == "refused":
            return NotSupported(self.name, "system")
        if system is None and self.system_place == "required":
            return NotSupported(self.name, "no system")
        if prompt.history and not self.takes_history:
            return NotSupported(self.name, "history")
        return self._forgery(prompt)

    def _forgery(self, prompt: Prompt) -> ControlToken | None:
        given = self._given()
        held = self._held(prompt, given.refused) or self._held(prompt, given.openings)
        if held is None and given.read_back and self._forged(prompt):
            # No token stands in one text whole: a plain word is at fault, or half of a token at the end of a text.
            held = self._held(prompt, self.control_tokens) or self._half_held(prompt)
        return held

    def _held(self, prompt: Prompt, tokens: tuple[str, ...]) -> ControlToken | None:
        for where, text in _texts(prompt):
            found = [(offset, token) for token in tokens if (offset := text.find(token)) >= 0]
            if found:
                offset, token = min(found, key=lambda each: each[0])
                return ControlToken(self.name, token, where, offset)
        return None

    def _half_held(self, prompt: Prompt) -> ControlToken:
        """The token whose first half ends a text, or whose last half begins one; it begins at `offset`, or before 0."""
        tokens = (*self._given().refused, *self.control_tokens, self.before_answer, self.after_answer)
        halves = [(token, cut) for token in tokens for cut in range(len(token) - 1, 0, -1)]
        for where, text in _texts(prompt):
            for token, cut in halves:
                if text.endswith(token[:cut]):
                    return ControlToken(self.name, token, where, len(text) - cut)
                if text.startswith(token[cut:]):
                    return ControlToken(self.name, token, where, 0)
        return ControlToken(self.name, self.tail, "user", 0)

    def _forged(self, prompt: Prompt) -> bool:
        """Whether the rendering would read back as another conversation, or holds a token across the end of a text."""
        parts = self._parts(prompt)
        across = any(
            token in left[-len(token) + 1 :] + right[: len(token) - 1]
            for token in self._given().refused
            for left, right in pairwise(parts)
        )
        return across or self._read("".join(parts)) != self._normal(prompt)

    def _normal(self, prompt: Prompt) -> Prompt:
        if self.folds == "conversation":
            return Prompt(self._text(prompt).removeprefix(self._given().opening).removesuffix(self.tail))
        strip, strip_answer = self.strip_user, self.strip_assistant
        system = self._system(prompt)
        users = [*(strip(each.user) for each in prompt.history), strip(prompt.user)]
        if system is not None and self.strip_joined:
            users[0] = self._joined(prompt.history[0].user if prompt.history else prompt.user)[len(self.after_system) :]
        if system is not None and self.folds == "system":
            place = -1 if self.system_place == "last" else 0
            system, users[place] = self._unfolded(system + self.after_system + users[place])
        if system == self._given().default_system:
            system = None
        answers = (strip_answer(each.assistant) for each in prompt.history)
        return Prompt(users[-1], system, tuple(map(Exchange, users, answers)))

    def _unfolded(self, text: str) -> tuple[str | None, str]:
        """The system and user text that stand for a folded text: all of it as user text, where no strip changes that."""
        strip, mark = self.strip_user, self.after_system
        if strip(text) == text:
            return None, text
        if strip(text[-1:]) == "":  # which no user text ends with, so that it is empty
            return (text.removesuffix(mark), "") if text.endswith(mark) else (None, text)
        end = text.find(mark)
        while end >= 0 and strip(text[end + len(mark) : end + len(mark) + 1]) == "":
            end = text.find(mark, end + 1)
        return (text[:end], text[end + len(mark) :]) if end >= 0 else (None, text)

    def _read(self, rendered: str) -> Prompt | str:
        """The only prompt that can have rendered to this text, if any has; else why none has."""
        system: str | None = None
        opening, other = self._given().opening, self._given().system_opening
        blocks = self.folds == "nothing" and self.system_place in ("first", "required")
        # Where both openings fit, the longer one is meant: it is the other and a default text, or a tag.
        longer = opening if len(opening) > len(other) and self.system_place != "required" else other
        if blocks and rendered.startswith(other) and not (longer == opening and rendered.startswith(opening)):
            # A joined strip may have cut the end of `after_system`, so its cut form is looked for.
            end = self._joined("") if self.strip_joined else self.after_system
            system, found, body = _cut(rendered[len(other) :], end)
            if not found:
                return f"no {end!r} follows its system text"
            body = body.removeprefix(self.after_system[len(end) :])
        elif rendered.startswith(opening) and self.system_place != "required":
            body = rendered[len(opening) :]
        else:
            return f"it does not begin with {opening!r}"
        if not body.endswith(self.tail):
            return f"it does not end with {self.tail!r}"
        read = self._conversation(system, body.removesuffix(self.tail))
        return self._with_fold(read) if self.folds == "system" and isinstance(read, Prompt) else read

    def _with_fold(self, prompt: Prompt) -> Prompt:
        if self.system_place == "last" or not prompt.history:
            system, user = self._unfolded(prompt.user)
            return replace(prompt, system=system, user=user)
        system, user = self._unfolded(prompt.history[0].user)
        return replace(prompt, system=system, history=(replace(prompt.history[0], user=user), *prompt.history[1:]))

    def _conversation(self, system: str | None, body: str) -> Prompt | str:
        splits = self.folds != "conversation" and self.after_answer != ""
        *past, user = body.split(self.after_answer) if splits else [body]
        history: list[Exchange] = []
        for turn in past:
            asked, found, answer = _cut(turn, self.before_answer)
            if not found:
                return f"its exchange {len(history)} has no {self.before_answer!r}"
            history.append(Exchange(asked, answer))
        return Prompt(user, system, tuple(history))

    def _verified(self, rendered: str, prompt: Prompt) -> Prompt | str:
        refusal = self._forgery(prompt)
        if refusal is not None:
            return f"its {refusal.where} would hold {refusal.token!r} at character {refusal.offset}"
        again = self._text(prompt)
        if again != rendered:
            return f"rendered again, it differs at character {_first_difference(again, rendered)}"
        return prompt


def total(fn: Callable[[Prompt], P]) -> Formatter[P]:
    """Lifts a plain function of a prompt to a Formatter: what fn raises becomes a `Fault`.

    >>> shout = total(lambda prompt: prompt.user.upper() + "!")
    >>> shout(Prompt("hi"))
    <Success: HI!>
    >>> total(lambda prompt: prompt.history[0].user)(Prompt("hi"))
    <Failure: Fault(kind='IndexError', message='tuple index out of range', part='format')>
    """
    return partial(_total, fn)


def _total(fn: Callable[[Prompt], P], prompt: Prompt) -> Result[P, FormatError]:
    try:
        return Success(fn(prompt))
    except Exception as error:
        return Failure(Fault.of(error, "format"))


def _texts(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Where each text of the prompt stands, and the text, in reading order."""
    if prompt.system is not None:
        yield "system", prompt.system
    for index, exchange in enumerate(prompt.history):
        yield f"history[{index}].user", exchange.user
        yield f"history[{index}].assistant", exchange.assistant
    yield "user", prompt.user


def strip_spaces_after(text: str) -> str:
    """The text without spaces at its end.

    >>> strip_spaces_after(" a  ")
    ' a'
    """
    return text.rstrip(" ")


def strip_newlines_before(text: str) -> str:
    """The text without line feeds at its start.

    >>> strip_newlines_before("\\n\\n a\\n")
    ' a\\n'
    """
    return text.lstrip("\n")


def _is_markup(token: str) -> bool:
    """Whether a tokenizer maps a token to an id of its own; plain words, such as "USER: ", are prose to it."""
    return any(char in _MARKUP for char in token)


def _between(before: str, text: str, after: str) -> str | None:
    """The system text that `text` is written for when there is none, if it is one: it then stands between the two."""
    if text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text):
        return text[len(before) : len(text) - len(after)]
    return None


def _straddles(token: str, literal: str) -> bool:
    """Whether a token may begin in a text and end in the literal after it, or the other way round."""
    return any(literal.startswith(token[cut:]) or literal.endswith(token[:cut]) for cut in range(1, len(token)))


def _derive(template: ChatTemplate) -> _Derived:
    markup = {token for token in (*template.control_tokens, *template.stops) if _is_markup(token)}
    read_back = _may_be_forged(template, markup)
    words = () if template.folds == "conversation" else (template.before_answer, template.tail)
    openings = {each for each in words if each.strip() and not _holds(each, markup)}
    return _Derived(
        template.bos + template.head,
        template.bos + template.before_system,
        _between(template.before_system, template.head, template.after_system),
        _longest_first(markup),
        _longest_first(openings),
        "".join({next(char for char in token if char in _MARKUP) for token in markup}),
        read_back,
        read_back
        or openings != set()
        or not template.takes_history
        or template.system_place in ("refused", "required"),
    )


def _longest_first(tokens: set[str]) -> tuple[str, ...]:
    return tuple(sorted(tokens, key=lambda token: (-len(token), token)))


def _holds(literal: str, markup: set[str]) -> bool:
    return any(token in literal for token in markup)


def _may_be_forged(template: ChatTemplate, markup: set[str]) -> bool:
    """Whether plain words delimit a turn, or half of a token may stand in a text and half in the literal beside it."""
    if template.folds == "conversation":
        return False
    between = [template.before_answer, template.after_answer] if template.takes_history else []
    between += [template.after_system] if template.system_place != "refused" and template.folds == "nothing" else []
    around = (*between, template.bos + template.head, template.bos + template.before_system, template.tail)
    words = not all(_holds(each, markup) for each in between)
    return words or any(_straddles(token, each) for token in markup for each in around)


def _cut(text: str, mark: str) -> tuple[str, str, str]:
    """`str.partition`, in which an empty mark, too, is one that is not found."""
    return text.partition(mark) if mark else (text, "", "")


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
