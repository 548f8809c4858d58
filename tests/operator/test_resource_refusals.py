"""A wrong declaration is refused in words that name the field and its limit; one just within is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.declaring import Document, Refused, Resources, declaring
from tests.operator.site import collection

LABEL_OF_ENGINE = "engine must be 1 to 63 of A-Z a-z 0-9 - _ ., beginning and ending with a letter or digit"
NAME_OF_COLLECTION = "collectionName must be 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit"
NO_COLLECTION_NAME = (
    "spec.collectionName: Invalid value: metadata.name is no legal collection name (at most 64 of a-z 0-9 -, "
    "and not wal, deleted, restore, import or cleanup): set spec.collectionName to a legal one"
)
RESERVED = "collectionName is reserved: wal, deleted, restore, import and cleanup cannot be used"
BOUNDS = [
    ("dimension", 1, 65_536),
    ("index.maxConnections", 2, 512),
    ("index.efConstruction", 16, 2000),
    ("index.efSearch", 1, 1000),
    ("index.maxLayer", 1, 32),
]
METRICS = '"Cosine", "Euclidean", "DotProduct", "Manhattan"'
ENUMERATIONS = [
    ("distanceMetric", METRICS, ("cosine", "COSINE", "L2", "")),
    ("vectorType", '"Float32", "Float16", "Int8"', ("float32", "Float64", "")),
    ("deletionPolicy", '"Retain", "Delete"', ("delete", "Orphan", "")),
]
PAYLOAD_TYPES = '"keyword", "integer", "float", "boolean", "datetime", "text"'


@pytest.fixture(scope="module")
def resources(cluster: ControlPlane) -> Iterator[Resources]:
    """With two that are there: `plain` has nothing but what it must, `full` all that never changes."""
    with declaring(cluster) as declared:
        declared.create(collection("plain"))
        declared.create(collection("full", vectorType="Float16", collectionName="docs", engine="other"))
        yield declared


def having(path: str, value: Any) -> Document:
    """A resource with one field so: `a.b` is b of a."""
    field, _, inner = path.partition(".")
    return collection(**{field: {inner: value} if inner else value})


def lacking(field: str) -> Document:
    document = collection()
    del document["spec"][field]
    return document


def indexing(*entries: Any) -> Document:
    return collection(payloadIndexes=list(entries))


def entry(field: str = "a", type: str = "keyword", **more: Any) -> Document:
    return {"field": field, "type": type} | more


def many(count: int) -> Document:
    return indexing(*(entry(f"field{number}") for number in range(count)))


def holds(spec: Document, wanted: Document) -> bool:
    """Whether it has all of that; what is not wanted may be a default."""
    return all(
        holds(spec[key], value) if isinstance(value, dict) else spec[key] == value
        for key, value in wanted.items()
        if value is not None
    )


# Refused ---------------------------------------------------------------------------------------------------


def is_refused(resources: Resources, document: Document, words: str, *, only_created: bool = False) -> None:
    """By both ways of `kubectl apply`, in these words."""
    for attempt in [resources.try_create] if only_created else [resources.try_create, resources.try_apply]:
        with pytest.raises(Refused) as refused:
            attempt(document)
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(having(path, value), f"spec.{path} in body should be {words}", id=f"{path}={value}")
        for path, low, high in BOUNDS
        for value, words in (
            (low - 1, f"greater than or equal to {low}"),
            (-(2**40), f"greater than or equal to {low}"),
            (high + 1, f"less than or equal to {high}"),
            (2**40, f"less than or equal to {high}"),
        )
    ],
)
def test_number_out_of_bounds_is_refused(resources: Resources, document: Document, words: str) -> None:
    is_refused(resources, document, words)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(
            having(field, value),
            f'spec.{field}: Unsupported value: "{value}": supported values: {known}',
            id=f"{field}={value!r}",
        )
        for field, known, values in ENUMERATIONS
        for value in values
    ]
    + [
        pytest.param(
            indexing(entry(type=kind)),
            f'spec.payloadIndexes[0].type: Unsupported value: "{kind}": supported values: {PAYLOAD_TYPES}',
            id=f"type={kind!r}",
        )
        for kind in ("Keyword", "tree", "")
    ],
)
def test_unknown_word_is_refused_with_the_known_ones(
    resources: Resources, document: Document, words: str
) -> None:
    is_refused(resources, document, words)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(lacking("dimension"), "spec.dimension: Required value", id="no dimension"),
        pytest.param(lacking("distanceMetric"), "spec.distanceMetric: Required value", id="no metric"),
        pytest.param(
            {key: value for key, value in collection().items() if key != "spec"},
            "spec: Required value",
            id="no spec",
        ),
        pytest.param(
            indexing({"field": "a"}), "spec.payloadIndexes[0].type: Required value", id="no type of an index"
        ),
        pytest.param(many(65), "spec.payloadIndexes: Too many: 65: must have at most 64 items", id="65"),
        pytest.param(
            indexing(entry("")),
            "spec.payloadIndexes[0].field in body should be at least 1 chars",
            id="empty field",
        ),
        pytest.param(
            indexing(entry("a" * 257)),
            "spec.payloadIndexes[0].field: Too long: may not be more than 256",
            id="long field",
        ),
        pytest.param(
            collection(aliases=[f"a{number}" for number in range(65)]),
            "spec.aliases: Too many: 65: must have at most 64 items",
            id="65 aliases",
        ),
        pytest.param(
            collection(aliases=["a.b"]),
            "an alias must be 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit",
            id="no alias",
        ),
        pytest.param(collection(aliases=["wal"]), "the alias is reserved", id="reserved alias"),
        pytest.param(
            collection(collectionName="own", aliases=["own"]),
            "aliases cannot contain the collection's own name",
            id="its own name",
        ),
        pytest.param(
            collection(owner="a" * 257), "spec.owner: Too long: may not be more than 256", id="long owner"
        ),
    ],
)
def test_too_much_and_too_little_is_refused(resources: Resources, document: Document, words: str) -> None:
    is_refused(resources, document, words)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(
            having(path, value), f"spec.{path} in body must be of type {kind}", id=f"{path}={value!r}"
        )
        for path, value, kind in (
            ("dimension", "4", "integer"),
            ("dimension", 4.5, "int64"),
            ("dimension", True, "int64"),
            ("dimension", 2**63, "int64"),
            ("distanceMetric", ["Cosine"], "string"),
            ("index", [], "object"),
            ("index.efSearch", "50", "integer"),
            ("index.maxLayer", 1.5, "int64"),
            ("payloadIndexes", "a", "array"),
            ("owner", 7, "string"),
            ("collectionName", 7, "string"),
            ("engine", True, "string"),
            ("paused", "true", "boolean"),
            ("paused", 1, "boolean"),
            ("paused", "", "boolean"),
        )
    ]
    + [
        pytest.param({**collection(), "spec": "a"}, "spec in body must be of type object", id="spec='a'"),
        pytest.param(indexing("a"), "spec.payloadIndexes[0] in body must be of type object", id="entry='a'"),
    ],
)
def test_wrong_type_is_refused(resources: Resources, document: Document, words: str) -> None:
    """Server-side apply refuses them, too, in words of its own."""
    is_refused(resources, document, words, only_created=True)
    with pytest.raises(Refused):
        resources.try_apply(document)


@pytest.mark.parametrize(
    ("document", "field", "applied"),
    [
        pytest.param(collection(metric="Cosine"), "spec.metric", ".spec.metric", id="of the spec"),
        pytest.param(collection(Paused=True), "spec.Paused", ".spec.Paused", id="in another case"),
        pytest.param(having("index.M", 8), "spec.index.M", ".spec.index.M", id="of the index"),
        pytest.param(
            indexing(entry(unique=True)),
            "spec.payloadIndexes[0].unique",
            '.spec.payloadIndexes[field="a"].unique',
            id="of a payload index",
        ),
        pytest.param({**collection(), "data": {}}, "data", ".data", id="beside the spec"),
        pytest.param(
            {**collection(), "status": {"phase": "Ready"}},
            "status.phase",
            ".status.phase",
            id="of the status",
        ),
    ],
)
def test_unknown_field_is_refused(resources: Resources, document: Document, field: str, applied: str) -> None:
    is_refused(resources, document, f'unknown field "{field}"', only_created=True)
    with pytest.raises(Refused) as refused:
        resources.try_apply(document)
    assert f"{applied}: field not declared in schema" in str(refused.value)


def test_payload_field_named_twice_is_refused(resources: Resources) -> None:
    document = indexing(entry("a", "float"), entry("b"), entry("a"))
    is_refused(
        resources, document, 'spec.payloadIndexes[2]: Duplicate value: {"field":"a"}', only_created=True
    )
    with pytest.raises(Refused) as refused:
        resources.try_apply(document)
    assert 'spec.payloadIndexes: duplicate entries for key [field="a"]' in str(refused.value)


def test_alias_named_twice_is_refused(resources: Resources) -> None:
    document = collection(aliases=["a", "a"])
    is_refused(resources, document, 'spec.aliases[1]: Duplicate value: "a"', only_created=True)
    with pytest.raises(Refused) as refused:
        resources.try_apply(document)
    assert "spec.aliases: duplicate entries for key" in str(refused.value)


def test_payload_index_without_a_field_is_refused(resources: Resources) -> None:
    document = indexing({"type": "keyword"})
    is_refused(resources, document, "spec.payloadIndexes[0].field: Required value", only_created=True)
    with pytest.raises(Refused) as refused:
        resources.try_apply(document)
    assert 'omits all key fields ["field"]' in str(refused.value)


# Names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(name, NO_COLLECTION_NAME, id=repr(name))
        for name in ("wal", "deleted", "restore", "import", "cleanup", "a.b", "a" * 65, "a" * 253)
    ]
    + [
        pytest.param(name, "metadata.name: Invalid value", id=repr(name))
        for name in ("Notes", "my_notes", "-a", "a-", ".a", "a..b", "é", "a" * 254)
    ],
)
def test_name_of_a_resource_is_refused(resources: Resources, name: str, words: str) -> None:
    is_refused(resources, collection(name), words)


@pytest.mark.parametrize("name", ["a\n", "\na", "a b", "a/b"], ids=repr)
def test_name_that_fits_no_address_is_refused(resources: Resources, name: str) -> None:
    is_refused(resources, collection(name), "metadata.name: Invalid value", only_created=True)


def test_resource_without_a_name_is_refused(resources: Resources) -> None:
    is_refused(resources, collection(""), "name or generateName is required", only_created=True)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        pytest.param("collectionName", name, NAME_OF_COLLECTION, id=f"collectionName={name!r}")
        for name in ("", "-a", "_a", "a.b", "a b", "é", "../a", ".deleted", "a\n", "\na", "a\nb")
    ]
    + [
        pytest.param("collectionName", name, RESERVED, id=f"collectionName={name!r}")
        for name in ("wal", "deleted", "restore", "import", "cleanup")
    ]
    + [
        pytest.param("engine", name, LABEL_OF_ENGINE, id=f"engine={name!r}")
        for name in ("", "-a", "a-", "_a", "a_", ".a", "a.", "a b", "a/b", "é", "a\n")
    ],
)
def test_bad_name_is_refused_with_what_a_good_one_is(
    resources: Resources, field: str, value: str, words: str
) -> None:
    said = json.dumps(value, ensure_ascii=False)
    is_refused(resources, having(field, value), f"spec.{field}: Invalid value: {said}: {words}")


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        pytest.param("collectionName", "a" * 65, 64, id="collectionName of 65"),
        pytest.param("collectionName", "a" * 1000, 64, id="collectionName of 1000"),
        pytest.param("engine", "a" * 64, 63, id="engine of 64"),
    ],
)
def test_long_name_is_refused(resources: Resources, field: str, value: str, limit: int) -> None:
    is_refused(resources, having(field, value), f"spec.{field}: Too long: may not be more than {limit}")


# What never changes ----------------------------------------------------------------------------------------

UNALTERED = "collectionName can be neither set nor removed once the resource is there: make another resource"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        pytest.param("plain", {"dimension": 8}, "dimension is immutable", id="dimension changed"),
        pytest.param("plain", {"dimension": None}, "spec.dimension: Required value", id="dimension removed"),
        pytest.param(
            "plain", {"distanceMetric": "Euclidean"}, "distanceMetric is immutable", id="metric changed"
        ),
        pytest.param("plain", {"distanceMetric": None}, "spec.distanceMetric: Required", id="metric removed"),
        pytest.param("plain", {"vectorType": "Int8"}, "vectorType is immutable", id="vector type set"),
        pytest.param("full", {"vectorType": "Float32"}, "vectorType is immutable", id="vector type changed"),
        pytest.param("full", {"vectorType": None}, "vectorType is immutable", id="vector type removed"),
        pytest.param("plain", {"collectionName": "docs"}, UNALTERED, id="collection name set"),
        pytest.param("plain", {"collectionName": "plain"}, UNALTERED, id="collection name set to the same"),
        pytest.param(
            "full", {"collectionName": "notes"}, "collectionName is immutable", id="collection name changed"
        ),
        pytest.param("full", {"collectionName": None}, UNALTERED, id="collection name removed"),
        pytest.param("plain", {"engine": "other"}, "engine is immutable", id="engine set"),
        pytest.param("full", {"engine": "vecstow"}, "engine is immutable", id="engine changed"),
        pytest.param("full", {"engine": None}, "engine is immutable", id="engine removed"),
    ],
)
def test_change_of_what_never_changes_is_refused(
    resources: Resources, name: str, change: Document, words: str
) -> None:
    with pytest.raises(Refused) as refused:
        resources.try_merge(name, change)
    assert words in str(refused.value)


def test_replacement_that_leaves_out_what_never_changes_is_refused(resources: Resources) -> None:
    with pytest.raises(Refused) as refused:
        resources.try_replace(collection("full"))
    for words in (UNALTERED, "vectorType is immutable", "engine is immutable"):
        assert words in str(refused.value)
    assert resources.try_replace(collection("plain", owner="me"))["spec"]["owner"] == "me"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("plain", {"vectorType": "Float32", "engine": "vecstow"}, id="defaults written out"),
        pytest.param(
            "plain", {"vectorType": None, "engine": None, "collectionName": None}, id="defaults again"
        ),
        pytest.param(
            "full", {"vectorType": "Float16", "collectionName": "docs", "engine": "other"}, id="the same"
        ),
        pytest.param("full", {"index": {"maxConnections": 32, "efSearch": 100}}, id="index settings"),
        pytest.param("full", {"payloadIndexes": [entry("a"), entry("b", "float")]}, id="payload indexes"),
        pytest.param(
            "full", {"owner": "search-team", "deletionPolicy": "Delete", "paused": True}, id="the others"
        ),
    ],
)
def test_other_changes_are_taken(resources: Resources, name: str, change: Document) -> None:
    assert holds(resources.try_merge(name, change)["spec"], change)


# Just within -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(having(path, value), id=f"{path}={value}")
        for path, low, high in BOUNDS
        for value in (low, high)
    ]
    + [
        pytest.param(having("distanceMetric", metric), id=metric)
        for metric in ("Cosine", "Euclidean", "DotProduct", "Manhattan")
    ]
    + [pytest.param(having("vectorType", kind), id=kind) for kind in ("Float32", "Float16", "Int8")]
    + [
        pytest.param(indexing(entry(type=kind)), id=f"type={kind}")
        for kind in ("keyword", "integer", "float", "boolean", "datetime", "text")
    ]
    + [
        pytest.param(collection(collectionName=name), id=f"collectionName of {len(name)}: {name[:8]}")
        for name in ("a", "0", "A_b-", "a" * 64, "WAL", "Deleted", "walrus")
    ]
    + [
        pytest.param(collection(engine=name), id=f"engine of {len(name)}: {name[:8]}")
        for name in ("a", "A.b_c-0", "a" * 63)
    ]
    + [
        pytest.param(many(64), id="64 payload indexes"),
        pytest.param(indexing(), id="no payload index"),
        pytest.param(indexing(entry("a"), entry("A")), id="fields that differ by case"),
        pytest.param(indexing(entry("a" * 256)), id="payload field of 256"),
        pytest.param(indexing(entry("é" * 256)), id="payload field of 256 characters in 512 bytes"),
        pytest.param(collection(owner="a" * 256), id="owner of 256"),
        pytest.param(collection(owner=""), id="owner of nothing"),
        pytest.param(collection(deletionPolicy="Delete", paused=True), id="deletionPolicy and paused"),
        pytest.param(collection("a" * 64), id="name of 64"),
        pytest.param(collection("a" * 253, collectionName="a"), id="name of 253"),
        pytest.param(collection("wal", collectionName="my_wal"), id="reserved name with another"),
        pytest.param(collection("a.b", collectionName="a_b"), id="name with a dot with another"),
        pytest.param(collection("0"), id="name of a digit"),
        pytest.param({**collection(), "status": {}}, id="status of nothing"),
    ],
)
def test_what_is_within_the_bounds_is_taken(resources: Resources, document: Document) -> None:
    resources.try_apply(document)
    assert holds(resources.try_create(document)["spec"], document["spec"])


def test_name_that_the_api_server_makes_up_is_taken(resources: Resources) -> None:
    document = collection() | {"metadata": {"generateName": "notes-"}}
    assert resources.try_create(document)["metadata"]["name"].startswith("notes-")


def test_whole_number_with_a_point_is_taken_as_one(resources: Resources) -> None:
    assert resources.try_create(collection(dimension=8.0))["spec"]["dimension"] == 8
