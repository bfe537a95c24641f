"""The record behind chat formats, `ChatTemplate`: a text format as data, with all that follows from it.

Each is byte for byte what the model's own template renders, with the opening of the answer last, so that a base
completion continues it. A text that holds the markup of the format is refused and never rendered: it would forge a turn.
Nothing here tokenizes, downloads a template or runs Jinja.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, final

from returns.primitives.container import BaseContainer
from returns.result import Failure, Result, Success

from distgen.errors import InjectedToken, FormatError, NotParsed, Unsupported
from distgen.formats.formatter import Formatter
from distgen.formats.marks import (
    after_prefix,
    between,
    cut,
    first_difference,
    guards,
    holds,
    is_markup,
    longest_first,
    portions,
)
from distgen.prompt import Exchange, Prompt, Rendered, Segment

Strip: TypeAlias = Callable[[str], str]
"""What a template does to the ends of a text: `str.strip`, `str.lstrip`, or `str`, which changes nothing."""

_THINKING = ("<think>", "</think>")

_new: Callable[[type[Success[str]]], Success[str]] = object.__new__
_fill: Callable[[Success[str], str], None] = vars(BaseContainer)["_inner_value"].__set__


class Example(NamedTuple):
    """A text to train on, and where in it the answer stands: `text[start:end]` is all that the model has to write."""

    text: str
    start: int
    """Characters before the answer: as many as the prompt takes when the model is asked."""
    end: int
    """Characters up to the end of the answer's stop, which the text ends with."""

    @property
    def span(self) -> tuple[int, int]:
        """(start, end), in characters."""
        return self.start, self.end


_Plan: TypeAlias = tuple[str | None, str | None, str, str, Strip | None, Strip | None]
"""What the short way of a call reads: what comes before the first user text where there is no system text, and before
the system text (None where that is refused), two guards (the empty text, which every text holds, where the short way does
not do), and the strips of user and system texts."""


