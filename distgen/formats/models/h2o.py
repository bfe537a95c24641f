"""H2O.ai's Danube."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# h2o-danube-1.8b-chat.
#     <|system|>{system}</s><|prompt|>{user}</s><|answer|>{answer}</s><|prompt|>{user}</s><|answer|>
# Source: huggingface.js, packages/jinja/test/e2e.test.js (verbatim tokenizer_config chat_template of
# h2oai/h2o-danube-1.8b-chat; its target output also agrees).
h2o_danube: Final = ChatTemplate(
    "h2o-danube",
    models=("h2o-danube-*-chat",),
    user_prefix="<|prompt|>",
    before_system="<|system|>",
    after_system="</s><|prompt|>",
    before_assistant="</s><|answer|>",
    after_assistant="</s><|prompt|>",
    generation_prompt="</s><|answer|>",
    stop=("</s>",),
    special_tokens=("<|system|>", "<|prompt|>", "<|answer|>", "</s>"),
)


FORMATS: Final = (h2o_danube,)
