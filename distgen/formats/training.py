"""Training text: a finished conversation as its model's template renders it, with each character's role and its label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple, TypeAlias, final

IGNORED: Final = -100
"""The label of a token that is not trained. Source: torch.nn.CrossEntropyLoss, ignore_index."""

Role: TypeAlias = Literal["system", "user", "reasoning", "assistant", "markup"]
"""Who wrote a piece of a training text; "markup" is a literal of the format."""

ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "user": "user",
    "reasoning": "reasoning",
    "assistant": "assistant",
}
"""The role of a text by the last name of its place in a prompt."""

Train: TypeAlias = Literal["last", "all"]
"""Train the last answer of a conversation, or all of them."""


class Span(NamedTuple):
    """A piece of a training text: `text[start:end]`. `trained` if the model is to learn to write it."""

    start: int
    end: int
    role: Role
    trained: bool


@final
@dataclass(frozen=True, slots=True)
class TrainingText:
    """A finished conversation. Its spans cover the text in order, without gaps.

    Trained are the answer, its reasoning, the literals that the model writes around them, and the stop; the generation
    prompt is not, since the model never writes it.
    """

    text: str
    spans: tuple[Span, ...]


def mark(text: str, texts: Iterable[tuple[int, int, Role]], trained: Sequence[tuple[int, int]]) -> TrainingText:
    """Return the text with spans: `texts` are those of the conversation, `trained` is what the model writes."""
    cuts, roles = {0, len(text)}, dict[int, Role]()
    for start, end, role in texts:
        if start < end:
            cuts |= {start, end}
            roles[start] = role
    for pair in trained:
        cuts.update(pair)
    spans: list[Span] = []
    for start, end in pairwise(sorted(cuts)):
        is_trained = any(first <= start < last for first, last in trained)
        spans.append(Span(start, end, roles.get(start, "markup"), is_trained))
    return TrainingText(text, tuple(spans))


def label_tokens(training: TrainingText, token_ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the label of each token: its id if the model is to learn to write all of its characters, else -100.

    `token_ids` and `offsets` are those of a fast tokenizer. The text already begins with the BOS token:

        encoded = tokenizer(training.text, add_special_tokens=False, return_offsets_mapping=True)
        labels = label_tokens(training, encoded["input_ids"], encoded["offset_mapping"])

    >>> training = TrainingText("Q: 2+2? A: 4", (Span(0, 11, "markup", False), Span(11, 12, "assistant", True)))
    >>> label_tokens(training, [5, 6, 7], [(0, 7), (7, 11), (11, 12)])
    [-100, -100, 7]
    """
    trained = bytearray(len(training.text))
    for start, end, _, is_trained in training.spans:
        trained[start:end] = bytes([is_trained]) * (end - start)
    pairs = zip(token_ids, offsets, strict=True)
    return [token if start < end and all(trained[start:end]) else IGNORED for token, (start, end) in pairs]
