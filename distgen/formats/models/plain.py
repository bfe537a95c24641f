"""Plain text for base models: no model's own template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, Unsupported
from distgen.formats.formatter import refuse_reasoning, split_completion
from distgen.formats.training import Train, TrainingText
from distgen.prompt import Prompt, Segment


@final
@dataclass(frozen=True, slots=True)
class PlainText:
    r"""The texts of a prompt as lines, in reading order. Only past reasoning is refused, and no turn can be read back.

    >>> default(Prompt("Hi", system="Be brief.")), default.canonical(Prompt("Hi", system="Be brief."))
    (<Success: Be brief.
    Hi>, Prompt(user='Be brief.\nHi', system=None, history=()))
    """

    name: str
    bos: str = ""
    stop: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """Return the texts, joined by line breaks."""
        refusal = refuse_reasoning(self.name, prompt)
        return Failure(refusal) if refusal else Success("\n".join(text for _, text in prompt.texts()))

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the texts and the line breaks between them."""
        refusal = refuse_reasoning(self.name, prompt)
        if refusal is not None:
            return Failure(refusal)
        parts = (part for _, text in prompt.texts() for part in (Segment("\n", True), Segment(text, False)))
        return Success(tuple(part for part in tuple(parts)[1:] if part.text))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        """Return the text as one user text."""
        return Success(Prompt(rendered))

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """Return the rendering as one user text; a refused prompt stays."""
        return self(prompt).map(Prompt).value_or(prompt)

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        """Return a Failure: this is no model's format."""
        return Failure(Unsupported(self.name, "training"))

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Return no reasoning, and the whole text as the answer."""
        return split_completion("", text)


# No model's template: for completions of plain text.
#     {system}\n{user}\n{answer}\n{user}
default: Final = PlainText("default")

FORMATS: Final = (default,)
