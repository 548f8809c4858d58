"""Every route answers every role as the table in docs/api.md says."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from fastapi import APIRouter
from structlog.testing import capture_logs

from tests.unit.asgi_client import docs_service
from vecstow_engine.api import access, alias_routes, collection_routes, server_routes
from vecstow_engine.api.access import ACCESS, Place, Role, find_place, presented_key
from vecstow_engine.api.fastapi_app import create_fastapi
from vecstow_engine.api.health_routes import HEALTH_ROUTES
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.api.point_routes import BY_WORD, POINT_ROUTES
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
REFUSALS = (401, 403)
LIMITED = "limited-admin-key-0000"
ALIKE = set(HEALTH_ROUTES) | {f"/collections/{{collection}}/vectors/{word}" for word in BY_WORD}
"""Paths that need no key, and those that are an id's as well."""


def key_of(role: Role) -> str:
    return f"the-key-of-{role.value}-0000"


@pytest.fixture
def keys(tmp_path) -> KeyFile:
    """A key of each role, and one that is for `docs` and `team-*` alone."""
    entries = [f"- {{name: {role.value}, role: {role.value}, key: {key_of(role)}}}\n" for role in Role]
    entries.append(f"- {{name: limited, role: admin, collections: [docs, team-*], key: {LIMITED}}}\n")
    (tmp_path / "keys.yaml").write_text("keys:\n" + "".join(entries))
    return KeyFile(tmp_path / "keys.yaml")


def documented() -> dict[tuple[str, str], list[str]]:
    """The rows of the page's table: a cell for each role, then that for limited keys."""
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {
        (method, path.replace("{c}", "{collection}")): [cell.strip() for cell in cells.split("|")]
        for method, path, cells in rows
    }


def served() -> set[tuple[str, str]]:
    """Every route that the application has, by what serves it."""
    cold = {
        (method, route.path)
        for router in (alias_routes.router, collection_routes.router, server_routes.router)
        for route in router.routes
        for method in route.methods
    }
    hot = {(route.method, route.template) for route in POINT_ROUTES}
    return cold | hot | {("GET", path) for path in HEALTH_ROUTES} | {("GET", "/openapi.json")}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_the_page_has_exactly_the_routes_that_are_served():
    assert set(documented()) == served()


@pytest.mark.parametrize(("method", "template"), sorted(served()))
async def test_a_route_answers_the_roles_that_the_page_says(keys, method, template):
    path = template.replace("{collection}", "docs").replace("{alias}", "docs").replace("{id}", "a")
    *cells, _ = documented()[method, template]
    for role, cell in zip(Role, cells, strict=True):
        client, _ = docs_service(keys=keys)
        reply = await client.call(method, path, headers=bearer(key_of(role)))
        assert reply.status != 401, role
        assert (reply.status != 403) == (cell == "yes"), (role, reply.body)


@pytest.mark.parametrize(("method", "template"), sorted(served()))
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param(bearer("a-key-of-nobody-0000"), id="wrong"),
        pytest.param({"api-key": "a-key-of-nobody-0000"}, id="wrong api-key"),
    ],
)
async def test_without_a_known_key_only_health_answers(keys, method, template, headers):
    client, engine = docs_service(keys=keys)
    path = template.replace("{collection}", "docs").replace("{alias}", "docs").replace("{id}", "a")
    reply = await client.call(method, path, headers=headers)
    if template in HEALTH_ROUTES:
        assert reply.status == 200
        return
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert (reply.json["success"], reply.json["details"]["kind"]) == (False, "Unauthenticated")
    assert engine.calls == []


@pytest.mark.parametrize(("method", "template"), sorted(served()))
async def test_a_limited_key_reaches_its_own_collections_alone(keys, method, template):
    client, _ = docs_service(keys=keys)
    cell = documented()[method, template][-1]
    for name, is_own in (("docs", True), ("other", False), ("%6fther", False), ("team-a", True)):
        path = template.replace("{collection}", name).replace("{alias}", name).replace("{id}", "a")
        reply = await client.call(method, path, headers=bearer(LIMITED))
        allowed = {"yes": True, "filtered": True, "no": False, "own": is_own}[cell]
        assert (reply.status not in REFUSALS) == allowed, (name, reply.body)


