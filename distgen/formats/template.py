"""`ChatTemplate`: the record of data behind nearly every text format, and the pure functions that render and read it.

A rendering is, byte for byte, that of the model's own template, with the generation prompt last. A text that holds
the format's special tokens is refused, since it would forge a turn. Nothing here tokenizes or runs Jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, NotParsed, Unsupported, explain
from distgen.formats.formatter import split_completion
from distgen.formats.injection import choose_guards, find_parts, find_token, is_markup
from distgen.formats.training import Role, Train, TrainingText, end_of_answer, mark_parts
from distgen.prompt import Exchange, Prompt, Segment

Strip: TypeAlias = Callable[[str], str]
"""A function that strips the ends of a text: `str.strip`, `str.lstrip` ...; `str` strips nothing."""

Refusal: TypeAlias = Unsupported | InjectedToken
"""Why a prompt is not rendered."""


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
    """Strips the reasoning; one that is empty then is not written."""
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
    """The literal before the system text; not used if the system text is the beginning of a user text."""
    after_system: str
    """The literal between the system text and the first user text."""
    before_assistant: str
    """The literal between a user text and its answer. It begins with what ends the user turn, such as `<|im_end|>`."""
    after_assistant: str
    """The literal between an answer and the next user text."""
    generation_prompt: str
    """The literal after the last user text: the end of its turn, then the opening of the answer. In many formats it differs
    from `before_assistant`."""
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
    """Strips the system text as the template does: `str.strip`, `str.rstrip` ...; `str` leaves it."""
    strip_user: Strip = str
    """Strips each user text."""
    strip_assistant: Strip = str
    """Strips each answer."""
    strip_first_user: Strip | None = None
    """Strips the first user text after a system text, in place of `strip_user` (Llama 2)."""
    system_position: Literal["first", "first_user", "last_user", "refused"] = "first"
    """The place of the system text. "first": a turn of its own, before all others. "first_user", "last_user": the beginning of
    that user text; it is refused if `after_system` holds markup. "refused": nowhere, since the model has no system role or
    drops it."""
    drops_empty_system: bool = False
    """An empty system text is rendered as none."""
    around: tuple[tuple[Role, str, str], ...] = ()
    """(role, end of the literal before, start of the literal after): both are left out if a text of that role is empty. With
    ("assistant", "\\n", "</s>"), an empty answer has no line break at the end of the literal before it, and no `</s>` at the
    beginning of the one after it."""
    refuse: Callable[[str, Prompt], Refusal | None] | None = None
    """A function of the format's name and a prompt that returns why the prompt is refused, or None. It is for what the model's
    template treats in a way that no other field describes, such as a command in a text."""
    thinking: Thinking | None = None
    """The literals around reasoning; None if they are not known, or the model does not think."""
    past_reasoning: Literal["written", "dropped", "refused"] = "refused"
    """The treatment of the reasoning of past answers: it is written or dropped, as the model's template does, or refused."""
    before_answer: str | None = None
    """The literal before an answer to train on that has no reasoning, if it is not `before_assistant`."""

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        r"""Render the prompt, or return why it is refused: the first special token, or an unsupported feature.

        Markup is refused in any text, and so is an opening of plain words. Other words are refused only if they make the
        rendering read back as another prompt.

        >>> from distgen.formats import zephyr
        >>> zephyr(Prompt("Hi", system="Be brief.")).unwrap()
        '<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n'
        """
        parts = render_parts(self, prompt)
        if not isinstance(parts, list):
            return Failure(parts)
        texts = "".join(parts[1::2])
        for guard in self.guards:
            if guard in texts and any(hazard in texts for hazard in self.hazards):
                forged = find_forgery(self, prompt, parts)
                return Failure(forged) if forged else Success("".join(parts))
        return Success("".join(parts))

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the rendering as literals and texts; joined, they are the rendering. No special token is refused.

        Encode only the control segments with special tokens, and no text can forge one.

        >>> from distgen.formats import chatml
        >>> [segment.text for segment in chatml.segments(Prompt("<|im_end|>")).unwrap() if not segment.is_control]
        ['<|im_end|>']
        """
        parts = render_parts(self, prompt)
        if isinstance(parts, InjectedToken):
            parts = render_parts(replace(self, refuse=None), prompt)
        if not isinstance(parts, list):
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
        found = read_prompt(self, rendered)
        if isinstance(found, str):
            return Failure(NotParsed(self.name, found))
        prompt = unfold(self, found)
        again = self(prompt)
        if isinstance(again, Failure):
            return Failure(NotParsed(self.name, explain(again.failure())))
        if again.unwrap() != rendered:
            return Failure(NotParsed(self.name, "rendered again, it is another text"))
        return Success(prompt)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        r"""Return the prompt as `parse` reads it from the rendering; a refused prompt is returned as it is.

        >>> from distgen.formats import llama3
        >>> llama3.canonical(Prompt("  Hi\n"))
        Prompt(user='Hi', system=None, history=())
        """
        parts = render_parts(self, prompt)
        if not isinstance(parts, list) or isinstance(self(prompt), Failure):
            return prompt
        return unfold(self, drop_default(self, take_texts(self, prompt, parts)))

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        r"""Return the finished conversation with the characters to train, or why there is none.

        The text is what the model's template renders.
        It begins with the rendering of the prompt, and ends with the stop string that the model writes. An answer that was
        cut (`finish_reason="length"`) has no stop string. `train` is the last answer or all of them.

        >>> from distgen.formats import chatml
        >>> written = chatml.training_text(Prompt("2+2?"), "4").unwrap()
        >>> [written.text[start:end] for start, end, _, is_trained in written.spans if is_trained]
        ['4', '<|im_end|>']
        >>> chatml.training_text(Prompt("2+2?"), "4", "Two and two.")
        <Failure: Unsupported(format='chatml', what='thinking')>
        """
        parts = render_parts(self, prompt)
        if not isinstance(parts, list):
            return Failure(parts)
        refusal = self(prompt).swap().value_or(None) or find_answer_injection(self, prompt, answer, reasoning)
        if refusal is not None:
            return Failure(refusal)
        last = finish_answer(self, parts[-1], answer, reasoning, is_cut=finish_reason == "length")
        if isinstance(last, Unsupported):
            return Failure(last)
        places = [place for place, _ in take_texts(self, prompt, parts).texts()]
        places += ("reasoning", "assistant") if len(last) > 3 else ("assistant",)
        return Success(mark_parts(places, [*parts[:-1], *last], parts[-1], self.stop, train))

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into (reasoning, answer) if the generation prompt opens `<think>`; else all of it is the answer."""
        return split_completion(self.generation_prompt, text)

    @cached_property
    def default_system(self) -> str | None:
        """The default system text in `user_prefix`, if there is one. A prompt with it renders as one without a system text."""
        default = self.user_prefix.removeprefix(self.before_system).removesuffix(self.after_system)
        is_whole = f"{self.before_system}{default}{self.after_system}" == self.user_prefix
        return default if is_whole and self.system_position == "first" else None

    @cached_property
    def literals(self) -> Sequence[tuple[str, str, str]]:
        """The literals, each between the roles of the texts before and after it; "" is the start or the end."""
        literals = [
            ("", self.bos + self.user_prefix, "user"),
            ("user", self.before_assistant, "assistant"),
            ("assistant", self.after_assistant, "user"),
            ("user", self.generation_prompt, ""),
        ]
        if self.system_position == "first":
            literals += [("", self.bos + self.before_system, "system"), ("system", self.after_system, "user")]
        if self.thinking and self.past_reasoning == "written":
            literals += [("user", self.thinking.before, "reasoning"), ("reasoning", self.thinking.after, "assistant")]
        return literals

    @cached_property
    def junctions(self) -> tuple[tuple[str, str], ...]:
        """The short and the full form of each pair of literals that meet at an empty text."""
        ends: dict[str, str] = {role: before for role, before, _ in self.around}
        starts: dict[str, str] = {role: after for role, _, after in self.around}
        found: list[tuple[str, str]] = []
        for left, one, role in self.literals:
            for same, other, right in self.literals:
                before, after = one.removeprefix(starts.get(left, "")), other.removesuffix(ends.get(right, ""))
                short = before.removesuffix(ends.get(role, "")) + after.removeprefix(starts.get(role, ""))
                if role == same and short != before + after:
                    found.append((short, before + after))
        return tuple(found)

    @cached_property
    def markup(self) -> frozenset[str]:
        """The special tokens and stop strings that are no plain words, and the parts that form one with a neighbouring literal.

        They are refused in any text.
        """
        tokens = filter(is_markup, (*self.special_tokens, *self.stop))
        return find_straddling(self, ("system", "user", "reasoning", "assistant"), tuple(tokens))

    @cached_property
    def openings(self) -> tuple[str, ...]:
        """The literals of plain words that open an answer or a system text; they are refused in any text."""
        literals = (self.before_assistant, self.generation_prompt, self.before_system)
        words = [each for each in literals if each.strip() and not any(token in each for token in self.markup)]
        # Beside answers that open with markup, a plain system opening, such as "system\n", is prose.
        return () if words == [self.before_system] else tuple(words)

    @cached_property
    def hazards(self) -> frozenset[str]:
        """The strings, such as delimiters and their parts, without which a text cannot forge a turn."""
        past = (Exchange("", ""), Exchange("x", "x"))
        for shape in (Prompt(""), Prompt("", ""), Prompt("x", "x"), Prompt("x", None, past), Prompt("x", "x", past)):
            parts = render_parts(self, shape)
            if isinstance(parts, list) and not is_read_back(self, shape, parts):
                return frozenset({""})  # its literals do not separate texts, so every rendering must be read back
        shorts = [short for short, _ in self.junctions]
        later = [literal for left, literal, _ in self.literals if left not in ("", "system")]
        # A first text may turn one opening into the other: "USER: " in a system text that no literal precedes.
        opening, system_opening = self.bos + self.user_prefix, self.bos + self.before_system
        ends = (*self.openings, *later, *shorts, system_opening)
        hazards = find_straddling(self, ("system",), (self.after_system, opening))
        hazards |= find_straddling(self, ("user", "reasoning", "assistant"), ends)
        return (hazards | self.markup) - {self.default_system}

    @cached_property
    def guards(self) -> tuple[str, ...]:
        """The characters, rare in prose, without which a text holds no hazard."""
        return choose_guards(self.hazards)


