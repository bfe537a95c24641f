"""Requests: parameters as JSON, checked when a backend is made, and bodies as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from distgen.backends.params import Params

_OURS: Final = ("model", "messages", "prompt", "n", "stream")


def json_params(params: Params | None, extra_body: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return a deep copy of both together as JSON has them; a ValueError names what cannot be sent.

    >>> json_params({"temperature": 0.7, "stop": ("END",)}, {"top_k": 20})
    {'temperature': 0.7, 'stop': ['END'], 'top_k': 20}
    >>> json_params({"temprature": 0.7})
    Traceback (most recent call last):
        ...
    ValueError: params has no 'temprature': did you mean 'temperature'? Other parameters go into extra_body.
    """
    named: tuple[tuple[str, Mapping[str, object]], ...] = (("params", params or {}), ("extra_body", extra_body or {}))
    copy: dict[str, object] = {}
    for where, values in named:
        for name, value in values.items():
            if name in _OURS:
                raise ValueError(f"{where}[{name!r}] is set by the backend itself; leave it out.")
            if where == "params" and name not in Params.__annotations__:
                near = get_close_matches(name, Params.__annotations__, 1)
                hint = f": did you mean {near[0]!r}?" if near else "."
                raise ValueError(f"params has no {name!r}{hint} Other parameters go into extra_body.")
            if name in copy:
                raise ValueError(f"{name!r} stands in params and in extra_body; leave it out of one.")
            try:
                copy[name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{where}[{name!r}] is no JSON value: {error}.") from None
    return copy


def shift_seed(params: Mapping[str, object], offset: int) -> Mapping[str, object]:
    """Return the parameters with another seed: with the same one, a second request would get the same texts again.

    >>> shift_seed({"seed": 42}, 3)
    {'seed': 45}
    """
    seed = params.get("seed")
    return {**params, "seed": seed + offset} if isinstance(seed, int) and offset else params


def encode(body: Mapping[str, object]) -> bytes:
    r"""Return the bytes of a request; ASCII, so that a lone surrogate is sent as JSON escapes it.

    >>> encode({"model": "m", "prompt": "Hi \ud800"})
    b'{"model": "m", "prompt": "Hi \\ud800"}'
    """
    return json.dumps(body).encode("ascii")