async def test_every_route_says_its_role_in_the_openapi_document():
    client, _ = docs_service()
    document = (await client.call("GET", "/openapi.json")).json
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api-key"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            role = ACCESS[method.upper(), path].role
            roles = [] if role is None else [{"bearer": [role.value]}, {"api-key": [role.value]}]
            assert operation["security"] == roles
            assert ("403" in operation["responses"]) == (role is not None)


# A route that the table does not have


@pytest.fixture
def unlisted(monkeypatch):
    """A route that was added without a line in the table."""
    added = APIRouter()

    @added.get("/unlisted")
    async def answer() -> str:
        return "everything"

    monkeypatch.setattr(server_routes, "router", added)


def test_the_application_is_not_made_with_a_route_that_has_no_role(unlisted):
    with pytest.raises(LookupError, match="GET /unlisted has no role"):
        create_fastapi(None, None)


def test_nor_with_a_point_route_that_has_none(monkeypatch):
    without = {place: access for place, access in ACCESS.items() if not place[1].endswith("/search")}
    monkeypatch.setattr(access, "ACCESS", without)
    with pytest.raises(LookupError, match=re.escape("POST /collections/{collection}/search has no role")):
        docs_service()


async def test_nobody_reaches_a_route_by_the_role_of_another(keys, monkeypatch):
    """The route whose role is checked is the route that FastAPI takes the path for."""
    monkeypatch.setattr("vecstow_engine.api.dispatch.find_place", lambda path: Place(("/collections",)))
    client, engine = docs_service(keys=keys)
    reply = await client.call("GET", "/collections/docs", headers=bearer(key_of(Role.ADMIN)))
    assert (reply.status, reply.json["details"]["kind"]) == (403, "Forbidden")
    monkeypatch.setattr("vecstow_engine.api.dispatch.find_place", lambda path: None)
    reply = await client.call("POST", "/hold", headers=bearer(key_of(Role.READ)))
    assert (reply.status, engine.calls) == (404, [])


@pytest.mark.parametrize(
    "path",
    [
        "/collections/{collection}",
        "/collections/{collection}/compact",
        "/collections/docs/",
        "/collections//compact",
        "/collections/docs/compact/",
        "/Hold",
        "/hold/",
        "//hold",
        "/hold%2f",
        "/collections/docs/%63ompact",
        "/collections/docs/vectors/a/b",
    ],
)
async def test_a_path_that_only_looks_like_a_route_does_nothing(keys, path):
    client, engine = docs_service(keys=keys)
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
        for role in (Role.READ, Role.SIDECAR):
            reply = await client.call(method, path, headers=bearer(key_of(role)))
            assert reply.status in (403, 404, 405), (method, role, reply.body)
    assert engine.calls == []
    assert list(engine.collections) == ["docs"]


def test_a_word_of_a_route_is_no_collection_but_may_be_an_id():
    assert find_place("/collections/restore").template("GET") is None
    assert find_place("/collections/restore").template("POST") == "/collections/restore"
    batch = find_place("/collections/docs/vectors/batch")
    assert (batch.template("GET"), batch.collection) == ("/collections/{collection}/vectors/{id}", "docs")
    assert batch.template("POST") == "/collections/{collection}/vectors/batch"
    assert batch.allow == "DELETE, GET, HEAD, POST, PUT"


def place_of(template: str, name: str) -> str:
    return template.replace("{collection}", name).replace("{alias}", name).replace("{id}", "a")


@pytest.mark.parametrize("template", sorted(template for method, template in served() if method == "GET"))
async def test_head_is_answered_like_get_to_every_key(keys, template):
    client, _ = docs_service(keys=keys)
    for headers in ({}, *(bearer(key) for key in (LIMITED, *map(key_of, Role)))):
        for name in ("docs", "other"):
            path = place_of(template, name)
            got = await client.call("GET", path, headers=headers)
            asked = await client.call("HEAD", path, headers=headers)
            assert asked.status == got.status
            if template not in ("/metrics", "/stats"):
                assert asked.headers == got.headers


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH"])
@pytest.mark.parametrize("template", sorted({template for _, template in served()} - ALIKE))
async def test_a_method_that_is_not_served_needs_the_key_of_one_that_is(keys, method, template):
    """GET's, or where none is served that of the route that needs least."""
    rows = [(served_by, cells) for (served_by, known), cells in documented().items() if known == template]
    methods = {served_by for served_by, _ in rows}
    methods |= {"HEAD"} if "GET" in methods else set()
    needed = dict(rows).get("GET") or max((cells for _, cells in rows), key=lambda cells: cells.count("yes"))
    client, _ = docs_service(keys=keys)
    for role, cell in zip(Role, needed, strict=False):
        reply = await client.call(method, place_of(template, "docs"), headers=bearer(key_of(role)))
        assert reply.status == (405 if cell == "yes" else 403), (role, reply.body)
        if reply.status == 405:
            assert reply.headers["allow"] == ", ".join(sorted(methods))
    others = await client.call(method, place_of(template, "other"), headers=bearer(LIMITED))
    assert others.status == (405 if needed[-1] in ("yes", "filtered") else 403)
    assert (await client.call(method, place_of(template, "docs"))).status == 401


