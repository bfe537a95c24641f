"""Maxime Labonne's AlphaMonarch."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# AlphaMonarch-7B.
#     <s>system\n{system}</s>\n<s>user\n{user}</s>\n<s>assistant\n{answer}</s>\n<s>user\n{user}</s>\n<s>assistant\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# mlabonne/AlphaMonarch-7B; its expected output also agrees).
monarch: Final = ChatTemplate(
    "monarch",
    models=("AlphaMonarch-*",),
    bos="<s>",
    user_prefix="user\n",
    before_system="system\n",
    after_system="</s>\n<s>user\n",
    before_assistant="</s>\n<s>assistant\n",
    after_assistant="</s>\n<s>user\n",
    generation_prompt="</s>\n<s>assistant\n",
    stop=("</s>",),
    special_tokens=("<s>", "</s>"),
)


FORMATS: Final = (monarch,)
