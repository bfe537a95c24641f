"""ChatML and what came of it: `<|im_start|>role`, `<|im_end|>`.

Each format beside the source that it is taken from; one that differs little from another names its difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from distgen.formats.dates import MONTHS
from distgen.formats.marks import strip_newlines_before
from distgen.formats.template import ChatTemplate

if TYPE_CHECKING:  # datetime costs more to import than all formats
    from datetime import date

# OpenHermes-2.5, Nous-Hermes-2, Dolphin (no default system); transformers generic default.
#     <|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{answer}
#     <|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# teknium/OpenHermes-2.5-Mistral-7B; its expected output also agrees); identical to the transformers base default
# template in huggingface.js e2e (_base).
chatml: Final = ChatTemplate(
    "chatml",
    models=(
        "OpenHermes-2.5",
        "OpenHermes-2.5-Mistral-*",
        "Nous-Hermes-2",
        "Nous-Hermes-2-Mistral-*-DPO",
        "Nous-Hermes-2-Mixtral-*-DPO",
    ),
    head="<|im_start|>user\n",
    before_system="<|im_start|>system\n",
    after_system="<|im_end|>\n<|im_start|>user\n",
    before_answer="<|im_end|>\n<|im_start|>assistant\n",
    after_answer="<|im_end|>\n<|im_start|>user\n",
    tail="<|im_end|>\n<|im_start|>assistant\n",
    stops=("<|im_end|>",),
    control_tokens=("<|im_start|>", "<|im_end|>"),
)

# InternLM2-Chat (bos + ChatML); Zephyr-gemma, with the BOS of its tokenizer.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# internlm/internlm2-chat-7b; its target output also agrees).
chatml_bos: Final = replace(
    chatml,
    name="chatml-bos",
    models=("InternLM2-Chat", "internlm2-chat-*"),
    bos="<s>",
    control_tokens=("<s>", "<|im_start|>", "<|im_end|>"),
)

# Qwen1.5-*-Chat.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# Qwen/Qwen1.5-72B-Chat; its target output also agrees).
qwen1_5: Final = replace(
    chatml,
    name="qwen1.5",
    models=("Qwen1.5", "Qwen1.5-*-Chat"),
    head="<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\n",
    stops=("<|im_end|>", "<|endoftext|>"),
)

# Qwen2-*-Instruct.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of qwen2:0.5b).
qwen2: Final = replace(
    qwen1_5,
    name="qwen2",
    models=("Qwen2", "Qwen2-*-Instruct"),
    head="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)

# Qwen2.5-*-Instruct.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen2.5-7B-Instruct.jinja (verbatim Hub template).
qwen2_5: Final = replace(
    qwen1_5,
    name="qwen2.5",
    models=("Qwen2.5", "Qwen2.5-*-Instruct", "Qwen2.5-Coder-*-Instruct"),
    head="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)

# Qwen3 (thinking allowed: generation prompt has no think block).
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen3-0.6B.jinja (verbatim Hub template).
qwen3: Final = replace(
    qwen1_5,
    name="qwen3",
    models=("Qwen3", "Qwen3-*"),
    head="<|im_start|>user\n",
    control_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    no_thinking="<think>\n\n</think>\n\n",
)

# Qwen3 with enable_thinking=False.
# As rendered with enable_thinking=False.
# Source: ggml-org llama.cpp, models/templates/Qwen-Qwen3-0.6B.jinja (verbatim Hub template) with
# enable_thinking=False.
qwen3_nothink: Final = replace(
    qwen3,
    name="qwen3-nothink",
    models=(),
    tail="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    no_thinking="",
)

# Qwen3-*-Instruct-2507, which never think.
# Source: huggingface trl, trl/chat_templates/qwen3_instruct_2507.jinja (copy of the Qwen3-4B-Instruct-2507 Hub template).
qwen3_2507: Final = replace(
    qwen1_5,
    name="qwen3-2507",
    models=("Qwen3-*-Instruct-2507",),
    head="<|im_start|>user\n",
)

# QwQ-32B, not its Preview.
# Llama.cpp added an enable_thinking switch to this copy; rendered with enable_thinking=True, which is the original
# behaviour.
# As rendered with enable_thinking=True.
# Source: ggml-org llama.cpp, models/templates/Qwen-QwQ-32B.jinja (verbatim Hub template).
qwq: Final = replace(
    qwen3,
    name="qwq",
    models=("QwQ", "QwQ-*"),
    tail="<|im_end|>\n<|im_start|>assistant\n<think>\n",
    stops=("<|im_end|>",),
    strip_assistant=strip_newlines_before,
    no_thinking="",
)

# SmolLM2-*-Instruct.
# Source: huggingface alignment-handbook, recipes/smollm2/sft/config.yaml chat_template (vendor training recipe).
smollm2: Final = replace(
    chatml,
    name="smollm2",
    models=("SmolLM2", "SmolLM2-*-Instruct"),
    head="<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n",
)


# SmolLM3-3B with enable_thinking=False. In a system text its template obeys three commands and takes them out.
# As rendered with enable_thinking=False; in the registry on 10 July 2025.
#     <|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 10 July 2025\nReasoning Mode:
#      /no_think\n\n## Custom Instructions\n\n{system}\n\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n
#     <think>\n\n</think>\n{answer}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n<think>\n\n
#     </think>\n
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# HuggingFaceTB/SmolLM3-3B; its target output also agrees).
def _smollm3_nothink(today: str) -> ChatTemplate:
    metadata = f"## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: {today}\nReasoning Mode: /no_think"
    system = f"<|im_start|>system\n{metadata}\n\n## Custom Instructions\n\n"
    return ChatTemplate(
        "smollm3-nothink",
        head=f"{system}You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n<|im_start|>user\n",
        before_system=system,
        after_system="\n\n<|im_start|>user\n",
        before_answer="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n",
        after_answer="<|im_end|>\n<|im_start|>user\n",
        tail="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n",
        stops=("<|im_end|>",),
        control_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        system_commands=("/no_think", "/think", "/system_override"),
        empty_system="absent",
        strip_system=str.rstrip,
        strip_assistant=strip_newlines_before,
    )


smollm3_nothink: Final = _smollm3_nothink("10 July 2025")


def smollm3_nothink_with(*, today: date) -> ChatTemplate:
    """SmolLM3's format without thinking, with the date that its template prints; the registry's has 10 July 2025.

    >>> from datetime import date
    >>> "Today Date: 05 January 2026" in smollm3_nothink_with(today=date(2026, 1, 5)).before_system
    True
    """
    return _smollm3_nothink(f"{today.day:02} {MONTHS[today.month - 1]} {today.year}")


# LiquidAI LFM2.
# Source: ggml-org llama.cpp, models/templates/LFM2-8B-A1B.jinja (verbatim Hub template).
lfm2: Final = replace(
    chatml,
    name="lfm2",
    models=("LFM2", "LFM2-*"),
    bos="<|startoftext|>",
    control_tokens=("<|startoftext|>", "<|im_start|>", "<|im_end|>"),
    empty_system="absent",
)

# Bielik-11B-v3.
# Source: ggml-org llama.cpp, models/templates/Bielik-11B-v3.0-Instruct.jinja (verbatim Hub template).
bielik: Final = replace(
    chatml_bos,
    name="bielik",
    models=("Bielik-*-v3.0-Instruct",),
    control_tokens=("<s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    empty_system="absent",
    strip_assistant=str.lstrip,
)

# MiniCPM3-4B.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# openbmb/MiniCPM3-4B; its target output also agrees).
minicpm3: Final = replace(
    chatml,
    name="minicpm3",
    models=("MiniCPM3", "MiniCPM3-*"),
    empty_system="absent",
)

# phi-4 (14B).
#     <|im_start|>system<|im_sep|>{system}<|im_end|><|im_start|>user<|im_sep|>{user}<|im_end|><|im_start|>assistant
#     <|im_sep|>{answer}<|im_end|><|im_start|>user<|im_sep|>{user}<|im_end|><|im_start|>assistant<|im_sep|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# microsoft/phi-4; its expected output also agrees).
phi4: Final = ChatTemplate(
    "phi4",
    models=("phi-4",),
    head="<|im_start|>user<|im_sep|>",
    before_system="<|im_start|>system<|im_sep|>",
    after_system="<|im_end|><|im_start|>user<|im_sep|>",
    before_answer="<|im_end|><|im_start|>assistant<|im_sep|>",
    after_answer="<|im_end|><|im_start|>user<|im_sep|>",
    tail="<|im_end|><|im_start|>assistant<|im_sep|>",
    stops=("<|im_end|>",),
    control_tokens=("<|im_start|>", "<|im_end|>", "<|im_sep|>"),
)

# Kimi-K2-Instruct.
#     <|im_system|>system<|im_middle|>{system}<|im_end|><|im_user|>user<|im_middle|>{user}<|im_end|><|im_assistant|>
#     assistant<|im_middle|>{answer}<|im_end|><|im_user|>user<|im_middle|>{user}<|im_end|><|im_assistant|>assistant
#     <|im_middle|>
# Source: ggml-org llama.cpp, models/templates/moonshotai-Kimi-K2.jinja (verbatim Hub template).
kimi_k2: Final = ChatTemplate(
    "kimi-k2",
    models=("Kimi-K2-Instruct",),
    head="<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|><|im_user|>user<|im_middle|>",
    before_system="<|im_system|>system<|im_middle|>",
    after_system="<|im_end|><|im_user|>user<|im_middle|>",
    before_answer="<|im_end|><|im_assistant|>assistant<|im_middle|>",
    after_answer="<|im_end|><|im_user|>user<|im_middle|>",
    tail="<|im_end|><|im_assistant|>assistant<|im_middle|>",
    stops=("<|im_end|>",),
    control_tokens=("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
)

# Kimi-K2-Instruct later template (default system names Kimi).
# Source: ggml-org llama.cpp, models/templates/Kimi-K2-Instruct.jinja (verbatim Hub template).
kimi_k2_0905: Final = replace(
    kimi_k2,
    name="kimi-k2-0905",
    models=("Kimi-K2-Instruct", "Kimi-K2-Instruct-0905"),
    head="<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\n<|im_user|>user<|im_middle|>",
)

CHATML: Final = (
    chatml,
    chatml_bos,
    qwen1_5,
    qwen2,
    qwen2_5,
    qwen3,
    qwen3_nothink,
    qwen3_2507,
    qwq,
    smollm2,
    smollm3_nothink,
    lfm2,
    bielik,
    minicpm3,
    phi4,
    kimi_k2,
    kimi_k2_0905,
)
