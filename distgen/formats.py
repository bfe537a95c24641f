"""How a prompt is written for a model: `Formatter`, its invertible kind `Format`, the record `ChatTemplate`, and FORMATS.

A format is a pure function of a `Prompt`, with its inverse. Each is byte for byte what the model's own template renders,
with the opening of the answer last, so that a base completion continues it. A text that holds the markup of the format
is refused and never rendered: it would forge a turn. Nothing here tokenizes, downloads a template or runs Jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Protocol, TypeAlias, TypeVar, final, overload

from returns.result import Failure, Result, Success

from distgen.errors import ControlToken, Fault, FormatError, NotRendered, UnknownFormat
from distgen.prompt import Exchange, Messages, Prompt

P = TypeVar("P")

Formatter: TypeAlias = Callable[[Prompt], Result[P, FormatError]]
"""What an LLM needs: a pure, total function that writes a prompt as P, what the backend takes."""

Strip: TypeAlias = Callable[[str], str]
"""What a template does to the ends of a text: `str.strip`, `str.lstrip`, or `str`, which changes nothing."""


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


@final
@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A text format as data; every one is a value of this class, and `dataclasses.replace` makes the next.

    A prompt is written as its `bos`, then `head`, or `before_system`, the system text and `after_system`; then each past
    exchange as its user text, `before_answer`, its answer and `after_answer`; then the user text and `tail`.

    >>> from dataclasses import replace
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
    """The markup. A prompt that holds any of it, in any text, is refused."""
    strip_system: Strip = str
    strip_user: Strip = str
    strip_assistant: Strip = str
    strip_joined: bool = False
    """Whether the system block and the first user text are stripped as one text; `before_system` begins with markup."""
    folds: Literal["nothing", "conversation"] = "nothing"
    """What the rendering does not tell apart from the user text: the canonical prompt holds it there."""
    _opening: str = field(init=False, repr=False, compare=False)
    _system_opening: str = field(init=False, repr=False, compare=False)
    _refused: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _guards: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What each call would compute anew. Longest first: of two tokens at one place the longer is reported.
        tokens = {token for token in (*self.control_tokens, *self.stops) if token}
        object.__setattr__(self, "_opening", self.bos + self.head)
        object.__setattr__(self, "_system_opening", self.bos + self.before_system)
        object.__setattr__(self, "_refused", tuple(sorted(tokens, key=lambda token: (-len(token), token))))
        object.__setattr__(self, "_guards", _guards(tokens))

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """The prompt as text, or `ControlToken` for the first piece of markup in it, in reading order.

        >>> zephyr(Prompt("Hi", system="Be brief.")).unwrap()
        '<|system|>\\nBe brief.</s>\\n<|user|>\\nHi</s>\\n<|assistant|>\\n'
        """
        system, user, history = prompt.system, prompt.user, prompt.history
        for guard in self._guards:
            if guard in user or (system is not None and guard in system):
                return self._searched(prompt)
            for exchange in history:
                if guard in exchange.user or guard in exchange.assistant:
                    return self._searched(prompt)
        return Success("".join(self._parts(prompt)))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        """The canonical prompt that renders to exactly this text, or `NotRendered`; total, in linear time.

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

        >>> llama3.canonical(Prompt("  Hi\\n")), default.canonical(Prompt("Hi", system="Be brief."))
        (Prompt(user='Hi', system=None, history=()), Prompt(user='Be brief.\\nHi', system=None, history=()))
        """
        return prompt if self._refusal(prompt) is not None else self._normal(prompt)

    def _parts(self, prompt: Prompt) -> list[str]:
        """The rendering, cut up: literals at even places and the texts of the prompt, stripped, at odd ones."""
        strip, system = self.strip_user, prompt.system
        parts = (
            [self._opening] if system is None else [self._system_opening, self.strip_system(system), self.after_system]
        )
        for exchange in prompt.history:
            answer = self.strip_assistant(exchange.assistant)
            parts += (strip(exchange.user), self.before_answer, answer, self.after_answer)
        parts += (strip(prompt.user), self.tail)
        if self.strip_joined and system is not None:
            first = prompt.history[0].user if prompt.history else prompt.user
            joined, cut = self._joined(first), len(self.after_system)
            parts[2:4] = joined[:cut], joined[cut:]
        return parts

    def _joined(self, user: str) -> str:
        """The end of the system block and the first user text, stripped as one; the block begins with markup."""
        return self.strip_user("|" + self.after_system + user)[1:]

    def _searched(self, prompt: Prompt) -> Result[str, FormatError]:
        """The same answer as a call gives, for a prompt with a text that may hold a token."""
        refusal = self._refusal(prompt)
        return Failure(refusal) if refusal is not None else Success(self._text(prompt))

    def _text(self, prompt: Prompt) -> str:
        return "".join(self._parts(prompt))

    def _refusal(self, prompt: Prompt) -> ControlToken | None:
        for where, text in _texts(prompt):
            found = [(offset, token) for token in self._refused if (offset := text.find(token)) >= 0]
            if found:
                offset, token = min(found, key=lambda each: each[0])
                return ControlToken(self.name, token, where, offset)
        return None

    def _normal(self, prompt: Prompt) -> Prompt:
        parts = self._parts(prompt)
        if self.folds == "conversation":
            return Prompt("".join(parts).removeprefix(self._opening).removesuffix(self.tail))
        system, texts = (None, parts[1::2]) if prompt.system is None else (parts[1], parts[3::2])
        history = tuple(Exchange(user, answer) for user, answer in zip(texts[:-1:2], texts[1::2], strict=True))
        return Prompt(texts[-1], system, history)

    def _read(self, rendered: str) -> Prompt | str:
        """The only prompt that can have rendered to this text, if any has; else why none has."""
        system: str | None = None
        if self.folds == "nothing" and rendered.startswith(self._system_opening):
            # A joined strip may have cut the end of `after_system`, so its cut form is looked for.
            end = self._joined("") if self.strip_joined else self.after_system
            system, found, body = _cut(rendered[len(self._system_opening) :], end)
            if not found:
                return f"no {end!r} follows its system text"
            body = body.removeprefix(self.after_system[len(end) :])
        elif rendered.startswith(self._opening):
            body = rendered[len(self._opening) :]
        else:
            return f"it does not begin with {self._opening!r}"
        if not body.endswith(self.tail):
            return f"it does not end with {self.tail!r}"
        return self._conversation(system, body.removesuffix(self.tail))

    def _conversation(self, system: str | None, body: str) -> Prompt | str:
        splits = self.folds == "nothing" and self.after_answer != ""
        *past, user = body.split(self.after_answer) if splits else [body]
        history: list[Exchange] = []
        for turn in past:
            asked, found, answer = _cut(turn, self.before_answer)
            if not found:
                return f"its exchange {len(history)} has no {self.before_answer!r}"
            history.append(Exchange(asked, answer))
        return Prompt(user, system, tuple(history))

    def _verified(self, rendered: str, prompt: Prompt) -> Prompt | str:
        refusal = self._refusal(prompt)
        if refusal is not None:
            return f"its {refusal.where} would hold {refusal.token!r} at character {refusal.offset}"
        again = self._text(prompt)
        if again != rendered:
            return f"rendered again, it differs at character {_first_difference(again, rendered)}"
        return prompt


@final
class ChatMessages:
    """The messages of the OpenAI chat completions API; the server writes them in the model's own format.

    Contents stay apart from markup, so no text is refused and every prompt is its own canonical form.

    >>> openai(Prompt("Hi", system="Be brief.")).unwrap()
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    """

    __slots__ = ()
    control_tokens: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The name in FORMATS."""
        return "openai"

    def __reduce__(self) -> str:
        return "openai"  # the one value of this class, wherever it is unpickled

    def __call__(self, prompt: Prompt, /) -> Result[Messages, FormatError]:
        """The prompt as messages: the system text, if any, then user and assistant in turn; never a Failure."""
        messages: Messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        for exchange in prompt.history:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.assistant})
        messages.append({"role": "user", "content": prompt.user})
        return Success(messages)

    def parse(self, rendered: Messages, /) -> Result[Prompt, FormatError]:
        """The same as `Prompt.from_messages`.

        >>> openai.parse([{"role": "user", "content": "Hi"}])
        <Success: Prompt(user='Hi', system=None, history=())>
        """
        return Prompt.from_messages(rendered)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """The prompt itself."""
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


