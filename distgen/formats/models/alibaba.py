"""Alibaba's Qwen models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.layout import strip_leading_newlines
from distgen.formats.models.chatml import chatml

# Qwen1.5-*-Chat.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# Qwen/Qwen1.5-72B-Chat; its target output also agrees).
qwen1_5: Final = replace(
    chatml,
    name="qwen1.5",
    models=("Qwen1.5", "Qwen1.5-*-Chat"),
    user_prefix="<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\n",
    stop=("<|im_end|>", "<|endoftext|>"),
)

# Qwen2-*-Instruct.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of qwen2:0.5b).
qwen2: Final = replace(
    qwen1_5,
    name="qwen2",
    models=("Qwen2", "Qwen2-*-Instruct"),
    user_prefix="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)

# Qwen2.5-*-Instruct.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen2.5-7B-Instruct.jinja (verbatim Hub template).
qwen2_5: Final = replace(
    qwen1_5,
    name="qwen2.5",
    models=("Qwen2.5", "Qwen2.5-*-Instruct", "Qwen2.5-Coder-*-Instruct"),
    user_prefix="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)

# Qwen3 (thinking allowed: generation prompt has no think block).
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen3-0.6B.jinja (verbatim Hub template).
qwen3: Final = replace(
    qwen1_5,
    name="qwen3",
    models=("Qwen3", "Qwen3-*"),
    user_prefix="<|im_start|>user\n",
    special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
)

# Qwen3 with enable_thinking=False.
# As rendered with enable_thinking=False.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen3-0.6B.jinja (verbatim Hub template) with
# enable_thinking=False.
qwen3_nothink: Final = replace(
    qwen3,
    name="qwen3-nothink",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)

# Qwen3-*-Instruct-2507, which never think.
# Source: huggingface trl, trl/chat_templates/qwen3_instruct_2507.jinja (copy of the Qwen3-4B-Instruct-2507 Hub template).
qwen3_2507: Final = replace(
    qwen1_5,
    name="qwen3-2507",
    models=("Qwen3-*-Instruct-2507",),
    user_prefix="<|im_start|>user\n",
)

# QwQ-32B, not its Preview.
# Llama.cpp added an enable_thinking switch to this copy; rendered with enable_thinking=True, which is the original
# behaviour.
# As rendered with enable_thinking=True.
# Source: ggml-org llama.cpp, models/templates/Qwen-QwQ-32B.jinja (verbatim Hub template).
qwq: Final = replace(
    qwen3,
    name="qwq",
    models=("QwQ", "QwQ-*"),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    stop=("<|im_end|>",),
    strip_assistant=strip_leading_newlines,
)


FORMATS: Final = (qwen1_5, qwen2, qwen2_5, qwen3, qwen3_nothink, qwen3_2507, qwq)
