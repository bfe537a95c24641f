"""Bytes of a server as a JSON value, with all that servers add to them."""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Mapping
from typing import Final, TypeGuard

MAX_ANSWER: Final = 64 * 2**20
"""Bytes of an answer, inflated; a longer one is not read."""

_STRICT_OFF: Final = json.JSONDecoder(strict=False)  # raw control characters in strings
_WIDE: Final = json.JSONDecoder(strict=False, parse_int=float)  # integers of more than 4,300 digits


class TooLong(Exception):
    """The answer is longer than MAX_ANSWER."""


def inflate(body: bytes, encoding: str) -> bytes:
    """Undo gzip or deflate, which some servers send unasked. Raises TooLong, or ValueError if the data are damaged.

    >>> import gzip
    >>> inflate(gzip.compress(b"{}"), "gzip"), inflate(b"{}", "identity")
    (b'{}', b'{}')
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError("its content encoding was not asked for")
    # RFC 9110, 8.4.1.2: deflate is the zlib format; some servers send bare deflate data. zlib's manual: 32 + 15 takes the
    # header of gzip or zlib, -15 takes none.
    for bits in (47, -15):
        unpacker = zlib.decompressobj(bits)
        try:
            text = unpacker.decompress(body, MAX_ANSWER + 1)
        except zlib.error:
            continue
        if len(text) > MAX_ANSWER:
            raise TooLong
        if unpacker.eof:
            return text
    raise ValueError("its compressed data are damaged")


def parse_json(body: bytes) -> object:
    r"""Return the JSON value of an answer; ValueError if there is none. A byte that is not UTF-8 becomes U+FFFD.

    >>> parse_json(b'{"text": "a\nb\xff"}\ndata: [DONE]\n\n')
    {'text': 'a\nb\ufffd'}
    """
    text = body.removeprefix(codecs.BOM_UTF8).decode(errors="replace").strip()
    try:
        value, end = _decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:].strip() not in ("", "data: [DONE]"):
        raise ValueError(f"more follows the JSON value, at character {end}")
    return value


def _decode(text: str) -> tuple[object, int]:
    try:
        return _STRICT_OFF.raw_decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _WIDE.raw_decode(text)


# The keys of a JSON object are text, and a TypeGuard says so where isinstance(value, dict) cannot.
def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Tell whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Tell whether a JSON value is an array."""
    return isinstance(value, list)


def json_type(value: object) -> str:
    """Name the type of a JSON value.

    >>> json_type(None), json_type([1])
    ('null', 'an array')
    """
    names: Mapping[type[object], str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
