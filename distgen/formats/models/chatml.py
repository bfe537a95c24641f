"""ChatML itself, used by models of many makers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate

# OpenHermes-2.5, Nous-Hermes-2, Dolphin (no default system); transformers generic default.
#     <|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{answer}
#     <|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# teknium/OpenHermes-2.5-Mistral-7B; its expected output also agrees); identical to the transformers base default
# template in huggingface.js e2e (_base). MiniCPM4-8B: sophgo LLM-TPU d581e7b, models/MiniCPM4/config/tokenizer_config.json.
chatml: Final = ChatTemplate(
    "chatml",
    models=(
        "OpenHermes-2.5",
        "OpenHermes-2.5-Mistral-*",
        "Nous-Hermes-2",
        "Nous-Hermes-2-Mistral-*-DPO",
        "MiniCPM4-8B",
    ),
    user_prefix="<|im_start|>user\n",
    before_system="<|im_start|>system\n",
    after_system="<|im_end|>\n<|im_start|>user\n",
    before_assistant="<|im_end|>\n<|im_start|>assistant\n",
    after_assistant="<|im_end|>\n<|im_start|>user\n",
    generation_prompt="<|im_end|>\n<|im_start|>assistant\n",
    stop=("<|im_end|>",),
    special_tokens=("<|im_start|>", "<|im_end|>"),
)

# The same after a BOS: InternLM2-Chat; Zephyr-gemma, with the BOS of its tokenizer.
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# internlm/internlm2-chat-7b; its target output also agrees). Nous-Hermes-2-Mixtral-8x7B-DPO: openvinotoolkit
# openvino.genai da1db86, tests/python_tests/data/tokenizer_configs.py.
chatml_bos: Final = replace(
    chatml,
    name="chatml-bos",
    models=("InternLM2-Chat", "internlm2-chat-*", "Nous-Hermes-2-Mixtral-*-DPO"),
    bos="<s>",
    special_tokens=("<s>", "<|im_start|>", "<|im_end|>"),
)


FORMATS: Final = (chatml, chatml_bos)
