"""Tokens per second of `distgen.backends.hf` and of bare `generate`, side by side, on the accelerator or else the CPU.

    python tests/benchmarks/hf.py [--batch 256] [--tokens 128] [--rounds 3]

The model has random weights and is made here: 0.5 billion on an accelerator, in bfloat16, and far fewer on a CPU, where the
network would hide the work beside it. Every row makes the same number of tokens, since nothing ends it. Three figures:

- bare: `model.generate` of the prompts as one padded batch, and the texts by the tokenizer.
- ours: the backend, with a special token as the stop string, as a chat format has.
- ours, searched: with a stop string that has to be searched in the texts, and is never found.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from importlib import import_module
from itertools import product
from statistics import median
from string import ascii_lowercase
from typing import Any, Final

from distgen.backends.hf import LocalModel
from distgen.backends.params import Params

tokenizers: Any = import_module("tokenizers")
torch: Any = import_module("torch")
transformers: Any = import_module("transformers")

LARGE: Final = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
SMALL: Final = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS: Final = {
    True: 150_000,
    False: 2_000,
}  # with an accelerator, and without: sampling 150,000 logits a row would hide the rest
PROMPT: Final = "Write a question about rivers, and nothing else."


def make_tokenizer(words: int) -> Any:
    """Make a byte-level tokenizer with that many words besides the bytes, as large as those of today's models."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    spelled = ("Ġ" + "".join(letters) for letters in product(ascii_lowercase, repeat=4))
    pieces = ["<pad>", "<|im_end|>", *alphabet, *(word for word, _ in zip(spelled, range(words), strict=False))]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({piece: n for n, piece in enumerate(pieces)}, []))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", padding_side="left", extra_special_tokens=["<|im_end|>"]
    )


def make_model(size: int, on_accelerator: bool) -> Any:
    config = transformers.Qwen2Config(
        vocab_size=size,
        max_position_embeddings=4096,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        **(LARGE if on_accelerator else SMALL),
    )
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config).eval()
    # No row ends by chance: the special tokens are never sampled.
    model.generation_config.suppress_tokens = [0, 1]
    return model.to(torch.accelerator.current_accelerator(), torch.bfloat16) if on_accelerator else model


def bare(model: Any, tokenizer: Any, prompts: list[str], tokens: int) -> list[str]:
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    made = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=tokens,
        do_sample=True,
        eos_token_id=1,
        pad_token_id=0,
    )
    texts: list[str] = tokenizer.decode(made[:, batch["input_ids"].shape[1] :].tolist(), skip_special_tokens=True)
    return texts


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("batch", 256), ("tokens", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    on_accelerator: bool = torch.accelerator.is_available()
    tokenizer = make_tokenizer(WORDS[on_accelerator])
    model = make_model(len(tokenizer), on_accelerator)
    params: Params = {"temperature": 1, "max_tokens": options.tokens, "stop": "<|im_end|>"}
    ours = LocalModel(model, tokenizer, params)
    searched = LocalModel(model, tokenizer, {**params, "stop": ["<|im_end|>", "\n\nQuestion:"]})
    prompts = [PROMPT] * options.batch
    calls: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(model, tokenizer, prompts, options.tokens),
        "ours": lambda: ours(prompts, 1),
        "ours, searched": lambda: searched(prompts, 1),
    }
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(options.rounds)]
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{ours.device} ({ours.dtype}), {count:,} weights, {options.batch} rows of {options.tokens} tokens")
    for name in calls:
        taken = median(each[name] for each in times)
        share = median(each["bare"] / each[name] for each in times)
        beside = 1000 * median(each[name] - each["bare"] for each in times) / options.tokens
        rate = options.batch * options.tokens / taken
        print(f"{name:16} {rate:10,.0f} tokens/s  {share:5.2f} of bare  {beside:+7.3f} ms a step beside bare")
    profile = cProfile.Profile()
    profile.runcall(searched, prompts, 1)
    print("searched, profiled:")
    for name, cost in pstats.Stats(profile).get_stats_profile().func_profiles.items():
        if name in ("_find_stops", "_read_answer", "_generate"):
            print(f"  {name:12} {cost.ncalls:>5} calls, {1000 * cost.cumtime / options.tokens:7.3f} ms a step")


if __name__ == "__main__":
    main()
