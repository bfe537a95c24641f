"""Stanford's Alpaca."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate, refuse_history

# Stanford Alpaca (single turn, no system).
#     Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n###
#      Instruction:\n{user}\n\n### Response:
# Source: tatsu-lab stanford_alpaca, train.py PROMPT_DICT (vendor code).
alpaca: Final = ChatTemplate(
    "alpaca",
    user_prefix="Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n",
    before_system="",
    after_system="",
    before_assistant="",
    after_assistant="",
    generation_prompt="\n\n### Response:",
    stop=("</s>",),
    special_tokens=("### Instruction:", "### Response:"),
    system_position="refused",
    refuse=refuse_history,
)


FORMATS: Final = (alpaca,)
