"""Upstage's SOLAR."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

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
    empty_system="absent",
)


FORMATS: Final = (solar,)
