"""Meta's Llama models."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Final

from distgen.errors import InjectedToken
from distgen.formats._months import MONTHS
from distgen.formats.template import ChatTemplate, Thinking
from distgen.prompt import Prompt

# Llama-2-*-chat.
#     <s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {answer} </s><s>[INST] {user} [/INST]
# Source: meta-llama llama, llama/generation.py chat_completion (vendor code executed with a recording tokenizer).
llama2: Final = ChatTemplate(
    "llama2",
    models=("Llama-2", "Llama-2-*-chat"),
    bos="<s>",
    user_prefix="[INST] ",
    before_system="[INST] <<SYS>>\n",
    after_system="\n<</SYS>>\n\n",
    before_assistant=" [/INST] ",
    after_assistant=" </s><s>[INST] ",
    generation_prompt=" [/INST]",
    stop=("</s>",),
    special_tokens=("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    strip_user=str.strip,
    strip_assistant=str.strip,
    strip_first_user=str.rstrip,  # it strips the system and the user text as one text
    around=(("user", "\n\n", ""),),
)

# Meta-Llama-3-*-Instruct.
#     <|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|><|start_header_id|>user
#     <|end_header_id|>\n\n{user}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{answer}<|eot_id|>
#     <|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n
# Source: meta-llama llama3, llama/tokenizer.py ChatFormat (vendor code executed with a recording tokenizer).
llama3: Final = ChatTemplate(
    "llama3",
    models=("Llama-3", "Meta-Llama-3-*-Instruct"),
    bos="<|begin_of_text|>",
    user_prefix="<|start_header_id|>user<|end_header_id|>\n\n",
    before_system="<|start_header_id|>system<|end_header_id|>\n\n",
    after_system="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    before_assistant="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    after_assistant="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    generation_prompt="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    stop=("<|eot_id|>", "<|end_of_text|>"),
    special_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)


# Llama-3.1-*-Instruct, Llama-3.3-70B-Instruct; the template's own default for the date is 26 Jul 2024.
# Source: ggml-org llama.cpp, models/templates/meta-llama-Llama-3.1-8B-Instruct.jinja (verbatim Hub template);
# meta-llama-Llama-3.3-70B-Instruct.jinja renders the same.
def _llama3_1(today: str) -> ChatTemplate:
    system = (
        f"<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: {today}\n\n"
    )
    return replace(
        llama3,
        name="llama3.1",
        models=(
            "Llama-3.1",
            "Llama-3.1-*-Instruct",
            "Meta-Llama-3.1-*-Instruct",
            "Llama-3.3",
            "Llama-3.3-*-Instruct",
            "llama3.3",  # Ollama's name
        ),
        user_prefix=f"{system}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
        before_system=system,
        stop=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    )


llama3_1: Final = _llama3_1("26 Jul 2024")


def llama3_1_with(*, today: date) -> ChatTemplate:
    """Llama 3.1's format with the date that its template prints, its `date_string`; the registry's has 26 Jul 2024.

    >>> from datetime import date
    >>> "Today Date: 05 Jan 2026" in llama3_1_with(today=date(2026, 1, 5)).user_prefix
    True
    """
    return _llama3_1(f"{today.day:02} {MONTHS[today.month - 1][:3]} {today.year}")


# Llama-3.2-1B/3B-Instruct; the template prints today's date where it is given none, in the registry 26 Jul 2024.
# As rendered with date_string='26 Jul 2024'.
# Source: ggml-org llama.cpp, models/templates/meta-llama-Llama-3.2-3B-Instruct.jinja (verbatim Hub template).
llama3_2: Final = replace(
    llama3_1,
    name="llama3.2",
    models=("Llama-3.2", "Llama-3.2-*-Instruct"),
)


def llama3_2_with(*, today: date) -> ChatTemplate:
    """Llama 3.2's format with the date that its template prints; the registry's has 26 Jul 2024.

    >>> from datetime import date
    >>> llama3_2_with(today=date(2024, 7, 26)) == llama3_2
    True
    """
    return replace(llama3_1_with(today=today), name=llama3_2.name, models=llama3_2.models)


# Llama-4-Scout/Maverick-Instruct.
# From a copy of the template.
#     <|begin_of_text|><|header_start|>system<|header_end|>\n\n{system}<|eot|><|header_start|>user<|header_end|>\n\n
#     {user}<|eot|><|header_start|>assistant<|header_end|>\n\n{answer}<|eot|><|header_start|>user<|header_end|>\n\n
#     {user}<|eot|><|header_start|>assistant<|header_end|>\n\n
# Source: axolotl, utils/chat_templates/templates/llama4.jinja (copy of the meta-llama/Llama-4 Hub template).
llama4: Final = ChatTemplate(
    "llama4",
    models=("Llama-4", "Llama-4-Scout-*-*-Instruct", "Llama-4-Maverick-*-*-Instruct"),
    bos="<|begin_of_text|>",
    user_prefix="<|header_start|>user<|header_end|>\n\n",
    before_system="<|header_start|>system<|header_end|>\n\n",
    after_system="<|eot|><|header_start|>user<|header_end|>\n\n",
    before_assistant="<|eot|><|header_start|>assistant<|header_end|>\n\n",
    after_assistant="<|eot|><|header_start|>user<|header_end|>\n\n",
    generation_prompt="<|eot|><|header_start|>assistant<|header_end|>\n\n",
    stop=("<|eot|>", "<|eom|>"),
    special_tokens=("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
    strip_system=str.strip,
)

# CodeLlama-70b-Instruct.
#     <s>Source: system\n\n {system} <step> Source: user\n\n {user} <step> Source: assistant\n\n {answer} <step>
#      Source: user\n\n {user} <step> Source: assistant\nDestination: user\n\n\x20
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# codellama/CodeLlama-70b-Instruct-hf; its target output also agrees).
codellama_70b: Final = ChatTemplate(
    "codellama-70b",
    models=("CodeLlama-70b-Instruct",),
    bos="<s>",
    user_prefix="Source: user\n\n ",
    before_system="Source: system\n\n ",
    after_system=" <step> Source: user\n\n ",
    before_assistant=" <step> Source: assistant\n\n ",
    after_assistant=" <step> Source: user\n\n ",
    generation_prompt=" <step> Source: assistant\nDestination: user\n\n ",
    stop=("<step>",),
    special_tokens=("<s>", "<step>", "Source: ", "Destination: "),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)


def _refuse_effort(name: str, prompt: Prompt) -> InjectedToken | None:
    found = re.search("reasoning (?:strength|effort)", prompt.system or "", re.IGNORECASE)
    return InjectedToken(name, found[0], "system", found.start()) if found else None


# Muse-Glimmer-30B, with its default effort. A system text that speaks of the effort of reasoning is changed by the template, so
# that it is refused. In the registry on 2026-08-10.
#     <|begin_of_text|><|start|>system<|message|>{system}\n\nReasoning strength: high.\n\n# Valid recipients: "self", "user".
#     <|eot|><|start|>user<|message|>{user}<|eot|><|start|>assistant to=user<|message|>{answer}<|eot|><|start|>user<|message|>
#     {user}<|eot|><|start|>assistant
# Source: ggml-org llama.cpp, models/templates/muse-glimmer.jinja; huggingface trl, trl/chat_templates/muse_glimmer.jinja
# renders the same.
def _muse_glimmer(today: str) -> ChatTemplate:
    default = f"You are a helpful AI assistant.\nKnowledge cutoff: 2026-01-04.\nCurrent date: {today}."
    user = "<|start|>user<|message|>"
    after_system = f'\n\nReasoning strength: high.\n\n# Valid recipients: "self", "user".<|eot|>{user}'
    return ChatTemplate(
        "muse-glimmer",
        models=("Muse-Glimmer-*",),
        bos="<|begin_of_text|>",
        user_prefix=f"<|start|>system<|message|>{default}{after_system}",
        before_system="<|start|>system<|message|>",
        after_system=after_system,
        before_assistant="<|eot|><|start|>assistant to=user<|message|>",
        after_assistant=f"<|eot|>{user}",
        generation_prompt="<|eot|><|start|>assistant",
        stop=("<|eot|>",),
        special_tokens=("<|begin_of_text|>", "<|start|>", "<|message|>", "<|eot|>", "<|eom|>"),
        thinking=Thinking(
            before="<|eot|><|start|>assistant to=self<|message|>", after="<|eom|><|start|>assistant to=user<|message|>"
        ),
        past_reasoning="written",
        refuse=_refuse_effort,
    )


muse_glimmer: Final = _muse_glimmer("2026-08-10")


def muse_glimmer_with(*, today: date) -> ChatTemplate:
    """Muse Glimmer's format with the date that its template prints where there is no system text.

    The registry's has 2026-08-10.

    >>> from datetime import date
    >>> "Current date: 2026-01-05." in muse_glimmer_with(today=date(2026, 1, 5)).user_prefix
    True
    """
    return _muse_glimmer(today.isoformat())


FORMATS: Final = (llama2, llama3, llama3_1, llama3_2, llama4, codellama_70b, muse_glimmer)
