"""Liquid AI's LFM2."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml

# LiquidAI LFM2.
# Source: ggml-org llama.cpp, models/templates/LFM2-8B-A1B.jinja (verbatim Hub template).
lfm2: Final = replace(
    chatml,
    name="lfm2",
    models=("LFM2", "LFM2-*"),
    bos="<|startoftext|>",
    special_tokens=("<|startoftext|>", "<|im_start|>", "<|im_end|>"),
    empty_system="absent",
)


FORMATS: Final = (lfm2,)
