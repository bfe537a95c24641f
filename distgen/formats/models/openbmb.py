"""OpenBMB's MiniCPM models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml
from distgen.formats.template import ChatTemplate, Thinking, strip_leading_newlines, strip_newlines

# MiniCPM-2B (system printed bare).
#     {system}<用户>{user}<AI>{answer}<用户>{user}<AI>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# MiniCPM-3B-OpenHermes; its expected output also agrees).
minicpm: Final = ChatTemplate(
    "minicpm",
    models=("MiniCPM-2B",),
    user_prefix="<用户>",
    before_system="",
    after_system="<用户>",
    before_assistant="<AI>",
    after_assistant="<用户>",
    generation_prompt="<AI>",
    stop=("</s>",),
    special_tokens=("<用户>", "<AI>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# MiniCPM3-4B.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# openbmb/MiniCPM3-4B; its target output also agrees).
minicpm3: Final = replace(
    chatml,
    name="minicpm3",
    models=("MiniCPM3", "MiniCPM3-*"),
    drops_empty_system=True,
)

# MiniCPM5.
# Source: ggml-org llama.cpp, models/templates/openbmb-MiniCPM5-1B.jinja (verbatim Hub template).
minicpm5: Final = replace(
    chatml,
    name="minicpm5",
    models=("MiniCPM5-*",),
    bos="<s>",
    special_tokens=("<s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    thinking=Thinking(
        before="<|im_end|>\n<|im_start|>assistant\n<think>\n",
        after="\n</think>\n\n",
        strip=strip_newlines,
        strip_answer=strip_leading_newlines,
    ),
    past_reasoning="dropped",
)

# The same with enable_thinking=True, and with enable_thinking=False.
minicpm5_think: Final = replace(
    minicpm5,
    name="minicpm5-think",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
)
minicpm5_nothink: Final = replace(
    minicpm5,
    name="minicpm5-nothink",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)


FORMATS: Final = (minicpm, minicpm3, minicpm5, minicpm5_think, minicpm5_nothink)
