"""NVIDIA's Nemotron models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml
from distgen.formats.models.meta import llama3

# Llama-3.1-Nemotron-70B-Instruct. There is always a system turn.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of nemotron:70b).
llama3_1_nemotron: Final = replace(
    llama3,
    name="llama3.1-nemotron",
    models=("Llama-3.1-Nemotron-*-Instruct", "nemotron:*"),
    user_prefix=f"{llama3.before_system}{llama3.after_system}",
)

# Nemotron-3 and 3.5. There is always a system turn, and past answers follow an empty thought.
# Source: ggml-org llama.cpp, models/templates/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja (verbatim Hub template); huggingface
# trl, trl/chat_templates/nemotron_3_super.jinja, nemotron_3_ultra.jinja and nemotron_3_5_lightning.jinja render the same.
nemotron3: Final = replace(
    chatml,
    name="nemotron3",
    models=("NVIDIA-Nemotron-3-Nano-*", "NVIDIA-Nemotron-3-Super-*", "NVIDIA-Nemotron-3-Ultra-*"),
    user_prefix="<|im_start|>system\n<|im_end|>\n<|im_start|>user\n",
    before_assistant="<|im_end|>\n<|im_start|>assistant\n<think></think>",
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    strip_assistant=str.rstrip,
)

# The same with enable_thinking=False.
nemotron3_nothink: Final = replace(
    nemotron3,
    name="nemotron3-nothink",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think></think>",
)


FORMATS: Final = (
    llama3_1_nemotron,
    nemotron3,
    nemotron3_nothink,
)
