"""InclusionAI's Ling."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate, Thinking, strip_leading_newlines, strip_newlines

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

# Ling-3.0-flash, which thinks.
#     <role>SYSTEM</role>{system}\ndetailed thinking on<|role_end|><role>HUMAN</role>{user}<|role_end|><role>ASSISTANT
#     </role>\n<think></think>{answer}<|role_end|><role>HUMAN</role>{user}<|role_end|><role>ASSISTANT</role>\n<think>
# Source: ggml-org llama.cpp, models/templates/inclusionai-ling-3.0-flash.jinja (verbatim Hub template).
ling3: Final = ChatTemplate(
    "ling3",
    models=("Ling-3.0-flash",),
    user_prefix="<role>SYSTEM</role>detailed thinking on<|role_end|><role>HUMAN</role>",
    before_system="<role>SYSTEM</role>",
    after_system="\ndetailed thinking on<|role_end|><role>HUMAN</role>",
    before_assistant="<|role_end|><role>ASSISTANT</role>\n<think></think>",
    after_assistant="<|role_end|><role>HUMAN</role>",
    generation_prompt="<|role_end|><role>ASSISTANT</role>\n<think>",
    stop=("<|role_end|>",),
    special_tokens=("<role>", "</role>", "<|role_end|>", "<think>", "</think>"),
    thinking=Thinking(
        before="<|role_end|><role>ASSISTANT</role>\n<think>",
        after="</think>",
        strip=strip_newlines,
        strip_answer=strip_leading_newlines,
    ),
    past_reasoning="written",
)


FORMATS: Final = (ling, ling3)
