"""Reka AI's models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# Reka Edge, without thinking, which is its default.
#     system: {system}\n\n<sep>human: {user}<sep>assistant: {answer}\n\n<sep>human: {user}<sep>assistant:
# Source: ggml-org llama.cpp, models/templates/Reka-Edge.jinja.
reka_edge: Final = ChatTemplate(
    "reka-edge",
    user_prefix="human: ",
    before_system="system: ",
    after_system="\n\n<sep>human: ",
    before_assistant="<sep>assistant: ",
    after_assistant="\n\n<sep>human: ",
    generation_prompt="<sep>assistant:",
    stop=("<sep>",),
    special_tokens=("<sep>", "<think>", "</think>", "human: ", "assistant:", "system: "),
    drops_empty_system=True,
)


FORMATS: Final = (reka_edge,)
