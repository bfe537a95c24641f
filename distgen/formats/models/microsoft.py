"""Microsoft's Phi models."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distgen.formats.template import ChatTemplate

# Phi-3-mini-4k/128k-instruct (July 2024 template).
#     <|system|>\n{system}<|end|>\n<|user|>\n{user}<|end|>\n<|assistant|>\n{answer}<|end|>\n<|user|>\n{user}<|end|>\n
#     <|assistant|>\n
# Source: guidance-ai guidance, guidance/chat.py (verbatim microsoft/Phi-3-mini-4k-instruct template).
phi3_mini: Final = ChatTemplate(
    "phi3-mini",
    models=("Phi-3-mini", "Phi-3-mini-*-instruct"),
    user_prefix="<|user|>\n",
    before_system="<|system|>\n",
    after_system="<|end|>\n<|user|>\n",
    before_assistant="<|end|>\n<|assistant|>\n",
    after_assistant="<|end|>\n<|user|>\n",
    generation_prompt="<|end|>\n<|assistant|>\n",
    stop=("<|end|>", "<|endoftext|>"),
    special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)

# Phi-3-small (bos <|endoftext|>).
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# microsoft/Phi-3-small; its expected output also agrees).
phi3_small: Final = replace(
    phi3_mini,
    name="phi3-small",
    models=("Phi-3-small", "Phi-3-small-*-instruct"),
    bos="<|endoftext|>",
    special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
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
    special_tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    system_position="refused",
    drops_empty_system=True,
)

# Phi-3.5-mini-instruct.
# Source: ggml-org llama.cpp, models/templates/microsoft-Phi-3.5-mini-instruct.jinja (verbatim Hub template).
phi3_5: Final = replace(
    phi3_mini,
    name="phi3.5",
    models=("Phi-3.5-mini-instruct",),
    drops_empty_system=True,
)

# Phi-4-mini-instruct.
# Source: guidance-ai guidance, guidance/chat.py (verbatim microsoft/Phi-4-mini-instruct template).
phi4_mini: Final = replace(
    phi3_mini,
    name="phi4-mini",
    models=("Phi-4-mini-instruct",),
    user_prefix="<|user|>",
    before_system="<|system|>",
    after_system="<|end|><|user|>",
    before_assistant="<|end|><|assistant|>",
    after_assistant="<|end|><|user|>",
    generation_prompt="<|end|><|assistant|>",
)

# phi-4 (14B).
#     <|im_start|>system<|im_sep|>{system}<|im_end|><|im_start|>user<|im_sep|>{user}<|im_end|><|im_start|>assistant
#     <|im_sep|>{answer}<|im_end|><|im_start|>user<|im_sep|>{user}<|im_end|><|im_start|>assistant<|im_sep|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# microsoft/phi-4; its expected output also agrees).
phi4: Final = ChatTemplate(
    "phi4",
    models=("phi-4",),
    user_prefix="<|im_start|>user<|im_sep|>",
    before_system="<|im_start|>system<|im_sep|>",
    after_system="<|im_end|><|im_start|>user<|im_sep|>",
    before_assistant="<|im_end|><|im_start|>assistant<|im_sep|>",
    after_assistant="<|im_end|><|im_start|>user<|im_sep|>",
    generation_prompt="<|im_end|><|im_start|>assistant<|im_sep|>",
    stop=("<|im_end|>",),
    special_tokens=("<|im_start|>", "<|im_end|>", "<|im_sep|>"),
)

# Phi-4-reasoning, whose template renders no other system text than its own.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of phi4-reasoning:14b).
_PHI4_REASONING: Final = (
    "You are Phi, a language model trained by Microsoft to help users. Your role as an assistant involves"
    " thoroughly exploring questions through a systematic thinking process before providing the final "
    "precise and accurate solutions. This requires engaging in a comprehensive cycle of analysis, "
    "summarizing, exploration, reassessment, reflection, backtracing, and iteration to develop well-"
    "considered thinking process. Please structure your response into two main sections: Thought and "
    "Solution using the specified format: <think> {Thought section} </think> {Solution section}. In the "
    "Thought section, detail your reasoning process in steps. Each step should include detailed "
    "considerations such as analysing questions, summarizing relevant findings, brainstorming new ideas, "
    "verifying the accuracy of the current steps, refining any errors, and revisiting previous steps. In "
    "the Solution section, based on various attempts, explorations, and reflections from the Thought "
    "section, systematically present the final solution that you deem correct. The Solution section "
    "should be logical, accurate, and concise and detail necessary steps needed to reach the conclusion. "
    "Now, try to solve the following question through the above guidelines:"
)
phi4_reasoning: Final = replace(
    phi4,
    name="phi4-reasoning",
    models=("Phi-4-reasoning",),
    user_prefix=f"<|im_start|>system<|im_sep|>{_PHI4_REASONING}<|im_end|><|im_start|>user<|im_sep|>",
    special_tokens=(*phi4.special_tokens, "<think>", "</think>"),
    system_position="refused",
    drops_empty_system=True,
)


FORMATS: Final = (phi3_mini, phi3_small, phi3_medium, phi3_5, phi4_mini, phi4, phi4_reasoning)
