"""LAION's OpenAssistant."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# OpenAssistant pythia/llama (FastChat rendering).
# From code of a peer, not of the vendor.
#     {system}<|prompter|>{user}<|endoftext|><|assistant|>{answer}<|endoftext|><|prompter|>{user}<|endoftext|>
#     <|assistant|>
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py oasst_pythia.
oasst: Final = ChatTemplate(
    "oasst",
    models=("OpenAssistant", "oasst-sft-4-pythia-12b-epoch-3.5"),
    user_prefix="<|prompter|>",
    before_system="",
    after_system="<|prompter|>",
    before_assistant="<|endoftext|><|assistant|>",
    after_assistant="<|endoftext|><|prompter|>",
    generation_prompt="<|endoftext|><|assistant|>",
    stop=("<|endoftext|>",),
    special_tokens=("<|prompter|>", "<|assistant|>", "<|endoftext|>"),
    around=(("user", "", "<|endoftext|>"), ("assistant", "", "<|endoftext|>")),
)


FORMATS: Final = (oasst,)
