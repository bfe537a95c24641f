"""01.AI's Yi models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml

# Yi-1.5-*-Chat. The system text stands bare.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of yi:6b).
yi1_5: Final = replace(
    chatml,
    name="yi1.5",
    models=("Yi-1.5-*-Chat", "yi:*"),
    before_system="",
    after_system="<|im_start|>user\n",
)


FORMATS: Final = (yi1_5,)
