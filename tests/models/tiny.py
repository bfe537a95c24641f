"""Tiny models that the tests make themselves, in a second and without a download: transformers' own classes, real weights.

Nothing here is typed by torch or transformers, which most who run the tests do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, Final, Protocol

from distgen.backends.transformers import Model, Tokenizer

CONTEXT: Final = 64
SPECIAL: Final = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
# How Llama 3 and Qwen cut up a text first. Source: tokenizer.json of Qwen/Qwen2.5-7B-Instruct, pre_tokenizer.
_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PAD, BOS, EOS, START, END = range(5)


class ChatTokenizer(Tokenizer, Protocol):
    """A real one, with what the tests alone call."""

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


class SavedModel(Model, Protocol):
    def save_pretrained(self, save_directory: Path) -> object: ...


def tokenizer(merges: int = 0, special: Sequence[str] = SPECIAL) -> ChatTokenizer:
    """Byte-level BPE, as most models have it, with so many merges learned from the README."""
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
    bpe.train_from_iterator([(Path(__file__).parents[2] / "README.md").read_text()], trainer)
    made: ChatTokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=[*special]
    )
    made.padding_side = "right"  # as many tokenizers come
    return made


def drawn(tokens: int, kind: str = "Llama", **generation: object) -> SavedModel:
    """A model with weights drawn at random, the same each time, of that architecture."""
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


def spelling(tokens: Tokenizer, **generation: object) -> SavedModel:
    """A model that knows one thing, which token comes next: a to z and then EOS, 0 to 9, then <|im_end|> and then a.

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
    """What follows a prompt when the likeliest token is taken each time, by the bare network: no cache, no padding."""
    torch = import_module("torch")
    forward: Callable[..., Any] = getattr(model, "forward")  # noqa: B009  # no part of what the backend calls
    tokens = [*prompt]
    with torch.no_grad():
        for _ in range(steps):
            tokens.append(int(forward(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def _configured(model: Any, generation: Mapping[str, object]) -> SavedModel:
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    made: SavedModel = model.eval()
    return made
