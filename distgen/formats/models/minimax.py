"""MiniMax's models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking, refuse_blank_system

# MiniMax-M1. A blank system text leaves the system turn out, so that it is refused.
#     <begin_of_document><beginning_of_sentence>system ai_setting=assistant\n{system}<end_of_sentence>\n
#     <beginning_of_sentence>user name=user\n{user}<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\n{answer}
#     <end_of_sentence>\n<beginning_of_sentence>user name=user\n{user}<end_of_sentence>\n<beginning_of_sentence>
#     ai name=assistant\n
# Source: ggml-org llama.cpp, models/templates/MiniMax-M1.jinja (verbatim Hub template).
_M1_SYSTEM: Final = "<beginning_of_sentence>system ai_setting=assistant\n"
_M1_USER: Final = "<beginning_of_sentence>user name=user\n"
minimax_m1: Final = ChatTemplate(
    "minimax-m1",
    models=("MiniMax-M1-40k", "MiniMax-M1-80k"),
    bos="<begin_of_document>",
    user_prefix=(
        f"{_M1_SYSTEM}You are a helpful assistant created by Minimax based on MiniMax-M1 model.<end_of_sentence>\n{_M1_USER}"
    ),
    before_system=_M1_SYSTEM,
    after_system=f"<end_of_sentence>\n{_M1_USER}",
    before_assistant="<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\n",
    after_assistant=f"<end_of_sentence>\n{_M1_USER}",
    generation_prompt="<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\n",
    stop=("<end_of_sentence>",),
    special_tokens=("<begin_of_document>", "<beginning_of_sentence>", "<end_of_sentence>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
    refuse=refuse_blank_system,
)

# MiniMax-M2.
#     ]~!b[]~b]system\n{system}[e~[\n]~b]user\n{user}[e~[\n]~b]ai\n{answer}[e~[\n]~b]user\n{user}[e~[\n]~b]ai\n<think>
#     \n
# Source: ggml-org llama.cpp, models/templates/MiniMax-M2.jinja (verbatim Hub template).
minimax_m2: Final = ChatTemplate(
    "minimax-m2",
    models=("MiniMax-M2",),
    bos="]~!b[",
    user_prefix="]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\n",
    before_system="]~b]system\n",
    after_system="[e~[\n]~b]user\n",
    before_assistant="[e~[\n]~b]ai\n",
    after_assistant="[e~[\n]~b]user\n",
    generation_prompt="[e~[\n]~b]ai\n<think>\n",
    stop=("[e~[",),
    special_tokens=("]~!b[", "]~b]", "[e~[", "<think>", "</think>"),
    drops_empty_system=True,
    thinking=Thinking("[e~[\n]~b]ai\n<think>\n", "\n</think>\n\n"),
    past_reasoning="dropped",
)

# MiniMax-M3, which decides by itself whether it thinks.
# Source: ggml-org llama.cpp, models/templates/MiniMax-M3.jinja (verbatim Hub template).
_M3: Final = """]~b]system
Your model version is MiniMax-M3, developed by MiniMax. Knowledge cutoff: January 2026. Founded in early 2022, MiniMax is a global AI foundation model company committed to advancing the frontiers of AI towards AGI.

<thinking_instructions>
You have a thinking capability that allows you to reason step by step before responding. When thinking is enabled, wrap your reasoning in <mm:think></mm:think> tags before your response. When thinking is disabled, begin your response directly after the </mm:think> prefix. When thinking is adaptive, decide on your own whether to think for the current turn.
Current thinking mode: adaptive. You are encouraged to think for complex decision-making, multi-step reasoning, or when analyzing function/tool results.
</thinking_instructions>[e~[
]~b]developer
"""
minimax_m3: Final = replace(
    minimax_m2,
    name="minimax-m3",
    models=("MiniMax-M3",),
    user_prefix=f"{_M3}You are a helpful assistant.[e~[\n]~b]user\n",
    before_system=_M3,
    before_assistant="[e~[\n]~b]ai\n</mm:think>",
    generation_prompt="[e~[\n]~b]ai\n",
    special_tokens=(
        *("]~!b[", "]~b]", "[e~[", "<mm:think>", "</mm:think>"),
        *("<thinking_instructions>", "</thinking_instructions>"),
    ),
    thinking=Thinking("[e~[\n]~b]ai\n<mm:think>", "</mm:think>"),
    past_reasoning="written",
)

# MiniMax-M2.1 and M2.5, which differ in the default system text.
# Source: ms-swift 4.6.0, swift/template/templates/minimax.py, for that text; the template of MiniMax-M2 for the rest, which
# takes it as `model_identity`.
minimax_m2_1: Final = replace(
    minimax_m2,
    name="minimax-m2.1",
    models=("MiniMax-M2.1",),
    user_prefix="]~b]system\nYou are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax.[e~[\n]~b]user\n",
)
minimax_m2_5: Final = replace(
    minimax_m2,
    name="minimax-m2.5",
    models=("MiniMax-M2.5",),
    user_prefix="]~b]system\nYou are a helpful assistant. Your name is MiniMax-M2.5 and is built by MiniMax.[e~[\n]~b]user\n",
)


FORMATS: Final = (minimax_m1, minimax_m2, minimax_m3, minimax_m2_1, minimax_m2_5)
