"""Tiny models made in a second, without a download: the classes of transformers, with real weights.

Nothing here has types of torch or transformers, so that it type-checks where they are not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, Final, Protocol

from distgen.backends.hf import Model, Tokenizer

CONTEXT: Final = 64
SPECIAL: Final = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
# How the tokenizers of Llama 3 and Qwen split a text into words. Source: tokenizer.json of Qwen/Qwen2.5-7B-Instruct, pre_tokenizer.
_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PAD, BOS, EOS, START, END = range(5)


class ChatTokenizer(Tokenizer, Protocol):
    """A tokenizer of transformers, with the methods that only tests call."""

    padding_side: str

    def __len__(self) -> int: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        chat_template: str,
        add_generation_prompt: bool,
        return_dict: bool,
        sanitize_control_tokens: bool = False,
    ) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def save_pretrained(self, save_directory: Path) -> object: ...


class TinyModel(Model, Protocol):
    """A model of transformers, with the methods that only tests call."""

    def register_forward_hook(self, hook: Callable[..., None]) -> object: ...

    def save_pretrained(self, save_directory: Path) -> object: ...

    def to(self, dtype: object) -> TinyModel: ...


def tokenizer(merges: int = 0, special: Sequence[str] = SPECIAL) -> ChatTokenizer:
    """Make a byte-level BPE tokenizer, as most models have, with that many merges learned from this file."""
    tokenizers, transformers = import_module("tokenizers"), import_module("transformers")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(_WORDS), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + merges,
        special_tokens=[*special],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator([Path(__file__).read_text()], trainer)
    made: ChatTokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=[*special]
    )
    made.padding_side = "right"  # the default of many tokenizers
    return made


def random_model(tokens: int, kind: str = "Llama", **generation: object) -> TinyModel:
    """Make a model of that architecture with random weights, the same each time."""
    torch, transformers = import_module("torch"), import_module("transformers")
    sizes: dict[str, dict[str, int]] = {
        "Llama": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    }
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=tokens, max_position_embeddings=CONTEXT, bos_token_id=BOS, eos_token_id=EOS, **sizes[kind]
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return _configured(
            getattr(transformers, f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config), generation
        )


def alphabet_model(tokens: Tokenizer, **generation: object) -> TinyModel:
    """Make a model that continues a to z, then EOS; 0 to 9, then <|im_end|>, then a.

    Its embeddings are the unit vectors, its layer adds nothing to them, and its head maps each to its successor.
    """
    torch, transformers = import_module("torch"), import_module("transformers")

    def one(text: str) -> int:
        [token] = tokens.encode(text, add_special_tokens=False, split_special_tokens=False)
        return token

    letters, numbers = [*map(one, ascii_lowercase)], [*map(one, digits)]
    successors = [*pairwise([*letters, EOS]), *pairwise([*numbers, END, letters[0]])]
    size = len(SPECIAL) + 256
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        model.lm_head.weight.zero_()
        for before, after in successors:
            model.lm_head.weight[after, before] = 1
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return _configured(model, generation)


def greedy(model: Model, prompt: Sequence[int], steps: int) -> list[int]:
    """Continue a prompt with the likeliest token each time, by the bare network: no cache, no padding."""
    torch = import_module("torch")
    forward: Callable[..., Any] = getattr(model, "forward")  # noqa: B009  # the protocol does not have it
    tokens = [*prompt]
    with torch.no_grad():
        for _ in range(steps):
            tokens.append(int(forward(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def _configured(model: Any, generation: Mapping[str, object]) -> TinyModel:
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    made: TinyModel = model.eval()
    return made
