"""Baichuan's models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# Baichuan2-Chat (FastChat rendering).
# From code of a peer, not of the vendor.
#     {system}<reserved_106>{user}<reserved_107>{answer}<reserved_106>{user}<reserved_107>
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py baichuan2-chat.
baichuan2: Final = ChatTemplate(
    "baichuan2",
    models=("Baichuan2-*-Chat",),
    user_prefix="<reserved_106>",
    before_system="",
    after_system="<reserved_106>",
    before_assistant="<reserved_107>",
    after_assistant="<reserved_106>",
    generation_prompt="<reserved_107>",
    stop=("</s>",),
    special_tokens=("<reserved_106>", "<reserved_107>"),
)


FORMATS: Final = (baichuan2,)
