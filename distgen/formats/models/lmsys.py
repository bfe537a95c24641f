"""LMSYS's Vicuna, and Alpaca as FastChat renders it."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# vicuna-v1.1/1.3/1.5 (FastChat).
# System null = FastChat default system text; no BOS in text (tokenizer adds <s>).
#     {system} USER: {user} ASSISTANT: {answer}</s>USER: {user} ASSISTANT:
# Source: lm-sys FastChat (fschat 0.2.36), fastchat/conversation.py vicuna_v1.1 (vendor code).
vicuna: Final = ChatTemplate(
    "vicuna",
    models=("vicuna-*-v1.1", "vicuna-*-v1.3", "vicuna-*-v1.5"),
    user_prefix="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ",
    before_system="",
    after_system=" USER: ",
    before_assistant=" ASSISTANT: ",
    after_assistant="</s>USER: ",
    generation_prompt=" ASSISTANT:",
    stop=("</s>",),
    special_tokens=("USER: ", "ASSISTANT: ", "</s>"),
    around=(("user", " ", " "), ("assistant", " ", "</s>")),
)

# Alpaca multi-turn as FastChat renders it.
# From code of a peer, not of the vendor.
#     {system}\n\n### Instruction: {user}\n\n### Response: {answer}</s>### Instruction: {user}\n\n### Response:
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py alpaca.
alpaca_fastchat: Final = ChatTemplate(
    "alpaca-fastchat",
    user_prefix="Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction: ",
    before_system="",
    after_system="\n\n### Instruction: ",
    before_assistant="\n\n### Response: ",
    after_assistant="</s>### Instruction: ",
    generation_prompt="\n\n### Response:",
    stop=("</s>",),
    special_tokens=("### Instruction:", "### Response:", "</s>"),
    around=(("user", " ", "\n\n"), ("assistant", " ", "</s>")),
)


FORMATS: Final = (vicuna, alpaca_fastchat)
