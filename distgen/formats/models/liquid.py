"""Liquid AI's LFM2."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml
from distgen.formats.template import Thinking

# LiquidAI LFM2.
# Source: ggml-org llama.cpp, models/templates/LFM2-8B-A1B.jinja (verbatim Hub template).
lfm2: Final = replace(
    chatml,
    name="lfm2",
    models=(
        "LFM2",
        "LFM2-*",
        "LFM2.5-*-Instruct",
        "LFM2.5-VL-*",
    ),
    bos="<|startoftext|>",
    special_tokens=("<|startoftext|>", "<|im_start|>", "<|im_end|>"),
    drops_empty_system=True,
)

# LFM2.5-8B-A1B, whose template takes thoughts out of past answers.
# Source: ggml-org llama.cpp, models/templates/LFM2.5-8B-A1B.jinja (verbatim Hub template).
lfm2_5: Final = replace(
    lfm2,
    name="lfm2.5",
    models=("LFM2.5-8B-A1B",),
    special_tokens=(*lfm2.special_tokens, "<think>", "</think>"),
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>", "</think>"),
    past_reasoning="dropped",
)


FORMATS: Final = (lfm2, lfm2_5)
