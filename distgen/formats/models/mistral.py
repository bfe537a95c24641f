"""Mistral AI's models."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Final

from distgen.errors import Unsupported
from distgen.formats.template import ChatTemplate, Thinking, strip_trailing_spaces
from distgen.prompt import Prompt

# Mistral-7B-Instruct-v0.1/v0.2, Mixtral-8x7B-Instruct (mistral-common v1; system folded into FIRST user).
#     <s> [INST] {system}\n\n{user} [/INST] {answer}</s> [INST] {user} [/INST]
# Source: mistral-common 1.13.1, InstructTokenizerV1 .text (U+2581 decoded to space).
mistral_v1: Final = ChatTemplate(
    "mistral-v1",
    models=("Mistral-*-Instruct-v0.1", "Mistral-*-Instruct-v0.2", "Mixtral-8x7B-Instruct-v0.1"),
    bos="<s>",
    user_prefix=" [INST] ",
    before_system=" [INST] ",
    after_system="\n\n",
    before_assistant=" [/INST] ",
    after_assistant="</s> [INST] ",
    generation_prompt=" [/INST]",
    stop=("</s>",),
    special_tokens=("<s>", "</s>", "[INST]", "[/INST]"),
    drops_empty_system=True,
    system_position="first_user",
)

# Mistral-7B-Instruct-v0.1/v0.2 original Hub template (no system role: raises).
#     <s>[INST] {user} [/INST]{answer}</s>[INST] {user} [/INST]
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# mistralai/Mixtral-8x7B-Instruct-v0.1; its target output also agrees).
mistral_v0_2_hf: Final = ChatTemplate(
    "mistral-v0.2-hf",
    models=("Mistral-*-Instruct-v0.1", "Mistral-*-Instruct-v0.2", "Mixtral-8x7B-Instruct-v0.1"),
    bos="<s>",
    user_prefix="[INST] ",
    before_system="",
    after_system="",
    before_assistant=" [/INST]",
    after_assistant="</s>[INST] ",
    generation_prompt=" [/INST]",
    stop=("</s>",),
    special_tokens=("<s>", "</s>", "[INST]", "[/INST]"),
    system_position="refused",
)

# Mistral-7B-Instruct-v0.2 later Hub template (system folded into first user).
# Source: guidance-ai guidance, guidance/chat.py (verbatim mistralai/Mistral-7B-Instruct-v0.2 template).
mistral_v0_2_hf_sys: Final = replace(
    mistral_v1,
    name="mistral-v0.2-hf-sys",
    models=("Mistral-*-Instruct-v0.2",),
    drops_empty_system=False,
)

# Mistral-7B-Instruct-v0.3, Mixtral-8x22B, Codestral, Mistral-Large-2407 (system folded into LAST user).
# Source: mistral-common 1.13.1, InstructTokenizerV3 .text (U+2581 decoded to space).
# The Hub's own template of Mistral-7B-Instruct-v0.3 differs from it in empty texts and in white space around answers.
mistral_v3: Final = replace(
    mistral_v0_2_hf,
    name="mistral-v3",
    models=(
        "Mistral-*-Instruct-v0.3",
        "Mixtral-8x22B-Instruct-v0.1",
        "Codestral-*-v0.1",
        "Mistral-Large-Instruct-2407",
    ),
    after_system="\n\n",
    before_assistant="[/INST] ",
    generation_prompt="[/INST]",
    system_position="last_user",
    drops_empty_system=True,
    strip_assistant=strip_trailing_spaces,
    around=(("user", " ", ""), ("assistant", " ", "")),
)

# Mistral-Nemo-Instruct-2407, Pixtral (system folded into LAST user, no spaces).
# Source: mistral-common 1.13.1, InstructTokenizerV3 with tekken .text.
mistral_v3_tekken: Final = replace(
    mistral_v3,
    name="mistral-v3-tekken",
    models=("Mistral-Nemo", "Mistral-Nemo-Instruct-2407", "Pixtral", "Pixtral-*-2409"),
    user_prefix="[INST]",
    before_assistant="[/INST]",
    after_assistant="</s>[INST]",
    around=(),
)

# Mistral-Large-Instruct-2411.
# Source: mistral-common 1.13.1, InstructTokenizerV7 .text (U+2581 decoded to space).
mistral_v7: Final = replace(
    mistral_v3,
    name="mistral-v7",
    models=("Mistral-Large-Instruct-2411",),
    before_system="[SYSTEM_PROMPT] ",
    after_system="[/SYSTEM_PROMPT][INST] ",
    special_tokens=("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    system_position="first",
    drops_empty_system=False,
    around=(("system", " ", ""), *mistral_v3.around),
)


def _refuse_no_system(name: str, prompt: Prompt) -> Unsupported | None:
    return Unsupported(name, "no system") if prompt.system is None else None


# Mistral-Small-3/3.1/3.2 (default system prompt with today when none given).
# Without a system text its template writes a default one with today's date: `mistral_v7_tekken_with`.
# Source: axolotl mistral_v7_tekken.jinja (copy of mistralai/Mistral-Small-24B-Instruct-2501); agrees with llama.cpp
# models/templates Mistral-Small-3.2 when a system message is given.
mistral_v7_tekken: Final = replace(
    mistral_v7,
    name="mistral-v7-tekken",
    models=(
        "Mistral-Small-3",
        "Mistral-Small-*-Instruct-2501",
        "Mistral-Small-3.1-*-Instruct-2503",
        "Mistral-Small-3.2-*-Instruct-2506",
        "Devstral-Small-2507",
        "Magistral-Small-2509",
        "Devstral-Small-2-*-Instruct-2512",
        "Ministral-3-*-Instruct-2512",
        "Mistral-Large-3-*-Instruct-2512",
    ),
    user_prefix="",
    before_system="[SYSTEM_PROMPT]",
    after_system="[/SYSTEM_PROMPT][INST]",
    before_assistant="[/INST]",
    after_assistant="</s>[INST]",
    refuse=_refuse_no_system,
    strip_assistant=str,
    around=(),
)


def mistral_v7_tekken_with(*, today: date) -> ChatTemplate:
    """The same with the default system text of Mistral-Small-24B-Instruct-2501, which has the date, where there is none.

    >>> from datetime import date
    >>> "The current date is 2026-01-05." in mistral_v7_tekken_with(today=date(2026, 1, 5)).user_prefix
    True
    """
    default = f"""You are Mistral Small 3, a Large Language Model (LLM) created by Mistral AI, a French startup headquartered in Paris.