class _Derived(NamedTuple):
    """What refusing and reading need that follows from a ChatTemplate."""

    opening: str
    system_opening: str
    default_system: str | None
    """The system text that `head` is written with, if it is written with one: giving it is the same as giving none."""
    refused: tuple[str, ...]
    """The markup, longest first: of two tokens at one place the longer is reported."""
    openings: tuple[str, ...]
    """What opens an answer or a system text in plain words, "\\n\\nAssistant:": refused where it stands in a text just so."""
    words: tuple[str, ...]
    """What else a forged turn may be made of, or a half of it: the control tokens that are plain words."""
    delimiters: tuple[str, ...]
    """And what stands between the turns."""
    junctions: tuple[tuple[re.Pattern[str], str], ...]
    """Where an empty text was, between the literals that it left, and what it took of them."""
    guards: tuple[str, ...]
    """Characters, few and rare in prose, of which every text holds one that may be refused."""
    read_back: bool
    """Whether a text without markup may still forge a turn."""


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
    <Failure: InjectedToken(format='chatml', token='<|im_end|>', where='user', offset=2)>
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
    models: tuple[str, ...] = ()
    """The models and families whose own format this is, by their makers' names for them; a `*` stands for a size, such as
    7B, 8x22B, 128k or 30B-A3B. `lookup` finds a format by them."""
    strip_system: Strip = str
    strip_user: Strip = str
    strip_assistant: Strip = str
    strip_joined: bool = False
    """Whether the system block and the first user text are stripped as one text; `before_system` begins with markup."""
    system_place: Literal["first", "last", "refused", "required"] = "first"
    """Before the first user text, or before the last one; refused where the model has no system role, or drops it."""
    system_commands: tuple[str, ...] = ()
    """What the template obeys in a system text and takes out of it: refused there."""
    empty_system: tuple[str, str] | Literal["absent"] = ("", "")
    """What an empty text, its ends stripped, takes with it of the literal before it and of the one after it; an absent
    system text is as none."""
    empty_user: tuple[str, str] = ("", "")
    empty_assistant: tuple[str, str] = ("", "")
    takes_history: bool = True
    no_thinking: str = ""
    """What opens a last answer in which nothing was thought, and no past one: in an `example`."""
    folds: Literal["nothing", "empty turns", "system", "conversation"] = "nothing"
    """What the rendering does not show: that there was an empty turn; where the system text ends, or any turn, which are
    user text in the canonical prompt."""
    _plan: _Plan | None = field(default=None, init=False, repr=False, compare=False)
    _derived: _Derived | None = field(default=None, init=False, repr=False, compare=False)

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """The prompt as text, or the reason why it is refused: for a token, the first in it, in reading order.

        >>> from distgen.formats import zephyr
        >>> zephyr(Prompt("Hi", system="Be brief.")).unwrap()
        '<|system|>\\nBe brief.</s>\\n<|user|>\\nHi</s>\\n<|assistant|>\\n'
        """
        # The short way for most prompts; where it does not lead on, `_checked` answers, and would for all.
        opening, system_opening, guard, guard_2, clean, clean_system = self._plan or self._planned()
        system, user = prompt.system, prompt.user
        if prompt.history or user == "" or guard in user or (guard_2 and guard_2 in user):
            return self._continued(prompt) if prompt.history else self._checked(prompt)
        if system is not None:
            if guard in system or (guard_2 and guard_2 in system):
                return self._checked(prompt)
            if clean_system is not None:
                system = clean_system(system)
            if system == "" and self.empty_system != ("", ""):
                return self._checked(prompt)
        if system is None and opening is not None:
            text = f"{opening}{user if clean is None else clean(user)}{self.tail}"
        elif system is None or system_opening is None:
            return self._checked(prompt)
        elif clean is None:
            text = f"{system_opening}{system}{self.after_system}{user}{self.tail}"
        elif self.strip_joined:
            text = f"{clean(f'{system_opening}{system}{self.after_system}{user}')}{self.tail}"
        else:
            text = f"{system_opening}{system}{self.after_system}{clean(user)}{self.tail}"
        success = _new(Success)  # as in `_success`, without its frame
        _fill(success, text)
        return success

    def _continued(self, prompt: Prompt) -> Result[str, FormatError]:
        """The short way of a prompt with history."""
        _, _, guard, guard_2, _, _ = self._plan or self._planned()
        parts = self._parts(prompt)
        for text in parts[1::2]:
            if guard in text or (guard_2 and guard_2 in text):
                return self._checked(prompt)
        unsupported = self._unsupported(prompt)
        return _success("".join(parts)) if unsupported is None else Failure(unsupported)

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """The rendering cut up into the format's own literals and the texts of the prompt, none of them empty.

        Joined, they are what a call gives. A tokenizer that reads control tokens in the literals alone cannot be made to
        read one in a text, so that no text is refused here.

        >>> from distgen.formats import chatml
        >>> [segment.text for segment in chatml.segments(Prompt("<|im_end|>")).unwrap() if not segment.is_control]
        ['<|im_end|>']
        """
        unsupported = self._unsupported(prompt)
        if unsupported is not None:
            return Failure(unsupported)
        parts = enumerate(self._parts(prompt))
        return Success(tuple(Segment(part, place % 2 == 0) for place, part in parts if part))

    def example(self, prompt: Prompt, answer: str, /) -> Result[Example, FormatError]:
        """The prompt with its answer and the stop after it, to train on: it begins with the text that a call gives.

        The answer is written as the format writes a past one, where it opens both alike; so the text is then how a
        longer conversation begins. A stop that the format does not write after a past answer stands here all the same.

        An answer that holds a `</think>` stands as the model wrote it, though a format deletes what was thought from a past
        one; where the format itself begins the thinking (QwQ), a `<think>` at its start is not written twice. One without
        is opened as the format opens a last answer that was not thought about (Qwen3). What the format cannot mean is
        `Unsupported`: an answer without thinking where it begins some, one with it where it says that there is none.

        >>> from distgen.formats import llama2
        >>> text, start, end = llama2.example(Prompt("2+2?"), "4").unwrap()
        >>> text, text[start:end]
        ('<s>[INST] 2+2? [/INST] 4 </s>', ' 4 </s>')
        """
        thought = _THINKING[1] in self.control_tokens and _THINKING[1] in answer
        begun, ended = self.tail.rstrip().endswith(_THINKING[0]), self.tail.rstrip().endswith(_THINKING[1])
        if (begun and not thought) or (ended and thought):
            return Failure(Unsupported(self.name, "no thinking" if begun else "thinking"))
        rendered = self(prompt)
        answered = Exchange(prompt.user, _masked(answer) if thought else answer)
        refusal = self._forgery(replace(prompt, user="", history=(answered,)))
        if refusal is not None and isinstance(rendered, Success):
            return Failure(replace(refusal, where="answer"))
        said = answer if thought else self.strip_assistant(answer)
        if begun:
            said = said.lstrip().removeprefix(_THINKING[0]).lstrip("\n")
        before = "" if thought else self.no_thinking or after_prefix(self.before_answer, self.tail)
        written = f"{before if said else before.removesuffix(self.empty_assistant[0])}{said}{_stop(self)}"
        return rendered.map(lambda text: Example(text + written, len(text), len(text) + len(written)))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        """The canonical prompt that renders to exactly this text, or `NotParsed`; total, in linear time.

        >>> from distgen.formats import chatml
        >>> chatml.parse("<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n")
        <Success: Prompt(user='Hi', system=None, history=())>
        >>> chatml.parse("<|im_start|>user\\nHi")
        <Failure: NotParsed(format='chatml', reason="it does not end with '<|im_end|>\\\\n<|im_start|>assistant\\\\n'", index=None)>
        """
        read = self._read(rendered)
        if isinstance(read, Prompt):
            read = self._verified(rendered, read)
        return Failure(NotParsed(self.name, read)) if isinstance(read, str) else Success(read)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """The prompt with what the format strips taken off, and what it folds folded; a refused prompt as it is.

        >>> from distgen.formats import default, llama3
        >>> llama3.canonical(Prompt("  Hi\\n")), default.canonical(Prompt("Hi", system="Be brief."))
        (Prompt(user='Hi', system=None, history=()), Prompt(user='Be brief.\\nHi', system=None, history=()))
        """
        return prompt if self._refusal(prompt) is not None else self._normal(prompt)

    def _planned(self) -> _Plan:
        """Made at the first call and kept, since an import makes many templates and calls few."""
        given = self._given()
        plan = _plan(self, given, given.read_back and self._is_misread())
        object.__setattr__(self, "_plan", plan)
        return plan

    def _is_misread(self) -> bool:
        """Whether turns may be read otherwise than they were written even where no text holds anything."""
        texts = ("", "x")
        turns = (Exchange(user, assistant) for user in texts for assistant in texts)
        asked = (Prompt(user, system, (turn,)) for turn in turns for user in texts for system in (None, *texts))
        return any(isinstance(self._refusal(prompt), InjectedToken) for prompt in asked)

    def _given(self) -> _Derived:
        """Kept from the first time on, as the plan is."""
        derived = self._derived
        if derived is None:
            derived = _derive(self)
            object.__setattr__(self, "_derived", derived)
        return derived

    def _parts(self, prompt: Prompt) -> list[str]:
        """The rendering, cut up: literals at even places and the texts of the prompt, stripped, at odd ones."""
        strip, system, given = self.strip_user, self._system(prompt), self._given()
        before = system is not None and self.system_place != "last"
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
        return self._shrunk(parts, prompt) if given.junctions else parts

    def _places(self, prompt: Prompt) -> list[str]:
        """Where the texts of a rendering come from, in its order."""
        turns = [f"history[{n}].{role}" for n in range(len(prompt.history)) for role in ("user", "assistant")]
        system = [] if self._system(prompt) is None else ["system"]
        return [*turns, *system, "user"] if self.system_place == "last" else [*system, *turns, "user"]

    def _shrunk(self, parts: list[str], prompt: Prompt) -> list[str]:
        """The parts without what empty texts take with them."""
        takes = {"user": self.empty_user, "assistant": self.empty_assistant}
        takes |= {"system": self.empty_system} if isinstance(self.empty_system, tuple) else {}
        for place, where in zip(range(1, len(parts), 2), self._places(prompt), strict=True):
            if parts[place] == "":
                before, after = takes[where.rpartition(".")[2]]
                parts[place - 1] = parts[place - 1].removesuffix(before)
                parts[place + 1] = parts[place + 1].removeprefix(after)
        return parts

    def _restored(self, rendered: str) -> str:
        """The rendering as if empty texts took nothing with them: at each junction of what they leave, that is put back."""
        for junction, taken in self._given().junctions:
            rendered = junction.sub(taken.replace("\\", r"\\"), rendered)
        return rendered

    def _system(self, prompt: Prompt) -> str | None:
        if prompt.system is None:
            return None
        system = self.strip_system(prompt.system)
        return None if system == "" and self.empty_system == "absent" else system

    def _joined(self, user: str) -> str:
        """The end of the system block and the first user text, stripped as one; the block begins with markup."""
        return self.strip_user("|" + self.after_system + user)[1:]

    def _checked(self, prompt: Prompt) -> Result[str, FormatError]:
        refusal = self._refusal(prompt)
        return Failure(refusal) if refusal is not None else Success(self._text(prompt))

    def _text(self, prompt: Prompt) -> str:
        return "".join(self._parts(prompt))

    def _refusal(self, prompt: Prompt) -> InjectedToken | Unsupported | None:
        return self._unsupported(prompt) or self._forgery(prompt)

    def _unsupported(self, prompt: Prompt) -> Unsupported | None:
        system = self._system(prompt)
        if system is not None and self.system_place == "refused":
            return Unsupported(self.name, "system")
        if system is None and self.system_place == "required":
            return Unsupported(self.name, "no system")
        if prompt.history and not self.takes_history:
            return Unsupported(self.name, "history")
        return None

    def _forgery(self, prompt: Prompt) -> InjectedToken | None:
        given = self._given()
        held = self._held(prompt, given.refused) or self._held(prompt, given.openings) or self._command(prompt)
        if held is None and given.read_back:
            held = self._across(prompt, given.refused)
            if held is None and self._read(self._text(prompt)) != self._normal(prompt):
                # Plain words are at fault, or a delimiter, or a half of one at the end of a text.
                words, literals = given.words, given.delimiters
                held = (
                    self._held(prompt, words) or self._held(prompt, literals) or self._across(prompt, words + literals)
                )
                held = held or InjectedToken(self.name, self.tail, "user", 0)
        return held

    def _held(self, prompt: Prompt, tokens: tuple[str, ...]) -> InjectedToken | None:
        for where, text in prompt.texts():
            found = [(offset, token) for token in tokens if (offset := text.find(token)) >= 0]
            if found:
                offset, token = min(found, key=lambda each: each[0])
                return InjectedToken(self.name, token, where, offset)
        return None

    def _command(self, prompt: Prompt) -> InjectedToken | None:
        held = self._held(prompt, self.system_commands)
        return held if held is not None and held.where == "system" else None

    def _across(self, prompt: Prompt, tokens: tuple[str, ...]) -> InjectedToken | None:
        """A token that stands across an end of a text: it begins there at `offset`, or before the text, which is 0."""
        parts = self._parts(prompt)
        for where, before, text, after in zip(self._places(prompt), parts[::2], parts[1::2], parts[2::2], strict=False):
            for token in tokens:
                ahead = before[max(0, len(before) - len(token) + 1) :]
                found = f"{ahead}{text}{after[: len(token) - 1]}".find(token)
                if found >= 0:
                    return InjectedToken(self.name, token, where, max(0, found - len(ahead)))
        return None

    def _normal(self, prompt: Prompt) -> Prompt:
        if self.folds == "conversation":
            return Prompt(self._text(prompt).removeprefix(self._given().opening).removesuffix(self.tail))
        if self.folds == "empty turns":
            return self._turns(self._text(prompt))
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
        if self.folds == "empty turns":
            return self._turns(rendered)
        rendered, system = self._restored(rendered), None
        opening, other = self._given().opening, self._given().system_opening
        blocks = self.folds == "nothing" and self.system_place in ("first", "required")
        # Where both openings fit, the longer one is meant: it is the other and a default text, or a tag.
        longer = opening if len(opening) > len(other) and self.system_place != "required" else other
        if blocks and rendered.startswith(other) and not (longer == opening and rendered.startswith(opening)):
            # A joined strip may have cut the end of `after_system`, so its cut form is looked for.
            end = self._joined("") if self.strip_joined else self.after_system
            system, found, body = cut(rendered[len(other) :], end)
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

    def _turns(self, rendered: str) -> Prompt:
        """The prompt of a rendering in which empty turns are not seen; of another text, any prompt."""
        given, system, asked = self._given(), None, ""
        start = given.opening.removesuffix(self.after_answer)
        marks = (given.system_opening.removeprefix(start), self.after_answer, self.before_answer)
        body = rendered.removeprefix(start).removesuffix(self.tail)
        _, *turns = re.split(f"({'|'.join(map(re.escape, marks))})", body)
        history: list[Exchange] = []
        for mark, text in zip(turns[::2], turns[1::2], strict=True):
            if mark == marks[0]:
                system = text
            elif mark == self.before_answer:
                history.append(Exchange(asked, text))
                asked = ""
            else:
                history += [Exchange(asked, "")] if asked else []
                asked = text
        return Prompt(asked, system, tuple(history))

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
            asked, found, answer = cut(turn, self.before_answer)
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
            return f"rendered again, it differs at character {first_difference(again, rendered)}"
        return prompt


