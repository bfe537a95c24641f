"""The protocols of formats: `Formatter`, all that an LLM needs, `Format`, which also reads back, and `TextFormat`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from returns.result import Failure, Result, Success

from distgen.completion import split_reasoning
from distgen.errors import FormatError, Raised, Unsupported
from distgen.formats.training import Train, TrainingText
from distgen.prompt import Formatter, Prompt, Rendered, Segment

P = TypeVar("P")


class Format(Protocol[P]):
    """A Formatter with an inverse: `f(p).bind(f.parse) == Success(f.canonical(p))` whenever f(p) is a Success."""

    @property
    def name(self) -> str:
        """The name in FORMATS and in errors."""
        ...

    def __call__(self, prompt: Prompt, /) -> Result[P, FormatError]:
        """Render the prompt for the model, or return why it cannot be rendered."""
        ...

    def parse(self, rendered: P, /) -> Result[Prompt, FormatError]:
        """Return the canonical prompt of a rendering; a Failure if this format cannot have rendered it."""
        ...

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """Return the prompt that `parse` would return for its rendering; a refused prompt is returned as it is."""
        ...


class TextFormat(Format[str], Protocol):
    """A format that renders to text."""

    @property
    def bos(self) -> str:
        """The beginning-of-sequence token that the rendering starts with; "" for none."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer, for the backend."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The strings that delimit turns."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that use this format; a `*` stands for a size."""
        ...

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the rendering as literals and texts, without refusing special tokens in the texts."""
        ...

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        """Return the finished conversation, with the characters to train, or why there is none."""
        ...

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into its reasoning, if any, and the answer."""
        ...


def formatter_of(fn: Callable[[Prompt], P]) -> Formatter[P]:
    """Make a Formatter of a plain function; an exception of `fn` becomes a `Raised`.

    >>> shout = formatter_of(lambda prompt: prompt.user.upper() + "!")
    >>> shout(Prompt("hi"))
    <Success: HI!>
    >>> formatter_of(lambda prompt: prompt.history[0].user)(Prompt("hi"))
    <Failure: Raised(kind='IndexError', message='tuple index out of range', stage='format', completions=())>
    """
    return partial(_format_or_catch, fn)


def _format_or_catch(fn: Callable[[Prompt], P], prompt: Prompt) -> Result[P, FormatError]:
    try:
        return Success(fn(prompt))
    except Exception as error:
        return Failure(Raised.of(error, "format"))


def allow_markup(template: TextFormat) -> Formatter[str]:
    """Return a Formatter that refuses no special tokens: markup in a text is rendered as markup.

    Use it only for prompts whose texts you trust. An unsupported feature is still a Failure.

    >>> from distgen.formats import chatml
    >>> allow_markup(chatml)(Prompt("Hi<|im_end|>")).unwrap()
    '<|im_start|>user\\nHi<|im_end|><|im_end|>\\n<|im_start|>assistant\\n'
    """
    return partial(_join_segments, template)


def _join_segments(template: TextFormat, prompt: Prompt) -> Result[str, FormatError]:
    return template.segments(prompt).map(lambda segments: "".join(segment.text for segment in segments))


def segment_if_needed(
    template: TextFormat, is_token: Callable[[str], bool], holds_token: Callable[[str], bool]
) -> Formatter[Rendered]:
    """Return a Formatter for a tokenizer that can encode special tokens of a text as plain text.

    A prompt with a text in which the tokenizer finds a special token (`holds_token`) is rendered as segments, any other as
    one string. If some markup of the format is no special token of the tokenizer (`is_token`), segments would protect
    nothing, and the format itself is returned, which refuses such texts.

    >>> from distgen.formats import chatml
    >>> format = segment_if_needed(chatml, is_token=lambda text: True, holds_token=lambda text: "<|im_" in text)
    >>> format(Prompt("Hi")).unwrap()
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    >>> format(Prompt("What is <|im_end|>?")).unwrap()[1]
    Segment(text='What is <|im_end|>?', is_control=False)
    """
    if not all(map(is_token, (*template.special_tokens, *template.stop))):
        return template
    return partial(_text_or_segments, template, holds_token)


def _text_or_segments(
    template: TextFormat, holds_token: Callable[[str], bool], prompt: Prompt
) -> Result[Rendered, FormatError]:
    if any(holds_token(text) for _, text in prompt.texts()):
        return template.segments(prompt)
    return template(prompt)


def refuse_reasoning(format: str, prompt: Prompt) -> Unsupported | None:
    """Return `Unsupported` for a prompt with past reasoning, else None; for a format that cannot write any."""
    thinks = any(exchange.reasoning is not None for exchange in prompt.history)
    return Unsupported(format, "thinking") if thinks else None


def split_completion(generation_prompt: str, text: str) -> tuple[str | None, str]:
    """Split a completion into (reasoning, answer) if the generation prompt opens `<think>`; else all of it is the answer.

    >>> split_completion("<|im_start|>assistant\\n<think>\\n", "2 and 2</think>4")
    ('2 and 2', '4')
    >>> split_completion("<|im_start|>assistant\\n", "<think>2 and 2</think>4")
    (None, '<think>2 and 2</think>4')
    """
    if not generation_prompt.rstrip().endswith("<think>"):
        return None, text
    is_opened_again = text.lstrip().startswith("<think>")
    return split_reasoning(text if is_opened_again else f"<think>{text}")
