"""`StrictTemplate`: a ChatTemplate that refuses more, for a model whose template does more with a text than print it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, NotParsed, Unsupported, explain
from distgen.formats.template import ChatTemplate
from distgen.formats.training import Train, TrainingText
from distgen.prompt import Prompt, Segment


@final
@dataclass(frozen=True, slots=True)
class StrictTemplate:
    """A ChatTemplate with a refusal of its own, such as that of a command that the model's template obeys and removes."""

    template: ChatTemplate
    """The format without that refusal."""
    find_refusal: Callable[[str, Prompt], FormatError | None]
    """A function of the format's name and the prompt; it is asked where the template refuses nothing."""

    @property
    def name(self) -> str:
        """The name in FORMATS and in errors."""
        return self.template.name

    @property
    def bos(self) -> str:
        """The beginning-of-sequence token; "" for none."""
        return self.template.bos

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return self.template.stop

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The strings that delimit turns."""
        return self.template.special_tokens

    @property
    def models(self) -> tuple[str, ...]:
        """The models that use this format."""
        return self.template.models

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """Render the prompt; refuse what the template refuses, and then what `find_refusal` finds."""
        rendered, refusal = self.template(prompt), self.find_refusal(self.name, prompt)
        return Failure(refusal) if refusal is not None and isinstance(rendered, Success) else rendered

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the rendering as literals and texts, without refusing anything in the texts."""
        return self.template.segments(prompt)

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        """Return the canonical prompt that renders to exactly this text, or `NotParsed`."""
        parsed = self.template.parse(rendered)
        refusal = self.find_refusal(self.name, parsed.unwrap()) if isinstance(parsed, Success) else None
        return parsed if refusal is None else Failure(NotParsed(self.name, explain(refusal)))

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """Return the prompt as `parse` reads it; a refused one stays."""
        return self.template.canonical(prompt) if self.find_refusal(self.name, prompt) is None else prompt

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        """Return the finished conversation, with what to train."""
        written = self.template.training_text(prompt, answer, reasoning, finish_reason, train)
        refusal = self.find_refusal(self.name, prompt)
        return Failure(refusal) if refusal is not None and isinstance(written, Success) else written

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into (reasoning, answer)."""
        return self.template.split(text)


def find_empty_system(name: str, prompt: Prompt) -> Unsupported | None:
    """Refuse an empty system text, which some templates render unlike any other."""
    return Unsupported(name, "system") if prompt.system == "" else None


def find_blank_system(name: str, prompt: Prompt) -> Unsupported | None:
    """Refuse a system text of white space alone, which some templates render neither as a text nor as none."""
    return Unsupported(name, "system") if prompt.system is not None and prompt.system.strip() == "" else None
