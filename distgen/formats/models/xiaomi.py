"""Xiaomi's MiMo models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml

# MiMo-VL.
# Source: ggml-org llama.cpp, models/templates/MiMo-VL.jinja (verbatim Hub template).
mimo_vl: Final = replace(
    chatml,
    name="mimo-vl",
    models=("MiMo-VL-*-RL", "MiMo-VL-*-SFT"),
    user_prefix="<|im_start|>system\nYou are MiMo, an AI assistant developed by Xiaomi.<|im_end|>\n<|im_start|>user\n",
)


FORMATS: Final = (mimo_vl,)