# Rendering.


def render_parts(template: ChatTemplate, prompt: Prompt) -> list[str] | Refusal:
    """Return the rendering in parts: literals at even places, texts at odd places. No text is searched for tokens."""
    refusal = template.refuse(template.name, prompt) if template.refuse else None
    if refusal is not None:
        return refusal
    system, position, strip = prompt.system, template.system_position, template.strip_user
    if system is not None:
        system = template.strip_system(system)
        if system == "" and template.drops_empty_system:
            system = None
        elif position == "refused":
            return Unsupported(template.name, "system")
    if system is None or position != "first":
        parts = [template.bos + template.user_prefix]
    else:
        parts = [template.bos + template.before_system, system, template.after_system]
        strip = template.strip_first_user or strip
    for exchange in prompt.history:
        if exchange.reasoning is not None and template.past_reasoning == "refused":
            return Unsupported(template.name, "thinking")
        answer = render_answer(template, exchange.assistant, render_reasoning(template, exchange))
        parts += (strip(exchange.user), *answer, template.after_assistant)
        strip = template.strip_user
    parts.append(strip(prompt.user))
    parts.append(template.generation_prompt)
    if system is not None and position != "first":
        index = 1 if position == "first_user" else -2
        parts[index] = f"{system}{template.after_system}{parts[index]}"
    return drop_around_empty(template, prompt, parts) if template.around and "" in parts else parts


