"""Moonshot AI's Kimi models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate

# Kimi-K2-Instruct.
#     <|im_system|>system<|im_middle|>{system}<|im_end|><|im_user|>user<|im_middle|>{user}<|im_end|><|im_assistant|>
#     assistant<|im_middle|>{answer}<|im_end|><|im_user|>user<|im_middle|>{user}<|im_end|><|im_assistant|>assistant
#     <|im_middle|>
# Source: ggml-org llama.cpp, models/templates/moonshotai-Kimi-K2.jinja (verbatim Hub template).
kimi_k2: Final = ChatTemplate(
    "kimi-k2",
    models=("Kimi-K2-Instruct",),
    user_prefix="<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|><|im_user|>user<|im_middle|>",
    before_system="<|im_system|>system<|im_middle|>",
    after_system="<|im_end|><|im_user|>user<|im_middle|>",
    before_assistant="<|im_end|><|im_assistant|>assistant<|im_middle|>",
    after_assistant="<|im_end|><|im_user|>user<|im_middle|>",
    generation_prompt="<|im_end|><|im_assistant|>assistant<|im_middle|>",
    stop=("<|im_end|>",),
    special_tokens=("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
)

# Kimi-K2-Instruct later template (default system names Kimi).
# Source: ggml-org llama.cpp, models/templates/Kimi-K2-Instruct.jinja (verbatim Hub template).
kimi_k2_0905: Final = replace(
    kimi_k2,
    name="kimi-k2-0905",
    models=("Kimi-K2-Instruct", "Kimi-K2-Instruct-0905"),
    user_prefix="<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\n<|im_user|>user<|im_middle|>",
)


FORMATS: Final = (kimi_k2, kimi_k2_0905)
