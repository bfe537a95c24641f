"""Sampling parameters, in the words of the OpenAI-compatible protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


# Source: OpenAI API reference, "Create chat completion" and "Create completion", request body.
class Params(TypedDict, total=False):
    """The parameters of a request. The server chooses those that are left out.

    A backend raises ValueError for a parameter that it does not know. A server's other parameters go into `extra_body`.

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
    reasoning_effort: str
    verbosity: str
    tools: Sequence[Mapping[str, object]]
    tool_choice: str | Mapping[str, object]
    parallel_tool_calls: bool
    service_tier: str
    store: bool
    metadata: Mapping[str, str]
    user: str
    safety_identifier: str
    prompt_cache_key: str
    best_of: int
    echo: bool
    suffix: str
