from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.service._limits import (
    MAX_BODY_BYTES,
    BodyLimit,
    EncodedSlashes,
    NoWebPages,
    RateLimiter,
    decoded,
    nesting_depth,
)


class Inner:
    """An application that reads its whole body."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(app: Any, parts: list[bytes], headers: dict[str, str] | None = None, **scope: Any) -> tuple[int, int]:
    """Status of the answer, and how many parts of the body were asked for."""
    sent: list[Any] = []
    waiting = list(parts)

    async def receive() -> Any:
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    given_headers = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    whole = {"type": "http", "path": "/x", "method": "POST", "headers": given_headers, **scope}
    asyncio.run(app(whole, receive, send))
    return sent[0]["status"], len(parts) - len(waiting)


def limited(inner: Inner) -> BodyLimit:
    return BodyLimit(inner, max_upload_bytes=10**6, upload_path="/up")


def test_a_stated_gigabyte_is_refused_without_reading_any_of_it() -> None:
    inner = Inner()
    assert ask(limited(inner), [b"x"] * 3, {"content-length": str(2**30)}) == (413, 0)
    assert inner.bodies == []


@pytest.mark.parametrize("stated", ["-1", "1e9", "99999999999999999999999999", "0x10", ""])
def test_a_length_that_is_none_is_refused(stated: str) -> None:
    assert ask(limited(Inner()), [b"x"], {"content-length": stated}) == (413, 0)


def test_an_unstated_gigabyte_is_refused_as_soon_as_it_is_too_much() -> None:
    part = b"x" * 64 * 1024
    assert ask(limited(Inner()), [part] * 16384) == (413, MAX_BODY_BYTES // len(part) + 1)


def test_uploads_have_a_limit_of_their_own_and_are_not_gathered() -> None:
    inner = Inner()
    part = b"x" * 2**18
    assert ask(limited(inner), [part] * 3, path="/up")[0] == 200
    assert ask(limited(inner), [part], {"content-length": str(10**6 + 1)}, path="/up") == (413, 0)


def test_a_body_within_the_limit_arrives_whole() -> None:
    inner = Inner()
    assert ask(limited(inner), [b'{"a": ', b"[1]}"])[0] == 200
    assert inner.bodies == [b'{"a": [1]}']


@pytest.mark.parametrize("text", ["[" * 1000 + "]" * 1000, '{"a":' * 21 + "1" + "}" * 21, "[" * 100_000])
def test_deep_nesting_is_refused_before_any_parser_sees_it(text: str) -> None:
    inner = Inner()
    assert ask(limited(inner), [text.encode()])[0] == 422
    assert inner.bodies == []


json_values = st.recursive(
    st.none() | st.booleans() | st.text(alphabet='a[]{}"\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_depth_is_that_of_the_parsed_value(value: Any) -> None:
    def depth(item: Any) -> int:
        if isinstance(item, list | dict):
            return 1 + max((depth(part) for part in (item if isinstance(item, list) else item.values())), default=0)
        return 0

    assert nesting_depth(json.dumps(value).encode()) == depth(value)


def test_rate_is_kept_per_caller_and_room_comes_back() -> None:
    now = [0.0]
    limiter = RateLimiter(2.0, 3, lambda: now[0])
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    assert limiter.take("b") == 0
    now[0] += 0.5
    assert limiter.take("a") == 0
    assert limiter.take("a") > 0
    now[0] += 100
    assert [limiter.take("a") > 0 for _ in range(4)] == [False, False, False, True]


@given(st.lists(st.floats(0, 2), max_size=60))
def test_no_span_of_time_sees_more_than_the_rate_allows(gaps: list[float]) -> None:
    now, taken = 0.0, []
    limiter = RateLimiter(1.5, 4, lambda: now)
    for gap in gaps:
        now += gap
        if limiter.take("a") == 0:
            taken.append(now)
    for i, start in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= 4 + 1.5 * (taken[j] - start) + 1e-6


def test_limiter_forgets_callers_instead_of_growing() -> None:
    limiter = RateLimiter(1.0, 1)
    for i in range(20_000):
        limiter.take(str(i))
    assert len(limiter._buckets) == 10_000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_pages_of_strangers_are_refused(headers: dict[str, str], status: int) -> None:
    assert ask(NoWebPages(Inner()), [b""], headers)[0] == status


@given(st.text(min_size=1))
def test_any_name_survives_the_path(name: str) -> None:
    inner = Inner()
    raw = b"/v1/studies/" + quote(name.encode("utf-8", "replace"), safe="").encode() + b"/front"
    ask(EncodedSlashes(inner), [b""], path="ignored", raw_path=raw)
    parts = (inner.paths[0] if b"%" in raw else raw.decode()).split("/")
    assert len(parts) == 5
    assert decoded(parts[3]) == name.encode("utf-8", "replace").decode()
