"""The published client d-vecdb 0.2.2, unchanged, against a real engine: every method, sync and async.

Where the client's habits and the truth differ, the truth is asserted here, and docs/api.md tells it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import itertools

import httpx
import numpy as np
import pytest
from vectordb_client import AsyncVectorDBClient, VectorDBClient
from vectordb_client.exceptions import InvalidParameterError, ValidationError
from vectordb_client.types import CollectionConfig, DistanceMetric, IndexConfig, Vector, VectorType

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX

DIMENSION = 8
UUID_CHARACTERS = 36
NUMBERS = itertools.count()


class Synchronous:
    """Drives the blocking client by the same calls as the asynchronous one."""

    def __init__(self, port: int) -> None:
        self._client = VectorDBClient("127.0.0.1", port, timeout=SECONDS_MAX)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*values, **named):
            return method(*values, **named)

        return call

    async def close(self) -> None:
        self._client.close()


class Asynchronous:
    """The asynchronous client, connected at its first call."""

    def __init__(self, port: int) -> None:
        self._client = AsyncVectorDBClient("127.0.0.1", port, timeout=SECONDS_MAX)

    def __getattr__(self, name):
        async def call(*values, **named):
            await self._client.connect()
            return await getattr(self._client, name)(*values, **named)

        return call

    async def close(self) -> None:
        await self._client.close()


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with EngineProcess(tmp_path_factory.mktemp("volume") / "data") as running:
        yield running.port


@pytest.fixture(params=[Synchronous, Asynchronous], ids=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
async def client(kind, port):
    client = kind(port)
    yield client
    await client.close()


@pytest.fixture
async def other(kind, port):
    """A second client, which remembers nothing of the first one's."""
    client = kind(port)
    yield client
    await client.close()


@pytest.fixture
async def name(client):
    """A fresh collection."""
    name = f"fresh-{next(NUMBERS)}"
    await client.create_collection_simple(name, DIMENSION, "cosine")
    return name


def unit(index: int) -> list[float]:
    return [1.0 if position == index else 0.0 for position in range(DIMENSION)]


def test_it_is_the_version_that_the_contract_names():
    assert importlib.metadata.version("d-vecdb") == "0.2.2"


def test_every_method_of_the_clients_is_driven_here():
    source = inspect.getsource(inspect.getmodule(test_every_method_of_the_clients_is_driven_here))
    for published in (VectorDBClient, AsyncVectorDBClient):
        for method in vars(published):
            # connect and close are called by the drivers above, `client` is what they stand for.
            if not method.startswith("_") and method != "client":
                assert f".{method}(" in source, method


# Collections


@pytest.mark.parametrize("metric", list(DistanceMetric))
@pytest.mark.parametrize("vector_type", list(VectorType))
async def test_a_collection_of_every_shape_is_created_and_searched(client, kind, metric, vector_type):
    name = f"shape-{kind.__name__}-{metric.name}-{vector_type.name}"
    config = CollectionConfig(
        name=name,
        dimension=DIMENSION,
        distance_metric=metric,
        vector_type=vector_type,
        index_config=IndexConfig(max_connections=8, ef_construction=100, ef_search=20, max_layer=4),
    )
    created = await client.create_collection(config)
    assert (created.success, created.data["name"], created.error) == (True, name, None)
    data = (await client.get_collection(name)).data
    assert (data["dimension"], data["distance_metric"], data["vector_type"]) == (
        DIMENSION,
        metric,
        vector_type,
    )
    assert data["index_config"] == config.index_config.model_dump()
    inserted = await client.insert_vectors(
        name, [Vector(id=str(index), data=unit(index)) for index in range(3)]
    )
    hits = (await client.search(name, unit(1), limit=1)).results
    assert [hit.id for hit in hits] == [inserted.vector_ids[1]]
    assert hits[0].distance == pytest.approx(0, abs=0.02)


async def test_a_collection_made_simply_is_listed_and_described(client, other, name):
    assert name in (await other.list_collections()).collections
    described = (await other.get_collection(name)).data
    assert (described["state"], described["vector_count"]) == ("ready", 0)


@pytest.mark.parametrize(
    ("spelling", "metric"),
    [
        ("cosine", "Cosine"),
        ("euclidean", "Euclidean"),
        ("dot_product", "DotProduct"),
        ("Manhattan", "Manhattan"),
    ],
)
async def test_metrics_go_by_the_clients_own_spellings(client, kind, spelling, metric):
    name = f"spelled-{kind.__name__}-{spelling}"
    await client.create_collection_simple(name, DIMENSION, spelling)
    assert (await client.get_collection(name)).data["distance_metric"] == metric


