"""AI21's Jamba models."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# Jamba 1.5 to 1.7. There is always a system turn.
#     <|startoftext|><|bom|><|system|> {system}<|eom|><|bom|><|user|> {user}<|eom|><|bom|><|assistant|> {answer}<|eom|>
#     <|bom|><|user|> {user}<|eom|><|bom|><|assistant|>
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim chat_template of ai21labs/AI21-Jamba-Large-1.6); axolotl,
# utils/chat_templates/templates/jamba.jinja renders the same, and so does rampipe 66b8273, tests/fixtures/jamba_mini_1_7_chat_template.jinja
# (from a GGUF file of AI21-Jamba-Mini-1.7).
jamba: Final = ChatTemplate(
    "jamba",
    models=(
        *("AI21-Jamba-Mini-1.5", "AI21-Jamba-Large-1.5", "AI21-Jamba-Mini-1.6", "AI21-Jamba-Large-1.6"),
        "AI21-Jamba-Mini-1.7",
    ),
    bos="<|startoftext|>",
    user_prefix="<|bom|><|system|> <|eom|><|bom|><|user|> ",
    before_system="<|bom|><|system|> ",
    after_system="<|eom|><|bom|><|user|> ",
    before_assistant="<|eom|><|bom|><|assistant|> ",
    after_assistant="<|eom|><|bom|><|user|> ",
    generation_prompt="<|eom|><|bom|><|assistant|>",
    stop=("<|eom|>",),
    special_tokens=("<|startoftext|>", "<|bom|>", "<|eom|>", "<|system|>", "<|user|>", "<|assistant|>"),
)


FORMATS: Final = (jamba,)
