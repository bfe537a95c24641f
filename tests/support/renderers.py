"""Writes tests/data/renderers.json: finished conversations, as the library `renderers` renders them.

    python -m venv .renderers && .renderers/bin/pip install renderers==0.1.12 httpx
    .renderers/bin/python -m tests.support.renderers

`renderers` writes tokens. With a tokenizer of one token a character, special tokens aside, they are text again.
Nothing of distgen is imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple, TypedDict


class Rendered(TypedDict):
    name: str
    system: str | None
    history: list[list[str]]
    user: str
    answer: str
    reasoning: str | None
    expected: str
    trained: list[list[int]]  # the characters that the model writes


class Entry(TypedDict):
    format: str
    renderer: str
    cases: list[Rendered]


class Run(NamedTuple):
    """A renderer, its settings, and the special tokens that it looks up."""

    format: str
    renderer: str
    config: str
    tokens: str
    settings: Mapping[str, object] = {}


DATA: Final = Path(__file__).parent.parent / "data" / "renderers.json"
_TOOL: Final = "<tool_call> </tool_call> <tool_response> </tool_response>"
_QWEN: Final = f"<|im_start|> <|im_end|> <|endoftext|> <think> </think> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|> {_TOOL}"
_GLM: Final = (
    "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|> <think> </think> <|endoftext|> /nothink <arg_key> </arg_key> "
    f"<arg_value> </arg_value> {_TOOL}"
)
_GEMMA: Final = (
    "<bos> <eos> <|turn> <turn|> <|channel> <channel|> <|think|> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response> "
    '<tool_response|> <|image|> <|image> <image|> <|"|>'
)
_DEEPSEEK: Final = (
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> "
    "<｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> "
    "<｜tool▁output▁begin｜> <｜tool▁output▁end｜> <think> </think>"
)
_LLAMA: Final = (
    "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|>"
)
_MINIMAX: Final = (
    "]~!b[ ]~b] [e~[ <think> </think> <minimax:tool_call> </minimax:tool_call> <tool_response> </tool_response>"
)
RUNS: Final = (
    Run("qwen3", "Qwen/Qwen3-8B", "Qwen3RendererConfig", _QWEN),
    Run("qwen3.5", "Qwen/Qwen3.5-4B", "Qwen35RendererConfig", _QWEN, {"enable_thinking": True}),
    Run("qwen3.8", "Qwen/Qwen3.8", "Qwen38RendererConfig", _QWEN),
    Run("glm4.6", "zai-org/GLM-4.6", "GLM45RendererConfig", _GLM),
    Run("glm4.7", "zai-org/GLM-5.1", "GLM51RendererConfig", _GLM),
    Run("gemma4", "google/gemma-4-31B-it", "Gemma4RendererConfig", _GEMMA, {"enable_thinking": False}),
    Run("gemma4-think", "google/gemma-4-31B-it", "Gemma4RendererConfig", _GEMMA, {"enable_thinking": True}),
    Run("deepseek-v3", "deepseek-ai/DeepSeek-V3", "DeepSeekV3RendererConfig", _DEEPSEEK),
    Run("llama3.1", "meta-llama/Llama-3.1-8B-Instruct", "Llama3RendererConfig", _LLAMA),
    Run("minimax-m2.5", "MiniMaxAI/MiniMax-M2.5", "MiniMaxM2RendererConfig", _MINIMAX),
    Run("nemotron3", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Nemotron3RendererConfig", _QWEN),
)
CASES: Final[tuple[tuple[str, str | None, list[list[str]], str | None], ...]] = (
    ("one turn", None, [], None),
    ("history", "Add.", [["1+1?", "2"], ["And 3+3?", "6"]], None),
    ("reasoning", "Add.", [], "Two and two."),
    ("history and reasoning", None, [["1+1?", "2"]], "Two and two."),
)


class Characters:
    """A tokenizer with a token for each special token and for each other character."""

    unk_token_id = -1
    eos_token_id = bos_token_id = None
    chat_template = ""

    def __init__(self, name: str, tokens: Sequence[str]) -> None:
        self.name_or_path, self.tokens = name, list(tokens)
        longest = sorted(self.tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join([*map(re.escape, longest), "."]), re.DOTALL)

    def encode(self, text: str, **_: object) -> list[int]:
        pieces: list[str] = self.pattern.findall(text)
        return [self.tokens.index(piece) if piece in self.tokens else 10_000 + ord(piece) for piece in pieces]

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return "".join(self.tokens[token] if token < 10_000 else chr(token - 10_000) for token in ids)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.tokens.index(token) if token in self.tokens else -1


def render(run: Run) -> Entry:
    """Return each case as the renderer renders it."""
    tokenizer = Characters(run.renderer, run.tokens.split())
    config = getattr(import_module("renderers.configs"), run.config)(**run.settings)
    renderer = import_module("renderers.base").create_renderer(tokenizer, config)
    cases: list[Rendered] = []
    for name, system, history, reasoning in CASES:
        messages = [] if system is None else [{"role": "system", "content": system}]
        for user, answer in history:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        last = {"role": "assistant", "content": "4"} | ({"reasoning_content": reasoning} if reasoning else {})
        done = renderer.render([*messages, {"role": "user", "content": "2+2?"}, last])
        text, trained = "", list[list[int]]()
        for token, is_sampled in zip(done.token_ids, done.sampled_mask, strict=True):
            piece = tokenizer.decode([token])
            if is_sampled and trained and trained[-1][1] == len(text):
                trained[-1][1] += len(piece)
            elif is_sampled:
                trained.append([len(text), len(text) + len(piece)])
            text += piece
        cases.append(
            {
                "name": name,
                "system": system,
                "history": history,
                "user": "2+2?",
                "answer": "4",
                "reasoning": reasoning,
                "expected": text,
                "trained": trained,
            }
        )
    return {"format": run.format, "renderer": run.renderer, "cases": cases}


if __name__ == "__main__":
    DATA.write_text(json.dumps([render(run) for run in RUNS], ensure_ascii=False, indent=1), "utf-8")
