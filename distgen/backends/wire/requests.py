"""Requests: what each endpoint is sent, as a JSON object and as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Protocol, TypeAlias, TypeVar

from distgen.backends.params import Params
from distgen.prompt import Messages

_P_contra = TypeVar("_P_contra", contravariant=True)

Body: TypeAlias = dict[str, object]
"""A request as a JSON object."""

_OURS: Final = ("model", "messages", "prompt", "n", "stream")


class Request(Protocol[_P_contra]):
    """Writes a request for `n` choices."""

    def __call__(self, prompt: _P_contra, /, *, model: str, n: int, params: Mapping[str, object]) -> Body:
        """Never raises for a prompt of its type and parameters from `json_params`."""
        ...


def json_params(params: Params | None, extra_body: Mapping[str, object] | None = None) -> Body:
    """A deep copy of both together as JSON has them; a ValueError names what cannot be sent, or stands in both.

    >>> json_params({"temperature": 0.7, "stop": ("END",)}, {"top_k": 20})
    {'temperature': 0.7, 'stop': ['END'], 'top_k': 20}
    """
    named: tuple[tuple[str, Mapping[str, object]], ...] = (("params", params or {}), ("extra_body", extra_body or {}))
    copy: Body = {}
    for where, values in named:
        for name, value in values.items():
            if name in _OURS:
                raise ValueError(f"{where}[{name!r}] is set by the backend itself; leave it out.")
            if name in copy:
                raise ValueError(f"{name!r} stands in params and in extra_body; leave it out of one.")
            try:
                copy[name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{where}[{name!r}] is no JSON value: {error}.") from None
    return copy


def seeded(params: Mapping[str, object], done: int) -> Mapping[str, object]:
    """The parameters of a request for the rest of a row: with one seed for both, it would get the same texts again.

    >>> seeded({"seed": 42}, 3)
    {'seed': 45}
    """
    seed = params.get("seed")
    return {**params, "seed": seed + done} if isinstance(seed, int) and done else params


# Source: OpenAI API reference, "Create chat completion" and "Create completion", request body.
#   chat        = {"model": string, "messages": [{"role": string, "content": string}, ...], "n"?: integer, ...}
#   completion  = {"model": string, "prompt": string, "n"?: integer, ...}
# "n" is 1 unless given, and left out then: some servers refuse the key itself.


def chat_request(messages: Messages, *, model: str, n: int, params: Mapping[str, object]) -> Body:
    """A request for `n` answers to messages.

    >>> chat_request([{"role": "user", "content": "Hi"}], model="m", n=2, params={"temperature": 0})
    {'temperature': 0, 'model': 'm', 'messages': [{'role': 'user', 'content': 'Hi'}], 'n': 2}
    """
    return {**params, "model": model, "messages": messages, **_several(n)}


def completions_request(prompt: str, *, model: str, n: int, params: Mapping[str, object]) -> Body:
    """A request for `n` continuations of a text.

    >>> completions_request("Once", model="m", n=1, params={})
    {'model': 'm', 'prompt': 'Once'}
    """
    return {**params, "model": model, "prompt": prompt, **_several(n)}


def _several(n: int) -> Body:
    return {"n": n} if n > 1 else {}


def encoded(body: Body) -> bytes:
    r"""The bytes of a request; ASCII, so that a lone surrogate is sent as JSON escapes it.

    >>> encoded({"model": "m", "prompt": "Hi \ud800"})
    b'{"model": "m", "prompt": "Hi \\ud800"}'
    """
    return json.dumps(body).encode("ascii")
