"""LG AI Research's EXAONE."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# EXAONE-3.0/3.5-Instruct.
#     [|system|]{system}[|endofturn|]\n[|user|]{user}\n[|assistant|]{answer}[|endofturn|]\n[|user|]{user}\n
#     [|assistant|]
# Source: public Python project EXAONEManager (verbatim copy of LGAI-EXAONE tokenizer_config chat_template); identical
# rendering to axolotl exaone.jinja.
exaone3: Final = ChatTemplate(
    "exaone3",
    models=("EXAONE-3.0-*-Instruct", "EXAONE-3.5-*-Instruct"),
    user_prefix="[|system|][|endofturn|]\n[|user|]",
    before_system="[|system|]",
    after_system="[|endofturn|]\n[|user|]",
    before_assistant="\n[|assistant|]",
    after_assistant="[|endofturn|]\n[|user|]",
    generation_prompt="\n[|assistant|]",
    stop=("[|endofturn|]",),
    special_tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
)

# EXAONE-4.0.
# From a copy of the template.
#     [|system|]\n{system}[|endofturn|]\n[|user|]\n{user}[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n{answer}
#     [|endofturn|]\n[|user|]\n{user}[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n
# Source: axolotl, utils/chat_templates/templates/exaone4.jinja (copy of the LGAI-EXAONE/EXAONE-4.0 Hub template).
exaone4: Final = ChatTemplate(
    "exaone4",
    models=("EXAONE-4.0", "EXAONE-4.0-*"),
    user_prefix="[|user|]\n",
    before_system="[|system|]\n",
    after_system="[|endofturn|]\n[|user|]\n",
    before_assistant="[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
    after_assistant="[|endofturn|]\n[|user|]\n",
    generation_prompt="[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
    stop=("[|endofturn|]",),
    special_tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]", "<think>", "</think>"),
    around=(("assistant", "<think>\n\n</think>\n\n", ""),),
    thinking=Thinking("[|endofturn|]\n[|assistant|]\n<think>\n", "\n</think>\n\n", str.strip, str.strip),
    past_reasoning="dropped",
)

# EXAONE-4.0 with enable_thinking=True.
exaone4_think: Final = replace(
    exaone4,
    name="exaone4-think",
    models=(),
    generation_prompt="[|endofturn|]\n[|assistant|]\n<think>\n",
)


FORMATS: Final = (exaone3, exaone4, exaone4_think)
