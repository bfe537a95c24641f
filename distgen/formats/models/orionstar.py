"""OrionStar's Orion."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# Orion-14B-Chat (system silently DROPPED).
#     <s>Human: {user}\n\nAssistant: </s>{answer}</s>Human: {user}\n\nAssistant: </s>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# OrionStarAI/Orion-14B-Chat; its expected output also agrees).
orion: Final = ChatTemplate(
    "orion",
    models=("Orion-*-Chat",),
    bos="<s>",
    user_prefix="Human: ",
    before_system="",
    after_system="",
    before_assistant="\n\nAssistant: </s>",
    after_assistant="</s>Human: ",
    generation_prompt="\n\nAssistant: </s>",
    stop=("</s>",),
    special_tokens=("<s>", "</s>", "Human: ", "Assistant: "),
    system_position="refused",
    drops_empty_system=True,
)


FORMATS: Final = (orion,)
