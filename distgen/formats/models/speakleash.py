"""SpeakLeash's Bielik."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml_bos
from distgen.formats.template import Thinking

# Bielik-11B-v3.
# Source: ggml-org llama.cpp, models/templates/Bielik-11B-v3.0-Instruct.jinja (verbatim Hub template).
bielik: Final = replace(
    chatml_bos,
    name="bielik",
    models=("Bielik-*-v3.0-Instruct",),
    special_tokens=("<s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    drops_empty_system=True,
    strip_assistant=str.lstrip,
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "\n</think>\n", strip=str.strip),
    past_reasoning="written",
)


FORMATS: Final = (bielik,)
