"""A tag for each role, `<|user|>` and its like.

Each format beside the source that it is taken from; one that differs little from another names its difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate

# HuggingFaceH4/zephyr-7b-alpha/beta, TinyLlama-1.1B-Chat, notus-7b.
#     <|system|>\n{system}</s>\n<|user|>\n{user}</s>\n<|assistant|>\n{answer}</s>\n<|user|>\n{user}</s>\n<|assistant|>
#     \n
# Source: huggingface alignment-handbook, recipes/zephyr-7b-beta/sft/config_full.yaml (vendor training recipe);
# identical rendering to huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# HuggingFaceH4/zephyr-7b-beta; its target output also agrees).
zephyr: Final = ChatTemplate(
    "zephyr",
    models=("zephyr-*-alpha", "zephyr-*-beta", "TinyLlama-*-Chat-v1.0", "notus-*-v1"),
    head="<|user|>\n",
    before_system="<|system|>\n",
    after_system="</s>\n<|user|>\n",
    before_answer="</s>\n<|assistant|>\n",
    after_answer="</s>\n<|user|>\n",
    tail="</s>\n<|assistant|>\n",
    stops=("</s>",),
    control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "</s>"),
)

# Tulu-2/Tulu-3 (no bos in template).
#     <|system|>\n{system}\n<|user|>\n{user}\n<|assistant|>\n{answer}<|endoftext|>\n<|user|>\n{user}\n<|assistant|>\n
# Source: allenai open-instruct, open_instruct/dataset_transformation.py CHAT_TEMPLATES["tulu"] (vendor code).
tulu: Final = ChatTemplate(
    "tulu",
    head="<|user|>\n",
    before_system="<|system|>\n",
    after_system="\n<|user|>\n",
    before_answer="\n<|assistant|>\n",
    after_answer="<|endoftext|>\n<|user|>\n",
    tail="\n<|assistant|>\n",
    stops=("<|endoftext|>",),
    control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
)

# Falcon3-*-Instruct.
# Source: huggingface trl, trl/chat_templates/falcon3.jinja (exact copy of the tiiuae/Falcon3-7B-Instruct tokenizer
# template); the same in huggingface optimum-intel, optimum/exporters/openvino/utils.py (falcon3-7b-instruct).
falcon3: Final = replace(
    tulu,
    name="falcon3",
    models=("Falcon3", "Falcon3-*-Instruct"),
)

# OLMo-2-*-Instruct (tulu with bos <|endoftext|>).
# Source: allenai open-instruct, CHAT_TEMPLATES["tulu"] with add_bos=True prepending bos_token (vendor code path).
olmo2: Final = replace(
    tulu,
    name="olmo2",
    models=("OLMo-2", "OLMo-2-1124-*-Instruct", "OLMo-2-0325-*-Instruct"),
    bos="<|endoftext|>",
)

# Phi-3-mini-4k/128k-instruct (July 2024 template).
#     <|system|>\n{system}<|end|>\n<|user|>\n{user}<|end|>\n<|assistant|>\n{answer}<|end|>\n<|user|>\n{user}<|end|>\n
#     <|assistant|>\n
# Source: guidance-ai guidance, guidance/chat.py (verbatim microsoft/Phi-3-mini-4k-instruct template).
phi3_mini: Final = ChatTemplate(
    "phi3-mini",
    models=("Phi-3-mini", "Phi-3-mini-*-instruct"),
    head="<|user|>\n",
    before_system="<|system|>\n",
    after_system="<|end|>\n<|user|>\n",
    before_answer="<|end|>\n<|assistant|>\n",
    after_answer="<|end|>\n<|user|>\n",
    tail="<|end|>\n<|assistant|>\n",
    stops=("<|end|>", "<|endoftext|>"),
    control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)

# Phi-3-small (bos <|endoftext|>).
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# microsoft/Phi-3-small; its expected output also agrees).
phi3_small: Final = replace(
    phi3_mini,
    name="phi3-small",
    models=("Phi-3-small", "Phi-3-small-*-instruct"),
    bos="<|endoftext|>",
    control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
)

# Phi-3-medium (system silently DROPPED).
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# microsoft/Phi-3-medium; its expected output also agrees).
phi3_medium: Final = replace(
    phi3_mini,
    name="phi3-medium",
    models=("Phi-3-medium", "Phi-3-medium-*-instruct"),
    before_system="",
    after_system="",
    control_tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    system_place="refused",
    empty_system="absent",
)

# Phi-3.5-mini-instruct.
# Source: ggml-org llama.cpp, models/templates/microsoft-Phi-3.5-mini-instruct.jinja (verbatim Hub template).
phi3_5: Final = replace(
    phi3_mini,
    name="phi3.5",
    models=("Phi-3.5-mini-instruct",),
    empty_system="absent",
)

# Phi-4-mini-instruct.
# Source: guidance-ai guidance, guidance/chat.py (verbatim microsoft/Phi-4-mini-instruct template).
phi4_mini: Final = replace(
    phi3_mini,
    name="phi4-mini",
    models=("Phi-4-mini-instruct",),
    head="<|user|>",
    before_system="<|system|>",
    after_system="<|end|><|user|>",
    before_answer="<|end|><|assistant|>",
    after_answer="<|end|><|user|>",
    tail="<|end|><|assistant|>",
)

# h2o-danube-1.8b-chat.
#     <|system|>{system}</s><|prompt|>{user}</s><|answer|>{answer}</s><|prompt|>{user}</s><|answer|>
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# h2oai/h2o-danube-1.8b-chat; its target output also agrees).
h2o_danube: Final = ChatTemplate(
    "h2o-danube",
    models=("h2o-danube-*-chat",),
    head="<|prompt|>",
    before_system="<|system|>",
    after_system="</s><|prompt|>",
    before_answer="</s><|answer|>",
    after_answer="</s><|prompt|>",
    tail="</s><|answer|>",
    stops=("</s>",),
    control_tokens=("<|system|>", "<|prompt|>", "<|answer|>", "</s>"),
)

# OpenAssistant pythia/llama (FastChat rendering).
# From code of a peer, not of the vendor.
#     {system}<|prompter|>{user}<|endoftext|><|assistant|>{answer}<|endoftext|><|prompter|>{user}<|endoftext|>
#     <|assistant|>
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py oasst_pythia.
oasst: Final = ChatTemplate(
    "oasst",
    models=("OpenAssistant", "oasst-sft-4-pythia-12b-epoch-3.5"),
    head="<|prompter|>",
    before_system="",
    after_system="<|prompter|>",
    before_answer="<|endoftext|><|assistant|>",
    after_answer="<|endoftext|><|prompter|>",
    tail="<|endoftext|><|assistant|>",
    stops=("<|endoftext|>",),
    control_tokens=("<|prompter|>", "<|assistant|>", "<|endoftext|>"),
    empty_user=("", "<|endoftext|>"),
    empty_assistant=("", "<|endoftext|>"),
)

# StarChat-beta (FastChat rendering).
# From code of a peer, not of the vendor.
# Source: lm-sys FastChat (fschat 0.2.36), conversation.py starchat.
starchat: Final = replace(
    phi3_mini,
    name="starchat",
    models=("starchat-beta",),
    head="<system>\n<|end|>\n<|user|>\n",
    before_system="<system>\n",
    stops=("<|end|>",),
    empty_user=("", "<|end|>\n"),
    empty_assistant=("", "<|end|>\n"),
    control_tokens=("<system>", *phi3_mini.control_tokens),
)

# chatglm3-6b.
#     [gMASK]sop<|system|>\n {system}<|user|>\n {user}<|assistant|>\n {answer}<|user|>\n {user}<|assistant|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# THUDM/chatglm3-6b; its expected output also agrees).
chatglm3: Final = ChatTemplate(
    "chatglm3",
    models=("chatglm3-*",),
    head="[gMASK]sop<|user|>\n ",
    before_system="[gMASK]sop<|system|>\n ",
    after_system="<|user|>\n ",
    before_answer="<|assistant|>\n ",
    after_answer="<|user|>\n ",
    tail="<|assistant|>",
    stops=("<|user|>", "<|observation|>", "</s>"),
    control_tokens=("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>"),
)

# glm-4-9b-chat: a turn whose text is empty is not written at all.
#     [gMASK]<sop><|system|>\n{system}<|user|>\n{user}<|assistant|>\n{answer}<|user|>\n{user}<|assistant|>\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# THUDM/glm-4-9b-chat; its expected output also agrees). Its first revision ended in "<|assistant|>".
chatglm4: Final = ChatTemplate(
    "chatglm4",
    models=("glm-4-*-chat",),
    head="[gMASK]<sop><|user|>\n",
    before_system="[gMASK]<sop><|system|>\n",
    after_system="<|user|>\n",
    before_answer="<|assistant|>\n",
    after_answer="<|user|>\n",
    tail="<|assistant|>\n",
    stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
    control_tokens=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
    empty_system="absent",
    empty_user=("<|user|>\n", ""),
    empty_assistant=("<|assistant|>\n", ""),
    folds="empty turns",
)

# GLM-4.5/4.6 (thinking allowed).
#     [gMASK]<sop><|system|>\n{system}<|user|>\n{user}<|assistant|>\n<think></think>\n{answer}<|user|>\n{user}
#     <|assistant|>
# Source: ggml-org llama.cpp, models/templates/GLM-4.6.jinja (verbatim Hub template).
glm4_6: Final = ChatTemplate(
    "glm4.6",
    models=("GLM-4.5", "GLM-4.5-Air", "GLM-4.6"),
    head="[gMASK]<sop><|user|>\n",
    before_system="[gMASK]<sop><|system|>\n",
    after_system="<|user|>\n",
    before_answer="<|assistant|>\n<think></think>\n",
    after_answer="<|user|>\n",
    tail="<|assistant|>",
    stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
    control_tokens=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
    strip_assistant=str.strip,
    empty_assistant=("\n", ""),
)

# EXAONE-3.0/3.5-Instruct.
#     [|system|]{system}[|endofturn|]\n[|user|]{user}\n[|assistant|]{answer}[|endofturn|]\n[|user|]{user}\n
#     [|assistant|]
# Source: public Python project EXAONEManager (verbatim copy of LGAI-EXAONE tokenizer_config chat_template); identical
# rendering to axolotl exaone.jinja.
exaone3: Final = ChatTemplate(
    "exaone3",
    models=("EXAONE-3.0-*-Instruct", "EXAONE-3.5-*-Instruct"),
    head="[|system|][|endofturn|]\n[|user|]",
    before_system="[|system|]",
    after_system="[|endofturn|]\n[|user|]",
    before_answer="\n[|assistant|]",
    after_answer="[|endofturn|]\n[|user|]",
    tail="\n[|assistant|]",
    stops=("[|endofturn|]",),
    control_tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
)

# EXAONE-4.0.
# From a copy of the template.
#     [|system|]\n{system}[|endofturn|]\n[|user|]\n{user}[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n{answer}
#     [|endofturn|]\n[|user|]\n{user}[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n
# Source: axolotl, utils/chat_templates/templates/exaone4.jinja (copy of the LGAI-EXAONE/EXAONE-4.0 Hub template).
exaone4: Final = ChatTemplate(
    "exaone4",
    models=("EXAONE-4.0", "EXAONE-4.0-*"),
    head="[|user|]\n",
    before_system="[|system|]\n",
    after_system="[|endofturn|]\n[|user|]\n",
    before_answer="[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
    after_answer="[|endofturn|]\n[|user|]\n",
    tail="[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
    stops=("[|endofturn|]",),
    control_tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]", "<think>", "</think>"),
    empty_assistant=("<think>\n\n</think>\n\n", ""),
)

TAGS: Final = (
    zephyr,
    tulu,
    falcon3,
    olmo2,
    phi3_mini,
    phi3_small,
    phi3_medium,
    phi3_5,
    phi4_mini,
    h2o_danube,
    oasst,
    starchat,
    chatglm3,
    chatglm4,
    glm4_6,
    exaone3,
    exaone4,
)
