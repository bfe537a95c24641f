"""The Technology Innovation Institute's Falcon."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.allenai import tulu
from distgen.formats.models.chatml import chatml

# Falcon3-*-Instruct.
# Source: huggingface trl, trl/chat_templates/falcon3.jinja (exact copy of the tiiuae/Falcon3-7B-Instruct tokenizer
# template); the same in huggingface optimum-intel, optimum/exporters/openvino/utils.py (falcon3-7b-instruct).
falcon3: Final = replace(
    tulu,
    name="falcon3",
    models=("Falcon3", "Falcon3-*-Instruct"),
)

# Falcon-H1-*-Instruct.
# Source: axolotl, utils/chat_templates/templates/falcon_h1.jinja (copy of the tiiuae/Falcon-H1 Hub template), with the
# BOS of its tokenizer.
falcon_h1: Final = replace(
    chatml,
    name="falcon-h1",
    models=("Falcon-H1-*-Instruct",),
    bos="<|begin_of_text|>",
    special_tokens=("<|begin_of_text|>", "<|im_start|>", "<|im_end|>"),
)


FORMATS: Final = (falcon3, falcon_h1)
