"""Alibaba's Qwen models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml
from distgen.formats.template import Thinking, strip_leading_newlines, strip_newlines

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

# Qwen2-*-Instruct, and some sizes of Qwen1.5.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of qwen2:0.5b);
# openvinotoolkit openvino.genai da1db86, tests/python_tests/data/tokenizer_configs.py (verbatim tokenizer_config
# chat_template of Qwen/Qwen1.5-4B-Chat) renders the same.
qwen2: Final = replace(
    qwen1_5,
    name="qwen2",
    models=(
        "Qwen2",
        "Qwen2-*-Instruct",
        "Qwen1.5-*-Chat",
        "Qwen2.5-VL-*-Instruct",
    ),
    user_prefix="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)

# Qwen2.5-*-Instruct.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen2.5-7B-Instruct.jinja (verbatim Hub template).
qwen2_5: Final = replace(
    qwen1_5,
    name="qwen2.5",
    models=(
        "Qwen2.5",
        "Qwen2.5-*-Instruct",
        "Qwen2.5-Coder-*-Instruct",
        "Qwen2.5-Coder",
    ),
    user_prefix="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)

# Qwen3 (thinking allowed: generation prompt has no think block). Past answers lose their thoughts; the last answer of a
# finished conversation has them, even if they are empty.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen3-0.6B.jinja (verbatim Hub template).
qwen3: Final = replace(
    qwen1_5,
    name="qwen3",
    models=("Qwen3", "Qwen3-*"),
    user_prefix="<|im_start|>user\n",
    special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    thinking=Thinking(
        before="<|im_end|>\n<|im_start|>assistant\n<think>\n",
        after="\n</think>\n\n",
        strip=strip_newlines,
        strip_answer=strip_leading_newlines,
    ),
    past_reasoning="dropped",
    before_answer="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)

# Qwen3 with enable_thinking=False.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen3-0.6B.jinja (verbatim Hub template) with
# enable_thinking=False.
qwen3_nothink: Final = replace(
    qwen3,
    name="qwen3-nothink",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)

# Qwen3-*-Instruct-2507, which never think.
# Source: huggingface trl, trl/chat_templates/qwen3_instruct_2507.jinja (copy of the Qwen3-4B-Instruct-2507 Hub template). For
# Qwen3-Next no copy was found: ms-swift 4.6.0, swift/model/models/qwen.py, gives it the same template.
qwen3_2507: Final = replace(
    qwen1_5,
    name="qwen3-2507",
    models=(
        "Qwen3-*-Instruct-2507",
        "Qwen3-Next-*-Instruct",
        "Qwen3-Coder-*-Instruct",
        "qwen3-coder",  # Ollama's name
        "Qwen3-VL-*-Instruct",
    ),
    user_prefix="<|im_start|>user\n",
)

# QwQ-32B, not its Preview.
# Llama.cpp added an enable_thinking switch to this copy; rendered with enable_thinking=True, which is the original
# behaviour.
# Source: ggml-org llama.cpp, models/templates/Qwen-QwQ-32B.jinja (verbatim Hub template).
qwq: Final = replace(
    qwen3,
    name="qwq",
    thinking=None,
    before_answer=None,
    models=("QwQ", "QwQ-*"),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    stop=("<|im_end|>",),
    strip_assistant=strip_leading_newlines,
)

# Qwen3-*-Thinking-2507, which always think.
# Source: unsloth 2026.10.9, chat_templates.py qwen3_thinking_template; huggingface.js, packages/ollama-utils/src/
# chat-template-automap.ts (the GGUF chat template of qwen3-next:80b) renders the same.
qwen3_thinking: Final = replace(
    qwen3,
    name="qwen3-thinking",
    models=(
        *("Qwen3-*-Thinking-2507", "Qwen3-Next-*-Thinking"),
        *("qwen3-next:*", "qwen3:4b", "qwen3:30b", "qwen3:235b"),  # what Ollama serves by these names now
    ),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
)

# Qwen3.5, Qwen3.6: every text is stripped.
# Source: ggml-org llama.cpp, models/templates/Qwen3.5-4B.jinja (verbatim Hub template); huggingface trl,
# trl/chat_templates/qwen3_6.jinja renders the same.
qwen3_5: Final = replace(
    qwen3_thinking,
    name="qwen3.5",
    models=("Qwen3.5-*", "Qwen3.6-*"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "\n</think>\n\n", strip=str.strip),
)

# Qwen3.5 with enable_thinking=False; the default of its smallest models.
# Source: huggingface trl, trl/chat_templates/qwen3_5_nothink.jinja.
qwen3_5_nothink: Final = replace(
    qwen3_5,
    name="qwen3.5-nothink",
    models=("Qwen3.5-0.8B", "Qwen3.5-2B"),
    generation_prompt=qwen3_nothink.generation_prompt,
)

# Qwen3.8, with its default effort; past answers follow their thoughts, even if these are empty.
# Source: huggingface trl, trl/chat_templates/qwen3_8.jinja.
_EFFORT: Final = (
    "<|im_start|>system\nReasoning effort is set to xhigh. Please think carefully through the task, validate key "
    "assumptions, consider plausible alternatives, and prioritize correctness, consistency, and clarity in the final answer."
)
qwen3_8: Final = replace(
    qwen3_5,
    name="qwen3.8",
    models=("Qwen3.8-*",),
    user_prefix=f"{_EFFORT}<|im_end|>\n<|im_start|>user\n",
    before_system=f"{_EFFORT}\n\n",
    before_assistant="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    drops_empty_system=True,
    past_reasoning="written",
)


FORMATS: Final = (
    qwen1_5,
    qwen2,
    qwen2_5,
    qwen3,
    qwen3_nothink,
    qwen3_2507,
    qwq,
    qwen3_thinking,
    qwen3_5,
    qwen3_5_nothink,
    qwen3_8,
)
