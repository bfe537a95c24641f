"""A header for each role, in markup of their own.

Each format beside the source that it is taken from; one that differs little from another names its difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from distgen.formats.dates import MONTHS
from distgen.formats.template import ChatTemplate

if TYPE_CHECKING:  # datetime costs more to import than all formats
    from datetime import date

# c4ai-command-r/-plus.
#     <BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>
#     <|USER_TOKEN|>{user}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{answer}<|END_OF_TURN_TOKEN|>
#     <|START_OF_TURN_TOKEN|><|USER_TOKEN|>{user}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# CohereForAI/c4ai-command-r-plus; its expected output also agrees).
command_r: Final = ChatTemplate(
    "command-r",
    models=("c4ai-command-r-v01", "c4ai-command-r-plus"),
    bos="<BOS_TOKEN>",
    head="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    before_system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
    after_system="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    before_answer="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    after_answer="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    tail="<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    stops=("<|END_OF_TURN_TOKEN|>",),
    control_tokens=(
        "<BOS_TOKEN>",
        "<|START_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|SYSTEM_TOKEN|>",
        "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
    ),
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# granite-3.0-instruct.
#     <|start_of_role|>system<|end_of_role|>{system}<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>{user}
#     <|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>{answer}<|end_of_text|>\n<|start_of_role|>user
#     <|end_of_role|>{user}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# ibm-granite/granite-3.0-8b-instruct; its expected output also agrees).
granite3: Final = ChatTemplate(
    "granite3",
    models=("granite-3.0-*-instruct",),
    head="<|start_of_role|>user<|end_of_role|>",
    before_system="<|start_of_role|>system<|end_of_role|>",
    after_system="<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
    before_answer="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    after_answer="<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
    tail="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    stops=("<|end_of_text|>",),
    control_tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
)


# granite-3.1, granite-3.2: the default system text, which has the date, has it on a line of its own.
# In the registry on April 16, 2025.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of granite3.1-moe:1b).
def _granite3_1(today: str) -> ChatTemplate:
    given = f"Knowledge Cutoff Date: April 2024.\nToday's Date: {today}.\n"
    return replace(
        granite3,
        name="granite3.1",
        models=("granite-3.1-*-instruct", "granite-3.2-*-instruct"),
        head=f"{granite3.before_system}{given}You are Granite, developed by IBM. You are a helpful AI assistant."
        f"{granite3.after_system}",
    )


granite3_1: Final = _granite3_1("April 16, 2025")


def granite3_1_with(*, today: date) -> ChatTemplate:
    """Granite 3.1's and 3.2's format with the date that its default system text has; the registry's is April 16, 2025.

    >>> from datetime import date
    >>> "Today's Date: January 05, 2026." in granite3_1_with(today=date(2026, 1, 5)).head
    True
    """
    return _granite3_1(f"{MONTHS[today.month - 1]} {today.day:02}, {today.year}")


# granite-3.3: the same on one line. In the registry on April 16, 2025.
# Source: ggml-org llama.cpp, models/templates/ibm-granite-granite-3.3-2B-Instruct.jinja (verbatim Hub template).
granite3_3: Final = replace(
    granite3_1,
    name="granite3.3",
    models=("granite-3.3-*-instruct",),
    head=granite3_1.head.replace(".\n", ". "),
)


def granite3_3_with(*, today: date) -> ChatTemplate:
    """Granite 3.3's format with the date that its default system text has; the registry's is April 16, 2025.

    >>> from datetime import date
    >>> "Today's Date: January 05, 2026." in granite3_3_with(today=date(2026, 1, 5)).head
    True
    """
    return replace(granite3_3, head=granite3_1_with(today=today).head.replace(".\n", ". "))


# granite-4.0 (default system when none).
# Source: ggml-org llama.cpp, models/templates/ibm-granite-granite-4.0.jinja (verbatim Hub template).
granite4: Final = replace(
    granite3,
    name="granite4",
    models=("granite-4.0",),
    head="<|start_of_role|>system<|end_of_role|>You are a helpful assistant. Please ensure responses are professional, accurate, and safe.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
    empty_system="absent",
)

# ByteDance Seed-OSS.
#     <seed:bos>system\n{system}<seed:eos><seed:bos>user\n{user}<seed:eos><seed:bos>assistant\n{answer}<seed:eos>
#     <seed:bos>user\n{user}<seed:eos><seed:bos>assistant\n
# Source: ggml-org llama.cpp, models/templates/ByteDance-Seed-OSS.jinja (verbatim Hub template).
seed_oss: Final = ChatTemplate(
    "seed-oss",
    models=("Seed-OSS-*-Instruct",),
    bos="<seed:bos>",
    head="user\n",
    before_system="system\n",
    after_system="<seed:eos><seed:bos>user\n",
    before_answer="<seed:eos><seed:bos>assistant\n",
    after_answer="<seed:eos><seed:bos>user\n",
    tail="<seed:eos><seed:bos>assistant\n",
    stops=("<seed:eos>",),
    control_tokens=("<seed:bos>", "<seed:eos>"),
    strip_assistant=str.strip,
    empty_assistant=("\n", "<seed:eos>"),
)

# MiniMax-M2.
#     ]~!b[]~b]system\n{system}[e~[\n]~b]user\n{user}[e~[\n]~b]ai\n{answer}[e~[\n]~b]user\n{user}[e~[\n]~b]ai\n<think>
#     \n
# Source: ggml-org llama.cpp, models/templates/MiniMax-M2.jinja (verbatim Hub template).
minimax_m2: Final = ChatTemplate(
    "minimax-m2",
    models=("MiniMax-M2",),
    bos="]~!b[",
    head="]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\n",
    before_system="]~b]system\n",
    after_system="[e~[\n]~b]user\n",
    before_answer="[e~[\n]~b]ai\n",
    after_answer="[e~[\n]~b]user\n",
    tail="[e~[\n]~b]ai\n<think>\n",
    stops=("[e~[",),
    control_tokens=("]~!b[", "]~b]", "[e~[", "<think>", "</think>"),
    empty_system="absent",
)

# Megrez-3B-Instruct.
#     <|role_start|>system<|role_end|>{system}<|turn_end|><|role_start|>user<|role_end|>{user}<|turn_end|>
#     <|role_start|>assistant<|role_end|>{answer}<|turn_end|><|role_start|>user<|role_end|>{user}<|turn_end|>
#     <|role_start|>assistant<|role_end|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# Infinigence/Megrez-3B-Instruct; its expected output also agrees).
megrez: Final = ChatTemplate(
    "megrez",
    models=("Megrez-*-Instruct",),
    head="<|role_start|>system<|role_end|>你是Megrez-3B-Instruct，将针对用户的问题给出详细的、积极的回答。<|turn_end|><|role_start|>user<|role_end|>",
    before_system="<|role_start|>system<|role_end|>",
    after_system="<|turn_end|><|role_start|>user<|role_end|>",
    before_answer="<|turn_end|><|role_start|>assistant<|role_end|>",
    after_answer="<|turn_end|><|role_start|>user<|role_end|>",
    tail="<|turn_end|><|role_start|>assistant<|role_end|>",
    stops=("<|turn_end|>",),
    control_tokens=("<|role_start|>", "<|role_end|>", "<|turn_end|>"),
)

# inclusionAI Ling-lite.
#     <role>SYSTEM</role>{system}<role>HUMAN</role>{user}<role>ASSISTANT</role>{answer}<role>HUMAN</role>{user}<role>
#     ASSISTANT</role>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# inclusionAI/Ling-lite; its expected output also agrees).
ling: Final = ChatTemplate(
    "ling",
    models=("Ling-lite",),
    head="<role>HUMAN</role>",
    before_system="<role>SYSTEM</role>",
    after_system="<role>HUMAN</role>",
    before_answer="<role>ASSISTANT</role>",
    after_answer="<role>HUMAN</role>",
    tail="<role>ASSISTANT</role>",
    stops=("<|endoftext|>",),
    control_tokens=("<role>", "</role>"),
)

# AlphaMonarch-7B.
#     <s>system\n{system}</s>\n<s>user\n{user}</s>\n<s>assistant\n{answer}</s>\n<s>user\n{user}</s>\n<s>assistant\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# mlabonne/AlphaMonarch-7B; its expected output also agrees).
monarch: Final = ChatTemplate(
    "monarch",
    models=("AlphaMonarch-*",),
    bos="<s>",
    head="user\n",
    before_system="system\n",
    after_system="</s>\n<s>user\n",
    before_answer="</s>\n<s>assistant\n",
    after_answer="</s>\n<s>user\n",
    tail="</s>\n<s>assistant\n",
    stops=("</s>",),
    control_tokens=("<s>", "</s>"),
)

# MiniCPM-2B (system printed bare).
#     {system}<用户>{user}<AI>{answer}<用户>{user}<AI>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# MiniCPM-3B-OpenHermes; its expected output also agrees).
minicpm: Final = ChatTemplate(
    "minicpm",
    models=("MiniCPM-2B",),
    head="<用户>",
    before_system="",
    after_system="<用户>",
    before_answer="<AI>",
    after_answer="<用户>",
    tail="<AI>",
    stops=("</s>",),
    control_tokens=("<用户>", "<AI>"),
    strip_system=str.strip,
    strip_user=str.strip,
    strip_assistant=str.strip,
)

# Baichuan2-Chat (FastChat rendering).
# From code of a peer, not of the vendor.
#     {system}<reserved_106>{user}<reserved_107>{answer}<reserved_106>{user}<reserved_107>
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py baichuan2-chat.
baichuan2: Final = ChatTemplate(
    "baichuan2",
    models=("Baichuan2-*-Chat",),
    head="<reserved_106>",
    before_system="",
    after_system="<reserved_106>",
    before_answer="<reserved_107>",
    after_answer="<reserved_106>",
    tail="<reserved_107>",
    stops=("</s>",),
    control_tokens=("<reserved_106>", "<reserved_107>"),
)


# gpt-oss-20b/120b; in the registry with reasoning_effort medium, on 2025-08-05.
# Past assistant turns are written in the final channel; system content becomes the developer message.
#     <|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06
#     \nCurrent date: 2025-08-05\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must
#      be included for every message.<|end|><|start|>developer<|message|># Instructions\n\n{system}\n\n<|end|><|start|>
#     user<|message|>{user}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|end|><|start|>user<|message|>
#     {user}<|end|><|start|>assistant
# Source: ggml-org llama.cpp, models/templates/openai-gpt-oss-120b.jinja (verbatim Hub template); block layout agrees
# with openai harmony docs and test-data.
def _harmony(today: str, reasoning_effort: str) -> ChatTemplate:
    system = (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        f"Knowledge cutoff: 2024-06\nCurrent date: {today}\n\nReasoning: {reasoning_effort}\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    )
    return ChatTemplate(
        "harmony",
        models=("gpt-oss", "gpt-oss-*"),
        head=f"{system}<|start|>user<|message|>",
        before_system=f"{system}<|start|>developer<|message|># Instructions\n\n",
        after_system="\n\n<|end|><|start|>user<|message|>",
        before_answer="<|end|><|start|>assistant<|channel|>final<|message|>",
        after_answer="<|end|><|start|>user<|message|>",
        tail="<|end|><|start|>assistant",
        stops=("<|return|>", "<|call|>"),
        control_tokens=(
            "<|start|>",
            "<|message|>",
            "<|end|>",
            "<|channel|>",
            "<|return|>",
            "<|call|>",
            "<|constrain|>",
        ),
        empty_system="absent",
    )


harmony: Final = _harmony("2025-08-05", "medium")


def harmony_with(*, today: date, reasoning_effort: Literal["low", "medium", "high"] = "medium") -> ChatTemplate:
    """gpt-oss's format with the date and the reasoning effort that its template prints.

    The registry's has 2025-08-05 and medium.

    >>> from datetime import date
    >>> harmony_with(today=date(2026, 1, 5), reasoning_effort="high").head.splitlines()[2:5]
    ['Current date: 2026-01-05', '', 'Reasoning: high']
    """
    return _harmony(today.isoformat(), reasoning_effort)


# Apertus-8B/70B-Instruct; in the registry with enable_thinking=False, on 2025-09-02.
#     <s><|system_start|>{system}<|system_end|><|developer_start|>Deliberation: disabled\nTool Capabilities: disabled
#     <|developer_end|><|user_start|>{user}<|user_end|><|assistant_start|>{answer}<|assistant_end|><|user_start|>
#     {user}<|user_end|><|assistant_start|>
# Source: ggml-org llama.cpp, models/templates/Apertus-8B-Instruct.jinja (verbatim Hub template).
def _apertus(today: str, deliberation: str) -> ChatTemplate:
    developer = (
        f"<|system_end|><|developer_start|>Deliberation: {deliberation}\n"
        "Tool Capabilities: disabled<|developer_end|><|user_start|>"
    )
    return ChatTemplate(
        "apertus",
        models=("Apertus-*-Instruct", "Apertus-*-Instruct-2509"),
        bos="<s>",
        head="<|system_start|>You are Apertus, a helpful assistant created by the SwissAI initiative.\n"
        f"Knowledge cutoff: 2024-04\nCurrent date: {today}{developer}",
        before_system="<|system_start|>",
        after_system=developer,
        before_answer="<|user_end|><|assistant_start|>",
        after_answer="<|assistant_end|><|user_start|>",
        tail="<|user_end|><|assistant_start|>",
        stops=("<|assistant_end|>",),
        control_tokens=(
            "<s>",
            "<|system_start|>",
            "<|system_end|>",
            "<|developer_start|>",
            "<|developer_end|>",
            "<|user_start|>",
            "<|user_end|>",
            "<|assistant_start|>",
            "<|assistant_end|>",
        ),
    )


apertus: Final = _apertus("2025-09-02", "disabled")


def apertus_with(*, today: date, enable_thinking: bool = False) -> ChatTemplate:
    """Apertus's format with the date that its default system text has, and with deliberation enabled or disabled.

    The registry's has 2025-09-02 and disabled.

    >>> from datetime import date
    >>> apertus_with(today=date(2026, 1, 5), enable_thinking=True).after_system[33:54]
    'Deliberation: enabled'
    """
    return _apertus(today.isoformat(), "enabled" if enable_thinking else "disabled")


HEADERS: Final = (
    command_r,
    granite3,
    granite3_1,
    granite3_3,
    granite4,
    seed_oss,
    minimax_m2,
    megrez,
    ling,
    monarch,
    minicpm,
    baichuan2,
    harmony,
    apertus,
)
