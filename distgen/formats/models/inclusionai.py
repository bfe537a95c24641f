"""InclusionAI's Ling."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# inclusionAI Ling-lite.
#     <role>SYSTEM</role>{system}<role>HUMAN</role>{user}<role>ASSISTANT</role>{answer}<role>HUMAN</role>{user}<role>
#     ASSISTANT</role>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# inclusionAI/Ling-lite; its expected output also agrees).
ling: Final = ChatTemplate(
    "ling",
    models=("Ling-lite",),
    user_prefix="<role>HUMAN</role>",
    before_system="<role>SYSTEM</role>",
    after_system="<role>HUMAN</role>",
    before_assistant="<role>ASSISTANT</role>",
    after_assistant="<role>HUMAN</role>",
    generation_prompt="<role>ASSISTANT</role>",
    stop=("<|endoftext|>",),
    special_tokens=("<role>", "</role>"),
)


FORMATS: Final = (ling,)
