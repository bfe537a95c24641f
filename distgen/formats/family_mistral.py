"""Mistral AI's: `[INST]`, with the system text first, last, or nowhere.

Each format beside the source that it is taken from; one that differs little from another names its difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, strip_spaces_after

# Mistral-7B-Instruct-v0.1/v0.2, Mixtral-8x7B-Instruct (mistral-common v1; system folded into FIRST user).
# Source: mistral-common 1.13.1, InstructTokenizerV1 .text (U+2581 decoded to space).
mistral_v1: Final = ChatTemplate(
    "mistral-v1",
    bos="<s>",
    head=" [INST] ",
    before_system=" [INST] ",
    after_system="\n\n",
    before_answer=" [/INST] ",
    after_answer="</s> [INST] ",
    tail=" [/INST]",
    stops=("</s>",),
    control_tokens=("<s>", "</s>", "[INST]", "[/INST]"),
    empty_system="absent",
    folds="system",
)

# Mistral-7B-Instruct-v0.1/v0.2 original Hub template (no system role: raises).
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# mistralai/Mixtral-8x7B-Instruct-v0.1; its target output also agrees).
mistral_v0_2_hf: Final = ChatTemplate(
    "mistral-v0.2-hf",
    bos="<s>",
    head="[INST] ",
    before_system="",
    after_system="",
    before_answer=" [/INST]",
    after_answer="</s>[INST] ",
    tail=" [/INST]",
    stops=("</s>",),
    control_tokens=("<s>", "</s>", "[INST]", "[/INST]"),
    system_place="refused",
)

# Mistral-7B-Instruct-v0.2 later Hub template (system folded into first user).
# Source: guidance-ai guidance, guidance/chat.py (verbatim mistralai/Mistral-7B-Instruct-v0.2 template).
mistral_v0_2_hf_sys: Final = replace(
    mistral_v1,
    name="mistral-v0.2-hf-sys",
    empty_system=("", ""),
)

# Mistral-7B-Instruct-v0.3, Mixtral-8x22B, Codestral, Mistral-Large-2407 (system folded into LAST user).
# Source: mistral-common 1.13.1, InstructTokenizerV3 .text (U+2581 decoded to space).
mistral_v3: Final = replace(
    mistral_v0_2_hf,
    name="mistral-v3",
    after_system="\n\n",
    before_answer="[/INST] ",
    tail="[/INST]",
    system_place="last",
    empty_system="absent",
    strip_assistant=strip_spaces_after,
    folds="system",
    empty_user=(" ", ""),
    empty_assistant=(" ", ""),
)

# Mistral-Nemo-Instruct-2407, Pixtral (system folded into LAST user, no spaces).
# Source: mistral-common 1.13.1, InstructTokenizerV3 with tekken .text.
mistral_v3_tekken: Final = replace(
    mistral_v3,
    name="mistral-v3-tekken",
    head="[INST]",
    before_answer="[/INST]",
    after_answer="</s>[INST]",
    empty_user=("", ""),
    empty_assistant=("", ""),
)

# Mistral-Large-Instruct-2411.
# Source: mistral-common 1.13.1, InstructTokenizerV7 .text (U+2581 decoded to space).
mistral_v7: Final = replace(
    mistral_v3,
    name="mistral-v7",
    before_system="[SYSTEM_PROMPT] ",
    after_system="[/SYSTEM_PROMPT][INST] ",
    control_tokens=("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    system_place="first",
    empty_system=(" ", ""),
    folds="nothing",
)

# Mistral-Small-3/3.1/3.2 (default system prompt with today when none given).
# The no-system cases embed today in the default prompt: omitted.
# Source: axolotl mistral_v7_tekken.jinja (copy of mistralai/Mistral-Small-24B-Instruct-2501); agrees with llama.cpp
# models/templates Mistral-Small-3.2 when a system message is given.
mistral_v7_tekken: Final = replace(
    mistral_v7,
    name="mistral-v7-tekken",
    head="",
    before_system="[SYSTEM_PROMPT]",
    after_system="[/SYSTEM_PROMPT][INST]",
    before_answer="[/INST]",
    after_answer="</s>[INST]",
    system_place="required",
    strip_assistant=str,
    empty_system=("", ""),
    empty_user=("", ""),
    empty_assistant=("", ""),
)