# What a limited key is shown


@pytest.fixture
def tenants(keys):
    """Two collections of the limited key, and one of another key."""
    client, engine = docs_service(keys=keys)
    for name in ("team-a", "other"):
        engine.catalog.create(Manifest(name=name, dimension=3, distance_metric=DistanceMetric("Cosine")))
    document = engine.state_document

    def with_findings():
        return document() | {"findings": {"resources": [{"collection": "other"}]}}

    engine.state_document = with_findings
    return client, engine


async def test_lists_name_the_collections_of_the_key(tenants):
    client, engine = tenants
    assert (await client.call("GET", "/collections", headers=bearer(LIMITED))).data == ["docs", "team-a"]
    everything = await client.call("GET", "/collections", headers=bearer(key_of(Role.READ)))
    assert everything.data == ["docs", "other", "team-a"]
    for name in ("other", "team-a"):
        engine.drop(name)
    dropped = await client.call("GET", "/collections/deleted", headers=bearer(LIMITED))
    assert [entry["name"] for entry in dropped.data] == ["team-a"]


async def test_the_state_is_that_of_the_keys_collections_and_so_is_its_etag(tenants):
    client, engine = tenants
    limited = await client.call("GET", "/state", headers=bearer(LIMITED))
    assert [row["name"] for row in limited.data["collections"]] == ["docs", "team-a"]
    assert limited.data["findings"] == {}
    assert b"other" not in limited.body
    whole = await client.call("GET", "/state", headers=bearer(key_of(Role.MONITOR)))
    assert len(whole.data["collections"]) == 3
    assert whole.data["findings"] == {"resources": [{"collection": "other"}]}
    engine.drop("other")
    again = await client.call("GET", "/state", headers=bearer(LIMITED))
    assert again.headers["etag"] == limited.headers["etag"]


async def test_a_limited_key_creates_collections_of_its_own_names(tenants):
    client, engine = tenants
    body = {"dimension": 3, "distance_metric": "Cosine"}
    refused = await client.call("POST", "/collections", body | {"name": "else"}, headers=bearer(LIMITED))
    assert (refused.status, refused.json["details"]["collection"]) == (403, "else")
    assert "else" not in engine.collections
    made = await client.call("POST", "/collections", body | {"name": "team-b"}, headers=bearer(LIMITED))
    assert made.status == 200


async def test_health_names_collections_to_who_may_see_the_metrics(keys):
    client, engine = docs_service(keys=keys)
    engine.all_ready = False
    told = {}
    for who, headers in (
        ("nobody", {}),
        ("wrong", bearer("a-key-of-nobody-0000")),
        ("limited", bearer(LIMITED)),
        ("monitor", bearer(key_of(Role.MONITOR))),
    ):
        reply = await client.call("GET", "/health/ready", headers=headers)
        assert reply.status == 503
        told[who] = b"docs" in reply.body
    assert told == {"nobody": False, "wrong": False, "limited": False, "monitor": True}
    client, engine = docs_service()
    engine.all_ready = False
    assert b"docs" in (await client.call("GET", "/health/ready")).body


# How a key is brought


def test_a_key_is_taken_from_either_header():
    assert presented_key([(b"authorization", b"Bearer abc")]) == b"abc"
    assert presented_key([(b"authorization", b"bearer  abc ")]) == b"abc"
    assert presented_key([(b"api-key", b"abc"), (b"accept", b"*/*")]) == b"abc"
    assert presented_key([(b"accept", b"*/*")]) is None