def render_reasoning(template: ChatTemplate, exchange: Exchange) -> str:
    """Return the reasoning of a past answer as it is rendered; "" if it is not."""
    thinking = template.thinking if template.past_reasoning == "written" else None
    return thinking.strip(exchange.reasoning) if thinking and exchange.reasoning else ""


def render_answer(template: ChatTemplate, answer: str, thought: str) -> list[str]:
    """Return the literals and texts of an answer: two parts, or four if it has reasoning."""
    thinking, answer = template.thinking, template.strip_assistant(answer)
    if thinking and thought:
        return [thinking.before, thought, thinking.after, thinking.strip_answer(answer)]
    return [template.before_assistant, answer]


def drop_around_empty(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> list[str]:
    """Return the parts, without the pieces of literals that an empty text beside them drops."""
    left = list(parts)
    for role, before, after in template.around:
        for index, (place, text) in enumerate(take_texts(template, prompt, parts).texts()):
            if place.endswith(role) and text == "":
                left[2 * index] = left[2 * index].removesuffix(before)
                left[2 * index + 2] = left[2 * index + 2].removeprefix(after)
    return left


# Reading back.


def take_texts(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> Prompt:
    """Return the prompt with the texts of its rendering, and no others."""
    *texts, user = parts[1::2]
    history: list[Exchange] = []
    for exchange in reversed(prompt.history):
        answer = texts.pop()
        reasoning = texts.pop() if render_reasoning(template, exchange) else None
        history.append(Exchange(texts.pop(), answer, reasoning))
    return Prompt(user, texts.pop() if texts else None, tuple(reversed(history)))


def drop_default(template: ChatTemplate, prompt: Prompt) -> Prompt:
    """Return the prompt without the default system text."""
    return replace(prompt, system=None) if prompt.system == template.default_system else prompt


def unfold(template: ChatTemplate, prompt: Prompt) -> Prompt:
    """Return the prompt with the system text taken out of the user text that begins with it."""
    if template.system_position not in ("first_user", "last_user"):
        return prompt
    if template.system_position == "last_user" or not prompt.history:
        system, user = split_system(template, prompt.user)
        return Prompt(user, system, prompt.history)
    first, *others = prompt.history
    system, user = split_system(template, first.user)
    return Prompt(prompt.user, system, (replace(first, user=user), *others))


def split_system(template: ChatTemplate, text: str) -> tuple[str | None, str]:
    """Return the canonical system and user text of a user turn that may hold both.

    All of it is user text, unless stripping would change it. Then it is cut at the first place where stripping does not change
    the user text.
    """
    strip, end = template.strip_user, template.after_system
    if strip(text) == text:
        return None, text
    if strip(text[-1:]) == "":  # no user text ends with this character, so the user text is empty
        return text.removesuffix(end), ""
    cut = text.find(end)
    while cut >= 0 and strip(text[cut + len(end) : cut + len(end) + 1]) == "":
        cut = text.find(end, cut + 1)
    return (text[:cut], text[cut + len(end) :]) if cut >= 0 else (None, text)


def read_prompt(template: ChatTemplate, rendered: str) -> Prompt | str:
    """Return the only prompt that can have this rendering, or the reason why there is none. It takes linear time."""
    for short, whole in template.junctions:
        rendered = rendered.replace(short, whole)
    opened = read_system(template, rendered)
    if isinstance(opened, str):
        return opened
    system, body = opened
    if not body.endswith(template.generation_prompt):
        return f"it does not end with {template.generation_prompt!r}"
    *past, user = split_at(body.removesuffix(template.generation_prompt), template.after_assistant)
    history: list[Exchange] = []
    for index, turn in enumerate(past):
        exchange = read_exchange(template, turn)
        if exchange is None:
            return f"its exchange {index} has no {template.before_assistant!r}"
        history.append(exchange)
    return Prompt(user, system, tuple(history))


def read_system(template: ChatTemplate, rendered: str) -> tuple[str | None, str] | str:
    """Return the system text, if there is one, and the rest of a rendering; or the reason why it has neither opening."""
    opening, system_opening = template.bos + template.user_prefix, template.bos + template.before_system
    has_opening = rendered.startswith(opening)
    has_turn = rendered.startswith(system_opening) and template.system_position == "first"
    # If both openings fit, take the longer one: it contains the other.
    if not has_turn or (has_opening and len(opening) >= len(system_opening)):
        return (None, rendered[len(opening) :]) if has_opening else f"it does not begin with {opening!r}"
    system, *rest = split_at(rendered[len(system_opening) :], template.after_system, 1)
    return (system, rest[0]) if rest else f"no {template.after_system!r} follows its system text"


def read_exchange(template: ChatTemplate, turn: str) -> Exchange | None:
    """Return an exchange, or None if the answer is missing."""
    if template.thinking and template.past_reasoning == "written":
        user, *thought = split_at(turn, template.thinking.before, 1)
        reasoning, *answer = split_at("".join(thought), template.thinking.after, 1)
        if answer and reasoning:
            return Exchange(user, answer[0], reasoning)
    user, *answer = split_at(turn, template.before_assistant, 1)
    return Exchange(user, answer[0]) if answer else None


def split_at(text: str, delimiter: str, times: int = -1) -> list[str]:
    """Split at a delimiter; an empty delimiter splits nothing."""
    return text.split(delimiter, times) if delimiter else [text]


# Refusing.


def find_forgery(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> Refusal | None:
    """Return the first token that would forge a turn, found by reading the rendering back."""
    name, tokens = template.name, (*template.markup, *template.openings)
    writes_reasoning = template.past_reasoning == "written"
    said = [each for each in prompt.texts() if writes_reasoning or not each[0].endswith("reasoning")]
    found = find_token(name, said, tokens)
    if found is None and find_token(name, [("user", text) for text in parts[1::2]], tokens):
        return Unsupported(name, "system")  # `after_system` would put a token into a user text
    if found is not None or is_read_back(template, prompt, parts):
        return found
    return (
        find_token(name, said, (*template.special_tokens, *template.stop))
        or find_token(name, said, template.hazards)
        or InjectedToken(name, template.generation_prompt, "user", 0)
    )


def find_straddling(template: ChatTemplate, roles: Sequence[str], tokens: Sequence[str]) -> frozenset[str]:
    """Return the tokens, and the parts of them that a literal beside a text of some roles completes to a whole token."""
    parts = frozenset[str]()
    for role in roles:
        befores = [literal for _, literal, right in template.literals if right == role]
        afters = [literal for left, literal, _ in template.literals if left == role]
        parts |= find_parts(tokens if befores else (), befores, afters)
    return parts


def is_read_back(template: ChatTemplate, prompt: Prompt, parts: Sequence[str]) -> bool:
    """Return True if the rendering reads back as its texts; a default system text reads back as none."""
    return read_prompt(template, "".join(parts)) == drop_default(template, take_texts(template, prompt, parts))


def refuse_blank_system(name: str, prompt: Prompt) -> Unsupported | None:
    """Refuse a system text of white space alone: some templates render it neither as a text nor as none."""
    return Unsupported(name, "system") if prompt.system is not None and prompt.system.strip() == "" else None


# Training.


def finish_answer(
    template: ChatTemplate, opened: str, answer: str, reasoning: str | None, is_cut: bool
) -> list[str] | Unsupported:
    """Return the last answer in parts. They begin with the generation prompt `opened`, and replace it."""
    opening, thinking = template.generation_prompt, template.thinking
    thinks = thinking is not None and thinking.before.startswith(opening)
    has_thought = reasoning is not None and reasoning.strip() != ""
    if has_thought and not thinks:
        return Unsupported(template.name, "thinking")
    parts = render_answer(template, answer, thinking.strip(reasoning or "") if thinking else "")
    if len(parts) == 2:
        parts[0] = template.before_answer or template.before_assistant or opening
        parts[1] = thinking.strip_answer(parts[1]) if thinking and template.before_answer else parts[1]
    elif parts[-1] == "":  # cut in its reasoning
        parts[2] = ""
    end = end_of_answer(template.stop, template.after_assistant) or "".join(template.stop[:1])
    if not parts[0].startswith(opening) or not (is_cut or (end and parts[-1])):
        return Unsupported(template.name, "no thinking" if thinks and answer and not has_thought else "training")
    parts[0] = opened + parts[0].removeprefix(opening)
    return [*parts, "" if is_cut else end]


def find_answer_injection(
    template: ChatTemplate, prompt: Prompt, answer: str, reasoning: str | None
) -> InjectedToken | None:
    """Return the first token of an answer and its reasoning that would forge a turn."""
    said = (("reasoning", reasoning or ""), ("answer", answer))
    found = find_token(template.name, said, (*template.markup, *template.openings))
    whole = replace(prompt, user="", history=(*prompt.history, Exchange(prompt.user, answer)))
    refusal = template(whole).swap().value_or(None)
    return replace(refusal, where="answer") if not found and isinstance(refusal, InjectedToken) else found