TextName: TypeAlias = Literal["default", "chatml", "llama2", "llama3", "zephyr"]
"""The names in FORMATS of the formats that render to text: all but "openai"."""


@overload
def lookup(name: Literal["openai"]) -> Result[ChatMessages, UnknownFormat]: ...
@overload
def lookup(name: TextName) -> Result[ChatTemplate, UnknownFormat]: ...
@overload
def lookup(name: str) -> Result[ChatTemplate | ChatMessages, UnknownFormat]: ...
def lookup(name: str) -> Result[ChatTemplate | ChatMessages, UnknownFormat]:
    """The format of that name, or the names nearest to it.

    >>> lookup("chatml").map(lambda found: found.stops)
    <Success: ('<|im_end|>',)>
    >>> lookup("Llama-3")
    <Failure: UnknownFormat(name='Llama-3', nearest=('llama3', 'llama2'))>
    """
    found = FORMATS.get(name)
    return Failure(_unknown(name)) if found is None else Success(found)


@overload
def format_as(prompt: Prompt, name: Literal["openai"]) -> Result[Messages, FormatError]: ...
@overload
def format_as(prompt: Prompt, name: TextName) -> Result[str, FormatError]: ...
@overload
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]: ...
def format_as(prompt: Prompt, name: str) -> Result[str | Messages, FormatError]:
    """The prompt in the format of that name: messages for "openai", text for every other.

    >>> format_as(Prompt("Hi", system="Be brief."), "llama2").unwrap()
    '<s>[INST] <<SYS>>\\nBe brief.\\n<</SYS>>\\n\\nHi [/INST]'
    """
    found = FORMATS.get(name)
    return Failure(_unknown(name)) if found is None else found(prompt)


