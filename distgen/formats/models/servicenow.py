"""ServiceNow's Apriel models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# Apriel-1.6-15b-Thinker, which reasons first. A default system text is always there, spaces at the start of its lines included.
#     <s><|begin_system|>\n(default)\n{system}\n<|begin_user|>\n{user}\n<|begin_assistant|>\n{answer}\n<|end|>\n
#     <|begin_user|>\n{user}\n<|begin_assistant|>\nHere are my reasoning steps:\n
# Source: ggml-org llama.cpp, models/templates/Apriel-1.6-15b-Thinker-fixed.jinja.
_SYSTEM: Final = (
    "<|begin_system|>\nYou are a thoughtful, systematic AI assistant from ServiceNow Language Models (SLAM) lab.\n    "
    "Analyze each question carefully, present your reasoning step-by-step, then provide the final\n    response after "
    "the marker [BEGIN FINAL RESPONSE].\n"
)
apriel1_6: Final = ChatTemplate(
    "apriel1.6",
    models=("Apriel-1.6-*-Thinker",),
    bos="<s>",
    user_prefix=f"{_SYSTEM}<|begin_user|>\n",
    before_system=_SYSTEM,
    after_system="\n<|begin_user|>\n",
    before_assistant="\n<|begin_assistant|>\n",
    after_assistant="\n<|end|>\n<|begin_user|>\n",
    generation_prompt="\n<|begin_assistant|>\nHere are my reasoning steps:\n",
    stop=("<|end|>",),
    special_tokens=(
        *("<s>", "<|begin_system|>", "<|begin_user|>", "<|begin_assistant|>", "<|end|>"),
        "[BEGIN FINAL RESPONSE]",
    ),
)


FORMATS: Final = (apriel1_6,)
