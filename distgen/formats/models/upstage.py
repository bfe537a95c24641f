"""Upstage's SOLAR."""

from __future__ import annotations

from datetime import date
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# SOLAR-10.7B-Instruct-v1.0.
#     ### System:\n{system}\n\n### User:\n{user}\n\n### Assistant:\n{answer}### User:\n{user}\n\n### Assistant:\n
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# upstage/SOLAR-10.7B-Instruct-v1.0; its target output also agrees).
solar: Final = ChatTemplate(
    "solar",
    models=("SOLAR-*-Instruct-v1.0",),
    user_prefix="### User:\n",
    before_system="### System:\n",
    after_system="\n\n### User:\n",
    before_assistant="\n\n### Assistant:\n",
    after_assistant="### User:\n",
    generation_prompt="\n\n### Assistant:\n",
    stop=("</s>",),
    special_tokens=("### System:", "### User:", "### Assistant:"),
    drops_empty_system=True,
)


# Solar-Open-100B. In the registry on 2025-12-31.
#     <|begin|>system<|content|>## Provider System Prompt\n\nYou are Solar Open 100B, a large language model trained by
#      Upstage AI, a Korean startup. Your knowledge cutoff is 2025-07. The current date is 2025-12-31.\n\n## System Prompt
#     \n\n{system}<|end|><|begin|>user<|content|>{user}<|end|><|begin|>assistant<|content|>{answer}<|end|><|begin|>user
#     <|content|>{user}<|end|><|begin|>assistant
# Source: ggml-org llama.cpp, models/templates/upstage-Solar-Open-100B.jinja (verbatim Hub template).
def solar_open_with(*, today: date) -> ChatTemplate:
    """Solar Open's format with the date that its template prints; the registry's has 2025-12-31.

    >>> from datetime import date
    >>> "The current date is 2026-01-05." in solar_open_with(today=date(2026, 1, 5)).user_prefix
    True
    """
    provided = (
        "<|begin|>system<|content|>## Provider System Prompt\n\nYou are Solar Open 100B, a large language model trained by "
        "Upstage AI, a Korean startup. Your knowledge cutoff is 2025-07. The current date is "
        f"{today.isoformat()}."
    )
    return ChatTemplate(
        "solar-open",
        models=("Solar-Open-*",),
        user_prefix=f"{provided}<|end|><|begin|>user<|content|>",
        before_system=f"{provided}\n\n## System Prompt\n\n",
        after_system="<|end|><|begin|>user<|content|>",
        before_assistant="<|end|><|begin|>assistant<|content|>",
        after_assistant="<|end|><|begin|>user<|content|>",
        generation_prompt="<|end|><|begin|>assistant",
        stop=("<|end|>",),
        special_tokens=("<|begin|>", "<|content|>", "<|think|>", "<|end|>"),
        thinking=Thinking("<|end|><|begin|>assistant<|think|>", "<|end|><|begin|>assistant<|content|>"),
        past_reasoning="dropped",
    )


solar_open: Final = solar_open_with(today=date(2025, 12, 31))


FORMATS: Final = (solar, solar_open)
