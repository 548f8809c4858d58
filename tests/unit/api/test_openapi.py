"""The OpenAPI document describes every route, and its bodies are those that are decoded."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.asgi_client import docs_service
from vecstow_engine.api import alias_routes, collection_routes, parsing, search_bodies, server_routes
from vecstow_engine.api.health_routes import HEALTH_ROUTES
from vecstow_engine.api.openapi import COMPONENTS
from vecstow_engine.api.point_routes import POINT_ROUTES


async def fetch() -> dict:
    client, _ = docs_service()
    return (await client.call("GET", "/openapi.json")).json


async def test_every_route_is_described():
    document = await fetch()
    described = {(method, path) for path, methods in document["paths"].items() for method in methods}
    hot = {(route.method.lower(), route.template) for route in POINT_ROUTES}
    cold = {
        (method.lower(), route.path)
        for router in (alias_routes.router, collection_routes.router, server_routes.router)
        for route in router.routes
        for method in route.methods
    }
    health = {("get", path) for path in HEALTH_ROUTES}
    assert described == hot | cold | health


async def test_every_operation_has_a_summary_and_its_errors():
    document = await fetch()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert {"200", "400", "404", "405", "500", "503"} <= set(operation["responses"])


async def test_bounded_integers_have_their_bounds():
    document = await fetch()
    parameters = document["paths"]["/collections/{collection}/search"]["post"]["parameters"]
    in_query = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
    for name, maximum in (("limit", 10_000), ("ef_search", 1_000)):
        in_body = [
            document["components"]["schemas"][body]["properties"] for body in ("Search", "PackedSearch")
        ]
        for schema in (in_query[name], *(properties[name] for properties in in_body)):
            assert (schema["minimum"], schema["maximum"]) == (1, maximum)
    for body in ("CreateBody", "ImportBody"):
        dimension = document["components"]["schemas"][body]["properties"]["dimension"]
        assert (dimension["minimum"], dimension["maximum"]) == (1, 65_536)


async def test_every_reference_leads_somewhere():
    document = await fetch()
    names = set(document["components"]["schemas"])

    def references(node):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"].removeprefix("#/components/schemas/")
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    assert set(references(document)) <= names


async def test_operation_ids_are_unique():
    document = await fetch()
    ids = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("Point", parsing.SinglePoint),
        ("Batch", parsing.JsonBatch),
        ("Search", search_bodies.SentSearch),
        ("Searches", search_bodies.JsonSearches),
        ("GroupSearch", search_bodies.SentGroups),
        ("Recommendation", search_bodies.SentRecommendation),
        ("PackedPoint", parsing.SinglePoint),
        ("BatchPoint", parsing.SentPoint),
        ("PackedBatch", parsing.PackedBatch),
        ("PackedSearch", search_bodies.SentSearch),
        ("PackedSearches", search_bodies.PackedSearches),
        ("PackedGroupSearch", search_bodies.SentGroups),
        ("PackedRecommendation", search_bodies.SentRecommendation),
        ("Ids", parsing.IdList),
    ],
)
def test_described_fields_are_the_decoded_ones(name, struct):
    schema = COMPONENTS[name]
    assert set(schema["properties"]) == set(struct.__struct_fields__)
    required = {field.name for field in msgspec.structs.fields(struct) if field.required}
    assert set(schema["required"]) == required
