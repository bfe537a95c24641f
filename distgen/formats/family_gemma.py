"""Google's: `<start_of_turn>`.

Each format beside the source that it is taken from; one that differs little from another names its difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate

# gemma-1/2-it (system role: raises).
#     <bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>\n<start_of_turn>user
#     \n{user}<end_of_turn>\n<start_of_turn>model\n
# Source: ggml-org llama.cpp, models/templates/google-gemma-2-2b-it.jinja (verbatim Hub template).
gemma: Final = ChatTemplate(
    "gemma",
    models=("gemma-1", "gemma-*-it", "gemma-1.1-*-it", "gemma-2", "gemma-2-*-it"),
    bos="<bos>",
    head="<start_of_turn>user\n",
    before_system="",
    after_system="",
    before_answer="<end_of_turn>\n<start_of_turn>model\n",
    after_answer="<end_of_turn>\n<start_of_turn>user\n",
    tail="<end_of_turn>\n<start_of_turn>model\n",
    stops=("<end_of_turn>", "<eos>"),
    control_tokens=("<bos>", "<start_of_turn>", "<end_of_turn>"),
    system_place="refused",
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# gemma-3-it (system folded into first user, two newlines, system NOT trimmed).
# Source: axolotl, utils/chat_templates/templates/gemma3.jinja (copy of the google/gemma-3-it Hub template).
gemma3: Final = replace(
    gemma,
    name="gemma3",
    models=("gemma-3", "gemma-3-*-it"),
    before_system="<start_of_turn>user\n",
    after_system="\n\n",
    system_place="first",
    folds="system",
)

# gemma-4-31B-it, which is told that it has nothing to think about.
#     <bos><|turn>system\n{system}<turn|>\n<|turn>user\n{user}<turn|>\n<|turn>model\n{answer}<turn|>\n<|turn>user\n
#     {user}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>
# Source: ggml-org llama.cpp, models/templates/google-gemma-4-31B-it.jinja (verbatim Hub template).
gemma4: Final = ChatTemplate(
    "gemma4",
    models=("gemma-4-31B-it",),
    bos="<bos>",
    head="<|turn>user\n",
    before_system="<|turn>system\n",
    after_system="<turn|>\n<|turn>user\n",
    before_answer="<turn|>\n<|turn>model\n",
    after_answer="<turn|>\n<|turn>user\n",
    tail="<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    stops=("<turn|>",),
    control_tokens=("<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# gemma-4-E2B-it.
# Source: huggingface trl, trl/chat_templates/gemma4.jinja (copy of the google/gemma-4-E2B-it Hub template).
gemma4_e2b: Final = replace(
    gemma4,
    name="gemma4-e2b",
    models=("gemma-4-E2B-it",),
    tail="<turn|>\n<|turn>model\n",
)

GEMMA: Final = (
    gemma,
    gemma3,
    gemma4,
    gemma4_e2b,
)
