"""When a request is made again, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distgen.backends.retry import FailureKind, Outcome, Retry, failure_kind
from distgen.backends.wire import retry_hint
from distgen.errors import RequestFailed

RATE = Outcome("rate_limit")
DECISIONS: dict[str, tuple[Retry, Sequence[Outcome], Outcome, float, float | None]] = {
    "final": (Retry(), [], Outcome("final"), 0, None),
    "the first back-off": (Retry(), [], Outcome("transient"), 0, 0.5),
    "the second back-off": (Retry(), [Outcome("transient")], Outcome("transient"), 0.5, 1.0),
    "the fifth is the last wait": (Retry(), [Outcome("transient")] * 4, Outcome("overload"), 9, 0.5),
    "no seventh request": (Retry(), [Outcome("transient")] * 5, Outcome("overload"), 9, None),
    "a hint": (Retry(), [], Outcome("rate_limit", 7.3), 0, 7.3),
    "a hint of no wait": (Retry(), [RATE], Outcome("rate_limit", 0.0), 1, 1.0),
    "a hint beyond the longest wait": (Retry(longest_wait=10), [], Outcome("rate_limit", 3600), 0, 10),
    "rate limits are no attempts": (Retry(attempts=2), [RATE] * 9, RATE, 20, 16),
    "patience begins at the first of them": (Retry(), [Outcome("rate_limit", at=50)], RATE, 100, 1.0),
    "patience ends a wait early": (Retry(), [RATE] * 9, RATE, 80, 10),
    "patience ends a wait very early": (Retry(), [RATE] * 9, RATE, 89.5, 0.5),
    "a wait that patience just covers": (Retry(), [RATE], Outcome("rate_limit", 60), 30, 60),
    "no wait that patience does not cover": (Retry(), [RATE], Outcome("rate_limit", 60), 60, None),
    "patience is used up": (Retry(), [RATE] * 9, RATE, 90, None),
    "refused": (Retry(attempts=2), [Outcome("refused")] * 5, Outcome("refused"), 10, 2),
    "refused for 15 s": (Retry(), [Outcome("refused")] * 5, Outcome("refused"), 13, 2),
    "refused for longer": (Retry(), [Outcome("refused")] * 5, Outcome("refused"), 13.1, None),
    "billed once": (Retry(), [Outcome("transient")], Outcome("billed"), 0.5, 0.5),
    "billed twice": (Retry(), [Outcome("billed")], Outcome("billed"), 0.5, None),
    "neither patience nor a wait": (Retry(patience=0, longest_wait=0), [], Outcome("transient"), 0, 0),
    "asked once": (Retry(attempts=1), [], RATE, 0, None),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_the_decisions(name: str) -> None:
    retry, history, outcome, now, wait = DECISIONS[name]
    assert retry.decide(history, outcome, now, 0) == wait


def test_jitter_shortens_a_back_off_and_lengthens_a_hint() -> None:
    assert Retry().decide([], Outcome("transient"), 0, 0.5) == 0.375
    assert Retry().decide([], Outcome("rate_limit", 10), 0, 0.5) == 10.5


@pytest.mark.parametrize(
    ("retry"), [{"attempts": 0}, {"patience": -1}, {"longest_wait": float("nan")}], ids=["attempts", "patience", "wait"]
)
def test_a_policy_is_checked(retry: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Retry(**retry)


KINDS: list[tuple[RequestFailed, FailureKind]] = [
    *((RequestFailed("status", "", status), "final") for status in (400, 401, 402, 403, 404, 410, 413, 418, 422, 501)),
    *((RequestFailed("status", "", status), "transient") for status in (408, 409, 425, 500, 520)),
    *((RequestFailed("status", "", status), "billed") for status in (502, 504, 524)),
    *((RequestFailed("status", "", status), "overload") for status in (503, 529)),
    (RequestFailed("status", "", 429), "rate_limit"),
    (RequestFailed("status", "", 429, "insufficient_quota"), "final"),
    (RequestFailed("error_object", "", 200, "502"), "billed"),
    (RequestFailed("error_object", "", 200, "401"), "final"),
    (RequestFailed("error_object", "", 200, "rate_limit_exceeded"), "rate_limit"),
    (RequestFailed("error_object", "", 200), "final"),
    (RequestFailed("no_choices", "", 200), "final"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=[f"{e.reason} {e.status} {e.code}" for e, _ in KINDS])
def test_the_kinds(error: RequestFailed, kind: FailureKind) -> None:
    assert failure_kind(error) == kind


HINTS: dict[str, tuple[dict[str, str], str, float | None]] = {
    "seconds": ({"retry-after": "3"}, "", 3),
    "fractions": ({"retry-after": "2.5"}, "", 2.5),
    "milliseconds first": ({"retry-after-ms": "1500", "retry-after": "2"}, "", 1.5),
    "a date": ({"retry-after": "Thu, 01 Jan 1970 00:01:50 GMT"}, "", 10),
    "a date of another zone": ({"retry-after": "Thu, 01 Jan 1970 01:01:50 +0100"}, "", 10),
    "a date that is over": ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, "", 0),
    "nonsense": ({"retry-after": "soon"}, "", None),
    "the limit that is used up": (
        {
            "x-ratelimit-remaining-requests": "5",
            "x-ratelimit-reset-requests": "1h",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0.5s",
        },
        "",
        360.5,
    ),
    "days, hours and minutes": ({"x-ratelimit-reset-tokens": "1d2h3m"}, "", 86_400 + 2 * 3_600 + 3 * 60),
    "milliseconds of a limit": ({"x-ratelimit-reset-tokens": "20ms"}, "", 0.02),
    "Unix time": ({"x-ratelimit-reset": "1000000130"}, "", 1000000030),
    "the first Unix time": ({"x-ratelimit-reset": "1000000000"}, "", 999999900),
    "a limit of nonsense": ({"x-ratelimit-reset": "soon"}, "", None),
    "a message": ({}, "Please retry in 34.5s.", 34.5),
    "none": ({}, "busy", None),
}


@pytest.mark.parametrize("name", HINTS)
def test_the_hints(name: str) -> None:
    headers, message, seconds = HINTS[name]
    assert retry_hint(headers, message, now=100) == seconds
