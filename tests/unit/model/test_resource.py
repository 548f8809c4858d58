"""The manifest that a VectorCollection declares: defaults, limits, merges and conflicts."""

import copy
import dataclasses
import subprocess
import sys

import pytest

from vecstow_engine.model.errors import Conflict, InvalidInput, WrongShape
from vecstow_engine.model.manifest import IndexConfig, ManagedBy, Manifest, PayloadIndex
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.resource import DeletionPolicy, manifest_from_resource, parse_resource


def resource(**spec):
    """A small valid document; a spec field given as None is left out."""
    fields = {"dimension": 384, "distanceMetric": "Cosine"} | spec
    return {
        "apiVersion": "vecstow.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": {"name": "packages"},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


FULL_SPEC = {
    "dimension": 1536,
    "distanceMetric": "DotProduct",
    "vectorType": "Int8",
    "index": {"maxConnections": 32, "efConstruction": 400, "efSearch": 64, "maxLayer": 8},
    "payloadIndexes": [{"field": "tenant", "type": "keyword"}, {"field": "size", "type": "integer"}],
    "owner": "search-team",
    "collectionName": "My_Docs",
    "engine": "vecstow-2",
    "deletionPolicy": "Delete",
    "paused": True,
}


def declared(document, managed_by, found):
    """The manifest that a document declares."""
    resource = parse_resource(document, strict=managed_by is not ManagedBy.KUBERNETES)
    return manifest_from_resource(resource, managed_by, found)


def test_the_smallest_resource_takes_every_default_of_the_design():
    manifest = declared(resource(), ManagedBy.FILE, None)
    assert manifest == Manifest(
        name="packages",
        dimension=384,
        distance_metric=DistanceMetric.COSINE,
        vector_type=VectorType.FLOAT32,
        index_config=IndexConfig(16, 200, 50, 16),
        managed_by=ManagedBy.FILE,
    )


def test_every_field_of_the_design_is_read():
    parsed = parse_resource(resource(**FULL_SPEC))
    assert parsed.collection_name == "My_Docs"
    assert (parsed.dimension, parsed.distance_metric, parsed.vector_type) == (
        1536,
        DistanceMetric.DOT_PRODUCT,
        VectorType.INT8,
    )
    assert parsed.index_config == IndexConfig(32, 400, 64, 8)
    assert parsed.payload_indexes == (PayloadIndex("tenant", "keyword"), PayloadIndex("size", "integer"))
    assert parsed.owner == "search-team"
    assert (parsed.engine, parsed.deletion_policy, parsed.paused) == (
        "vecstow-2",
        DeletionPolicy.DELETE,
        True,
    )


def test_engine_deletion_policy_and_paused_do_not_enter_the_manifest():
    with_policy = resource(engine="other", deletionPolicy="Delete", paused=True)
    assert declared(with_policy, ManagedBy.FILE, None) == declared(resource(), ManagedBy.FILE, None)


def test_the_resource_uid_and_generation_are_kept_for_kubernetes_alone():
    document = resource()
    document["metadata"] |= {"uid": "5f1d", "generation": 3}
    owned = declared(document, ManagedBy.KUBERNETES, None)
    assert (owned.resource_uid, owned.generation) == ("5f1d", 3)
    from_file = declared(document, ManagedBy.FILE, None)
    assert (from_file.resource_uid, from_file.generation) == (None, None)


def test_a_null_counts_as_absent_as_it_does_for_the_api_server():
    document = resource()
    document["spec"] |= {
        "vectorType": None,
        "index": None,
        "owner": None,
        "paused": None,
        "collectionName": None,
    }
    assert declared(document, ManagedBy.FILE, None) == declared(resource(), ManagedBy.FILE, None)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        pytest.param(
            {"index": {"maxConnections": 1}},
            InvalidInput,
            "spec.index.maxConnections is 1; it must be from 2 to 512",
            id="index setting out of bounds",
        ),
        pytest.param(
            {"index": {"efSearch": "50"}},
            WrongShape,
            "spec.index.efSearch is '50'; it must be an integer from 1 to 1000",
            id="index setting as text",
        ),
        pytest.param(
            {"index": {"max_connections": 16}},
            WrongShape,
            "spec.index has an unknown field 'max_connections'; "
            "known: maxConnections, efConstruction, efSearch, maxLayer",
            id="index setting in the manifest's spelling",
        ),
        pytest.param({"index": [16]}, WrongShape, "spec.index is list; it must be a mapping", id="a list"),
        pytest.param({"dimension": None}, WrongShape, "spec.dimension is missing", id="no dimension"),
        pytest.param(
            {"dimension": 0},
            InvalidInput,
            "spec.dimension is 0; it must be from 1 to 65536",
            id="dimension 0",
        ),
        pytest.param(
            {"dimension": 65537},
            InvalidInput,
            "spec.dimension is 65537; it must be from 1 to 65536",
            id="dimension too large",
        ),
        pytest.param(
            {"dimension": True},
            WrongShape,
            "spec.dimension is True; it must be an integer from 1 to 65536",
            id="dimension a boolean",
        ),
        pytest.param({"distanceMetric": None}, WrongShape, "spec.distanceMetric is missing", id="no metric"),
        pytest.param(
            {"distanceMetric": "cosine"},
            InvalidInput,
            "spec.distanceMetric 'cosine' is not one of Cosine, Euclidean, DotProduct, Manhattan",
            id="metric in lower case",
        ),
        pytest.param(
            {"vectorType": "Float64"},
            InvalidInput,
            "spec.vectorType 'Float64' is not one of Float32, Float16, Int8",
            id="unknown vector type",
        ),
        pytest.param(
            {"deletionPolicy": "Orphan"},
            InvalidInput,
            "spec.deletionPolicy 'Orphan' is not one of Retain, Delete",
            id="unknown deletion policy",
        ),
        pytest.param(
            {"paused": "yes"}, WrongShape, "spec.paused is str; it must be true or false", id="paused as text"
        ),
        pytest.param({"owner": 7}, WrongShape, "spec.owner is int; it must be a string", id="int owner"),
        pytest.param(
            {"owner": "x" * 257},
            InvalidInput,
            "spec.owner has 257 characters; at most 256",
            id="owner too long",
        ),
        pytest.param(
            {"payloadIndexes": {"tenant": "keyword"}},
            WrongShape,
            "spec.payloadIndexes is dict; it must be a list of field and type",
            id="payload indexes a mapping",
        ),
        pytest.param(
            {"payloadIndexes": [{"field": "a", "type": "keyword"}, {"field": "a", "type": "float"}]},
            InvalidInput,
            "spec.payloadIndexes[1].field 'a' is named twice",
            id="payload index twice",
        ),
        pytest.param(
            {"payloadIndexes": [{"field": "a", "type": "tree"}]},
            InvalidInput,
            "spec.payloadIndexes[0].type 'tree' is not one of keyword, integer, float, boolean, datetime, "
            "text",
            id="payload index of unknown type",
        ),
        pytest.param(
            {"payloadIndexes": [{"field": "a"}]},
            WrongShape,
            "spec.payloadIndexes[0].type is missing",
            id="payload index without a type",
        ),
        pytest.param(
            {"payloadIndexes": [{"field": f"f{i}", "type": "float"} for i in range(65)]},
            InvalidInput,
            "spec.payloadIndexes has 65 entries; at most 64",
            id="too many payload indexes",
        ),
        pytest.param(
            {"shards": 2},
            WrongShape,
            "spec has an unknown field 'shards'; known: dimension, distanceMetric, vectorType, index, "
            "payloadIndexes, aliases, owner, collectionName, engine, deletionPolicy, paused",
            id="unknown field",
        ),
        pytest.param(
            {"aliases": "docs"}, WrongShape, "spec.aliases is str; it must be a list of names", id="no list"
        ),
        pytest.param(
            {"aliases": [1]}, WrongShape, "spec.aliases[0] is int; it must be a string", id="no name"
        ),
        pytest.param(
            {"aliases": ["docs", "import"]},
            InvalidInput,
            "spec.aliases[1] 'import' is not legal: 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or "
            "digit, and not wal, deleted, restore, import or cleanup",
            id="reserved alias",
        ),
        pytest.param(
            {"aliases": ["docs", "docs"]}, InvalidInput, "spec.aliases[1] 'docs' is named twice", id="twice"
        ),
        pytest.param(
            {"aliases": ["notes"], "collectionName": "notes"},
            InvalidInput,
            "spec.aliases[0] 'notes' is the collection's own name",
            id="its own name",
        ),
        pytest.param(
            {"aliases": [f"a{i}" for i in range(65)]},
            InvalidInput,
            "spec.aliases has 65 entries; at most 64",
            id="too many aliases",
        ),
    ],
)
def test_a_bad_spec_is_refused_naming_the_field_and_the_limit(spec, error, message):
    with pytest.raises(error) as refused:
        parse_resource(resource(**spec))
    assert refused.value.message == message


