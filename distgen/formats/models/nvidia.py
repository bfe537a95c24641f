"""NVIDIA's Nemotron models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.errors import InjectedToken
from distgen.formats.injection import find_token
from distgen.formats.models.chatml import chatml
from distgen.formats.models.meta import llama3
from distgen.formats.template import ChatTemplate, Thinking
from distgen.prompt import Prompt

# Llama-3.1-Nemotron-70B-Instruct. There is always a system turn.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of nemotron:70b).
llama3_1_nemotron: Final = replace(
    llama3,
    name="llama3.1-nemotron",
    models=("Llama-3.1-Nemotron-*-Instruct", "nemotron:*"),
    user_prefix=f"{llama3.before_system}{llama3.after_system}",
)

# Nemotron-3-Nano and Super. There is always a system turn, and past answers follow an empty thought. A past answer that had
# a thought keeps a line break of it, which no field here says, so that past reasoning is refused.
# Source: ggml-org llama.cpp, models/templates/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja (verbatim Hub template); huggingface
# trl, trl/chat_templates/nemotron_3_super.jinja renders the same.
nemotron3: Final = replace(
    chatml,
    name="nemotron3",
    models=("NVIDIA-Nemotron-3-Nano-*", "NVIDIA-Nemotron-3-Super-*"),
    user_prefix="<|im_start|>system\n<|im_end|>\n<|im_start|>user\n",
    before_assistant="<|im_end|>\n<|im_start|>assistant\n<think></think>",
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    strip_assistant=str.rstrip,
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "\n</think>\n"),
)

# Nemotron-3-Ultra and 3.5, which have no line breaks after a thought.
# Source: huggingface trl, trl/chat_templates/nemotron_3_ultra.jinja; nemotron_3_5_lightning.jinja renders the same.
nemotron3_ultra: Final = replace(
    nemotron3,
    name="nemotron3-ultra",
    models=("NVIDIA-Nemotron-3-Ultra-*",),
    thinking=Thinking("<|im_end|>\n<|im_start|>assistant\n<think>\n", "</think>"),
    past_reasoning="dropped",
)

# Nemotron-3-Nano and Super with enable_thinking=False.
nemotron3_nothink: Final = replace(
    nemotron3,
    name="nemotron3-nothink",
    models=(),
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n<think></think>",
)


def _refuse_command(name: str, prompt: Prompt) -> InjectedToken | None:
    said = [(where, text) for where, text in prompt.texts() if not where.endswith("assistant")]
    return find_token(name, said, ("/think", "/no_think"))


# NVIDIA-Nemotron-Nano-9B-v2, -12B-v2, which think. In system and user texts its template obeys two commands and takes them
# out. There is always a system turn.
#     <SPECIAL_10>System\n{system}\n\n<SPECIAL_11>User\n{user}\n<SPECIAL_11>Assistant\n{answer}\n<SPECIAL_12>\n
#     <SPECIAL_11>User\n{user}\n<SPECIAL_11>Assistant\n<think>\n
# Source: ggml-org llama.cpp, models/templates/NVIDIA-Nemotron-Nano-v2.jinja (verbatim Hub template).
nemotron_nano_v2: Final = ChatTemplate(
    "nemotron-nano-v2",
    models=("NVIDIA-Nemotron-Nano-*-v2",),
    user_prefix="<SPECIAL_10>System\n\n\n<SPECIAL_11>User\n",
    before_system="<SPECIAL_10>System\n",
    after_system="\n\n<SPECIAL_11>User\n",
    before_assistant="\n<SPECIAL_11>Assistant\n",
    after_assistant="\n<SPECIAL_12>\n<SPECIAL_11>User\n",
    generation_prompt="\n<SPECIAL_11>Assistant\n<think>\n",
    stop=("<SPECIAL_12>",),
    special_tokens=("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>", "<think>", "</think>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
    refuse=_refuse_command,
)


FORMATS: Final = (
    llama3_1_nemotron,
    nemotron_nano_v2,
    nemotron3,
    nemotron3_ultra,
    nemotron3_nothink,
)
