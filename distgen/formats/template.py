"""`ChatTemplate`: the record of data behind nearly every text format, and the pure functions that render and read it.

A rendering is byte for byte the one of the model's own template, with the generation prompt last. A text that holds
the format's special tokens is refused, since it would forge a turn. Nothing here tokenizes or runs Jinja.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, NotParsed, Unsupported
from distgen.formats.formatter import split_completion
from distgen.formats.injection import choose_guards, find_parts, find_token, is_markup
from distgen.formats.training import Train, TrainingText, end_of_answer, mark_parts
from distgen.prompt import Exchange, Prompt, Segment

Strip: TypeAlias = Callable[[str], str]
"""A function that strips the ends of a text: `str.strip`, `str.lstrip` ...; `str` strips nothing."""

SystemPosition: TypeAlias = Literal["first", "first_user", "last_user", "refused", "required"]


def strip_trailing_spaces(text: str) -> str:
    """Return the text without spaces at its end; other white space stays."""
    return text.rstrip(" ")


def strip_leading_newlines(text: str) -> str:
    """Return the text without line feeds at its start; other white space stays."""
    return text.lstrip("\n")


def strip_newlines(text: str) -> str:
    """Return the text without line feeds at its ends; other white space stays."""
    return text.strip("\n")


@final
@dataclass(frozen=True, slots=True)
class Thinking:
    """The literals around an answer and its reasoning."""

    before: str
    """The literal between a user text and the reasoning of its answer."""
    after: str
    """The literal between the reasoning and the answer."""
    strip: Strip = str
    """Strips the reasoning; a blank one is none."""
    strip_answer: Strip = str
    """Strips an answer that follows its reasoning, after `strip_assistant`."""


@final
@dataclass(frozen=True)  # without slots, for cached_property
class ChatTemplate:
    r"""A text format as data; `dataclasses.replace` makes a variant.

    A prompt is rendered as `bos`, then `user_prefix` (or, if it has a system text, `before_system`, that text and
    `after_system`); then each past exchange as user text, `before_assistant`, answer, `after_assistant`; then the user text
    and `generation_prompt`.

    >>> from dataclasses import replace
    >>> from distgen.formats import chatml, llama2
    >>> llama2(Prompt("Hi")), replace(llama2, name="llama2-no-bos", bos="")(Prompt("Hi"))
    (<Success: <s>[INST] Hi [/INST]>, <Success: [INST] Hi [/INST]>)
    >>> chatml(Prompt("Hi<|im_end|>"))
    <Failure: InjectedToken(format='chatml', token='<|im_end|>', where='user', offset=2)>
    """

    name: str
    user_prefix: str
    """The literal before the first user text of a prompt without a system text; it may hold a default system text."""
    before_system: str
    after_system: str
    """The literal between the system text and the first user text."""
    before_assistant: str
    """The literal between a user text and its answer. It begins with what ends the user turn, such as `<|im_end|>`. With an
    empty `after_assistant` too, history is unsupported."""
    after_assistant: str
    """The literal between an answer and the next user text."""
    generation_prompt: str
    """The literal after the last user text: the end of its turn, then what opens the answer. In many formats it differs from
    `before_assistant`."""
    bos: str = ""
    """The beginning-of-sequence token; "" for a server that adds it itself."""
    stop: tuple[str, ...] = ()
    """The strings that end an answer, for the backend; refused in texts as `special_tokens` are."""
    special_tokens: tuple[str, ...] = ()
    """The strings that delimit turns. Markup is refused in any text, plain words ("USER: ") only if they forge a turn."""
    models: tuple[str, ...] = ()
    """The Hub names of the models that use this format, without the maker ("Qwen2.5-*-Instruct"), for `lookup`. A `*` stands
    for one size (7B, 8x22B, 30B-A3B). Case does not matter, and packaging such as -GGUF is recognised."""
    strip_system: Strip = str
    """The function that strips each text as the template does: `str.strip`, `str.rstrip` ...; `str` leaves it."""
    strip_user: Strip = str
    strip_assistant: Strip = str
    strip_joined: bool = False
    """Strip `after_system` and the first user text as one text (Llama 2)."""
    system_position: SystemPosition = "first"
    """A turn of its own comes first. In the "first_user" or "last_user" turn it is user text in the canonical prompt.
    "refused" if the model has no system role or drops it; "required" if it needs one."""
    drops_empty_system: bool = False
    """An empty system text is rendered as none."""
    empty_system: tuple[str, str] = ("", "")
    """The parts of the literals before and after it that an empty system text drops."""
    empty_user: tuple[str, str] = ("", "")
    empty_assistant: tuple[str, str] = ("", "")
    thinking: Thinking | None = None
    """The literals around reasoning; None if they are not known, or the model does not think."""
    past_reasoning: Literal["written", "dropped", "refused"] = "refused"
    """The reasoning of past answers is written, or dropped as the model's template drops it, or refused."""
    before_answer: str | None = None
    """The literal before an answer to train on that has no reasoning, if it is not `before_assistant`."""

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        r"""Render the prompt, or return why it is refused: the first special token, or an unsupported feature.

        >>> from distgen.formats import zephyr
        >>> zephyr(Prompt("Hi", system="Be brief.")).unwrap()
        '<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n'
        """
        prompt = keep_reasoning(self, prompt)
        parts = render_parts(self, prompt)
        if isinstance(parts, Unsupported):
            return Failure(parts)
        injected = find_injection(self, prompt, parts)
        return Success("".join(parts)) if injected is None else Failure(injected)

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the rendering as literals and texts; joined, they are the rendering. No special token is refused.

        Encode only the control segments with special tokens, and no text can forge one.

        >>> from distgen.formats import chatml
        >>> [segment.text for segment in chatml.segments(Prompt("<|im_end|>")).unwrap() if not segment.is_control]
        ['<|im_end|>']
        """
        parts = render_parts(self, keep_reasoning(self, prompt))
        if isinstance(parts, Unsupported):
            return Failure(parts)
        return Success(tuple(Segment(part, index % 2 == 0) for index, part in enumerate(parts) if part))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        r"""Return the canonical prompt that renders to exactly this text, or `NotParsed`. It takes linear time.

        >>> from distgen.formats import chatml
        >>> chatml.parse("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        <Success: Prompt(user='Hi', system=None, history=())>
        >>> chatml.parse("<|im_start|>user\nHi").failure().reason
        "it does not end with '<|im_end|>\\n<|im_start|>assistant\\n'"
        """
        found = read(self, rendered)
        if isinstance(found, str):
            return Failure(NotParsed(self.name, found))
        again = self(found)
        if again == Success(rendered):
            return Success(found)
        refusal = again.failure() if isinstance(again, Failure) else None
        if isinstance(refusal, InjectedToken):
            reason = f"its {refusal.where} would hold {refusal.token!r} at character {refusal.offset}"
        else:
            index = _first_difference(again.value_or(""), rendered)
            reason = f"rendered again, it differs at character {index}"
        return Failure(NotParsed(self.name, reason))

    def canonical(self, prompt: Prompt, /) -> Prompt:
        r"""Return the prompt as `parse` reads it: stripped, a default or folded system text folded. A refused one stays.

        >>> from distgen.formats import llama3
        >>> llama3.canonical(Prompt("  Hi\n"))
        Prompt(user='Hi', system=None, history=())
        """
        kept = keep_reasoning(self, prompt)
        parts = render_parts(self, kept)
        if isinstance(parts, Unsupported) or find_injection(self, kept, parts):
            return prompt
        return normalize(self, kept, parts)

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        r"""Return the finished conversation as the model's template renders it, with what to train; or why there is none.

        It begins with the rendering of the prompt, and ends with the stop that the model writes; an answer that was cut
        (`finish_reason="length"`) gets none. `train` is the last answer or all of them.

        >>> from distgen.formats import chatml
        >>> written = chatml.training_text(Prompt("2+2?"), "4").unwrap()
        >>> [written.text[start:end] for start, end, _, is_trained in written.spans if is_trained]
        ['4', '<|im_end|>']
        >>> chatml.training_text(Prompt("2+2?"), "4", "Two and two.")
        <Failure: Unsupported(format='chatml', what='thinking')>
        """
        kept = keep_reasoning(self, prompt)
        parts = render_parts(self, kept)
        if isinstance(parts, Unsupported):
            return Failure(parts)
        injected = find_injection(self, kept, parts) or find_answer_injection(self, kept, answer, reasoning)
        if injected is not None:
            return Failure(injected)
        last = finish(self, parts[-1], answer, reasoning, is_cut=finish_reason == "length")
        if isinstance(last, Unsupported):
            return Failure(last)
        places = [*name_texts(self, kept, parts), *(("reasoning", "assistant") if len(last) > 3 else ("assistant",))]
        return Success(mark_parts(places, [*parts[:-1], *last], parts[-1], self.stop, train))

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into (reasoning, answer); all is answer unless the format or the model opens `<think>`."""
        return split_completion(self.generation_prompt, text)

    @cached_property
    def default_system(self) -> str | None:
        """The system text in `user_prefix`, if there is one: giving it is the same as giving none."""
        default = self.user_prefix.removeprefix(self.before_system).removesuffix(self.after_system)
        return default if f"{self.before_system}{default}{self.after_system}" == self.user_prefix else None

    @cached_property
    def junctions(self) -> tuple[Junction, ...]:
        """The places of empty texts that drop a part of a literal."""
        return find_junctions(self)

    @cached_property
    def markup(self) -> frozenset[str]:
        """The special tokens and stop strings that are no plain words, and their parts that form one with a literal beside.

        They are refused in any text.
        """
        return find_parts(filter(is_markup, (*self.special_tokens, *self.stop)), *neighbours(self))

    @cached_property
    def openings(self) -> tuple[str, ...]:
        """The literals of plain words that open an answer or a system text; refused in any text."""
        literals = (self.before_assistant, self.generation_prompt, self.before_system)
        words = [each for each in literals if each.strip() and not any(token in each for token in self.markup)]
        # Beside answers that open with markup, a plain system opening, such as "system\n", is prose.
        return () if words == [self.before_system] else tuple(words)

    @cached_property
    def hazards(self) -> frozenset[str]:
        """The dangerous strings: a text without any of them cannot forge a turn."""
        return find_hazards(self)

    @cached_property
    def guards(self) -> tuple[str, ...]:
        """Few characters, rare in prose; each hazard holds at least one of them."""
        return choose_guards(self.hazards)


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


# Rendering.


def render_parts(template: ChatTemplate, prompt: Prompt) -> list[str] | Unsupported:
    """Return the rendering in parts, literals at even places and texts at odd places, or the first unsupported feature."""
    position = template.system_position
    system = None if prompt.system is None else template.strip_system(prompt.system)
    if system == "" and template.drops_empty_system:
        system = None
    if system is not None and position == "refused":
        return Unsupported(template.name, "system")
    if system is None and position == "required":
        return Unsupported(template.name, "no system")
    if prompt.history and template.before_assistant + template.after_assistant == "":
        return Unsupported(template.name, "history")
    if system is None or position == "last_user":
        parts = [template.bos + template.user_prefix]
    else:
        parts = [template.bos + template.before_system, system, template.after_system]
    for exchange in prompt.history:
        if exchange.reasoning is not None and template.past_reasoning == "refused":
            return Unsupported(template.name, "thinking")
        parts.append(template.strip_user(exchange.user))
        parts += render_answer(template, template.before_assistant, exchange.assistant, exchange.reasoning)
        parts.append(template.after_assistant)
    if system is not None and position == "last_user":
        parts += (system, template.after_system)
    parts += (template.strip_user(prompt.user), template.generation_prompt)
    if system is not None and template.strip_joined:
        literal, user = template.after_system, prompt.history[0].user if prompt.history else prompt.user
        joined = strip_joined(template, user)
        parts[2:4] = joined[: len(literal)], joined[len(literal) :]
    return drop_around_empty(template, prompt, parts) if template.junctions else parts


def keep_reasoning(template: ChatTemplate, prompt: Prompt) -> Prompt:
    """Return the prompt with the past reasoning that is rendered; as it is if reasoning is refused."""
    if not prompt.history or template.past_reasoning == "refused":
        return prompt
    history: list[Exchange] = []
    for exchange in prompt.history:
        is_blank = template.thinking is None or not template.thinking.strip(exchange.reasoning or "")
        is_dropped = is_blank or template.past_reasoning == "dropped"
        history.append(replace(exchange, reasoning=None) if is_dropped else exchange)
    return replace(prompt, history=tuple(history))


def render_answer(template: ChatTemplate, before: str, answer: str, reasoning: str | None) -> list[str]:
    """Return the literals and texts of an answer: `before` and the answer, or four parts with its reasoning."""
    thinking, answer = template.thinking, template.strip_assistant(answer)
    thought = thinking.strip(reasoning) if thinking and reasoning else ""
    if thinking and (thought or before == template.before_answer):
        answer = thinking.strip_answer(answer)
    return [thinking.before, thought, thinking.after, answer] if thinking and thought else [before, answer]


def strip_joined(template: ChatTemplate, user: str) -> str:
    """Return the literal after the system text and the first user text, stripped as one text.

    The literal before them begins with markup, so that only the end and the inside of them can be stripped.
    """
    return template.strip_user(f"|{template.after_system}{user}")[1:]


def name_texts(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> list[str]:
    """Return the place in the prompt of each text of the rendering, in the rendering's order."""
    places = [where for where, _ in prompt.texts() if where != "system"]
    if len(places) < len(parts) // 2:
        places.insert(len(places) - 1 if template.system_position == "last_user" else 0, "system")
    return places


def drop_around_empty(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> list[str]:
    """Return the parts without what empty texts drop of the literals beside them."""
    drop = {"system": template.empty_system, "user": template.empty_user, "assistant": template.empty_assistant}
    left = list(parts)
    for index, place in zip(range(1, len(left), 2), name_texts(template, prompt, parts), strict=True):
        if left[index] == "":
            before, after = drop[place.rpartition(".")[2]]
            left[index - 1] = left[index - 1].removesuffix(before)
            left[index + 1] = left[index + 1].removeprefix(after)
    return left


# Reading back.


def normalize(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> Prompt:
    """Return the prompt as rendered in parts: its texts stripped, a default system text left out, a folded one folded."""
    named = dict(zip(name_texts(template, prompt, parts), parts[1::2], strict=True))
    thoughts = [named.pop(f"history[{index}].reasoning", None) for index in range(len(prompt.history))]
    texts = list(named.values())
    if len(texts) % 2 == 1:  # no system text
        return make_prompt(template, None, texts, thoughts)
    index = len(texts) - 2 if template.system_position == "last_user" else 0
    system = texts.pop(index)
    if template.system_position in ("first", "required"):
        return make_prompt(template, system, texts, thoughts)
    texts[index] = system + template.after_system + texts[index]
    return make_prompt(template, None, texts, thoughts)


def make_prompt(template: ChatTemplate, system: str | None, texts: list[str], thoughts: Sequence[str | None]) -> Prompt:
    """Return the canonical prompt of a system text, if it has a turn of its own, and the texts of users and answers."""
    *past, user = texts
    if template.system_position == "last_user" or (template.system_position == "first_user" and not past):
        system, user = unfold(template, user)
    elif template.system_position == "first_user":
        system, past[0] = unfold(template, past[0])
    if system == template.default_system:
        system = None
    return Prompt(user, system, tuple(map(Exchange, past[::2], past[1::2], thoughts)))


def unfold(template: ChatTemplate, text: str) -> tuple[str | None, str]:
    """Return the system and the user text that stand for a user turn that holds both.

    All of it is user text, unless stripping would change it: then the first cut that stripping leaves as it is counts.
    """
    strip, end = template.strip_user, template.after_system
    if strip(text) == text:
        return None, text
    if strip(text[-1:]) == "":  # no user text ends with this character, so the user text is empty
        return (text.removesuffix(end), "") if text.endswith(end) else (None, text)
    cut = text.find(end)
    while cut >= 0 and strip(text[cut + len(end) : cut + len(end) + 1]) == "":
        cut = text.find(end, cut + 1)
    return (text[:cut], text[cut + len(end) :]) if cut >= 0 else (None, text)


def read(template: ChatTemplate, rendered: str) -> Prompt | str:
    """Return the only prompt that can have rendered to this text, if any has; else the reason why none has.

    It takes linear time.
    """
    for junction in template.junctions:
        rendered = junction.restore(rendered)
    opened = read_system(template, rendered)
    if isinstance(opened, str):
        return opened
    system, body = opened
    if not body.endswith(template.generation_prompt):
        return f"it does not end with {template.generation_prompt!r}"
    *past, user = split(body.removesuffix(template.generation_prompt), template.after_assistant)
    texts, thoughts = list[str](), list[str | None]()
    for index, turn in enumerate(past):
        exchange = read_exchange(template, turn)
        if exchange is None:
            return f"its exchange {index} has no {template.before_assistant!r}"
        texts += (exchange.user, exchange.assistant)
        thoughts.append(exchange.reasoning)
    return make_prompt(template, system, [*texts, user], thoughts)


def read_exchange(template: ChatTemplate, turn: str) -> Exchange | None:
    """Return the user text, answer and reasoning between two openings of user turns."""
    if template.thinking and template.past_reasoning == "written":
        user, *thought = split(turn, template.thinking.before, 1)
        reasoning, *answer = split("".join(thought), template.thinking.after, 1)
        if answer:
            return Exchange(user, answer[0], reasoning or None)
    user, *answer = split(turn, template.before_assistant, 1)
    return Exchange(user, answer[0]) if answer else None


def read_system(template: ChatTemplate, rendered: str) -> tuple[str | None, str] | str:
    """Return the system text and the rest of a rendering, or the reason why there is neither opening."""
    opening, system_opening = template.bos + template.user_prefix, template.bos + template.before_system
    has_opening = rendered.startswith(opening) and template.system_position != "required"
    has_turn = rendered.startswith(system_opening) and template.system_position in ("first", "required")
    # Of two openings that both fit, the longer one is meant: it is the other one with a default text or a tag.
    if not has_turn or (has_opening and len(opening) >= len(system_opening)):
        return (None, rendered[len(opening) :]) if has_opening else f"it does not begin with {opening!r}"
    # A joined strip may have cut the end of `after_system`, so its cut form is looked for.
    end = strip_joined(template, "") if template.strip_joined else template.after_system
    system, *rest = split(rendered[len(system_opening) :], end, 1)
    if not rest:
        return f"no {end!r} follows its system text"
    return system, rest[0].removeprefix(template.after_system[len(end) :])


def split(text: str, delimiter: str, times: int = -1) -> list[str]:
    """Split at a delimiter; an empty one is found nowhere."""
    return text.split(delimiter, times) if delimiter else [text]


@final
@dataclass(frozen=True, slots=True)
class Junction:
    """The place of an empty text: the literals on both sides of it, and the part of them that was dropped there."""

    before: str
    dropped: str
    after: str

    def restore(self, rendered: str) -> str:
        """Return the rendering with what is dropped."""
        place = f"(?<={re.escape(self.before)})(?={re.escape(self.after)})"
        return re.sub(place, lambda _: self.dropped, rendered)


def find_junctions(template: ChatTemplate) -> tuple[Junction, ...]:
    """Return each pair of literals that may have an empty text between them which drops a part of them."""
    (user, after_user), (answer, after_answer) = template.empty_user, template.empty_assistant
    system, after_system = template.empty_system
    to_assistant = template.before_assistant.removeprefix(after_user).removesuffix(answer)
    to_end = template.generation_prompt.removeprefix(after_user)
    next_user = template.after_assistant.removeprefix(after_answer).removesuffix(user)
    first_user = template.after_system.removesuffix(user)
    to_user = [(template.bos + template.user_prefix).removesuffix(user), next_user]
    if template.system_position in ("first", "required"):
        to_user.append(first_user)
    to_answer = [to_assistant]
    if template.thinking and template.past_reasoning == "written":
        to_answer.append(template.thinking.after.removesuffix(answer))
    to_system = (template.bos + template.before_system).removesuffix(system)
    found = (
        Junction(to_system, system + after_system, first_user),
        *(Junction(before, user + after_user, after) for before in to_user for after in (to_assistant, to_end)),
        *(Junction(before, answer + after_answer, next_user) for before in to_answer),
    )
    return tuple(junction for junction in found if junction.dropped)


# Refusing.


def find_injection(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> InjectedToken | None:
    """Return the first token that would forge a turn; None if the rendering reads back as the prompt.

    Markup is refused in any text, and so is an opening of plain words. Other words are refused only if they make the
    rendering read back as another prompt. `parts` are those of `render_parts`.
    """
    texts = "".join(parts[1::2])
    for guard in template.guards:
        if guard in texts and any(hazard in texts for hazard in template.hazards):
            return find_forgery(template, prompt, parts)
    return None


def find_forgery(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> InjectedToken | None:
    """Return the same, found by reading the rendering back."""
    name = template.name
    found = find_token(name, prompt, template.markup) or find_token(name, prompt, template.openings)
    if found is not None or read(template, "".join(parts)) == normalize(template, prompt, parts):
        return found
    return (
        find_token(name, prompt, (*template.special_tokens, *template.stop))
        or find_token(name, prompt, template.hazards)
        or InjectedToken(name, template.generation_prompt, "user", 0)
    )


def neighbours(template: ChatTemplate) -> tuple[Sequence[str], Sequence[str]]:
    """Return the literals that may stand before a text, and those that may stand after one."""
    thought = (template.thinking.before, template.thinking.after) if template.thinking else ()
    literals = (template.before_assistant, template.after_assistant, template.after_system, *thought)
    openings = (template.bos + template.user_prefix, template.bos + template.before_system)
    return (*openings, *literals), (*literals, template.generation_prompt)


def find_hazards(template: ChatTemplate) -> frozenset[str]:
    """Return the tokens and delimiters, and their parts that form one with the literals beside a text."""
    history = (Exchange("", ""), Exchange("x", "x"))
    for shape in (Prompt(""), Prompt("", ""), Prompt("x", "x"), Prompt("x", None, history), Prompt("x", "x", history)):
        parts = render_parts(template, shape)
        if not isinstance(parts, Unsupported) and read(template, "".join(parts)) != normalize(template, shape, parts):
            return frozenset({""})  # its literals do not tell texts apart, so that every rendering is read back
    opening, system_opening = template.bos + template.user_prefix, template.bos + template.before_system
    before, after, end = template.before_assistant, template.after_assistant, template.after_system
    left = (junction.before + junction.after for junction in template.junctions)
    hazards = template.markup | find_parts((*template.openings, before, after, *left), *neighbours(template))
    if template.system_position in ("first", "required"):
        hazards |= find_parts((end,), (system_opening,), (end,))
        # A first text may make one opening of the other, such as "USER: " in a system text that nothing comes before.
        if opening.startswith(system_opening):
            hazards |= find_parts((opening.removeprefix(system_opening),), (), (end,)) - {template.default_system}
        if system_opening.startswith(opening):
            hazards |= find_parts((system_opening.removeprefix(opening),), (), (before, template.generation_prompt))
    return hazards


# Training.


def finish(
    template: ChatTemplate, opened: str, answer: str, reasoning: str | None, is_cut: bool
) -> list[str] | Unsupported:
    """Return the last answer in parts, in the place of the generation prompt `opened`, which they begin with."""
    opening, before = template.generation_prompt, template.before_answer or template.before_assistant
    parts = render_answer(template, before or opening, answer, reasoning)
    thinks = template.thinking is not None and template.thinking.before.startswith(opening)
    has_thought = reasoning is not None and reasoning.strip() != ""
    if has_thought and not thinks:
        return Unsupported(template.name, "thinking")
    end = end_of_answer(template.stop, template.after_assistant) or "".join(template.stop[:1])
    if not parts[0].startswith(opening) or not (is_cut or (end and parts[-1])):
        return Unsupported(template.name, "no thinking" if thinks and not has_thought else "training")
    parts[0] = opened + parts[0].removeprefix(opening)
    if parts[-1] == "" and len(parts) > 2:  # cut in its reasoning
        parts[2] = ""
    return [*parts, "" if is_cut else end]


def find_answer_injection(
    template: ChatTemplate, prompt: Prompt, answer: str, reasoning: str | None
) -> InjectedToken | None:
    """Return the first token of an answer and its reasoning that would forge a turn."""
    exchange = Exchange(prompt.user, answer, reasoning)
    found = find_token(template.name, Prompt("", history=(exchange,)), (*template.markup, *template.openings))
    whole = replace(prompt, user="", history=(*prompt.history, replace(exchange, reasoning=None)))
    parts = render_parts(template, whole)
    if found is None and not isinstance(parts, Unsupported):
        found = find_injection(template, whole, parts)
    return found and replace(found, where="reasoning" if found.where.endswith("reasoning") else "answer")
