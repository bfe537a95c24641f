"""What a server on a real socket can do wrong, as tables that the tests of every transport go through."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tests.support.servers import Act, response, text_body

KEY = "sk-abcdef/0123456789"

BODY = response(200, text_body("ok"))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN: Mapping[str, Act] = {
    "reset before": Act(then="reset"),
    "closed before": Act(then="close"),
    "reset in the headers": Act(BODY[:30], then="reset"),
    "closed in the headers": Act(BODY[:30], then="close"),
    "reset in the body": Act(BODY[:-20], then="reset"),
    "closed in the body": Act(BODY[:-20], then="close"),
    "closed in a chunk": Act(CHUNKED + b"ff\r\nhalf", then="close"),
    "a chunk of no size": Act(CHUNKED + b"zz\r\n", then="close"),
    "no HTTP": Act(b"SSH-2.0-OpenSSH_9.6\r\n", then="close"),
    "a status that is no number": Act(b"HTTP/1.1 abc OK\r\n\r\n", then="close"),
    "another HTTP": Act(b"HTTP/3 200 OK\r\n\r\n", then="close"),
    "a header without a colon": Act(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n{}", then="close"),
    "a header that looks like mail": Act(b"HTTP/1.1 200 OK\r\nA: b\r\nFrom me\r\n\r\n{}", then="close"),
    "too many headers": Act(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", then="close"),
    "a header too long": Act(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", then="close"),
}

SLOW: Mapping[str, Act] = {
    "a hang before": Act(then="hang"),
    "a hang in the headers": Act(BODY[:30], then="hang"),
    "a hang in the body": Act(BODY[:-20], then="hang"),
    "a drip": Act(BODY, drip=0.05),
    "a drip of headers": Act(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 90, drip=0.05),
    "a drip in chunks": Act(CHUNKED + b"1\r\n \r\n" * 90, drip=0.05),
    "a drip of an error": Act(response(400, b" " * 90), drip=0.05),
    "a drip without end": Act(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 90, drip=0.05),
    "a server that is not yet ready": Act(b"HTTP/1.1 100 Continue\r\n\r\n" * 20, drip=0.05),
}

LONG: Mapping[str, Act] = {
    "announced": Act(response(200, b" " * 20_000, {"Content-Length": "9" * 18}), then="hang"),
    "unannounced": Act(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 20_000, then="hang"),
    "in chunks": Act(CHUNKED + (b"400\r\n" + b" " * 1024 + b"\r\n") * 20, then="hang"),
}
LONG_HEADS: Mapping[str, Act] = {
    "in the headers": Act(b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"b" * 1024 + b"\r\n") * 20, then="hang"),
    "before the headers": Act(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, then="hang"),
}

HUGE: Act = Act(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2**20, times=66, then="hang")  # longer than MAX_ANSWER
# The reason that each fault is told by.
FAULTS: Mapping[str, tuple[Act, str]] = {
    **{name: (act, "connection") for name, act in BROKEN.items()},
    **{name: (act, "timeout") for name, act in SLOW.items()},
    "a length that is a lie": (
        Act(response(200, text_body("ok"), {"Content-Length": "9999"}), then="close"),
        "connection",
    ),
    "a type that is a lie": (Act(response(200, b"<html>", {"Content-Type": "application/json"})), "not_json"),
    "a redirect": (Act(response(307, b"", {"Location": "http://127.0.0.1:1"})), "redirect"),
    "huge": (HUGE, "too_long"),
}

ECHOES: Sequence[Act] = [
    *(
        Act(response(status, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()))
        for status in (401, 503, 200)
    ),
    Act(response(400, json.dumps({"error": {"message": f"bad key {KEY}"}}).replace("/", "\\/").encode())),
    Act(response(400, f"<html>{'x' * 990}{KEY}".encode())),
    Act(response(200, f"<html>{KEY}".encode())),
    Act(response(200, json.dumps({"choices": [{"text": None, "finish_reason": KEY, "refusal": KEY}]}).encode())),
    Act(response(307, b"", {"Location": f"http://{KEY}"})),
    Act(response(200, b"", {"Content-Length": f"1, {KEY}"}), then="close"),
    Act(response(503, b"", {"Retry-After": KEY})),
    Act(f"HTTP/1.1 {KEY}\r\n\r\n".encode(), then="close"),
    Act(f"{KEY}\r\n\r\n".encode(), then="close"),
    Act(f"HTTP/1.1 200 {KEY}\r\n{KEY}\r\n\r\n".encode(), then="close"),
    Act(f"HTTP/1.1 200 OK\r\nA: b\r\nFrom {KEY}\r\n\r\n".encode(), then="close"),
    Act(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(), then="close"),
    Act(f"{KEY}/1.1 200 OK\r\n\r\n".encode(), then="close"),
    Act(f"HTTP/{KEY} 200 OK\r\n\r\n".encode(), then="close"),
]

ESCAPED_KEY = "sk-ab\\cd'ef\"gh"  # which a repr shows otherwise
NO_HTTP: Sequence[Act] = [
    Act(f"{ESCAPED_KEY}\r\n\r\n".encode(), then="close"),
    Act(f"HTTP/1.1 200 OK\r\nFrom {ESCAPED_KEY}\r\n\r\n".encode(), then="close"),
    Act(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ESCAPED_KEY}\r\n".encode(), then="close"),
    Act(f"HTTP/1.1 200 OK\r\nContent-Length: {ESCAPED_KEY}\r\n\r\n".encode(), then="close"),
]
