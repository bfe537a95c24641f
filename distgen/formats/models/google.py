"""Google's Gemma models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# gemma-1/2-it (system role: raises).
#     <bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>\n<start_of_turn>user
#     \n{user}<end_of_turn>\n<start_of_turn>model\n
# Source: ggml-org llama.cpp, models/templates/google-gemma-2-2b-it.jinja (verbatim Hub template).
gemma: Final = ChatTemplate(
    "gemma",
    models=(
        "gemma-1",
        "gemma-*-it",
        "gemma-1.1-*-it",
        "gemma-2",
        "gemma-2-*-it",
        "gemma2",
    ),
    bos="<bos>",
    user_prefix="<start_of_turn>user\n",
    before_system="",
    after_system="",
    before_assistant="<end_of_turn>\n<start_of_turn>model\n",
    after_assistant="<end_of_turn>\n<start_of_turn>user\n",
    generation_prompt="<end_of_turn>\n<start_of_turn>model\n",
    stop=("<end_of_turn>", "<eos>"),
    special_tokens=("<bos>", "<start_of_turn>", "<end_of_turn>"),
    system_position="refused",
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# gemma-3-it (system folded into first user, two newlines, system NOT trimmed).
# Source: axolotl, utils/chat_templates/templates/gemma3.jinja (copy of the google/gemma-3-it Hub template).
gemma3: Final = replace(
    gemma,
    name="gemma3",
    models=(
        "gemma-3",
        "gemma-3-*-it",
        "gemma-3n-*-it",
        "gemma3n",
    ),
    before_system="<start_of_turn>user\n",
    after_system="\n\n",
    system_position="first_user",
)

# gemma-4-31B-it with thinking disabled: the thought channel is empty. Its maker says to train it in this form too.
#     <bos><|turn>system\n{system}<turn|>\n<|turn>user\n{user}<turn|>\n<|turn>model\n{answer}<turn|>\n<|turn>user\n
#     {user}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>
# Source: ggml-org llama.cpp, models/templates/google-gemma-4-31B-it.jinja (verbatim Hub template); ai.google.dev, "Gemma 4
# Prompt Formatting", "Fine-Tuning Big Models with No-Thinking Datasets".
gemma4: Final = ChatTemplate(
    "gemma4",
    models=(
        "gemma-4-31B-it",
        "gemma-4-12B-it",
        "gemma-4-26B-A4B-it",
    ),
    bos="<bos>",
    user_prefix="<|turn>user\n",
    before_system="<|turn>system\n",
    after_system="<turn|>\n<|turn>user\n",
    before_assistant="<turn|>\n<|turn>model\n",
    after_assistant="<turn|>\n<|turn>user\n",
    generation_prompt="<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    before_answer="<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    past_reasoning="dropped",
    stop=("<turn|>",),
    special_tokens=("<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# gemma-4-E2B-it.
# Source: huggingface trl, trl/chat_templates/gemma4.jinja (copy of the google/gemma-4-E2B-it Hub template), and gemma4_v5.jinja
# for the reasoning.
gemma4_e2b: Final = replace(
    gemma4,
    name="gemma4-e2b",
    models=("gemma-4-E2B-it",),
    generation_prompt="<turn|>\n<|turn>model\n",
    before_answer=None,
    thinking=Thinking("<turn|>\n<|turn>model\n<|channel>thought\n", "\n<channel|>"),
)

# gemma-4 with enable_thinking=True.
# Source: ggml-org llama.cpp, models/templates/google-gemma-4-31B-it.jinja (verbatim Hub template).
gemma4_think: Final = replace(
    gemma4_e2b,
    name="gemma4-think",
    models=(),
    user_prefix="<|turn>system\n<|think|>\n<turn|>\n<|turn>user\n",
    before_system="<|turn>system\n<|think|>\n",
    special_tokens=(*gemma4.special_tokens, "<|think|>"),
)


FORMATS: Final = (gemma, gemma3, gemma4, gemma4_e2b, gemma4_think)
