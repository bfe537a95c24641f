"""Moonshot AI's Kimi models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

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

# Kimi-K2-Thinking: past answers follow an empty thought, and so does the last one of a finished conversation; its template
# writes a thought only while tools are called.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim chat_template of moonshotai/Kimi-K2-Thinking);
# ggml-org llama.cpp, models/templates/Kimi-K2-Thinking.jinja renders the same.
kimi_k2_thinking: Final = replace(
    kimi_k2_0905,
    name="kimi-k2-thinking",
    models=("Kimi-K2-Thinking",),
    user_prefix=kimi_k2_0905.user_prefix.replace("\n", ""),
    before_assistant="<|im_end|><|im_assistant|>assistant<|im_middle|><think></think>",
    special_tokens=(*kimi_k2.special_tokens, "<think>", "</think>"),
    thinking=Thinking("<|im_end|><|im_assistant|>assistant<|im_middle|><think>", "</think>"),
    past_reasoning="dropped",
)

# Kimi-K3, with its default effort; past answers follow an empty thought.
#     <|open|>message role="system" type="thinking-effort"<|sep|>`thinking_effort` guides on how much to think in your
#      thinking channel (not including the response channel), supported values include `low`, `medium`, `high`, and
#      `max`.\nNow the system is invoked with `thinking_effort=max`.<|close|>message<|sep|><|end_of_msg|><|open|>
#     message role="system"<|sep|>{system}<|close|>message<|sep|><|end_of_msg|><|open|>message role="user"<|sep|>{user}
#     <|close|>message<|sep|><|end_of_msg|><|open|>message role="assistant"<|sep|><|open|>think<|sep|><|close|>think
#     <|sep|><|open|>response<|sep|>{answer}<|close|>response<|sep|><|close|>message<|sep|><|end_of_msg|><|open|>
#     message role="user"<|sep|>{user}<|close|>message<|sep|><|end_of_msg|><|open|>message role="assistant"<|sep|>
#     <|open|>think<|sep|>
# Source: ggml-org llama.cpp, models/templates/Kimi-K3.jinja (verbatim Hub template).
_K3_END: Final = "<|close|>message<|sep|><|end_of_msg|>"
_K3_USER: Final = '<|open|>message role="user"<|sep|>'
_K3_ASSISTANT: Final = '<|open|>message role="assistant"<|sep|>'
_K3_EFFORT: Final = (
    '<|open|>message role="system" type="thinking-effort"<|sep|>`thinking_effort` guides on how much to think in your '
    "thinking channel (not including the response channel), supported values include `low`, `medium`, `high`, and "
    f"`max`.\nNow the system is invoked with `thinking_effort=max`.{_K3_END}"
)
kimi_k3: Final = ChatTemplate(
    "kimi-k3",
    models=("Kimi-K3",),
    user_prefix=f"{_K3_EFFORT}{_K3_USER}",
    before_system=f'{_K3_EFFORT}<|open|>message role="system"<|sep|>',
    after_system=f"{_K3_END}{_K3_USER}",
    before_assistant=(f"{_K3_END}{_K3_ASSISTANT}<|open|>think<|sep|><|close|>think<|sep|><|open|>response<|sep|>"),
    after_assistant=f"<|close|>response<|sep|>{_K3_END}{_K3_USER}",
    generation_prompt=f"{_K3_END}{_K3_ASSISTANT}<|open|>think<|sep|>",
    stop=("<|end_of_msg|>",),
    special_tokens=("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
    thinking=Thinking(
        before=f"{_K3_END}{_K3_ASSISTANT}<|open|>think<|sep|>",
        after="<|close|>think<|sep|><|open|>response<|sep|>",
    ),
    past_reasoning="written",
)


FORMATS: Final = (kimi_k2, kimi_k2_0905, kimi_k2_thinking, kimi_k3)
