"""The OpenAPI document against a real engine: requests made from its schemas, answers held to them.

What is generated is the same in every run. No answer is a 5xx, none has a status, a type or a shape that the
document does not name.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX
from vecstow_engine.api.fastapi_app import create_fastapi
from vecstow_engine.model.payloads import portable

EXAMPLES_MAX = 5
"""Requests made of an operation; each is sent once more for a collection that exists."""
DECLARED = {"name": "docs", "dimension": 3, "distance_metric": "Cosine"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT = create_fastapi(None, None).openapi()
document = schemathesis.openapi.from_dict(DOCUMENT)


@schemathesis.serializer("application/msgpack")
def packed(_, value):
    """A body as MessagePack; what stands for bytes comes as text, which a bin is not: the engine says so.

    Integers beyond 64 bits, which MessagePack does not have, come as text too.
    """
    return msgspec.msgpack.encode(portable(value), enc_hook=str)


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("openapi") / "data", "--reserve-bytes", 0) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.url, timeout=SECONDS_MAX, trust_env=False) as client:
        yield client


def make_ready(client: httpx.Client) -> None:
    """Make the collection with a point again, and end a hold: an earlier request may have been about them."""
    if client.get("/state").json()["data"]["held"]:
        client.delete("/hold")
    if client.get("/collections/docs/vectors/a").status_code == 404:
        client.post("/collections", json=DECLARED, params={"if_exists": "ok"})
        client.put("/collections/docs/vectors/a", json={"data": [1, 2, 3]}).raise_for_status()


def test_the_engine_serves_this_document(client):
    assert client.get("/openapi.json").json() == DOCUMENT


@document.parametrize()
@settings(
    max_examples=EXAMPLES_MAX,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(case, engine, client):
    make_ready(client)
    case.call_and_validate(base_url=engine.url, checks=CHECKS, timeout=SECONDS_MAX)
    if "collection" in (case.path_parameters or {}):
        case.path_parameters["collection"] = "docs"
        make_ready(client)
        case.call_and_validate(base_url=engine.url, checks=CHECKS, timeout=SECONDS_MAX)
