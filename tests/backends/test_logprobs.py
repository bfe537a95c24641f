"""Log probabilities in the shapes that servers send."""

from __future__ import annotations

import math

import pytest

from distgen.backends.wire import read_logprobs
from distgen.completion import TokenLogprob

A = TokenLogprob("a", -0.5)
LOGPROBS: dict[str, tuple[object, tuple[TokenLogprob, ...] | None]] = {
    "chat": (
        {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}]},
        (TokenLogprob("a", -0.5, (A,)),),
    ),
    "chat without the others": ({"content": [{"token": "a", "logprob": -0.5}]}, (A,)),
    "completion": (
        {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}]},
        (TokenLogprob("a", -0.5, (A,)),),
    ),
    "both": (
        {
            "content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}],
            "tokens": ["a"],
            "token_logprobs": [-0.5],
        },
        (TokenLogprob("a", -0.5, (A,)),),
    ),
    "the first token of a prompt": ({"tokens": ["a"], "token_logprobs": [None]}, (TokenLogprob("a", None),)),
    "impossible": ({"tokens": ["a"], "token_logprobs": [-math.inf]}, (TokenLogprob("a", -math.inf),)),
    "none": (None, None),
    "no list": ({"tokens": "a"}, None),
    "tokens alone": ({"tokens": ["a"]}, None),
    "numbers alone": ({"token_logprobs": [-0.5]}, None),
    "of several lengths": ({"tokens": ["a", "b"], "token_logprobs": [-0.5]}, None),
    "an entry that is no object": ({"content": ["a"]}, None),
    "a number that is true": ({"tokens": ["a"], "token_logprobs": [True]}, None),
    "not a number": ({"tokens": ["a"], "token_logprobs": [math.nan]}, None),
    "more than certain": ({"tokens": ["a"], "token_logprobs": [math.inf]}, None),
    "a text for a number": ({"tokens": ["a"], "token_logprobs": ["-0.5"]}, None),
}


@pytest.mark.parametrize("name", LOGPROBS)
def test_the_shapes(name: str) -> None:
    value, logprobs = LOGPROBS[name]
    assert read_logprobs(value) == logprobs
