"""A tiny GGUF file that the tests write: byte-level BPE, weights drawn at random or such that it spells."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Final

CONTEXT: Final = 256
SPECIAL: Final = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
LONG: Final = "supercalifragilisticexpialidocious_and_more"
"""A token of more than 32 bytes, as many a vocabulary has of spaces or dashes."""
PAD, BOS, EOS, START, END = range(5)


def write(path: Path, *, spells: bool) -> Path:
    """Writes a model of one layer: one that spells, as `tests.tiny.spelling` has it, 9 being followed by LONG, or any."""
    numpy, gguf = import_module("numpy"), import_module("gguf")
    letters = _alphabet()
    tokens = [*SPECIAL, *letters, LONG]
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(letters) + 1)
    size, width, hidden = len(tokens), 320, 32
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(10)
    writer.add_head_count_kv(10)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 10)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h", "i n"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    draw = numpy.random.default_rng(0)
    shapes = {
        "attn_q": (width, width),
        "attn_k": (width, width),
        "attn_v": (width, width),
        "attn_output": (width, width),
        "ffn_gate": (hidden, width),
        "ffn_up": (hidden, width),
        "ffn_down": (width, hidden),
    }
    weights = {f"blk.0.{name}.weight": draw.standard_normal(shape) * 0.2 for name, shape in shapes.items()}
    weights |= {f"blk.0.{name}_norm.weight": numpy.ones(width) for name in ("attn", "ffn")}
    weights |= {"output_norm.weight": numpy.ones(width)}
    weights |= {"token_embd.weight": draw.standard_normal((size, width))}
    weights |= {"output.weight": draw.standard_normal((size, width)) / width**0.5}  # so that many tokens are likely
    if spells:
        weights["token_embd.weight"] = numpy.eye(size, width)
        weights["output.weight"] = numpy.zeros((size, width))
        for before, after in _successors(tokens):
            weights["output.weight"][after, before] = 1
        weights["blk.0.attn_output.weight"][:] = 0
        weights["blk.0.ffn_down.weight"][:] = 0
    for name, weight in weights.items():
        writer.add_tensor(name, weight.astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _successors(tokens: list[str]) -> list[tuple[int, int]]:
    letters, numbers = [*map(tokens.index, ascii_lowercase)], [*map(tokens.index, digits)]
    return [*pairwise([*letters, EOS]), *pairwise([*numbers, tokens.index(LONG), END, letters[0]])]


def _alphabet() -> list[str]:
    """A character for each byte, the byte's own where it is printable. Source: GPT-2, encoder.py, bytes_to_unicode."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