async def test_a_deleted_collection_is_gone_and_its_name_free(client, other, name):
    answer = await client.delete_collection(name)
    assert (answer.success, answer.data["name"]) == (True, name)
    assert name not in (await other.list_collections()).collections
    assert (await client.create_collection_simple(name, 3)).success


async def test_collection_stats_count_what_is_there(client, name):
    await client.insert_simple(name, "a", unit(0))
    stats = await client.get_collection_stats(name)
    assert (stats.name, stats.vector_count, stats.dimension) == (name, 1, DIMENSION)
    assert stats.memory_usage > 0


# Points


async def test_an_inserted_vector_is_got_by_the_id_that_the_server_made(client, other, name):
    vector = Vector.from_numpy("mine", np.arange(1, DIMENSION + 1, dtype=np.float32), {"tags": ["a"], "n": 1})
    inserted = await client.insert_vector(name, vector)
    assert (inserted.success, len(inserted.vector_id), inserted.inserted_count) == (True, UUID_CHARACTERS, 1)
    found = await other.get_vector(name, inserted.vector_id)
    assert (found.id, found.data, found.metadata) == (inserted.vector_id, vector.data, vector.metadata)


async def test_many_vectors_are_inserted_in_order(client, other, name):
    vectors = [Vector(id=f"v{index}", data=unit(index), metadata={"n": index}) for index in range(DIMENSION)]
    inserted = await client.insert_vectors(name, vectors)
    assert inserted.inserted_count == DIMENSION
    for index, point_id in enumerate(inserted.vector_ids):
        found = await other.get_vector(name, point_id)
        assert (found.data, found.metadata) == (unit(index), {"n": index})


async def test_arrays_are_inserted_simply(client, other, name):
    inserted = await client.insert_simple(name, "mine", np.array(unit(2), dtype=np.float32), {"x": None})
    assert (await other.get_vector(name, inserted.vector_id)).metadata == {"x": None}


async def test_the_client_answers_for_its_own_ids_from_memory(client, other, name):
    """The quirk: the id of a `Vector` never reaches the server, so another client does not know it."""
    await client.insert_simple(name, "mine", unit(0))
    assert (await client.get_vector(name, "mine")).id == "mine"
    with pytest.raises(TypeError):
        await other.get_vector(name, "mine")


async def test_an_updated_vector_is_stored_under_the_id_it_is_given(client, other, name):
    inserted = await client.insert_simple(name, "mine", unit(0), {"old": True})
    server_id = inserted.vector_id
    updated = await client.update_vector(name, Vector(id=server_id, data=unit(1), metadata=None))
    assert (updated.success, updated.data["id"]) == (True, server_id)
    found = await other.get_vector(name, server_id)
    assert (found.data, found.metadata) == (unit(1), None)
    assert (await client.get_collection_stats(name)).vector_count == 1


async def test_updating_by_an_id_that_only_the_client_knows_stores_a_second_point(client, other, name):
    """The quirk: update sends the client's own id. The truth: a PUT under that id."""
    inserted = await client.insert_simple(name, "mine", unit(0))
    await client.update_vector(name, Vector(id="mine", data=unit(1)))
    assert (await other.get_vector(name, "mine")).data == unit(1)
    assert (await other.get_vector(name, inserted.vector_id)).data == unit(0)


async def test_a_deleted_vector_is_gone(client, other, name):
    inserted = await client.insert_simple(name, "mine", unit(0))
    deleted = await client.delete_vector(name, inserted.vector_id)
    assert (deleted.success, deleted.data["id"]) == (True, inserted.vector_id)
    with pytest.raises(TypeError):
        await other.get_vector(name, inserted.vector_id)
    assert (await other.search(name, unit(0))).results == []
    assert (await client.get_collection_stats(name)).vector_count == 0


# Search


async def test_search_answers_nearest_first_with_payload(client, other, name):
    ids = (
        await client.insert_vectors(
            name,
            [
                Vector(id="a", data=unit(0), metadata={"kind": "even"}),
                Vector(id="b", data=unit(1), metadata={"kind": "odd"}),
            ],
        )
    ).vector_ids
    response = await other.search(name, np.array([0.9, 0.1] + [0.0] * 6), limit=2, ef_search=100)
    assert response.success
    assert [hit.id for hit in response.results] == ids
    assert 0 <= response.results[0].distance < response.results[1].distance <= 2
    assert response.results[1].metadata == {"kind": "odd"}


