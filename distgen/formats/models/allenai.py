"""The Allen Institute's Tulu and OLMo."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate

# Tulu-2/Tulu-3 (no bos in template).
#     <|system|>\n{system}\n<|user|>\n{user}\n<|assistant|>\n{answer}<|endoftext|>\n<|user|>\n{user}\n<|assistant|>\n
# Source: allenai open-instruct, open_instruct/dataset_transformation.py CHAT_TEMPLATES["tulu"] (vendor code).
tulu: Final = ChatTemplate(
    "tulu",
    user_prefix="<|user|>\n",
    before_system="<|system|>\n",
    after_system="\n<|user|>\n",
    before_assistant="\n<|assistant|>\n",
    after_assistant="<|endoftext|>\n<|user|>\n",
    generation_prompt="\n<|assistant|>\n",
    stop=("<|endoftext|>",),
    special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
)

# OLMo-2-*-Instruct (tulu with bos <|endoftext|>).
# Source: allenai open-instruct, CHAT_TEMPLATES["tulu"] with add_bos=True prepending bos_token (vendor code path).
olmo2: Final = replace(
    tulu,
    name="olmo2",
    models=("OLMo-2", "OLMo-2-1124-*-Instruct", "OLMo-2-0325-*-Instruct"),
    bos="<|endoftext|>",
)


FORMATS: Final = (tulu, olmo2)
