"""Shanghai AI Laboratory's InternLM."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml

# InternLM2-Chat (bos + ChatML); Zephyr-gemma, with the BOS of its tokenizer.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# internlm/internlm2-chat-7b; its target output also agrees).
chatml_bos: Final = replace(
    chatml,
    name="chatml-bos",
    models=("InternLM2-Chat", "internlm2-chat-*"),
    bos="<s>",
    special_tokens=("<s>", "<|im_start|>", "<|im_end|>"),
)


FORMATS: Final = (chatml_bos,)
