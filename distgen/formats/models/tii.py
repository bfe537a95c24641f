"""The Technology Innovation Institute's Falcon."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.allenai import tulu

# Falcon3-*-Instruct.
# Source: huggingface trl, trl/chat_templates/falcon3.jinja (exact copy of the tiiuae/Falcon3-7B-Instruct tokenizer
# template); the same in huggingface optimum-intel, optimum/exporters/openvino/utils.py (falcon3-7b-instruct).
falcon3: Final = replace(
    tulu,
    name="falcon3",
    models=("Falcon3", "Falcon3-*-Instruct"),
)


FORMATS: Final = (falcon3,)
