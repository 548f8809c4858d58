"""Aliases over HTTP: in each route in place of a name, under the rules of the collection behind them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.asgi_client import AsgiClient, Reply
from tests.unit.interleaving import overtaken
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.access import ACCESS
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.api.request import Request
from vecstow_engine.api.server import create_app
from vecstow_engine.model.aliases import Alias
from vecstow_engine.storage.aliases import change_aliases

KEYS = {"all": "", "docs": "collections: [docs-*], ", "other": "collections: [other-*], "}
POINT = {"data": [1, 2, 3, 4], "metadata": {"v": 1}}
BODIES: dict[str, Any] = {
    "/search": {"vector": [1, 2, 3, 4]},
    "/search/batch": {"searches": [{"id": "a"}]},
    "/search/groups": {"id": "a", "group_by": "v"},
    "/recommend": {"positive": ["a"]},
    "/points/facet": {"field": "v"},
    "/points/delete": {"ids": ["none"]},
    "/points/payload": {"ids": ["none"], "merge": {"v": 2}},
    "/vectors": POINT,
    "/vectors/batch": {"vectors": [POINT]},
    "/vectors/get": {"ids": ["a"]},
    "/vectors/delete": {"ids": ["none"]},
    "/vectors/{id}": POINT,
    "/payload-indexes": {"payload_indexes": [{"field": "v", "type": "integer"}]},
    "/repair": {"dry_run": True},
}
OF_COLLECTION = sorted(route for route in ACCESS if "{collection}" in route[1])
DELETES = [("DELETE", "/collections/{collection}"), ("DELETE", "/collections/{collection}/hard-delete")]


@pytest.fixture
async def engine(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        for name in ("docs-1", "docs-2", "other-1"):
            engine.declare(name)
            await engine.put(name, a=1)
        engine.aliases.set("main", "docs-1")
        engine.aliases.set("docs-x", "other-1")
        yield engine


@pytest.fixture
def client(engine) -> AsgiClient:
    return AsgiClient(create_app(engine))


@pytest.fixture
def keyed(engine, tmp_path) -> AsgiClient:
    entries = [
        f"- {{name: {name}-{role}, role: {role}, {limits}key: {key_of(name, role)}}}\n"
        for name, limits in KEYS.items()
        for role in ("admin", "write", "read")
    ]
    (tmp_path / "keys.yaml").write_text("keys:\n" + "".join(entries))
    return AsgiClient(create_app(engine, keys=KeyFile(tmp_path / "keys.yaml")))


def key_of(name: str, role: str) -> str:
    return f"key-{name}-{role}-0000000"


async def asked(client, method, path, body=None, *, by: tuple[str, str] | None = None) -> Reply:
    return await client.call(method, path, body, headers={} if by is None else {"api-key": key_of(*by)})


def body_of(method: str, template: str) -> Any:
    if method in ("GET", "DELETE"):
        return None
    return BODIES.get(template.removeprefix("/collections/{collection}"))


async def test_an_alias_is_set_shown_listed_switched_and_removed(client):
    assert (await asked(client, "PUT", "/aliases/second", {"collection": "docs-1"})).data == {
        "alias": "second", "collection": "docs-1"
    }  # fmt: skip
    assert (await asked(client, "GET", "/aliases/second")).data["collection"] == "docs-1"
    assert (await asked(client, "PUT", "/aliases/second", {"collection": "docs-2"})).status == 200
    assert (await asked(client, "GET", "/aliases")).data == [
        {"alias": "docs-x", "collection": "other-1"},
        {"alias": "main", "collection": "docs-1"},
        {"alias": "second", "collection": "docs-2"},
    ]
    assert (await asked(client, "GET", "/collections/second")).data["name"] == "docs-2"
    assert (await asked(client, "DELETE", "/aliases/second")).data["collection"] == "docs-2"
    assert (await asked(client, "GET", "/aliases/second")).status == 404


@pytest.mark.parametrize(("method", "template"), OF_COLLECTION, ids=" ".join)
async def test_each_route_of_a_collection_takes_an_alias_and_refuses_to_delete_through_it(
    client, method, template
):
    def path(name: str) -> str:
        return template.replace("{collection}", name).replace("{id}", "a")

    reply = await asked(client, method, path("main"), body_of(method, template))
    if (method, template) in DELETES:
        assert reply.status == 409
        assert reply.json["details"]["hint"].startswith("DELETE /aliases/main")
        assert (await asked(client, "GET", "/collections/docs-1")).status == 200
        return
    assert reply.status == 200, reply.body
    assert b'"main"' not in reply.body.replace(b'"aliases":["main"]', b"")


@pytest.mark.parametrize(
    ("name", "body", "status", "field"),
    [
        pytest.param("docs-1", {"collection": "docs-2"}, 409, None, id="a collection's name"),
        pytest.param("main", {"collection": "none"}, 404, None, id="no collection"),
        pytest.param("second", {"collection": "main"}, 400, "collection", id="an alias"),
        pytest.param("wal", {"collection": "docs-1"}, 400, "alias", id="reserved"),
        pytest.param("a.b", {"collection": "docs-1"}, 400, "alias", id="no name"),
        pytest.param("second", {"collection": "a/b"}, 400, "collection", id="no collection's name"),
        pytest.param("second", {}, 422, "collection", id="nothing"),
        pytest.param("second", {"collection": 1}, 422, "collection", id="a number"),
        pytest.param("second", {"collection": "docs-1", "x": 1}, 422, "x", id="an unknown field"),
    ],
)
async def test_bad_input_names_its_field_and_changes_nothing(client, name, body, status, field):
    before = (await asked(client, "GET", "/aliases")).data
    reply = await asked(client, "PUT", f"/aliases/{name}", body)
    assert reply.status == status, reply.body
    assert reply.json["details"].get("field") == field
    assert (await asked(client, "GET", "/aliases")).data == before


async def test_a_name_that_is_created_if_needed_may_be_an_alias(client):
    shape = {"dimension": 4, "distance_metric": "Euclidean"}
    body = {"name": "main"} | shape
    assert (await asked(client, "POST", "/collections?if_exists=ok", body)).status == 200
    assert (await asked(client, "POST", "/collections", body)).status == 409


# Keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "template"), OF_COLLECTION, ids=" ".join)
async def test_patterns_apply_to_the_collection_behind_an_alias(keyed, method, template):
    """`main` leads to docs-1, and `docs-x` to other-1."""

    async def status(name: str, key: str) -> int:
        path = template.replace("{collection}", name).replace("{id}", "a")
        return (await asked(keyed, method, path, body_of(method, template), by=(key, "admin"))).status

    assert await status("docs-x", "docs") == 403
    assert await status("main", "other") == 403
    reached = {await status("main", "docs"), await status("docs-x", "other")}
    assert reached == ({409} if (method, template) in DELETES else {200})


async def test_a_refusal_does_not_show_where_an_alias_leads(keyed):
    """It is the answer for a name that nothing has."""
    answers = set()
    for name in ("main", "none"):
        for path in (f"/collections/{name}", f"/collections/{name}/vectors/a", f"/aliases/{name}"):
            reply = await asked(keyed, "GET", path, by=("other", "read"))
            assert reply.status == 403
            assert b"docs-1" not in reply.body
            answers.add(reply.body.replace(name.encode(), b"*"))
    assert len(answers) == 1


async def test_a_limited_key_lists_and_shows_the_aliases_of_its_collections(keyed):
    reply = await asked(keyed, "GET", "/aliases", by=("docs", "read"))
    assert [row["alias"] for row in reply.data] == ["main"]
    assert (await asked(keyed, "GET", "/aliases/main", by=("docs", "read"))).status == 200
    assert (await asked(keyed, "GET", "/aliases/docs-x", by=("docs", "read"))).status == 403
    assert (await asked(keyed, "GET", "/aliases/docs-none", by=("docs", "read"))).status == 404


@pytest.mark.parametrize(
    ("alias", "collection", "key", "status"),
    [
        pytest.param("main", "docs-2", ("docs", "write"), 200, id="both"),
        pytest.param("main", "docs-2", ("docs", "read"), 403, id="the role read"),
        pytest.param("main", "other-1", ("docs", "write"), 403, id="not the new one"),
        pytest.param("main", "other-1", ("other", "write"), 403, id="not the old one"),
        pytest.param("main", "other-1", ("all", "write"), 200, id="not limited"),
        pytest.param("docs-new", "docs-1", ("docs", "write"), 200, id="a new name of its own"),
        pytest.param("new", "docs-1", ("docs", "write"), 403, id="a new name of others"),
        pytest.param("docs-x", "docs-1", ("docs", "write"), 403, id="an alias of others"),
    ],
)
async def test_a_switch_needs_the_role_write_and_both_collections(
    keyed, engine, alias, collection, key, status
):
    reply = await asked(keyed, "PUT", f"/aliases/{alias}", {"collection": collection}, by=key)
    assert reply.status == status, reply.body
    assert (engine.registry.resolve(alias) == collection) is (status == 200)
    assert status == 200 or b"other-1" not in reply.body or collection == "other-1"


async def test_a_limited_key_does_not_learn_that_a_name_is_an_alias_of_others(keyed):
    """`docs-x` leads to other-1."""
    shown = await asked(keyed, "GET", "/aliases/docs-x", by=("docs", "write"))
    for alias in ("docs-new", "main"):
        reply = await asked(keyed, "PUT", f"/aliases/{alias}", {"collection": "docs-x"}, by=("docs", "write"))
        assert (reply.status, reply.body) == (403, shown.body)
    reply = await asked(keyed, "PUT", "/aliases/docs-new", {"collection": "docs-x"}, by=("all", "write"))
    assert reply.status == 400
    assert "is itself an alias" in reply.json["error"]


@pytest.mark.parametrize(("key", "status"), [("docs", 200), ("other", 403), ("all", 200)])
async def test_a_removal_needs_the_collection_behind_it(keyed, key, status):
    assert (await asked(keyed, "DELETE", "/aliases/main", by=(key, "write"))).status == status


async def test_a_limited_key_creates_nothing_under_an_alias_of_others(keyed):
    body = {"name": "docs-x", "dimension": 4, "distance_metric": "Euclidean"}
    for path in ("/collections", "/collections?if_exists=ok"):
        reply = await asked(keyed, "POST", path, body, by=("docs", "write"))
        assert reply.status == 403
        assert b"other-1" not in reply.body


async def test_the_state_shows_a_limited_key_the_problems_of_its_aliases(keyed, engine):
    for name, collection in (("docs-lost", "docs-9"), ("lost", "other-9")):
        alias = Alias(name, collection)
        change_aliases(engine.layout, lambda table, alias=alias: table.with_alias(alias))
    engine.refresh({})
    everything = (await asked(keyed, "GET", "/state", by=("all", "read"))).data
    limited = (await asked(keyed, "GET", "/state", by=("docs", "read"))).data
    assert [row["alias"] for row in everything["aliases"]["problems"]] == ["docs-lost", "lost"]
    assert [row["alias"] for row in limited["aliases"]["problems"]] == ["docs-lost"]
    assert limited["aliases"]["count"] == 2
    assert [row["aliases"] for row in limited["collections"]] == [["main"], []]


async def test_an_alias_that_is_switched_during_an_upload_is_checked_again(keyed, engine, monkeypatch):
    """The key was checked for the collection of before."""
    overtaken(monkeypatch, Request, "read_body", lambda: engine.aliases.set("main", "other-1"))
    reply = await asked(keyed, "POST", "/collections/main/vectors", POINT, by=("docs", "write"))
    assert reply.status == 403
    assert b"other-1" not in reply.body
    assert engine.describe("other-1")["vector_count"] == 1


async def test_an_alias_that_is_switched_during_an_upload_takes_the_write_to_its_new_collection(
    keyed, engine, monkeypatch
):
    overtaken(monkeypatch, Request, "read_body", lambda: engine.aliases.set("main", "docs-2"))
    reply = await asked(keyed, "POST", "/collections/main/vectors", POINT, by=("docs", "write"))
    assert reply.status == 200
    assert engine.describe("docs-2")["vector_count"] == 2


async def test_before_discovery_an_alias_is_not_refused_for_good(keyed, engine):
    engine.discovered = False
    reply = await asked(keyed, "GET", "/collections/main", by=("docs", "read"))
    engine.discovered = True
    assert reply.status == 503
    assert "retry-after" in reply.headers
