"""Labels, with a real tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from distgen.formats import chatml, label_tokens
from distgen.formats.models.chatml import chatml_bos
from distgen.prompt import Exchange, Prompt
from tests.support.tiny import tokenizer

pytest.importorskip("transformers", reason="needs transformers: pip install torch transformers")
pytestmark = pytest.mark.slow

PROMPT = Prompt("How are you today?", "Be brief. 🙂", (Exchange("Hi!", "Hello, Grüße 🙂"),))


@pytest.mark.parametrize("format", [chatml, chatml_bos], ids=lambda format: format.name)
def test_the_labels_are_the_tokens_that_the_model_writes(format: Any) -> None:
    tiny: Any = tokenizer(merges=200)
    written = format.training_text(PROMPT, "Fine, 你好 🙂!", train="all").unwrap()
    encoded = tiny(written.text, add_special_tokens=False, return_offsets_mapping=True)
    labels = label_tokens(written, encoded["input_ids"], encoded["offset_mapping"])
    learned = [label for label in labels if label != -100]
    assert tiny.decode(learned) == "Hello, Grüße 🙂<|im_end|>Fine, 你好 🙂!<|im_end|>"
    assert all(label in (-100, token) for label, token in zip(labels, encoded["input_ids"], strict=True))
    assert encoded["input_ids"].count(tiny.convert_tokens_to_ids("<s>")) == (1 if format.bos else 0)
