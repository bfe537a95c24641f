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

# Llama-3.1-Tulu-3-*, which has another token at the end of a past answer.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of tulu3:70b), with the
# EOS of Llama 3.1.
tulu3: Final = replace(
    tulu,
    name="tulu3",
    models=("Llama-3.1-Tulu-3-*", "Llama-3.1-Tulu-3-*-SFT", "Llama-3.1-Tulu-3-*-DPO"),
    after_assistant="<|end_of_text|>\n<|user|>\n",
    stop=("<|end_of_text|>",),
    special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end_of_text|>"),
)


FORMATS: Final = (tulu, olmo2, tulu3)
