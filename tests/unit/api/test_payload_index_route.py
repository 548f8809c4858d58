"""PUT /collections/{collection}/payload-indexes, and what descriptions say of the indexes."""

import dataclasses

import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.indexed_points import IndexedPoints
from tests.unit.running_engine import wait_until
from vecstow_engine.api.server import create_app
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.manifest import ManagedBy
from vecstow_engine.storage.manifests import read_manifest, update_manifest

TARGET = "/collections/notes/payload-indexes"
WORD = {"field": "word", "type": "keyword"}
NUMBER = {"field": "n", "type": "integer"}
COUNT = 300


@pytest.fixture
async def client(engine):
    await IndexedPoints(engine).put(range(COUNT))
    return AsgiClient(create_app(engine, HttpSettings()))


async def declare(client, *indexes):
    return await client.call("PUT", TARGET, {"payload_indexes": list(indexes)})


async def described(client):
    return (await client.call("GET", "/collections/notes")).data


def is_built(engine):
    return engine.collection("notes").payload_indexes.unfinished is None


async def test_answer_describes_the_collection_and_the_indexes_answer_soon(client, engine):
    reply = await declare(client, WORD, NUMBER)
    assert (reply.status, reply.data["name"], reply.data["payload_indexes"]) == (200, "notes", [WORD, NUMBER])
    assert [{"field": each["field"], "type": each["type"]} for each in reply.data["payload_index_state"]] == [
        WORD, NUMBER
    ]  # fmt: skip
    wait_until(lambda: is_built(engine))
    word, number = (await described(client))["payload_index_state"]
    assert word == {**WORD, "ready": True, "bytes": word["bytes"]}
    assert number == {**NUMBER, "ready": True, "bytes": number["bytes"]}
    assert word["bytes"] > COUNT * 5
    assert number["bytes"] > COUNT * 9


async def test_declaration_takes_the_place_of_the_one_before(client, engine):
    await declare(client, WORD)
    wait_until(lambda: is_built(engine))
    reply = await declare(client, NUMBER, WORD)
    assert [each["ready"] for each in reply.data["payload_index_state"]] == [False, True]
    wait_until(lambda: is_built(engine))
    assert [each["ready"] for each in (await declare(client, NUMBER)).data["payload_index_state"]] == [True]
    assert (await declare(client)).data["payload_index_state"] == []


async def test_alias_leads_to_the_collection(client):
    await client.call("PUT", "/aliases/other", {"collection": "notes"})
    reply = await client.call("PUT", "/collections/other/payload-indexes", {"payload_indexes": [WORD]})
    assert (reply.status, reply.data["name"]) == (200, "notes")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param({}, 422, "payload_indexes", id="nothing"),
        pytest.param({"payload_indexes": None}, 422, "payload_indexes", id="null"),
        pytest.param({"payload_indexes": WORD}, 422, "payload_indexes", id="no list"),
        pytest.param({"payload_indexes": [WORD], "owner": "me"}, 422, "owner", id="another setting"),
        pytest.param({"payload_indexes": [{"field": "word"}]}, 422, "field and type", id="no type"),
        pytest.param(
            {"payload_indexes": [{**WORD, "type": "string"}]}, 400, "'string' of field 'word'", id="type"
        ),
        pytest.param(
            {"payload_indexes": [{**WORD, "field": "x" * 257}]}, 400, "1 to 256 characters", id="long field"
        ),
        pytest.param({"payload_indexes": [WORD, WORD]}, 400, "names field 'word' twice", id="twice"),
        pytest.param(
            {"payload_indexes": [{"field": f"f{number}", "type": "float"} for number in range(65)]},
            400, "65 entries; at most 64", id="too many",
        ),
    ],
)  # fmt: skip
async def test_wrong_declaration_changes_nothing(client, engine, body, status, message):
    await declare(client, NUMBER)
    before = read_manifest(engine.layout.collection("notes"))
    reply = await client.call("PUT", TARGET, body)
    assert reply.status == status, reply.body
    assert message in reply.json["message"]
    assert read_manifest(engine.layout.collection("notes")) == before
    assert (await described(client))["payload_indexes"] == [NUMBER]


async def test_most_fields_are_64(client):
    reply = await declare(client, *({"field": f"f{number}", "type": "float"} for number in range(64)))
    assert (reply.status, len(reply.data["payload_index_state"])) == (200, 64)


async def test_collection_of_a_resource_and_one_that_does_not_exist_are_refused(client, engine):
    kubernetes = lambda found: dataclasses.replace(found, managed_by=ManagedBy.KUBERNETES)  # noqa: E731
    update_manifest(engine.layout, "notes", kubernetes)
    reply = await declare(client, WORD)
    assert reply.status == 409
    assert "belongs to a Kubernetes resource" in reply.json["message"]
    reply = await client.call("PUT", "/collections/none/payload-indexes", {"payload_indexes": []})
    assert reply.status == 404


async def test_figures_have_the_memory_of_the_indexes(client, engine):
    before = (await client.call("GET", "/collections/notes/stats")).data["memory_usage"]
    await declare(client, WORD)
    wait_until(lambda: is_built(engine))
    engine.accounts.count_all(engine.registry.collections())
    taken = engine.collection("notes").payload_indexes.memory_bytes
    assert taken > 0
    assert (await client.call("GET", "/collections/notes/stats")).data["memory_usage"] == before + taken
    [row] = (await client.call("GET", "/state")).data["collections"]
    assert row["payload_index_bytes"] == taken
    metrics = (await client.call("GET", "/metrics")).body.decode()
    assert f'vecstow_payload_index_bytes{{collection="notes"}} {float(taken)}' in metrics
    assert f'vecstow_memory_bytes{{part="payload_indexes"}} {float(taken)}' in metrics
