"""OpenChat."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# openchat-3.5, Starling-LM-7B.
#     <s>GPT4 Correct System: {system}<|end_of_turn|>GPT4 Correct User: {user}<|end_of_turn|>GPT4 Correct Assistant:
#      {answer}<|end_of_turn|>GPT4 Correct User: {user}<|end_of_turn|>GPT4 Correct Assistant:
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# openchat/openchat-3.5-0106; its expected output also agrees).
openchat: Final = ChatTemplate(
    "openchat",
    models=("openchat-3.5", "openchat-3.5-0106", "Starling-LM-*-alpha", "Starling-LM-*-beta"),
    bos="<s>",
    user_prefix="GPT4 Correct User: ",
    before_system="GPT4 Correct System: ",
    after_system="<|end_of_turn|>GPT4 Correct User: ",
    before_assistant="<|end_of_turn|>GPT4 Correct Assistant: ",
    after_assistant="<|end_of_turn|>GPT4 Correct User: ",
    generation_prompt="<|end_of_turn|>GPT4 Correct Assistant:",
    stop=("<|end_of_turn|>",),
    special_tokens=(
        "<s>",
        "GPT4 Correct User: ",
        "GPT4 Correct Assistant:",
        "GPT4 Correct System: ",
        "<|end_of_turn|>",
    ),
)


FORMATS: Final = (openchat,)
