"""The format of the OpenAI API: messages, which a server renders with its model's own template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError
from distgen.formats.formatter import refuse_reasoning
from distgen.prompt import Messages, Prompt


@final
@dataclass(frozen=True, slots=True)
class ChatMessages:
    """The messages of the OpenAI chat completions API. Every prompt is its own canonical form.

    A prompt with reasoning of a past answer is refused: the API has no field for it. No other prompt is refused.

    >>> ChatMessages()(Prompt("Hi", system="Be brief.")).unwrap()
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    """

    name: str = "openai"

    def __call__(self, prompt: Prompt, /) -> Result[Messages, FormatError]:
        """Return the prompt as messages: the system text, if any, then user and assistant in turn."""
        refusal = refuse_reasoning(self.name, prompt)
        if refusal is not None:
            return Failure(refusal)
        messages: Messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        for exchange in prompt.history:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.assistant})
        messages.append({"role": "user", "content": prompt.user})
        return Success(messages)

    def parse(self, rendered: Messages, /) -> Result[Prompt, FormatError]:
        """Return `Prompt.from_messages(rendered)`."""
        return Prompt.from_messages(rendered)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """Return the prompt itself."""
        return prompt


# A list of {"role": "system" | "user" | "assistant", "content": text}.
# Source: OpenAI API reference, "Create chat completion", messages.
openai: Final = ChatMessages()
