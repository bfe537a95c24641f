"""Errors of a server: its message, its code, and how long it asks to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from distgen.backends.wire.decoding import is_object


class ServiceError(NamedTuple):
    """The message of an error object and its code; both may be empty."""

    message: str
    code: str | None


# Seen in servers, besides OpenAI's {"error": {"message": string, "type": string, "code": string | null}}:
#   {"error": string}    {"object": "error", "message": string, "code": integer}    {"detail": string | array}
def read_error(value: object) -> ServiceError | None:
    """Read an error object, or a text in its place; None if it says nothing.

    >>> read_error({"message": "No quota left.", "code": None, "type": "insufficient_quota"})
    ServiceError(message='No quota left.', code='insufficient_quota')
    >>> read_error({"message": "", "code": None})
    """
    if isinstance(value, str) and value:
        return ServiceError(value, None)
    if not is_object(value) or not any(value.values()):
        return None
    message = next((value[key] for key in ("message", "detail", "msg", "error") if value.get(key)), "")
    code = next((value[key] for key in ("code", "type") if isinstance(value.get(key), str | int) and value[key]), None)
    return ServiceError(message if isinstance(message, str) else repr(message), None if code is None else str(code))


# Sources: RFC 9110, 10.2.3 (Retry-After: seconds or a date; servers send fractions too); OpenAI API, "Rate limits"
# (x-ratelimit-reset-requests "1s", -tokens "6m0s", beside x-ratelimit-remaining-...; retry-after-ms); the messages of OpenAI
# ("Please try again in 7.3s.") and of Gemini ("Please retry in 34.07s.").
def retry_hint(headers: Mapping[str, str], message: str, now: float) -> float | None:
    """Return the seconds that a server asks to wait; `headers` have names in lower case, `now` is in Unix time.

    >>> retry_hint({"retry-after": "2.5"}, "", 0), retry_hint({}, "Please try again in 1m30s.", 0)
    (2.5, 90.0)
    """
    if (milliseconds := _number(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    after = headers.get("retry-after", "")
    if (seconds := _number(after)) is not None:
        return seconds
    if (date := _date(after)) is not None:
        return max(0.0, date - (_date(headers.get("date", "")) or now))
    resets = [_reset(name, headers, now) for name in headers if name.startswith("x-ratelimit-reset")]
    if known := [seconds for seconds in resets if seconds is not None]:
        return max(known)
    said = re.search(r"(?:try again|retry) in ((?:[\d.]+\s?(?:ms|s|m|h|d)[a-z]*\s?)+)", message, re.IGNORECASE)
    return _duration(said[1]) if said else None


def _reset(name: str, headers: Mapping[str, str], now: float) -> float | None:
    """A reset of a limit that is not used up is no reason to wait."""
    if _number(headers.get(name.replace("reset", "remaining"), "0")) != 0:
        return None
    seconds = _duration(headers[name])
    if seconds is None or seconds < _EPOCH:
        return seconds
    return max(0.0, (seconds / 1000 if seconds > 1000 * _EPOCH else seconds) - now)  # OpenRouter: Unix time in ms


_EPOCH: Final = 1e9
_UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,15}(\.\d{0,15})?", text.strip(), re.ASCII) else None


def _duration(text: str) -> float | None:
    """Seconds of "7.3s", "6m0s", "20ms" or a bare number."""
    parts = re.findall(r"(\d{1,15}(?:\.\d{1,15})?)\s?(ms|s|m|h|d)", text.lower(), re.ASCII)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else _number(text)


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
