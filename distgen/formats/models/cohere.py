"""Cohere's Command R."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# c4ai-command-r/-plus.
#     <BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>
#     <|USER_TOKEN|>{user}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{answer}<|END_OF_TURN_TOKEN|>
#     <|START_OF_TURN_TOKEN|><|USER_TOKEN|>{user}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# CohereForAI/c4ai-command-r-plus; its expected output also agrees).
command_r: Final = ChatTemplate(
    "command-r",
    models=(
        "c4ai-command-r-v01",
        "c4ai-command-r-plus",
        "aya-expanse-*",
    ),
    bos="<BOS_TOKEN>",
    user_prefix="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    before_system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
    after_system="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    before_assistant="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    after_assistant="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    generation_prompt="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    stop=("<|END_OF_TURN_TOKEN|>",),
    special_tokens=(
        "<BOS_TOKEN>",
        "<|START_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|SYSTEM_TOKEN|>",
        "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
    ),
    strip_user=str.strip,
    strip_assistant=str.strip,
)


FORMATS: Final = (command_r,)