async def test_a_filter_filters(client, name):
    vectors = [
        Vector(id=str(i), data=unit(i), metadata={"kind": "odd" if i % 2 else "even"}) for i in range(8)
    ]
    await client.insert_vectors(name, vectors)
    hits = (await client.search(name, unit(0), limit=8, filter={"kind": "odd"})).results
    assert [hit.metadata["kind"] for hit in hits] == ["odd"] * 4


async def test_search_is_done_simply(client, name):
    inserted = await client.insert_simple(name, "mine", unit(3))
    [hit] = await client.search_simple(name, np.array(unit(3)), limit=1)
    assert hit.id == inserted.vector_id


async def test_batches_are_inserted_one_after_the_other(port, name):
    with VectorDBClient("127.0.0.1", port, timeout=SECONDS_MAX) as client:
        rows = [(str(index), np.array(unit(index % 8)), {"n": index}) for index in range(25)]
        responses = client.batch_insert_simple(name, rows, batch_size=10)
        assert [response.inserted_count for response in responses] == [10, 10, 5]
        assert client.get_collection_stats(name).vector_count == 25


async def test_batches_are_inserted_side_by_side(port, name):
    async with AsyncVectorDBClient("127.0.0.1", port, timeout=SECONDS_MAX) as client:
        rows = [(str(index), unit(index % 8)) for index in range(25)]
        responses = await client.batch_insert_concurrent(name, rows, batch_size=5, max_concurrent_batches=3)
        assert [response.inserted_count for response in responses] == [5] * 5
        assert (await client.get_collection_stats(name)).vector_count == 25


# The server


async def test_the_server_is_healthy(client):
    health = await client.health_check()
    assert (health.healthy, health.status) == (True, "OK")
    assert await client.ping() is True


async def test_a_server_that_is_not_there_is_not_pinged(kind):
    client = kind(1)
    assert await client.ping() is False
    await client.close()


async def test_server_stats_are_true(client, name):
    before = await client.get_server_stats()
    await client.insert_simple(name, "a", unit(0))
    after = await client.get_server_stats()
    assert after.total_vectors == before.total_vectors + 1
    assert after.total_collections == len((await client.list_collections()).collections)
    assert after.memory_usage > 10_000_000
    assert after.disk_usage > 0


async def test_info_joins_client_and_server(client, name):
    server = (await client.get_info())["server"]
    assert (server["healthy"], server["status"]) == (True, "OK")
    assert name in server["collections"]


# Errors


async def test_a_bad_value_is_the_clients_invalid_parameter_with_message_and_details(client, name):
    with pytest.raises(InvalidParameterError) as refused:
        await client.insert_simple(name, "a", [1.0, 2.0])
    assert refused.value.status_code == 400
    assert "the dimension" in refused.value.message
    assert refused.value.details["limit"] == DIMENSION


async def test_a_bad_shape_is_the_clients_validation_error(client, port, name):
    with pytest.raises(ValidationError) as refused:
        await client.search(name, ["x"] * DIMENSION)
    assert (refused.value.status_code, refused.value.details["field"]) == (422, "vector[0]")


async def test_404_and_409_are_type_errors_of_the_client(client, name):
    """The quirk: it calls its own exceptions with arguments that they do not take."""
    for call in (
        lambda: client.get_collection("nobody"),
        lambda: client.get_vector(name, "nobody"),
        lambda: client.delete_vector(name, "nobody"),
        lambda: client.search("nobody", unit(0)),
        lambda: client.create_collection_simple(name, DIMENSION),
    ):
        with pytest.raises(TypeError, match="positional arguments"):
            await call()


async def test_dots_for_an_id_drop_the_collection_and_the_drop_loses_nothing(client, port, name):
    """The quirk: the client's URL library turns `vectors/..` into `DELETE /collections/{c}`."""
    inserted = await client.insert_simple(name, "mine", unit(0))
    await client.delete_vector(name, "..")
    assert name not in (await client.list_collections()).collections
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as rest:
        rows = (await rest.get("/collections/deleted")).json()["data"]
        [path] = [row["path"] for row in rows if row["name"] == name]
        restored = await rest.post("/collections/restore", json={"backup_path": path})
        assert restored.json()["data"]["name"] == name
    [hit] = await client.search_simple(name, unit(0))
    assert hit.id == inserted.vector_id


async def test_many_clients_at_once_lose_nothing(port, name):
    async with AsyncVectorDBClient("127.0.0.1", port, timeout=SECONDS_MAX, connection_pool_size=20) as client:
        answers = await asyncio.gather(*(client.insert_simple(name, str(i), unit(i % 8)) for i in range(100)))
        assert len({answer.vector_id for answer in answers}) == 100
        assert (await client.get_collection_stats(name)).vector_count == 100
