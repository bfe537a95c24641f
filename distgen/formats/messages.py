"""The format that is not text: the messages of the OpenAI API, which a server writes as its model needs them."""

from __future__ import annotations

from typing import ClassVar, Final, final

from returns.result import Result, Success

from distgen.errors import FormatError
from distgen.prompt import Messages, Prompt


@final
class ChatMessages:
    """The messages of the OpenAI chat completions API; the server writes them in the model's own format.

    Contents stay apart from markup, so no text is refused and every prompt is its own canonical form.

    >>> from distgen.formats import openai
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

        >>> from distgen.formats import openai
        >>> openai.parse([{"role": "user", "content": "Hi"}])
        <Success: Prompt(user='Hi', system=None, history=())>
        """
        return Prompt.from_messages(rendered)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """The prompt itself."""
        return prompt


# OpenAI Chat Completions, and every server that speaks it.
#     a list of {"role": "system" | "user" | "assistant", "content": text}
# Source: OpenAI API reference, "Create chat completion", messages.
openai: Final = ChatMessages()