@pytest.mark.parametrize("name", ["wal", "../up", "a/b", "a\n", "-a", "x" * 65, ""])
def test_a_collection_name_that_is_no_legal_folder_is_refused(name):
    with pytest.raises(InvalidInput, match=r"^spec\.collectionName "):
        parse_resource(resource(collectionName=name))


@pytest.mark.parametrize("name", ["Packages", "my_docs", "a..b", "-a", "a\n", "x" * 254])
def test_a_metadata_name_that_kubernetes_would_refuse_is_refused(name):
    document = resource(collectionName="fine")
    document["metadata"]["name"] = name
    with pytest.raises(InvalidInput, match=r"^metadata\.name "):
        parse_resource(document)


@pytest.mark.parametrize("name", ["my.docs", "restore", "x" * 65])
def test_a_metadata_name_that_is_no_collection_name_needs_a_collection_name(name):
    document = resource()
    document["metadata"]["name"] = name
    with pytest.raises(InvalidInput, match="is not a legal collection name") as refused:
        parse_resource(document)
    assert refused.value.hint == "set spec.collectionName to a legal one"
    document["spec"]["collectionName"] = "docs"
    assert parse_resource(document).collection_name == "docs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"kind": "Vectors"}, "kind 'Vectors'", id="another kind"),
        pytest.param({"apiVersion": "vecstow.dev/v1"}, "apiVersion 'vecstow.dev/v1'", id="another version"),
        pytest.param({"metadata": {}}, "metadata.name is missing", id="no name"),
        pytest.param({"metadata": {"name": 7}}, "metadata.name is int", id="a number as name"),
        pytest.param({"spec": None}, "spec is missing", id="no spec"),
        pytest.param({"spec": []}, "spec is list", id="spec a list"),
        pytest.param({"extra": 1}, "unknown field 'extra'", id="unknown field"),
    ],
)
def test_a_document_of_another_form_is_refused(change, message):
    with pytest.raises(WrongShape) as refused:
        parse_resource(resource() | change)
    assert message in refused.value.message