def test_the_header_of_our_own_wins_over_one_that_may_be_a_proxys():
    assert presented_key([(b"api-key", b"ours"), (b"authorization", b"Bearer theirs")]) == b"ours"
    assert presented_key([(b"authorization", b"Basic theirs")]) == b""


def test_a_header_that_stands_twice_is_no_key():
    assert presented_key([(b"api-key", b"abc"), (b"api-key", b"abc")]) == b""
    assert presented_key([(b"authorization", b"Bearer abc")] * 2) == b""


async def test_the_refusal_names_what_is_needed_and_the_name_of_the_key(keys):
    client, _ = docs_service(keys=keys)
    reply = await client.call("DELETE", "/collections/docs", headers=bearer(key_of(Role.WRITE)))
    assert reply.status == 403
    assert reply.json["message"] == (
        "DELETE /collections/{collection} needs the role admin; the key 'write' has write"
    )
    assert reply.json["details"] == {"kind": "Forbidden", "role": "admin", "name": "write"}
    packed = await client.call(
        "GET", "/collections", headers={"accept": "application/msgpack", **bearer(key_of(Role.SIDECAR))}
    )
    assert packed.packed["details"]["role"] == "read"


async def test_an_unknown_path_is_one_only_to_who_has_a_key(keys):
    client, _ = docs_service(keys=keys)
    assert (await client.call("GET", "/nothing")).status == 401
    assert (await client.call("GET", "/nothing", headers=bearer(key_of(Role.READ)))).status == 404
    assert (await client.call("PATCH", "/collections", headers=bearer(key_of(Role.READ)))).status == 405


async def test_the_body_of_a_stranger_is_not_kept(keys):
    client, _ = docs_service(keys=keys)
    for headers in ({}, bearer(key_of(Role.READ))):
        reply = await client.call(
            "POST", "/collections/docs/vectors/batch", chunks=[b" " * 70_000] * 10, headers=headers
        )
        assert (reply.status, reply.headers["connection"]) == (403 if headers else 401, "close")
        metrics = await client.call("GET", "/metrics", headers=bearer(key_of(Role.MONITOR)))
        assert b'vecstow_request_memory_bytes{part="bodies"} 0.0' in metrics.body


async def test_refusals_are_counted_by_route(keys):
    client, _ = docs_service(keys=keys)
    await client.call("POST", "/collections/docs/vectors", headers=bearer(key_of(Role.READ)))
    await client.call("POST", "/hold", headers=bearer(key_of(Role.READ)))
    await client.call("POST", "/hold")
    metrics = (await client.call("GET", "/metrics", headers=bearer(key_of(Role.MONITOR)))).body.decode()
    for route, status in (("/collections/{collection}/vectors", 403), ("/hold", 403), ("unknown", 401)):
        labels = f'method="POST",route="{route}",status="{status}"'
        assert f"vecstow_http_requests_total{{{labels}}} 1.0" in metrics


# What is written about it


async def test_a_line_of_the_log_names_the_key_and_never_is_one(keys, caplog):
    caplog.set_level(logging.DEBUG, "vecstow_engine.api.dispatch")
    client, engine = docs_service(keys=keys)
    engine.fails = RuntimeError("why")
    with capture_logs() as lines:
        for role in Role:
            await client.call("POST", "/hold", headers=bearer(key_of(role)))
            await client.call("POST", "/hold", headers={"api-key": key_of(role)})
        await client.call("POST", "/hold", headers=bearer("a-key-of-nobody-0000"))
        await client.call(
            "POST", "/collections/docs/search", {"vector": [1, 2, 3]}, headers=bearer(key_of(Role.READ))
        )
    assert {line.get("key") for line in lines} == {role.value for role in Role} | {None}
    for secret in [*map(key_of, Role), "a-key-of-nobody-0000"]:
        assert secret not in repr(lines)


async def test_strangers_do_not_fill_the_log(keys, caplog):
    caplog.set_level(logging.INFO, "vecstow_engine.api.dispatch")
    client, _ = docs_service(keys=keys)
    with capture_logs() as lines:
        await client.call("POST", "/hold")
        await client.call("DELETE", "/collections/docs", headers=bearer("a-key-of-nobody-0000"))
    assert [line for line in lines if line["log_level"] != "debug"] == []


async def test_without_a_file_of_keys_nobody_is_asked():
    client, _ = docs_service()
    assert (await client.call("DELETE", "/collections/docs", headers=bearer("whatever"))).status == 200