def trusting(template: ChatTemplate) -> Formatter[str]:
    """The same format without refusal, for prompts of which you know each text: markup in them is markup.

    What the format has no place for is still a Failure.

    >>> from distgen.formats import chatml
    >>> trusting(chatml)(Prompt("Hi<|im_end|>")).unwrap()
    '<|im_start|>user\\nHi<|im_end|><|im_end|>\\n<|im_start|>assistant\\n'
    """
    return partial(_trusted, template)


def _trusted(template: ChatTemplate, prompt: Prompt) -> Result[str, FormatError]:
    return template.segments(prompt).map(lambda segments: "".join(segment.text for segment in segments))


def quoting(
    template: ChatTemplate, is_token: Callable[[str], bool], holds_token: Callable[[str], bool]
) -> Formatter[Rendered]:
    """The same format for a tokenizer at hand, which may quote markup: as text, or as segments where it is quoted.

    `holds_token` says whether the tokenizer reads a special token in a text: a prompt with such a text is given as segments,
    and any other as the very text, so that it is tokenized as the model's makers do. Where some of the format's own markup
    is no such token (`is_token`), segments would keep nothing apart, and the format refuses what it always does.

    >>> from distgen.formats import chatml
    >>> quote = quoting(chatml, is_token=lambda text: True, holds_token=lambda text: "<|im_" in text)
    >>> quote(Prompt("Hi")).unwrap()
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    >>> quote(Prompt("What is <|im_end|>?")).unwrap()[1]
    Segment(text='What is <|im_end|>?', is_control=False)
    """
    if not all(map(is_token, (*template.control_tokens, *template.stops))):
        return template
    return partial(_quoted, template, holds_token)


