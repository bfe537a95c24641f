"""DeepSeek's models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate, Thinking

# deepseek-coder-*-instruct (v1).
#     <｜begin▁of▁sentence｜>{system}### Instruction:\n{user}\n### Response:\n{answer}\n<|EOT|>\n### Instruction:\n
#     {user}\n### Response:\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# deepseek-ai/deepseek-coder-33b-instruct; its expected output also agrees).
deepseek_coder: Final = ChatTemplate(
    "deepseek-coder",
    models=("deepseek-coder-*-instruct",),
    bos="<｜begin▁of▁sentence｜>",
    user_prefix="You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you only answer questions related to computer science. For politically sensitive questions, security and privacy issues, and other non-computer science questions, you will refuse to answer\n### Instruction:\n",
    before_system="",
    after_system="### Instruction:\n",
    before_assistant="\n### Response:\n",
    after_assistant="\n<|EOT|>\n### Instruction:\n",
    generation_prompt="\n### Response:\n",
    stop=("<|EOT|>",),
    special_tokens=("### Instruction:", "### Response:", "<|EOT|>", "<｜begin▁of▁sentence｜>"),
)

# deepseek-llm-*-chat, DeepSeek-V2-Chat, Coder-V2.
#     <｜begin▁of▁sentence｜>{system}\n\nUser: {user}\n\nAssistant: {answer}<｜end▁of▁sentence｜>User: {user}\n\n
#     Assistant:
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# deepseek-ai/DeepSeek-V2-Lite-Chat; its expected output also agrees).
deepseek_v2: Final = ChatTemplate(
    "deepseek-v2",
    models=(
        "deepseek-llm-*-chat",
        "DeepSeek-V2-Chat",
        "DeepSeek-V2-Lite-Chat",
        "DeepSeek-Coder-V2-Instruct",
        "DeepSeek-Coder-V2-Lite-Instruct",
    ),
    bos="<｜begin▁of▁sentence｜>",
    user_prefix="User: ",
    before_system="",
    after_system="\n\nUser: ",
    before_assistant="\n\nAssistant: ",
    after_assistant="<｜end▁of▁sentence｜>User: ",
    generation_prompt="\n\nAssistant:",
    stop=("<｜end▁of▁sentence｜>",),
    special_tokens=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "User: ", "Assistant:"),
)

# DeepSeek-V3.
#     <｜begin▁of▁sentence｜>{system}<｜User｜>{user}<｜Assistant｜>{answer}<｜end▁of▁sentence｜><｜User｜>{user}<｜Assistant｜>
# Source: axolotl, utils/chat_templates/templates/deepseek_v3.jinja (copy of the deepseek-ai/DeepSeek-V3 Hub template);
# openvinotoolkit openvino.genai da1db86, tests/python_tests/data/tokenizer_configs.py (verbatim tokenizer_config
# chat_template of deepseek-ai/DeepSeek-V3-Base) renders the same. For V3-0324 no copy was found: ms-swift 4.6.0,
# swift/model/models/deepseek.py, gives it the template of V3.
deepseek_v3: Final = ChatTemplate(
    "deepseek-v3",
    models=(
        "DeepSeek-V3",
        "DeepSeek-V3-0324",
    ),
    bos="<｜begin▁of▁sentence｜>",
    user_prefix="<｜User｜>",
    before_system="",
    after_system="<｜User｜>",
    before_assistant="<｜Assistant｜>",
    after_assistant="<｜end▁of▁sentence｜><｜User｜>",
    generation_prompt="<｜Assistant｜>",
    stop=("<｜end▁of▁sentence｜>",),
    special_tokens=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
)

# DeepSeek-R1 (Jan 2025 original: no forced <think>).
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# deepseek-ai/DeepSeek-R1; its target output also agrees).
deepseek_r1: Final = replace(
    deepseek_v3,
    name="deepseek-r1",
    models=(
        "DeepSeek-R1",
        "DeepSeek-R1-0528",
        "DeepSeek-R1-0528-Qwen3-*",
    ),
    special_tokens=(
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<think>",
        "</think>",
    ),
    past_reasoning="dropped",
)

# DeepSeek-R1-Distill-* (Feb 2025: generation prompt forces <think>\n).
# Llama.cpp added an enable_thinking switch to this copy; rendered with enable_thinking=True, which is the original
# behaviour.
# Source: ggml-org llama.cpp, models/templates/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja (verbatim Hub template); trl,
# trl/chat_templates/deepseek_r1_distill_training.jinja keeps what the model writes; its line breaks around </think> are shown
# in github.com/deepseek-ai/DeepSeek-R1/issues/352.
deepseek_r1_distill: Final = replace(
    deepseek_r1,
    name="deepseek-r1-distill",
    models=(
        "DeepSeek-R1-Distill-Qwen-*",
        "DeepSeek-R1-Distill-Llama-*",
        "DeepSeek-R1",
    ),
    generation_prompt="<｜Assistant｜><think>\n",
    thinking=Thinking("<｜Assistant｜><think>\n", "\n</think>\n\n"),
)

# DeepSeek-V3.1 (thinking=False).
# From a copy of the template.
# Source: vllm-project vllm, examples/tool_chat_template_deepseekv31.jinja logic (non-thinking marker is a bare
# </think>); rendered with the llama.cpp copy whose only relevant change (<think></think>) is reverted.
deepseek_v3_1: Final = replace(
    deepseek_r1,
    name="deepseek-v3.1",
    models=(
        "DeepSeek-V3.1",
        "DeepSeek-V3.2",
        "DeepSeek-V3.2-Exp",
        "DeepSeek-V4",
        "DeepSeek-V4-Flash",
    ),
    before_assistant="<｜Assistant｜></think>",
    generation_prompt="<｜Assistant｜></think>",
    thinking=Thinking("<｜Assistant｜><think>", "</think>"),
)

# DeepSeek-V3.1, V3.2 and V4 with thinking=True.
# Source: DeepSeek's encoders in vllm 0.33.0, vllm/tokenizers/deepseek_v32_encoding.py and deepseek_v4_encoding.py;
# ggml-org llama.cpp, models/templates/deepseek-ai-DeepSeek-V4.jinja renders the same.
deepseek_v3_1_think: Final = replace(
    deepseek_v3_1,
    name="deepseek-v3.1-think",
    models=(),
    generation_prompt="<｜Assistant｜><think>",
)

# DeepSeek-V4.1 (thinking=False): the system text follows a tag.
#     <｜begin▁of▁sentence｜><｜System｜>{system}<｜User｜>{user}<｜Assistant｜></think>{answer}<｜end▁of▁sentence｜><｜User｜>
#     {user}<｜Assistant｜></think>
# Source: DeepSeek's encoder in vllm 0.33.0, vllm/tokenizers/deepseek_v41_encoding.py.
deepseek_v4_1: Final = replace(
    deepseek_v3_1,
    name="deepseek-v4.1",
    models=("DeepSeek-V4.1",),
    before_system="<｜System｜>",
    special_tokens=(*deepseek_v3_1.special_tokens, "<｜System｜>"),
)

# The same with thinking=True and the default effort.
_EFFORT: Final = (
    "<｜System｜>Reasoning Effort: 75 (range 1-100, the higher the value, the more thorough the reasoning)\n\n"
)
deepseek_v4_1_think: Final = replace(
    deepseek_v4_1,
    name="deepseek-v4.1-think",
    models=(),
    user_prefix=f"{_EFFORT}<｜User｜>",
    before_system=_EFFORT,
    generation_prompt="<｜Assistant｜><think>",
)


FORMATS: Final = (
    deepseek_coder,
    deepseek_v2,
    deepseek_v3,
    deepseek_r1,
    deepseek_r1_distill,
    deepseek_v3_1,
    deepseek_v3_1_think,
    deepseek_v4_1,
    deepseek_v4_1_think,
)
