"""The API against its own description: whatever is sent, the answer is one that the description allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from autopeft.service import ServiceSettings, TokenBook, create_app, open_state
from tests.cli.conftest import _write_study
from tests.export.studies import full_study
from tests.service.conftest import ROOT, TOKENS, FakeDrivers

#: What may be answered to a request by somebody with every right; 500 is never one of them.
EXPECTED = {200, 201, 202, 400, 403, 404, 405, 409, 413, 422, 503}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
KNOWN = [
    "task",
    "budget",
    "space",
    "backbone",
    "trials",
    "time",
    "objectives",
    "reward_options",
    "study",
    "seed",
    "warm_start",
]
WORDS = ["stdlib/topics", "1%", "auto", "../../etc/passwd", "upload:x", "<b>", "' OR 1=1 --", "\x00", "a" * 2000]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("service")
    made = ServiceSettings(
        database=f"sqlite:///{folder}/a.db", folder=folder / "own", tokens=TokenBook(TOKENS), rate=1e6, burst=10**6
    )
    state = open_state(made, FakeDrivers())
    _write_study(state.store, full_study())
    headers = {"Authorization": f"Bearer {ROOT}"}
    yield TestClient(create_app(state), base_url="http://localhost", headers=headers, raise_server_exceptions=False)
    state.scheduler.close()
    state.close()


def strategy(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What fits a parameter's schema, and what does not."""
    if "anyOf" in schema:
        return st.one_of(*(strategy(item) for item in schema["anyOf"]))
    fitting: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "integer": lambda: st.integers(-5, 10**12),
        "boolean": lambda: st.sampled_from(["true", "false", "maybe"]),
        "string": lambda: (
            st.sampled_from([*schema.get("enum", []), *WORDS, full_study().spec.name]) | st.text(max_size=30)
        ),
        "null": st.none,
    }
    return fitting.get(schema.get("type", "string"), fitting["string"])()


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    document = client.get("/openapi.json").json()
    return [
        (method.upper(), path, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in methods.items()
    ]


def check(answer: Any) -> None:
    assert answer.status_code in EXPECTED, (answer.status_code, answer.text[:300])
    if answer.status_code >= 400 and answer.request.url.path != "/readyz":
        assert set(answer.json()) == {"error", "status"}
        assert answer.json()["status"] == answer.status_code
        assert "Traceback" not in answer.text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_parameters(client: TestClient, data: st.DataObject) -> None:
    method, path, operation = data.draw(st.sampled_from(operations(client)))
    query = {}
    for parameter in operation.get("parameters", []):
        value = data.draw(strategy(parameter.get("schema", {})))
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(str(value).encode("utf-8", "replace"), safe=""))
        elif value is not None and data.draw(st.booleans()):
            query[parameter["name"]] = value if not isinstance(value, str) else value.encode("utf-8", "replace")
    content = data.draw(st.binary(max_size=50)) if method == "POST" else None
    check(client.request(method, path, params=query, content=content))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(KNOWN) | st.text(), values | st.sampled_from(WORDS), max_size=6),
    st.dictionaries(st.sampled_from(KNOWN), values | st.sampled_from(WORDS), max_size=3),
    st.booleans(),
)
def test_any_settings(client: TestClient, given: dict[str, Any], overrides: dict[str, Any], is_task: bool) -> None:
    """What passes is what `SearchSettings` takes; what does not is refused, and never stored."""
    before = client.get("/v1/searches", params={"limit": 1000}).json()["searches"]
    base = {"task": "stdlib/topics"} if is_task else {}
    answer = client.post("/v1/searches", json={"settings": {**given, **base}, "overrides": overrides})
    check(answer)
    after = client.get("/v1/searches", params={"limit": 1000}).json()["searches"]
    if answer.status_code == 202:
        assert answer.json()["study"] in [item["study"] for item in after]
        client.post(f"/v1/searches/{answer.json()['study']}/stop")
    else:
        assert [item["study"] for item in after] == [item["study"] for item in before]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/plain", "application/xml", ""]))
def test_any_bytes(client: TestClient, body: bytes, kind: str) -> None:
    check(client.post("/v1/searches", content=body, headers={"Content-Type": kind} if kind else {}))
