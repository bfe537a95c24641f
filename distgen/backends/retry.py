"""`Retry` decides, as a pure function, if and when a failed request is made again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, final

from distgen.errors import RequestFailed

FailureKind: TypeAlias = Literal["rate_limit", "overload", "refused", "transient", "billed", "final"]
"""The kinds of failed requests that retries tell apart.

"refused": no connection was made. "billed": the service may have answered and charged for it, so it is asked again only
once. "final": another request would not help.
"""

_FIRST_WAIT: Final = 0.5  # seconds; doubled each time
_LONGEST_BACKOFF: Final = 16.0  # seconds, where the server does not say how long to wait
_REFUSED_FOR: Final = 15.0  # seconds for which a refused connection is tried again
_REFUSED_WAIT: Final = 2.0


class Outcome(NamedTuple):
    """A failed request: its `kind`, the seconds that the server asks to wait (`hint`), and its time on the row's clock (`at`)."""

    kind: FailureKind
    hint: float | None = None
    at: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Retry:
    """Limits of retries: attempts of a request, and seconds that a row waits.

    A request is made at most `attempts` times. Rate limits and refused connections do not count: a row waits for rate
    limits up to `patience` seconds in all, and up to `longest_wait` seconds at once; a refused connection is tried again
    for 15 seconds. With `attempts=1` every request is made once.
    """

    attempts: int = 6
    patience: float = 90.0
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")
        if not (self.patience >= 0 and self.longest_wait >= 0):  # NaN is neither
            raise ValueError("patience and longest_wait must be 0 seconds or more")

    def decide(self, history: Sequence[Outcome], outcome: Outcome, now: float, jitter: float) -> float | None:
        """Return the seconds to wait before the next request, or None to give up.

        `history` are the earlier outcomes of this request, oldest first. `now` and their `at` are seconds on one clock:
        the backends pass the time that the row waited between requests, without its time in a queue. `jitter` is in [0, 1).

        >>> Retry().decide([], Outcome("rate_limit", hint=7.3), now=0, jitter=0)
        7.3
        >>> Retry().decide([], Outcome("final"), now=0, jitter=0)
        """
        kind = outcome.kind
        if kind == "final" or self.attempts == 1:
            return None
        same = [past for past in history if past.kind == kind]
        waited = now - same[0].at if same else 0.0
        backoff = min(_FIRST_WAIT * 2 ** min(len(same), 30), _LONGEST_BACKOFF, self.longest_wait) * (1 - jitter / 2)
        hint = min((outcome.hint or 0.0) * (1 + jitter / 10), self.longest_wait)
        wait = max(hint, backoff)
        match kind:
            case "rate_limit":
                left = self.patience - waited
                return min(wait, left) if left > 0 and hint <= left else None
            case "refused":
                wait = min(backoff, _REFUSED_WAIT)
                return wait if waited + wait <= _REFUSED_FOR else None
            case "billed" if same:
                return None
            case _:
                counted = sum(past.kind not in ("rate_limit", "refused") for past in history) + 1
                return wait if counted < self.attempts else None


# Sources: OpenAI API, "Error codes"; Moonshot API, "Errors" (exceeded_current_quota_error); Alibaba Model Studio, "Error
# messages" (Arrearage); New API's and One API's gateways (insufficient_user_quota).
_QUOTA: Final = re.compile(
    "insufficient_(user_)?quota|billing_(hard_limit_reached|not_active)|exceeded_current_quota_error|arrearage"
)
# Statuses, codes of error objects that come with status 200, and failures that transport and wire find. A code that is a
# number is a status (OpenRouter, "Errors"). Sources: RFC 9110, 15.5 and 15.6; RFC 6585, 4 (429); Anthropic API, "Errors"
# (529, rate_limit_error, overloaded_error, api_error); Cloudflare, "5xx errors" (524: the origin took the request and did
# not answer in time, as 504); OpenAI API, "Error codes" (rate_limit_exceeded, server_error); Moonshot API, "Errors"
# (rate_limit_reached_error, engine_overloaded_error).
_KINDS: Final[dict[str, FailureKind]] = {
    **dict.fromkeys(("429", "rate_limit_exceeded", "rate_limit_error", "rate_limit_reached_error"), "rate_limit"),
    **dict.fromkeys(("503", "529", "overloaded_error", "engine_overloaded_error"), "overload"),
    **dict.fromkeys(("408", "409", "425", "server_error", "api_error", "connection reset"), "transient"),
    **dict.fromkeys(("502", "504", "524", "connection cut", "not_json empty"), "billed"),
    "connection refused": "refused",
    "501": "final",
}


def failure_kind(error: RequestFailed) -> FailureKind:
    """Return the kind of a failed request, as `Retry` tells them apart.

    >>> failure_kind(RequestFailed("status", "slow down", status=429)), failure_kind(RequestFailed("status", "no", status=401))
    ('rate_limit', 'final')
    >>> failure_kind(RequestFailed("error_object", "upstream died", status=200, code="502"))
    'billed'
    """
    code = (error.code or "").lower()
    if _QUOTA.fullmatch(code):
        return "final"
    match error.reason:
        case "status":
            key = str(error.status)
        case "error_object":
            key = code
        case reason:
            key = f"{reason} {code}"
    return _KINDS.get(key, "transient" if len(key) == 3 and key.startswith("5") else "final")