def _total(fn: Callable[[Prompt], P], prompt: Prompt) -> Result[P, FormatError]:
    try:
        return Success(fn(prompt))
    except Exception as error:
        return Failure(Fault.of(error, "format"))


def _unknown(name: str) -> UnknownFormat:
    from difflib import get_close_matches

    return UnknownFormat(name, tuple(get_close_matches(name.lower(), FORMATS)))


def _texts(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Where each text of the prompt stands, and the text, in reading order."""
    if prompt.system is not None:
        yield "system", prompt.system
    for index, exchange in enumerate(prompt.history):
        yield f"history[{index}].user", exchange.user
        yield f"history[{index}].assistant", exchange.assistant
    yield "user", prompt.user


def _guards(tokens: Iterable[str]) -> str:
    """Characters of which every token holds one, rare in prose: a text without them holds no token, cheap to see."""
    return "".join({next((char for char in token if not char.isalnum() and char != " "), token[0]) for token in tokens})


def _cut(text: str, mark: str) -> tuple[str, str, str]:
    """`str.partition`, in which an empty mark, too, is one that is not found."""
    return text.partition(mark) if mark else (text, "", "")


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


# No model's template: for completions of plain text.
#     [system \n] {user \n answer \n} user
default: Final = ChatTemplate(
    "default",
    head="",
    before_system="",
    after_system="\n",
    before_answer="\n",
    after_answer="\n",
    tail="",
    folds="conversation",
)

# OpenHermes-2.5, Nous-Hermes-2, Dolphin, Yi-Chat; the default of transformers. No BOS in the text, no default system text.
#     [<|im_start|>system \n system <|im_end|> \n] {<|im_start|>user \n user <|im_end|> \n
#     <|im_start|>assistant \n answer <|im_end|> \n} ...
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp, chat_template of teknium/OpenHermes-2.5-Mistral-7B;
# identical to the base template in huggingface.js, packages/jinja/test/e2e.test.js.
chatml: Final = ChatTemplate(
    "chatml",
    head="<|im_start|>user\n",
    before_system="<|im_start|>system\n",
    after_system="<|im_end|>\n<|im_start|>user\n",
    before_answer="<|im_end|>\n<|im_start|>assistant\n",
    after_answer="<|im_end|>\n<|im_start|>user\n",
    tail="<|im_end|>\n<|im_start|>assistant\n",
    stops=("<|im_end|>",),
    control_tokens=("<|im_start|>", "<|im_end|>"),
)

# Llama-2-*-chat. The system block is a part of the first user text, and the two are stripped as one.
#     <s>[INST] [<<SYS>> \n system \n <</SYS>> \n \n] user [/INST] {answer </s><s>[INST] user [/INST]} ...
# Source: meta-llama llama, llama/generation.py, chat_completion.
llama2: Final = ChatTemplate(
    "llama2",
    bos="<s>",
    head="[INST] ",
    before_system="[INST] <<SYS>>\n",
    after_system="\n<</SYS>>\n\n",
    before_answer=" [/INST] ",
    after_answer=" </s><s>[INST] ",
    tail=" [/INST]",
    stops=("</s>",),
    control_tokens=("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    strip_user=str.strip,
    strip_assistant=str.strip,
    strip_joined=True,
)

# Meta-Llama-3-*-Instruct.
#     <|begin_of_text|> {<|start_header_id|> role <|end_header_id|> \n \n text <|eot_id|>} ...
# Source: meta-llama llama3, llama/tokenizer.py, ChatFormat.
llama3: Final = ChatTemplate(
    "llama3",
    bos="<|begin_of_text|>",
    head="<|start_header_id|>user<|end_header_id|>\n\n",
    before_system="<|start_header_id|>system<|end_header_id|>\n\n",
    after_system="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    before_answer="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    after_answer="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    tail="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    stops=("<|eot_id|>", "<|end_of_text|>"),
    control_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# Zephyr-7b-alpha/beta, TinyLlama-1.1B-Chat, notus-7b. No BOS in the text.
#     [<|system|> \n system </s> \n] {<|user|> \n user </s> \n <|assistant|> \n answer </s> \n} ...
# Source: huggingface alignment-handbook, recipes/zephyr-7b-beta/sft/config_full.yaml;
# identical to HuggingFaceH4/zephyr-7b-beta in huggingface.js, packages/jinja/test/e2e.test.js.
zephyr: Final = ChatTemplate(
    "zephyr",
    head="<|user|>\n",
    before_system="<|system|>\n",
    after_system="</s>\n<|user|>\n",
    before_answer="</s>\n<|assistant|>\n",
    after_answer="</s>\n<|user|>\n",
    tail="</s>\n<|assistant|>\n",
    stops=("</s>",),
    control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "</s>"),
)

# OpenAI Chat Completions, and every server that speaks it.
#     a list of {"role": "system" | "user" | "assistant", "content": text}
# Source: OpenAI API reference, "Create chat completion", messages.
openai: Final = ChatMessages()

FORMATS: Final[Mapping[str, ChatTemplate | ChatMessages]] = MappingProxyType(
    {
        "default": default,
        "openai": openai,
        "chatml": chatml,
        "llama2": llama2,
        "llama3": llama3,
        "zephyr": zephyr,
    }
)
"""Every format by its name, immutable. A format of one's own needs no entry: it is a value like these."""
