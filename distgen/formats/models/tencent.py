"""Tencent's Hunyuan models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# Hy3, which does not think by default.
#     <｜hy_begin_of_sentence:opensource｜>{system}<｜reasoning_mode:opensource｜>reasoning_effort:no_think
#     <｜hy_User:opensource｜>{user}<｜hy_Assistant:opensource｜><think:opensource></think:opensource>{answer}
#     <｜hy_eos:opensource｜><｜hy_User:opensource｜>{user}<｜hy_Assistant:opensource｜><think:opensource></think:opensource>
# Source: ggml-org llama.cpp, models/templates/tencent-Hy3.jinja (verbatim Hub template).
hy3: Final = ChatTemplate(
    "hy3",
    models=("Hy3",),
    bos="<｜hy_begin_of_sentence:opensource｜>",
    user_prefix="<｜reasoning_mode:opensource｜>reasoning_effort:no_think<｜hy_User:opensource｜>",
    before_system="",
    after_system="<｜reasoning_mode:opensource｜>reasoning_effort:no_think<｜hy_User:opensource｜>",
    before_assistant="<｜hy_Assistant:opensource｜><think:opensource></think:opensource>",
    after_assistant="<｜hy_eos:opensource｜><｜hy_User:opensource｜>",
    generation_prompt="<｜hy_Assistant:opensource｜><think:opensource></think:opensource>",
    stop=("<｜hy_eos:opensource｜>",),
    special_tokens=(
        *("<｜hy_begin_of_sentence:opensource｜>", "<｜hy_User:opensource｜>", "<｜hy_Assistant:opensource｜>"),
        *("<｜hy_eos:opensource｜>", "<｜reasoning_mode:opensource｜>", "<think:opensource>", "</think:opensource>"),
    ),
    thinking=Thinking("<｜hy_Assistant:opensource｜><think:opensource>", "</think:opensource>"),
    past_reasoning="dropped",
)


FORMATS: Final = (hy3,)
