"""The cost of a format, as ratios in one run: rendering, refusal and Result, beside the same template in jinja2.

    python tests/benchmarks/formats.py

The template of `jinja2` is compiled, and rendered with the variables that transformers gives it; `by hand` is a function
with f-strings that refuses nothing. Texts have 100 and 10,000 characters; the fastest of many short runs is the least
disturbed one. Exits with 1 if a system and a user text of 100 characters are rendered less than 8 times as fast as by
jinja2.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2.sandbox import ImmutableSandboxedEnvironment
from returns.result import Success

from distgen.formats import ChatTemplate, chatml, llama2, llama3, zephyr
from distgen.prompt import Exchange, Prompt

MIN_RATIO: Final = 8.0


def chatml_by_hand(prompt: Prompt) -> str:
    parts: list[str] = []
    if prompt.system is not None:
        parts.append(f"<|im_start|>system\n{prompt.system}<|im_end|>\n")
    for turn in prompt.history:
        parts.append(f"<|im_start|>user\n{turn.user}<|im_end|>\n<|im_start|>assistant\n{turn.assistant}<|im_end|>\n")
    parts.append(f"<|im_start|>user\n{prompt.user}<|im_end|>\n<|im_start|>assistant\n")
    return "".join(parts)


def zephyr_by_hand(prompt: Prompt) -> str:
    parts: list[str] = []
    if prompt.system is not None:
        parts.append(f"<|system|>\n{prompt.system}</s>\n")
    for turn in prompt.history:
        parts.append(f"<|user|>\n{turn.user}</s>\n<|assistant|>\n{turn.assistant}</s>\n")
    parts.append(f"<|user|>\n{prompt.user}</s>\n<|assistant|>\n")
    return "".join(parts)


def llama3_by_hand(prompt: Prompt) -> str:
    parts = ["<|begin_of_text|>"]
    if prompt.system is not None:
        parts.append(f"<|start_header_id|>system<|end_header_id|>\n\n{prompt.system.strip()}<|eot_id|>")
    for turn in prompt.history:
        parts.append(f"<|start_header_id|>user<|end_header_id|>\n\n{turn.user.strip()}<|eot_id|>")
        parts.append(f"<|start_header_id|>assistant<|end_header_id|>\n\n{turn.assistant.strip()}<|eot_id|>")
    parts.append(f"<|start_header_id|>user<|end_header_id|>\n\n{prompt.user.strip()}<|eot_id|>")
    parts.append("<|start_header_id|>assistant<|end_header_id|>\n\n")
    return "".join(parts)


def llama2_by_hand(prompt: Prompt) -> str:
    parts: list[str] = []
    system = "" if prompt.system is None else f"<<SYS>>\n{prompt.system}\n<</SYS>>\n\n"
    for turn in prompt.history:
        parts.append(f"<s>[INST] {(system + turn.user).strip()} [/INST] {turn.assistant.strip()} </s>")
        system = ""
    parts.append(f"<s>[INST] {(system + prompt.user).strip()} [/INST]")
    return "".join(parts)


@dataclass(frozen=True)
class Rival:
    template: ChatTemplate
    by_hand: Callable[[Prompt], str]
    file: str
    variables: Mapping[str, str]


RIVALS: Final = (
    Rival(chatml, chatml_by_hand, "chatml", {}),
    Rival(zephyr, zephyr_by_hand, "zephyr", {"end": "</s>"}),
    Rival(llama3, llama3_by_hand, "llama3", {}),
    Rival(llama2, llama2_by_hand, "llama2", {}),
)


def nanoseconds(function: Callable[[Prompt], object], prompt: Prompt) -> float:
    number = 200
    runs = timeit.repeat(
        "f(p)", globals={"f": function, "p": prompt}, number=number, repeat=50, timer=time.process_time
    )
    return min(run for run in runs if run > 0) / number * 1e9


def with_jinja(rival: Rival) -> Callable[[Prompt], str]:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    source = (Path(__file__).parent.parent / "data" / "templates" / f"{rival.file}.jinja").read_text("utf-8")
    compiled = environment.from_string(source)

    def render(prompt: Prompt) -> str:
        messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        for turn in prompt.history:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.assistant}]
        messages.append({"role": "user", "content": prompt.user})
        return compiled.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            bos_token=rival.template.bos,
            eos_token=rival.template.stop[0],
            **rival.variables,
        )

    return render


def main() -> int:
    missed = 0
    print(f"Success alone {nanoseconds(lambda prompt: Success(prompt), Prompt('')):.0f} ns")
    print("format   contents         call, ns   by hand   ratio   jinja2   ratio")
    for rival in RIVALS:
        for size in (100, 10_000):
            asked = Prompt("x" * size, "y" * size)
            told = Prompt("x" * size, "y" * size, (Exchange("u" * size, "a" * size),) * 2)
            for kind, prompt in (("system, user", asked), ("two exchanges", told)):
                jinja = with_jinja(rival)
                text = rival.template(prompt).unwrap()
                assert text == rival.by_hand(prompt) == jinja(prompt)
                ours, hand, theirs = (nanoseconds(each, prompt) for each in (rival.template, rival.by_hand, jinja))
                print(
                    f"{rival.template.name:8} {size:6,} {kind:14} {ours:8,.0f} {hand:8,.0f} {ours / hand:6.2f}x "
                    f"{theirs:8,.0f} {theirs / ours:6.1f}x"
                )
                if kind == "system, user":
                    missed += size == 100 and theirs < MIN_RATIO * ours
    print(f"bounds missed: {missed} (at least {MIN_RATIO} times as fast as jinja2)")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
