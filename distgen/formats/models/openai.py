"""OpenAI's gpt-oss."""

from __future__ import annotations

from datetime import date
from typing import Final, Literal

from distgen.formats.template import ChatTemplate, Thinking


# gpt-oss-20b/120b; in the registry with reasoning_effort medium, on 2025-08-05.
# Past assistant turns are written in the final channel; system content becomes the developer message.
#     <|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06
#     \nCurrent date: 2025-08-05\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must
#      be included for every message.<|end|><|start|>developer<|message|># Instructions\n\n{system}\n\n<|end|><|start|>
#     user<|message|>{user}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|end|><|start|>user<|message|>
#     {user}<|end|><|start|>assistant
# Source: ggml-org llama.cpp, models/templates/openai-gpt-oss-120b.jinja (verbatim Hub template); block layout agrees
# with openai harmony docs and test-data.
def _harmony(today: str, reasoning_effort: str) -> ChatTemplate:
    system = (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        f"Knowledge cutoff: 2024-06\nCurrent date: {today}\n\nReasoning: {reasoning_effort}\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    )
    return ChatTemplate(
        "harmony",
        models=("gpt-oss", "gpt-oss-*"),
        user_prefix=f"{system}<|start|>user<|message|>",
        before_system=f"{system}<|start|>developer<|message|># Instructions\n\n",
        after_system="\n\n<|end|><|start|>user<|message|>",
        before_assistant="<|end|><|start|>assistant<|channel|>final<|message|>",
        after_assistant="<|end|><|start|>user<|message|>",
        generation_prompt="<|end|><|start|>assistant",
        stop=("<|return|>", "<|call|>"),
        special_tokens=(
            "<|start|>",
            "<|message|>",
            "<|end|>",
            "<|channel|>",
            "<|return|>",
            "<|call|>",
            "<|constrain|>",
        ),
        drops_empty_system=True,
        thinking=Thinking(
            before="<|end|><|start|>assistant<|channel|>analysis<|message|>",
            after="<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        past_reasoning="dropped",
    )


harmony: Final = _harmony("2025-08-05", "medium")


def harmony_with(*, today: date, reasoning_effort: Literal["low", "medium", "high"] = "medium") -> ChatTemplate:
    """gpt-oss's format with the date and the reasoning effort that its template prints.

    The registry's has 2025-08-05 and medium.

    >>> from datetime import date
    >>> harmony_with(today=date(2026, 1, 5), reasoning_effort="high").user_prefix.splitlines()[2:5]
    ['Current date: 2026-01-05', '', 'Reasoning: high']
    """
    return _harmony(today.isoformat(), reasoning_effort)


FORMATS: Final = (harmony,)