@pytest.mark.parametrize("document", [None, [], "VectorCollection", 7])
def test_a_document_that_is_no_mapping_is_refused(document):
    with pytest.raises(WrongShape, match="the document is"):
        parse_resource(document)


def existing(**changes):
    manifest = Manifest(
        name="packages",
        dimension=384,
        distance_metric=DistanceMetric.COSINE,
        collection_uid="0123456789abcdef" * 2,
        created_at="2026-01-01T00:00:00Z",
        updated_at="2026-01-02T00:00:00Z",
        unknown={"team": {"cost": 4}},
    )
    return dataclasses.replace(manifest, **changes)


def test_a_merge_keeps_identity_times_and_unknown_keys_and_takes_the_declared_rest():
    old = existing(owner="before", managed_by=ManagedBy.API)
    merged = declared(resource(index={"efSearch": 80}, owner="after"), ManagedBy.FILE, old)
    assert merged == existing(
        owner="after", managed_by=ManagedBy.FILE, index_config=IndexConfig(ef_search=80)
    )


def test_applying_the_same_again_gives_an_equal_manifest():
    once = declared(resource(**FULL_SPEC), ManagedBy.FILE, None)
    assert declared(resource(**FULL_SPEC), ManagedBy.FILE, once) == once


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"dimension": 768}, "spec.dimension is 768, but it has 384", id="dimension"),
        pytest.param(
            {"distanceMetric": "Manhattan"},
            "spec.distanceMetric is Manhattan, but it has Cosine",
            id="metric",
        ),
        pytest.param({"vectorType": "Int8"}, "spec.vectorType is Int8, but it has Float32", id="vector type"),
        pytest.param(
            {"dimension": 1, "vectorType": "Int8"},
            "spec.dimension is 1, but it has 384; spec.vectorType is Int8, but it has Float32",
            id="two at once",
        ),
    ],
)
def test_another_shape_is_a_conflict_that_names_the_field(spec, message):
    with pytest.raises(Conflict) as refused:
        declared(resource(**spec), ManagedBy.FILE, existing())
    assert refused.value.message == f"collection 'packages' exists with another shape: {message}"
    assert refused.value.hint


def test_a_file_does_not_take_a_collection_from_a_kubernetes_resource():
    owned = existing(managed_by=ManagedBy.KUBERNETES, resource_uid="5f1d")
    with pytest.raises(Conflict, match="uid 5f1d"):
        declared(resource(), ManagedBy.FILE, owned)
    assert declared(resource(), ManagedBy.KUBERNETES, owned).managed_by is ManagedBy.KUBERNETES


def test_a_collection_marked_as_dropped_is_not_revived_in_place():
    with pytest.raises(Conflict, match="was dropped at 2026-01-03"):
        declared(resource(), ManagedBy.FILE, existing(dropped_at="2026-01-03T00:00:00Z"))


def test_the_document_is_left_as_it_was():
    document = resource(**FULL_SPEC)
    before = copy.deepcopy(document)
    declared(document, ManagedBy.FILE, None)
    assert document == before


def test_the_module_needs_the_standard_library_alone():
    """The operator imports it, and must not pay for (or have) numpy and msgspec."""
    program = (
        "import sys, vecstow_engine.model.resource\n"
        "print([name for name in ('numpy', 'msgspec', 'yaml') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