Your knowledge base was last updated on 2023-10-01. The current date is {today.isoformat()}.

When you're not sure about some information, you say that you don't have the information and don't make up anything.
If the user's question is not clear, ambiguous, or does not provide enough context for you to accurately answer the question, you do not try to answer it right away and you rather ask the user to clarify their request (e.g. \"What are some good restaurants around me?\" => \"Where are you?\" or \"When is the next flight to Tokyo\" => \"Where do you travel from?\")"""
    head = f"{mistral_v7_tekken.before_system}{default}{mistral_v7_tekken.after_system}"
    return replace(mistral_v7_tekken, user_prefix=head, refuse=None)


# Ministral-3-*-Reasoning-2512. Its thoughts stand between [THINK] and [/THINK].
# Source: ggml-org llama.cpp, models/templates/mistralai-Ministral-3-14B-Reasoning-2512.jinja (verbatim Hub template).
_REASONING: Final = (
    "# HOW YOU SHOULD THINK AND ANSWER\n\nFirst draft your thinking process (inner monologue) until you arrive at a "
    "response. Format your response using Markdown, and use LaTeX for any mathematical equations. Write both your "
    "thoughts and the response in the same language as the input.\n\nYour thinking process must follow the template "
    "below:[THINK]Your thoughts or/and draft, like working through an exercise on scratch paper. Be as casual and as long "
    "as you want until you are confident to generate the response to the user.[/THINK]Here, provide a self-contained "
    "response."
)
ministral3_reasoning: Final = replace(
    mistral_v7_tekken,
    name="ministral3-reasoning",
    models=("Ministral-3-*-Reasoning-2512",),
    user_prefix=f"[SYSTEM_PROMPT]{_REASONING}[/SYSTEM_PROMPT][INST]",
    special_tokens=(*mistral_v7_tekken.special_tokens, "[THINK]", "[/THINK]"),
    thinking=Thinking("[/INST][THINK]", "[/THINK]"),
    past_reasoning="written",
    refuse=None,
)


FORMATS: Final = (
    mistral_v1,
    mistral_v0_2_hf,
    mistral_v0_2_hf_sys,
    mistral_v3,
    mistral_v3_tekken,
    mistral_v7,
    mistral_v7_tekken,
    ministral3_reasoning,
)
