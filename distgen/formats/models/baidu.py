"""Baidu's ERNIE models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# ERNIE-4.5-*-PT (0.3B, 21B-A3B, 300B-A47B), not its Thinking.
#     <|begin_of_sentence|>{system}\nUser: {user}\nAssistant: {answer}<|end_of_sentence|>User: {user}\nAssistant: \x20
# Source: huggingface transformers 0bbbf64, src/transformers/models/ernie4_5/convert_ernie4_5_tokenizer.py, the template that
# it wrote into the tokenizers on the Hub; ms-swift 4.6.0, swift/template/templates/baidu.py, has the same literals for all
# three sizes.
ernie4_5: Final = ChatTemplate(
    "ernie4.5",
    models=("ERNIE-4.5-*-PT",),
    bos="<|begin_of_sentence|>",
    user_prefix="User: ",
    before_system="",
    after_system="\nUser: ",
    before_assistant="\nAssistant: ",
    after_assistant="<|end_of_sentence|>User: ",
    generation_prompt="\nAssistant: ",
    stop=("</s>", "<|end_of_sentence|>"),
    special_tokens=("<|begin_of_sentence|>", "<|end_of_sentence|>", "User: ", "Assistant: "),
)


FORMATS: Final = (ernie4_5,)
