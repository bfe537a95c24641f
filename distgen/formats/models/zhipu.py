"""Zhipu AI's ChatGLM and GLM models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, NotParsed, Unsupported
from distgen.formats.formatter import refuse_reasoning, split_completion
from distgen.formats.injection import find_token
from distgen.formats.template import ChatTemplate, Thinking
from distgen.formats.training import Train, TrainingText
from distgen.prompt import Exchange, Prompt, Segment

_PREFIX: Final = "[gMASK]<sop>"
_ROLE: Final = re.compile(r"<\|(system|user|assistant)\|>\n")


@final
@dataclass(frozen=True, slots=True)
class ChatGLM4:
    """The format of glm-4-9b-chat. It renders no turn for an empty text, so that an empty turn cannot be read back."""

    name: str
    stop: tuple[str, ...]
    special_tokens: tuple[str, ...]
    models: tuple[str, ...]
    generation_prompt: str
    bos: str = ""

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """Render the prompt; refuse a text that holds a special token."""
        refusal = self._find_refusal(prompt)
        return Failure(refusal) if refusal else Success(self._render(prompt))

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the rendering as literals and texts, without refusing special tokens."""
        refusal = refuse_reasoning(self.name, prompt)
        return Failure(refusal) if refusal else Success(tuple(part for part in self._parts(prompt) if part.text))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        """Return the canonical prompt that renders to exactly this text, or `NotParsed`."""
        prompt = self._read(rendered)
        if self(prompt) != Success(rendered):
            return Failure(NotParsed(self.name, "rendered again, it is another text"))
        return Success(prompt)

    def canonical(self, prompt: Prompt, /) -> Prompt:
        """Return the prompt without empty turns; a refused prompt stays as it is."""
        return prompt if self._find_refusal(prompt) else self._read(self._render(prompt))

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        """Return a Failure: no finished conversation of the model is published."""
        return Failure(Unsupported(self.name, "training"))

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Return no reasoning, and the whole text as the answer."""
        return split_completion("", text)

    def _find_refusal(self, prompt: Prompt) -> InjectedToken | Unsupported | None:
        refusal = refuse_reasoning(self.name, prompt)
        return refusal or find_token(self.name, prompt.texts(), (*self.special_tokens, *self.stop))

    def _parts(self, prompt: Prompt) -> Iterator[Segment]:
        yield Segment(_PREFIX, True)
        for where, text in prompt.texts():
            if text:
                yield Segment(f"<|{where.rpartition('.')[2]}|>\n", True)
                yield Segment(text, False)
        yield Segment(self.generation_prompt, True)

    def _render(self, prompt: Prompt) -> str:
        return "".join(part.text for part in self._parts(prompt))

    def _read(self, rendered: str) -> Prompt:
        """Return the prompt of a rendering; of any other text, some prompt."""
        _, *turns = _ROLE.split(rendered.removeprefix(_PREFIX).removesuffix(self.generation_prompt))
        system: str | None = None
        asked, history = "", list[Exchange]()
        for role, text in zip(turns[::2], turns[1::2], strict=True):
            if role == "system":
                system = text
            elif role == "assistant":
                history.append(Exchange(asked, text))
                asked = ""
            else:
                history += [Exchange(asked, "")] if asked else []
                asked = text
        return Prompt(asked, system, tuple(history))


# chatglm3-6b.
#     [gMASK]sop<|system|>\n {system}<|user|>\n {user}<|assistant|>\n {answer}<|user|>\n {user}<|assistant|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# THUDM/chatglm3-6b; its expected output also agrees).
chatglm3: Final = ChatTemplate(
    "chatglm3",
    models=("chatglm3-*",),
    user_prefix="[gMASK]sop<|user|>\n ",
    before_system="[gMASK]sop<|system|>\n ",
    after_system="<|user|>\n ",
    before_assistant="<|assistant|>\n ",
    after_assistant="<|user|>\n ",
    generation_prompt="<|assistant|>",
    stop=("<|user|>", "<|observation|>", "</s>"),
    special_tokens=("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>"),
)

# glm-4-9b-chat: a turn whose text is empty is not written at all.
#     [gMASK]<sop><|system|>\n{system}<|user|>\n{user}<|assistant|>\n{answer}<|user|>\n{user}<|assistant|>\n
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# THUDM/glm-4-9b-chat; its expected output also agrees).
chatglm4: Final = ChatGLM4(
    "chatglm4",
    stop=("<|endoftext|>", "<|user|>", "<|observation|>"),
    special_tokens=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
    models=("glm-4-*-chat",),
    generation_prompt="<|assistant|>\n",
)

# The same of another revision, without a line break at the end.
# Source: openvinotoolkit openvino.genai da1db86, tests/python_tests/data/tokenizer_configs.py (verbatim tokenizer_config
# chat_template of THUDM/glm-4-9b-chat); huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat
# template of glm4:9b) renders the same.
glm4: Final = replace(chatglm4, name="glm4", generation_prompt="<|assistant|>")

# GLM-4.5/4.6 (thinking allowed).
#     [gMASK]<sop><|system|>\n{system}<|user|>\n{user}<|assistant|>\n<think></think>\n{answer}<|user|>\n{user}
#     <|assistant|>
# Source: ggml-org llama.cpp, models/templates/GLM-4.6.jinja (verbatim Hub template).
glm4_6: Final = ChatTemplate(
    "glm4.6",
    models=("GLM-4.5", "GLM-4.5-Air", "GLM-4.6"),
    user_prefix="[gMASK]<sop><|user|>\n",
    before_system="[gMASK]<sop><|system|>\n",
    after_system="<|user|>\n",
    before_assistant="<|assistant|>\n<think></think>\n",
    after_assistant="<|user|>\n",
    generation_prompt="<|assistant|>",
    stop=("<|endoftext|>", "<|user|>", "<|observation|>"),
    special_tokens=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
    strip_assistant=str.strip,
    around=(("assistant", "\n", ""),),
    thinking=Thinking("<|assistant|>\n<think>", "</think>\n", strip=str.strip),
    past_reasoning="dropped",
)

# GLM-4.7 and GLM-5.1, which think. No line breaks.
# Source: ggml-org llama.cpp, models/templates/GLM-4.7-Flash.jinja (verbatim Hub template); huggingface.js,
# packages/jinja/test/e2e.test.js (verbatim chat_template of zai-org/GLM-5.1) renders the same. For GLM-4.7 and GLM-5 no
# copy was found: ms-swift 4.6.0, swift/model/models/glm.py, gives them the template of GLM-4.7-Flash.
glm4_7: Final = replace(
    glm4_6,
    name="glm4.7",
    models=("GLM-4.7", "GLM-4.7-Flash", "GLM-5", "GLM-5.1"),
    user_prefix="[gMASK]<sop><|user|>",
    before_system="[gMASK]<sop><|system|>",
    after_system="<|user|>",
    before_assistant="<|assistant|></think>",
    after_assistant="<|user|>",
    generation_prompt="<|assistant|><think>",
    around=(),
    thinking=Thinking("<|assistant|><think>", "</think>", strip=str.strip),
)

# The same with enable_thinking=False.
glm4_7_nothink: Final = replace(
    glm4_7,
    name="glm4.7-nothink",
    models=(),
    generation_prompt="<|assistant|></think>",
)


FORMATS: Final = (chatglm3, chatglm4, glm4, glm4_6, glm4_7, glm4_7_nothink)
