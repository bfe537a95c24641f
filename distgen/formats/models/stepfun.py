"""StepFun's Step models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.models.chatml import chatml
from distgen.formats.template import Thinking

# Step-3.5-Flash.
# Source: ggml-org llama.cpp, models/templates/StepFun3.5-Flash.jinja (verbatim Hub template), with the BOS of its tokenizer.
step3_5: Final = replace(
    chatml,
    name="step3.5",
    models=("Step-3.5-Flash",),
    bos="<｜begin▁of▁sentence｜>",
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    special_tokens=("<｜begin▁of▁sentence｜>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "\n</think>\n"),
    past_reasoning="dropped",
    before_answer="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n",
)


FORMATS: Final = (step3_5,)
