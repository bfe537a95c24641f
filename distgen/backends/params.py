"""How answers are sampled, in the words of the OpenAI-compatible protocol: one vocabulary for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


# Source: OpenAI API reference, "Create chat completion" and "Create completion", request body.
class Params(TypedDict, total=False):
    """The parameters of a request; what is left out is for the model's server, or its own configuration, to choose.

    A format's `stops` go in here: `{"stop": chatml.stops}`. A backend refuses, by a ValueError, what it has no way to heed;
    what it can heed beyond these has an argument of its own.

    >>> params: Params = {"temperature": 0.7, "max_tokens": 100, "stop": ("<|im_end|>",), "seed": 7}
    """

    temperature: float
    top_p: float
    max_tokens: int
    max_completion_tokens: int
    stop: str | Sequence[str]
    seed: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[str, float]
    logprobs: bool | int
    top_logprobs: int
    response_format: Mapping[str, object]
