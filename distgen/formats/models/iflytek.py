"""iFLYTEK's Spark models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# Spark2.5, which thinks. The system text follows a default one.
#     <｜start▁of▁sentence｜><|System|>\nyou are a helpful assistant.\n\n{system}<｜end▁of▁sentence｜>
#     <｜start▁of▁sentence｜><|User|>{user}<｜end▁of▁sentence｜><｜start▁of▁sentence｜><|Bot|></think>{answer}
#     <｜end▁of▁sentence｜><｜start▁of▁sentence｜><|User|>{user}<｜end▁of▁sentence｜><｜start▁of▁sentence｜><|Bot|><think>
# Source: ggml-org llama.cpp, models/templates/Spark2.5.jinja.
_SYSTEM: Final = "<｜start▁of▁sentence｜><|System|>\nyou are a helpful assistant."
_USER: Final = "<｜end▁of▁sentence｜><｜start▁of▁sentence｜><|User|>"
_BOT: Final = "<｜end▁of▁sentence｜><｜start▁of▁sentence｜><|Bot|>"
spark2_5: Final = ChatTemplate(
    "spark2.5",
    user_prefix=f"{_SYSTEM}{_USER}",
    before_system=f"{_SYSTEM}\n\n",
    after_system=_USER,
    before_assistant=f"{_BOT}</think>",
    after_assistant=_USER,
    generation_prompt=f"{_BOT}<think>",
    stop=("<｜end▁of▁sentence｜>",),
    special_tokens=(
        *("<｜start▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|System|>", "<|User|>", "<|Bot|>"),
        *("<think>", "</think>"),
    ),
    drops_empty_system=True,
    thinking=Thinking(before=f"{_BOT}<think>", after="</think>"),
    past_reasoning="written",
)


FORMATS: Final = (spark2_5,)
