"""Plain words between the turns; what would read back as another conversation is refused.

Each format beside the source that it is taken from; one that differs little from another names its difference.
"""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# vicuna-v1.1/1.3/1.5 (FastChat).
# System null = FastChat default system text; no BOS in text (tokenizer adds <s>).
#     {system} USER: {user} ASSISTANT: {answer}</s>USER: {user} ASSISTANT:
# Source: lm-sys FastChat (fschat 0.2.36), fastchat/conversation.py vicuna_v1.1 (vendor code).
vicuna: Final = ChatTemplate(
    "vicuna",
    models=("vicuna-*-v1.1", "vicuna-*-v1.3", "vicuna-*-v1.5"),
    head="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ",
    before_system="",
    after_system=" USER: ",
    before_answer=" ASSISTANT: ",
    after_answer="</s>USER: ",
    tail=" ASSISTANT:",
    stops=("</s>",),
    control_tokens=("USER: ", "ASSISTANT: ", "</s>"),
    empty_user=(" ", " "),
    empty_assistant=(" ", "</s>"),
)

# Stanford Alpaca (single turn, no system).
#     Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n###
#      Instruction:\n{user}\n\n### Response:
# Source: tatsu-lab stanford_alpaca, train.py PROMPT_DICT (vendor code).
alpaca: Final = ChatTemplate(
    "alpaca",
    head="Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n",
    before_system="",
    after_system="",
    before_answer="",
    after_answer="",
    tail="\n\n### Response:",
    stops=("</s>",),
    control_tokens=("### Instruction:", "### Response:"),
    system_place="refused",
    takes_history=False,
)

# Alpaca multi-turn as FastChat renders it.
# From code of a peer, not of the vendor.
#     {system}\n\n### Instruction: {user}\n\n### Response: {answer}</s>### Instruction: {user}\n\n### Response:
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py alpaca.
alpaca_fastchat: Final = ChatTemplate(
    "alpaca-fastchat",
    head="Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction: ",
    before_system="",
    after_system="\n\n### Instruction: ",
    before_answer="\n\n### Response: ",
    after_answer="</s>### Instruction: ",
    tail="\n\n### Response:",
    stops=("</s>",),
    control_tokens=("### Instruction:", "### Response:", "</s>"),
    empty_user=(" ", "\n\n"),
    empty_assistant=(" ", "</s>"),
)

# SOLAR-10.7B-Instruct-v1.0.
#     ### System:\n{system}\n\n### User:\n{user}\n\n### Assistant:\n{answer}### User:\n{user}\n\n### Assistant:\n
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# upstage/SOLAR-10.7B-Instruct-v1.0; its target output also agrees).
solar: Final = ChatTemplate(
    "solar",
    models=("SOLAR-*-Instruct-v1.0",),
    head="### User:\n",
    before_system="### System:\n",
    after_system="\n\n### User:\n",
    before_answer="\n\n### Assistant:\n",
    after_answer="### User:\n",
    tail="\n\n### Assistant:\n",
    stops=("</s>",),
    control_tokens=("### System:", "### User:", "### Assistant:"),
    empty_system="absent",
)

# openchat-3.5, Starling-LM-7B.
#     <s>GPT4 Correct System: {system}<|end_of_turn|>GPT4 Correct User: {user}<|end_of_turn|>GPT4 Correct Assistant:
#      {answer}<|end_of_turn|>GPT4 Correct User: {user}<|end_of_turn|>GPT4 Correct Assistant:
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# openchat/openchat-3.5-0106; its expected output also agrees).
openchat: Final = ChatTemplate(
    "openchat",
    models=("openchat-3.5", "openchat-3.5-0106", "Starling-LM-*-alpha", "Starling-LM-*-beta"),
    bos="<s>",
    head="GPT4 Correct User: ",
    before_system="GPT4 Correct System: ",
    after_system="<|end_of_turn|>GPT4 Correct User: ",
    before_answer="<|end_of_turn|>GPT4 Correct Assistant: ",
    after_answer="<|end_of_turn|>GPT4 Correct User: ",
    tail="<|end_of_turn|>GPT4 Correct Assistant:",
    stops=("<|end_of_turn|>",),
    control_tokens=(
        "<s>",
        "GPT4 Correct User: ",
        "GPT4 Correct Assistant:",
        "GPT4 Correct System: ",
        "<|end_of_turn|>",
    ),
)

# Orion-14B-Chat (system silently DROPPED).
#     <s>Human: {user}\n\nAssistant: </s>{answer}</s>Human: {user}\n\nAssistant: </s>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# OrionStarAI/Orion-14B-Chat; its expected output also agrees).
orion: Final = ChatTemplate(
    "orion",
    models=("Orion-*-Chat",),
    bos="<s>",
    head="Human: ",
    before_system="",
    after_system="",
    before_answer="\n\nAssistant: </s>",
    after_answer="</s>Human: ",
    tail="\n\nAssistant: </s>",
    stops=("</s>",),
    control_tokens=("<s>", "</s>", "Human: ", "Assistant: "),
    system_place="refused",
    empty_system="absent",
)

WORDS: Final = (
    vicuna,
    alpaca,
    alpaca_fastchat,
    solar,
    openchat,
    orion,
)