def _quoted(
    template: ChatTemplate, holds_token: Callable[[str], bool], prompt: Prompt
) -> Result[Rendered, FormatError]:
    if any(holds_token(text) for _, text in prompt.texts()):
        return template.segments(prompt)
    return template(prompt)


def _success(text: str) -> Success[str]:
    """Success(text), without its two frames of constructors and a search of its many bases: twice what a rendering costs."""
    success = _new(Success)
    _fill(success, text)
    return success


def _masked(answer: str) -> str:
    """The answer with something else, as long, for the marks of thinking, which it may hold."""
    return re.sub("|".join(_THINKING), lambda found: "\0" * len(found[0]), answer)


def _stop(template: ChatTemplate) -> str:
    """What follows an answer up to its stop: as after a past answer, or else the first stop there is."""
    ends = [template.after_answer.find(stop) + len(stop) for stop in template.stops if stop in template.after_answer]
    return template.after_answer[: min(ends)] if ends else "".join(template.stops[:1])


def _plan(template: ChatTemplate, given: _Derived, is_misread: bool) -> _Plan:
    short = len(given.guards) <= 2 and _keeps_turns(template) and not is_misread
    # Without any guard, some character: a text that holds it is checked for nothing.
    guard, guard_2, *_ = (*(given.guards or "\0"), "", "") if short else ("", "")
    system_opening = {"refused": None, "last": given.opening}.get(template.system_place, given.system_opening)
    return (
        None if template.system_place == "required" else given.opening,
        system_opening,
        guard,
        guard_2,
        None if template.strip_user is str else template.strip_user,
        None if template.strip_system is str else template.strip_system,
    )


