"""NVIDIA's Nemotron models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml
from distgen.formats.template import Thinking

# Nemotron-3-Nano and Super. There is always a system turn, and past answers follow an empty thought. A past answer that had
# a thought keeps a line break of it, which no field here says, so that past reasoning is refused.
# Source: ggml-org llama.cpp, models/templates/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja (verbatim Hub template); huggingface
# trl, trl/chat_templates/nemotron_3_super.jinja renders the same.
nemotron3: Final = replace(
    chatml,
    name="nemotron3",
    models=("NVIDIA-Nemotron-3-Nano-*", "NVIDIA-Nemotron-3-Super-*"),
    user_prefix="<|im_start|>system\n<|im_end|>\n<|im_start|>user\n",
    before_assistant="<|im_end|>\n<|im_start|>assistant\n<think></think>",
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    strip_assistant=str.rstrip,
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "\n</think>\n"),
)

# Nemotron-3-Ultra and 3.5, which have no line breaks after a thought.
# Source: huggingface trl, trl/chat_templates/nemotron_3_ultra.jinja; nemotron_3_5_lightning.jinja renders the same.
nemotron3_ultra: Final = replace(
    nemotron3,
    name="nemotron3-ultra",
    models=("NVIDIA-Nemotron-3-Ultra-*",),
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "</think>"),
    past_reasoning="dropped",
)

# Nemotron-3-Nano and Super with enable_thinking=False.
nemotron3_nothink: Final = replace(
    nemotron3,
    name="nemotron3-nothink",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think></think>",
)


FORMATS: Final = (
    nemotron3,
    nemotron3_ultra,
    nemotron3_nothink,
)
