"""MiniMax's models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

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
    empty_system="absent",
)


FORMATS: Final = (minimax_m2,)
