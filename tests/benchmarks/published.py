"""The registry beside published templates, on 240 odd prompts each, as a table.

    python -m tests.benchmarks.published FOLDER

FOLDER holds templates as for tests.support.oracle; those that it has not are left out. The texts of the prompts are made of
prose and white space, without markup, so that a format refuses only what its model has no place for. "raises" counts the
prompts that the format renders, and the template does not. Exits with 1 if a text differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from returns.result import Failure

from distgen.errors import Unsupported
from distgen.formats import TextFormat
from distgen.prompt import Prompt
from distgen.testing import PROSE, WHITE_SPACE, prompts
from tests.support.formats import ORACLE, TEXTS
from tests.support.oracle import DAYS, Case, render


class Published(NamedTuple):
    format: str
    model: str
    template: str
    variables: Mapping[str, object]
    today: str = DAYS[0]


# Templates beside those of oracle.json: of other models, or of other sources.
OTHERS: Final[Sequence[tuple[str, str, str, Mapping[str, object]]]] = (
    ("chatml-bos", "Nous-Hermes-2-Mixtral-8x7B-DPO", "github/Nous-Hermes-2-Mixtral-8x7B-DPO.jinja", {}),
    ("glm4", "glm4:9b (GGUF)", "ollama-utils/glm4-9b.jinja", {}),
    ("qwen2", "Qwen1.5-4B-Chat", "github/Qwen1.5-4B-Chat.jinja", {}),
    ("chatml", "MiniCPM4-8B", "github/MiniCPM4-8B.jinja", {}),
    ("command-r", "aya-expanse", "axolotl/aya.jinja", {}),
    ("command-r", "aya-expanse (GGUF)", "ollama-utils/aya-expanse-8b.jinja", {}),
    ("deepseek-r1", "DeepSeek-R1-0528", "vllm/tool_chat_template_deepseekr1.jinja", {}),
    ("deepseek-r1", "DeepSeek-R1-0528-Qwen3-8B (GGUF)", "ollama-utils/deepseek-r1-8b.jinja", {}),
    ("deepseek-v3", "DeepSeek-V3 (GGUF)", "ollama-utils/deepseek-v3-671b.jinja", {}),
    ("deepseek-v3.1", "DeepSeek-V3.1", "ollama-utils/deepseek-v3.1-latest.jinja", {}),
    ("deepseek-v3.1", "DeepSeek-V4-Flash", "llama.cpp/deepseek-ai-DeepSeek-V4-Flash-0731.jinja", {}),
    ("deepseek-v3.1-think", "DeepSeek-V4, thinking", "llama.cpp/deepseek-ai-DeepSeek-V4.jinja", {"thinking": True}),
    ("gemma3", "gemma-3n", "axolotl/gemma3n.jinja", {}),
    ("gemma4", "gemma-4-12B (unified)", "axolotl/gemma4_unified.jinja", {}),
    ("gemma4-e2b", "gemma-4-E2B", "trl/gemma4_v5.jinja", {}),
    ("gemma4-think", "gemma-4-E2B, enable_thinking=True", "trl/gemma4_v5.jinja", {"enable_thinking": True}),
    ("gigachat3", "GigaChat3.1-10B-A1.8B", "llama.cpp/GigaChat3.1-10B-A1.8B.jinja", {}),
    ("glm4.7", "GLM-5.1 (Hub)", "huggingface.js/zai-org-GLM-5.1.jinja", {}),
    ("granite4", "granite-4.0-350m (GGUF)", "ollama-utils/granite4-350m.jinja", {}),
    ("granite4.1", "granite-4.0-micro (GGUF)", "ollama-utils/granite4-latest.jinja", {}),
    ("jamba", "AI21-Jamba-Mini-1.7", "github/AI21-Jamba-Mini-1.7.jinja", {}),
    ("jamba", "Jamba", "axolotl/jamba.jinja", {}),
    ("kimi-k2-thinking", "Kimi-K2-Thinking (Hub)", "huggingface.js/moonshotai-Kimi-K2-Thinking.jinja", {}),
    ("lfm2", "LFM2.5-*-Instruct", "llama.cpp/LFM2.5-Instruct.jinja", {}),
    ("lfm2", "LFM2.5-VL", "huggingface.js/LiquidAI-LFM2.5-VL-450M.jinja", {}),
    ("mistral-v7-tekken", "Devstral-Small-2507", "llama.cpp/unsloth-mistral-Devstral-Small-2507.jinja", {}),
    ("mistral-v7-tekken", "Mistral-Small-3.2", "llama.cpp/Mistral-Small-3.2-24B-Instruct-2506.jinja", {}),
    ("llama3.1", "Llama-3.3-70B-Instruct", "llama.cpp/meta-llama-Llama-3.3-70B-Instruct.jinja", {}),
    ("zephyr", "tinyllama:1.1b (GGUF)", "ollama-utils/tinyllama-1.1b.jinja", {}),
    ("lfm2", "LFM2-8B-A1B", "llama.cpp/LFM2-8B-A1B.jinja", {}),
    ("nemotron3", "Nemotron-3-Super", "trl/nemotron_3_super.jinja", {}),
    ("nemotron3", "Nemotron-3-Ultra", "trl/nemotron_3_ultra.jinja", {}),
    ("nemotron3", "Nemotron-3.5", "trl/nemotron_3_5_lightning.jinja", {}),
    ("olmo2", "OLMo-2 (GGUF)", "ollama-utils/olmo2-7b.jinja", {}),
    ("phi4-reasoning", "Phi-4-reasoning (GGUF)", "ollama-utils/phi4-reasoning-14b.jinja", {}),
    ("qwen2", "Qwen2.5-VL-*", "huggingface.js/Qwen-Qwen2.5-VL-7B-Instruct.jinja", {}),
    ("qwen2", "Qwen2.5-VL-*", "trl/qwen2_5_vl.jinja", {}),
    ("qwen2.5", "Qwen2.5-Coder", "ollama-utils/qwen2.5-coder-1.5b.jinja", {}),
    ("qwen3-2507", "Qwen3-Coder-*", "llama.cpp/Qwen3-Coder.jinja", {}),
    ("qwen3-2507", "Qwen3-Coder-30B (GGUF)", "ollama-utils/qwen3-coder-30b.jinja", {}),
    ("qwen3-2507", "Qwen3-VL-*-Instruct", "trl/qwen3_vl.jinja", {}),
    ("qwen3-thinking", "Qwen3-Next-80B-A3B-Thinking", "ollama-utils/qwen3-next-80b.jinja", {}),
    ("qwen3.5", "Qwen3.5-4B (Hub)", "huggingface.js/Qwen-Qwen3.5-4B.jinja", {}),
    ("qwen3.5", "Qwen3.6-*", "trl/qwen3_6.jinja", {}),
    ("qwen3.5-nothink", "Qwen3.5-*, enable_thinking=False", "llama.cpp/Qwen3.5-4B.jinja", {"enable_thinking": False}),
)
TEXT: Final = st.lists(st.sampled_from((*PROSE, *WHITE_SPACE, "x", "{}", "\r\n", "- a")), max_size=4).map("".join)


def find_published() -> Iterator[Published]:
    """Yield the templates of oracle.json, and then the others with the special tokens of the format."""
    for source in ORACLE:
        if "template" in source:
            variables = source.get("variables", {})
            switches = [f"{name}={value}" for name, value in variables.items() if not name.endswith("_token")]
            model = ", ".join((*TEXTS[source["format"]].models, *switches))
            yield Published(source["format"], model, source["template"], variables, source.get("today", DAYS[0]))
    for name, model, template, variables in OTHERS:
        tokens = {"bos_token": TEXTS[name].bos, "eos_token": TEXTS[name].stop[0]}
        yield Published(name, model, template, {**tokens, **variables})


def odd_prompts() -> list[Prompt]:
    """Return the same 240 prompts at each call."""
    found: list[Prompt] = []

    @settings(max_examples=240, derandomize=True, database=None, phases=[Phase.generate])
    @given(prompts(TEXT))
    def collect(prompt: Prompt) -> None:
        found.append(prompt)

    collect()
    return found


def case_of(prompt: Prompt) -> Case:
    history = [[each.user, each.assistant] for each in prompt.history]
    return {"name": "", "system": prompt.system, "history": history, "user": prompt.user, "expected": None}


def compare(format: TextFormat, cases: list[Case], tried: list[Prompt]) -> Counter[str]:
    """Count the prompts by outcome: exact, differs, raises, or why the format refuses."""
    outcomes = Counter[str]()
    for case, prompt in zip(cases, tried, strict=True):
        answer = format(prompt)
        if isinstance(answer, Failure):
            refusal = answer.failure()
            outcomes[refusal.what if isinstance(refusal, Unsupported) else type(refusal).__name__] += 1
        elif case["expected"] is None:
            outcomes["raises"] += 1
        else:
            outcomes["exact" if answer.unwrap() == case["expected"] else "differs"] += 1
    return outcomes


def main(folder: Path) -> int:
    """Print the table; return the number of texts that differ."""
    tried, differing = odd_prompts(), 0
    cases = [case_of(prompt) for prompt in tried]
    print("| format | model | template | exact | refused by the format | raises | differs |")
    print("|---|---|---|---|---|---|---|")
    for each in find_published():
        if not (folder / each.template).is_file():
            continue
        template = (folder / each.template).read_text("utf-8")
        found = compare(TEXTS[each.format], render(template, each.variables, each.today, cases), tried)
        refused = ", ".join(
            f"{count} {what}" for what, count in found.items() if what not in ("exact", "raises", "differs")
        )
        counts = f"{found['exact']} of {found.total()} | {refused or 0} | {found['raises']} | {found['differs']}"
        print(f"| {each.format} | {each.model} | {each.template} | {counts} |")
        differing += found["differs"]
    return differing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.published", description="Compare with templates.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="published templates, one subfolder a source")
    sys.exit(main(parser.parse_args().folder) > 0)
