"""The Swiss AI Initiative's Apertus."""

from __future__ import annotations

from datetime import date
from typing import Final

from distgen.formats.template import ChatTemplate


# Apertus-8B/70B-Instruct; in the registry with enable_thinking=False, on 2025-09-02.
#     <s><|system_start|>{system}<|system_end|><|developer_start|>Deliberation: disabled\nTool Capabilities: disabled
#     <|developer_end|><|user_start|>{user}<|user_end|><|assistant_start|>{answer}<|assistant_end|><|user_start|>
#     {user}<|user_end|><|assistant_start|>
# Source: ggml-org llama.cpp, models/templates/Apertus-8B-Instruct.jinja (verbatim Hub template).
def _apertus(today: str, deliberation: str) -> ChatTemplate:
    developer = (
        f"<|system_end|><|developer_start|>Deliberation: {deliberation}\n"
        "Tool Capabilities: disabled<|developer_end|><|user_start|>"
    )
    return ChatTemplate(
        "apertus",
        models=("Apertus-*-Instruct", "Apertus-*-Instruct-2509"),
        bos="<s>",
        user_prefix="<|system_start|>You are Apertus, a helpful assistant created by the SwissAI initiative.\n"
        f"Knowledge cutoff: 2024-04\nCurrent date: {today}{developer}",
        before_system="<|system_start|>",
        after_system=developer,
        before_assistant="<|user_end|><|assistant_start|>",
        after_assistant="<|assistant_end|><|user_start|>",
        generation_prompt="<|user_end|><|assistant_start|>",
        stop=("<|assistant_end|>",),
        special_tokens=(
            "<s>",
            "<|system_start|>",
            "<|system_end|>",
            "<|developer_start|>",
            "<|developer_end|>",
            "<|user_start|>",
            "<|user_end|>",
            "<|assistant_start|>",
            "<|assistant_end|>",
        ),
    )


apertus: Final = _apertus("2025-09-02", "disabled")


def apertus_with(*, today: date, enable_thinking: bool = False) -> ChatTemplate:
    """Apertus's format with the date that its default system text has, and with deliberation enabled or disabled.

    The registry's has 2025-09-02 and disabled.

    >>> from datetime import date
    >>> apertus_with(today=date(2026, 1, 5), enable_thinking=True).after_system[33:54]
    'Deliberation: enabled'
    """
    return _apertus(today.isoformat(), "enabled" if enable_thinking else "disabled")


FORMATS: Final = (apertus,)
