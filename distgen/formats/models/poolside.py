"""Poolside's Laguna models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking, refuse_blank_system

# Laguna-XS-2.1, which does not think by default.
#     〈|EOS|〉<system>\n\n{system}\n</system>\n<user>\n{user}\n</user>\n<assistant>\n</think>\n{answer}\n</assistant>\n
#     <user>\n{user}\n</user>\n<assistant>\n</think>
# Source: ggml-org llama.cpp, models/templates/poolside-Laguna-XS-2.1.jinja (verbatim Hub template).
laguna_xs2_1: Final = ChatTemplate(
    "laguna-xs2.1",
    models=("Laguna-XS-2.1",),
    bos="〈|EOS|〉",
    user_prefix="<user>\n",
    before_system="<system>\n\n",
    after_system="\n</system>\n<user>\n",
    before_assistant="\n</user>\n<assistant>\n</think>\n",
    after_assistant="\n</assistant>\n<user>\n",
    generation_prompt="\n</user>\n<assistant>\n</think>",
    stop=("</assistant>", "〈|EOS|〉"),
    special_tokens=(
        *("〈|EOS|〉", "<system>", "</system>", "<user>", "</user>", "<assistant>", "</assistant>"),
        *("<think>", "</think>"),
    ),
    strip_system=str.rstrip,
    strip_assistant=str.strip,
    drops_empty_system=True,
    around=(("assistant", "\n", ""),),
)

# Laguna-XS.2: the same with a default system text; a blank one leaves the system turn out, so that it is refused.
# Source: ggml-org llama.cpp, models/templates/poolside-Laguna-XS.2.jinja (verbatim Hub template).
_DEFAULT: Final = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be helpful to users through "
    "natural language conversations."
)
laguna_xs2: Final = replace(
    laguna_xs2_1,
    name="laguna-xs2",
    models=("Laguna-XS.2",),
    user_prefix=f"<system>\n\n{_DEFAULT}\n</system>\n<user>\n",
    drops_empty_system=False,
    refuse=refuse_blank_system,
)

# Laguna-S-2.1, which thinks. No line breaks inside turns.
# Source: ggml-org llama.cpp, models/templates/poolside-Laguna-S-2.1.jinja (verbatim Hub template).
laguna_s2_1: Final = replace(
    laguna_xs2_1,
    name="laguna-s2.1",
    models=("Laguna-S-2.1",),
    user_prefix=f"<system>{_DEFAULT}</system>\n<user>",
    before_system="<system>",
    after_system="</system>\n<user>",
    before_assistant="</user>\n<assistant><think></think>",
    after_assistant="</assistant>\n<user>",
    generation_prompt="</user>\n<assistant><think>",
    strip_assistant=str,
    drops_empty_system=False,
    around=(),
    thinking=Thinking(before="</user>\n<assistant><think>", after="</think>"),
    past_reasoning="written",
)


FORMATS: Final = (laguna_xs2_1, laguna_xs2, laguna_s2_1)
