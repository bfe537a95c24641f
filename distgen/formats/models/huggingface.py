"""Hugging Face's Zephyr, StarChat and SmolLM."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Final

from distgen.errors import InjectedToken
from distgen.formats._months import MONTHS
from distgen.formats.injection import find_token
from distgen.formats.models.chatml import chatml
from distgen.formats.models.microsoft import phi3_mini
from distgen.formats.template import ChatTemplate, strip_leading_newlines
from distgen.prompt import Prompt

# HuggingFaceH4/zephyr-7b-alpha/beta, TinyLlama-1.1B-Chat, notus-7b.
#     <|system|>\n{system}</s>\n<|user|>\n{user}</s>\n<|assistant|>\n{answer}</s>\n<|user|>\n{user}</s>\n<|assistant|>
#     \n
# Source: huggingface alignment-handbook, recipes/zephyr-7b-beta/sft/config_full.yaml (vendor training recipe);
# identical rendering to huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# HuggingFaceH4/zephyr-7b-beta; its target output also agrees).
zephyr: Final = ChatTemplate(
    "zephyr",
    models=("zephyr-*-alpha", "zephyr-*-beta", "TinyLlama-*-Chat-v1.0", "tinyllama", "notus-*-v1"),
    user_prefix="<|user|>\n",
    before_system="<|system|>\n",
    after_system="</s>\n<|user|>\n",
    before_assistant="</s>\n<|assistant|>\n",
    after_assistant="</s>\n<|user|>\n",
    generation_prompt="</s>\n<|assistant|>\n",
    stop=("</s>",),
    special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "</s>"),
)

# StarChat-beta (FastChat rendering).
# From code of a peer, not of the vendor.
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py starchat.
starchat: Final = replace(
    phi3_mini,
    name="starchat",
    models=("starchat-beta",),
    user_prefix="<system>\n<|end|>\n<|user|>\n",
    before_system="<system>\n",
    stop=("<|end|>",),
    around=(("user", "", "<|end|>\n"), ("assistant", "", "<|end|>\n")),
    special_tokens=("<system>", *phi3_mini.special_tokens),
)

# SmolLM2-*-Instruct.
# Source: huggingface alignment-handbook, recipes/smollm2/sft/config.yaml chat_template (vendor training recipe).
smollm2: Final = replace(
    chatml,
    name="smollm2",
    models=("SmolLM2", "SmolLM2-*-Instruct"),
    user_prefix="<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n",
)


# SmolLM3-3B. In a system text its template obeys three commands and takes them out. In the registry on 10 July 2025.
#     <|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 10 July 2025\nReasoning Mode:
#      /think\n\n## Custom Instructions\n\n{system}\n\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{answer}
#     <|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# HuggingFaceTB/SmolLM3-3B; its target output also agrees).
_THINKING: Final = (
    "Your role as an assistant involves thoroughly exploring questions through a systematic thinking "
    "process before providing the final precise and accurate solutions. This requires engaging in a "
    "comprehensive cycle of analysis, summarizing, exploration, reassessment, reflection, backtracking, "
    "and iteration to develop well-considered thinking process. Please structure your response into two "
    "main sections: Thought and Solution using the specified format: <think> Thought section </think> "
    "Solution section. In the Thought section, detail your reasoning process in steps. Each step should "
    "include detailed considerations such as analysing questions, summarizing relevant findings, "
    "brainstorming new ideas, verifying the accuracy of the current steps, refining any errors, and "
    "revisiting previous steps. In the Solution section, based on various attempts, explorations, and "
    "reflections from the Thought section, systematically present the final solution that you deem "
    "correct. The Solution section should be logical, accurate, and concise and detail necessary steps "
    "needed to reach the conclusion."
)


def _refuse_command(name: str, prompt: Prompt) -> InjectedToken | None:
    return find_token(name, [("system", prompt.system or "")], ("/no_think", "/think", "/system_override"))


def _smollm3(today: str) -> ChatTemplate:
    metadata = f"## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: {today}\nReasoning Mode: /think"
    system = f"<|im_start|>system\n{metadata}\n\n## Custom Instructions\n\n"
    return replace(
        chatml,
        name="smollm3",
        models=("SmolLM3-*",),
        user_prefix=f"{system}You are a helpful AI assistant named SmolLM, trained by Hugging Face. {_THINKING}\n\n<|im_start|>user\n",
        before_system=system,
        after_system="\n\n<|im_start|>user\n",
        special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        drops_empty_system=True,
        strip_system=str.rstrip,
        strip_assistant=strip_leading_newlines,
        refuse=_refuse_command,
    )


def _without_thinking(thinking: ChatTemplate) -> ChatTemplate:
    """Return SmolLM3's format with enable_thinking=False."""
    answer = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n"
    return replace(
        thinking,
        name="smollm3-nothink",
        models=(),
        user_prefix=thinking.user_prefix.replace(f" {_THINKING}", "").replace("/think", "/no_think"),
        before_system=thinking.before_system.replace("/think", "/no_think"),
        before_assistant=answer,
        generation_prompt=answer,
    )


smollm3: Final = _smollm3("10 July 2025")
smollm3_nothink: Final = _without_thinking(smollm3)


def smollm3_with(*, today: date) -> ChatTemplate:
    """SmolLM3's format with the date that its template prints; the registry's has 10 July 2025.

    >>> from datetime import date
    >>> "Today Date: 05 January 2026" in smollm3_with(today=date(2026, 1, 5)).before_system
    True
    """
    return _smollm3(f"{today.day:02} {MONTHS[today.month - 1]} {today.year}")


def smollm3_nothink_with(*, today: date) -> ChatTemplate:
    """The same without thinking.

    >>> from datetime import date
    >>> "Today Date: 05 January 2026" in smollm3_nothink_with(today=date(2026, 1, 5)).before_system
    True
    """
    return _without_thinking(smollm3_with(today=today))


FORMATS: Final = (zephyr, starchat, smollm2, smollm3, smollm3_nothink)
