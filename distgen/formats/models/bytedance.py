"""ByteDance's Seed-OSS."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# ByteDance Seed-OSS.
#     <seed:bos>system\n{system}<seed:eos><seed:bos>user\n{user}<seed:eos><seed:bos>assistant\n{answer}<seed:eos>
#     <seed:bos>user\n{user}<seed:eos><seed:bos>assistant\n
# Source: ggml-org llama.cpp, models/templates/ByteDance-Seed-OSS.jinja (verbatim Hub template).
seed_oss: Final = ChatTemplate(
    "seed-oss",
    models=("Seed-OSS-*-Instruct",),
    bos="<seed:bos>",
    user_prefix="user\n",
    before_system="system\n",
    after_system="<seed:eos><seed:bos>user\n",
    before_assistant="<seed:eos><seed:bos>assistant\n",
    after_assistant="<seed:eos><seed:bos>user\n",
    generation_prompt="<seed:eos><seed:bos>assistant\n",
    stop=("<seed:eos>",),
    special_tokens=("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"),
    thinking=Thinking("<seed:eos><seed:bos>assistant\n<seed:think>", "</seed:think>\n", strip=str.strip),
    past_reasoning="written",
    strip_assistant=str.strip,
    around=(("assistant", "\n", "<seed:eos>"),),
)


FORMATS: Final = (seed_oss,)