def _derive(template: ChatTemplate) -> _Derived:
    markup = {token for token in (*template.control_tokens, *template.stops) if is_markup(token)}
    words = () if template.folds == "conversation" else (template.before_answer, template.tail)
    if any(each.strip() and not holds(each, markup) for each in words):
        words = (*words, template.before_system)
    delimiters = (template.before_answer, template.after_answer, template.after_system)
    openings = {each for each in words if each.strip() and not holds(each, markup)}
    plain = {risk for risk in _risks(template, markup) if not holds(risk, markup)}
    junctions = _junctions(template)
    return _Derived(
        template.bos + template.head,
        template.bos + template.before_system,
        between(template.before_system, template.head, template.after_system),
        longest_first(markup),
        longest_first(openings),
        tuple(word for word in template.control_tokens if word),
        tuple(each for each in (*delimiters, *(before + after for before, _, after in junctions)) if each),
        tuple((re.compile(f"(?<={re.escape(a)})(?={re.escape(b)})"), taken) for a, taken, b in junctions),
        guards(markup | plain | openings | {*template.system_commands}),
        plain != set(),
    )


def _junctions(template: ChatTemplate) -> list[tuple[str, str, str]]:
    """What is left before an empty text, what it took, and what is left after it."""
    (user, after_user), (assistant, after_assistant) = template.empty_user, template.empty_assistant
    system, after_system = template.empty_system if isinstance(template.empty_system, tuple) else ("", "")
    to_answer = template.before_answer.removeprefix(after_user).removesuffix(assistant)
    next_user = template.after_answer.removeprefix(after_assistant).removesuffix(user)
    to_user = {template.head.removesuffix(user), next_user}
    to_user |= {template.after_system.removesuffix(user)} if template.folds == "nothing" else set()
    around = (
        (template.before_system.removesuffix(system), system + after_system, template.after_system.removesuffix(user)),
        *((before, user + after_user, to_answer) for before in to_user),
        *((before, user + after_user, template.tail.removeprefix(after_user)) for before in to_user),
        (to_answer, assistant + after_assistant, next_user),
    )
    return [each for each in around if each[1]]


def _risks(template: ChatTemplate, markup: set[str]) -> set[str]:
    """The least that a text holds in which markup stands, or which makes a turn with what stands beside it."""
    if template.folds == "conversation":
        return markup
    opening, system_opening = template.bos + template.head, template.bos + template.before_system
    befores = (opening, system_opening, template.after_system, template.before_answer, template.after_answer)
    afters = (template.after_system, template.before_answer, template.after_answer, template.tail)
    turns = {template.before_answer, template.after_answer} if template.takes_history else set[str]()
    blocks = template.system_place != "refused" and template.folds == "nothing"
    ends = set(afters[:1]) if blocks else set[str]()  # of a system text, which are looked for nowhere else
    missing = {mark for mark in turns | ends if mark == ""}
    return missing | portions(ends, (system_opening,), afters[:1]) | portions(markup | turns, befores, afters)


def _keeps_turns(template: ChatTemplate) -> bool:
    """Whether a text is empty only where it was given so: the short way looks no further."""
    return template.folds != "empty turns" and (template.empty_user == ("", "") or template.strip_user is str)
