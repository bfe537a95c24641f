"""Infinigence's Megrez."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# Megrez-3B-Instruct.
#     <|role_start|>system<|role_end|>{system}<|turn_end|><|role_start|>user<|role_end|>{user}<|turn_end|>
#     <|role_start|>assistant<|role_end|>{answer}<|turn_end|><|role_start|>user<|role_end|>{user}<|turn_end|>
#     <|role_start|>assistant<|role_end|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# Infinigence/Megrez-3B-Instruct; its expected output also agrees).
megrez: Final = ChatTemplate(
    "megrez",
    models=("Megrez-*-Instruct",),
    user_prefix="<|role_start|>system<|role_end|>你是Megrez-3B-Instruct，将针对用户的问题给出详细的、积极的回答。<|turn_end|><|role_start|>user<|role_end|>",
    before_system="<|role_start|>system<|role_end|>",
    after_system="<|turn_end|><|role_start|>user<|role_end|>",
    before_assistant="<|turn_end|><|role_start|>assistant<|role_end|>",
    after_assistant="<|turn_end|><|role_start|>user<|role_end|>",
    generation_prompt="<|turn_end|><|role_start|>assistant<|role_end|>",
    stop=("<|turn_end|>",),
    special_tokens=("<|role_start|>", "<|role_end|>", "<|turn_end|>"),
)


FORMATS: Final = (megrez,)
