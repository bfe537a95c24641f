"""Training text: a finished conversation as its model's template renders it, with the role and the label of each character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, final, get_args

IGNORED: Final = -100
"""The label of a token that is not trained. Source: torch.nn.CrossEntropyLoss, ignore_index."""

Role: TypeAlias = Literal["system", "user", "reasoning", "assistant", "markup"]
"""The writer of a piece of a training text; "markup" is a literal of the format."""

ROLES: Final[Mapping[str, Role]] = {role: role for role in get_args(Role)}
"""The role of a text, by the last word of its name in `Prompt.texts`."""

Train: TypeAlias = Literal["last", "all"]
"""The answers of a conversation to train: the last one, or all."""


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

    The answer, its reasoning, the literals that the model writes around them, and the stop string are trained. The
    generation prompt is not, since the model never writes it.
    """

    text: str
    spans: tuple[Span, ...]


def mark_parts(
    places: Sequence[str], parts: Sequence[str], opened: str, stop: Sequence[str], train: Train
) -> TrainingText:
    """Return a finished conversation with the characters to train.

    `parts` are literals at even places and texts at odd places. `places` name the texts in order; the last is the last answer.
    After the generation prompt `opened`, the model writes everything up to a stop string. A past answer that does not follow
    `opened` is trained alone.
    """
    spans: list[Span] = []

    def add(text: str, role: Role, trained: bool) -> None:
        start = spans[-1].end if spans else 0
        if text:
            spans.append(Span(start, start + len(text), role, trained))

    roles: list[Role] = [ROLES[place.rpartition(".")[2]] for place in places]
    # The index of the first text that is trained.
    first = 0 if train == "all" else len(roles) - (2 if "reasoning" in roles[-2:] else 1)
    literal, before = parts[0], ""
    for index, (role, text, after) in enumerate(zip(roles, parts[1::2], parts[2::2], strict=True)):
        is_trained = role in ("reasoning", "assistant") and index >= first
        head = literal  # the beginning, which the model does not write
        if is_trained and before == "reasoning":
            head = ""
        elif is_trained and literal.startswith(opened):
            head = opened
        end = end_of_answer(stop, after) if is_trained and role == "assistant" else ""
        add(head, "markup", False)
        add(literal[len(head) :], "markup", True)
        add(text, role, is_trained)
        add(end, "markup", True)
        literal, before = after[len(end) :], role
    return TrainingText("".join(parts), tuple(spans))


def end_of_answer(stop: Sequence[str], literal: str) -> str:
    """Return the beginning of the literal after an answer, up to and with its stop string; "" if it has none."""
    ends = (literal.find(each) + len(each) for each in stop if each in literal)
    return literal[: min(ends, default=0)]


def label_tokens(training: TrainingText, token_ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the label of each token: its id if all of its characters are trained, else -100.

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
