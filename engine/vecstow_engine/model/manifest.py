"""The manifest `metadata.json`: the declared configuration of one collection.

The five keys of schema 0 are exactly d-vecDB's. They come first, in its order, indented by two spaces. Schema
1 adds who declared the collection, and when; schema 2 two types of payload indexes. Unknown keys are kept.
Pure: `storage.manifests` reads and writes files. Format: docs/storage-format.md, "metadata.json".
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from vecstow_engine.model.errors import DamagedFile, InvalidInput, NewerFormat, WrongShape, refused
from vecstow_engine.model.fields import integer, member, refuse_unknown, string, type_name
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import check_collection_name, is_collection_uid

SCHEMA_VERSION: Final = 2
"""The newest schema. A manifest is written in the oldest schema that has all that it says."""
MANIFEST_BYTES_MAX: Final = 256 * 1024
DIMENSION_MAX: Final = 65_536
OWNER_CHARACTERS_MAX: Final = 256
GENERATION_MAX: Final = (1 << 63) - 1
PAYLOAD_INDEXES_MAX: Final = 64
PAYLOAD_FIELD_CHARACTERS_MAX: Final = 256
PAYLOAD_INDEX_TYPES: Final = ("keyword", "integer", "float", "boolean", "datetime", "text")
_TYPES_OF_SCHEMA_2: Final = ("datetime", "text")

INDEX_BOUNDS: Final = {
    "max_connections": (2, 512),
    "ef_construction": (16, 2000),
    "ef_search": (1, 1000),
    "max_layer": (1, 32),
}
"""The inclusive bounds of each index setting, the same as in d-vecDB's client."""


Shape: TypeAlias = tuple[int, DistanceMetric, VectorType]
"""The properties that never change while data exists."""


class ManagedBy(StrEnum):
    """The owner of a collection's declaration, who alone may change it."""

    KUBERNETES = "kubernetes"
    FILE = "file"
    API = "api"


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """Settings of the HNSW graph (Malkov and Yashunin, arXiv:1603.09320)."""

    max_connections: int = 16
    """M: links per node above the lowest layer, which has twice as many."""
    ef_construction: int = 200
    """Size of the candidate list during the insertion of a node."""
    ef_search: int = 50
    """Size of the candidate list during a search, unless the query sets its own."""
    max_layer: int = 16
    """Kept for compatibility with d-vecDB; hnswlib has no such setting."""

    def __post_init__(self) -> None:
        for name, (low, high) in INDEX_BOUNDS.items():
            integer(getattr(self, name), f"index_config.{name}", low, high)


@dataclass(frozen=True, slots=True)
class PayloadIndex:
    """A payload field that is declared as indexed."""

    field: str
    type: str

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or not 1 <= len(self.field) <= PAYLOAD_FIELD_CHARACTERS_MAX:
            raise InvalidInput(
                f"payload_indexes: field {self.field!r} must be a string of 1 to 256 characters",
                details=refused("payload_indexes", self.field, PAYLOAD_FIELD_CHARACTERS_MAX),
            )
        if self.type not in PAYLOAD_INDEX_TYPES:
            raise InvalidInput(
                f"payload_indexes: type {self.type!r} of field {self.field!r} is not one of "
                + ", ".join(PAYLOAD_INDEX_TYPES),
                details=refused("payload_indexes", self.type, list(PAYLOAD_INDEX_TYPES)),
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """The declared configuration of one collection; replace fields with `dataclasses.replace`."""

    name: str
    dimension: int
    distance_metric: DistanceMetric
    vector_type: VectorType = VectorType.FLOAT32
    index_config: IndexConfig = field(default_factory=IndexConfig)
    collection_uid: str | None = None
    """Set at the first write, after the data files are durable: then missing data files are damage."""
    created_at: str | None = None
    updated_at: str | None = None
    owner: str | None = None
    payload_indexes: tuple[PayloadIndex, ...] = ()
    managed_by: ManagedBy = ManagedBy.API
    resource_uid: str | None = None
    generation: int | None = None
    dropped_at: str | None = None
    """The time of a drop (UTC), which marks it: the engine then moves the folder to `.deleted/`."""
    unknown: dict[str, Any] = field(default_factory=dict)
    """Keys that this release does not know, kept unchanged."""

    def __post_init__(self) -> None:
        check_collection_name(self.name)
        integer(self.dimension, "dimension", 1, DIMENSION_MAX)
        if self.owner is not None and len(string(self.owner, "owner")) > OWNER_CHARACTERS_MAX:
            raise InvalidInput(
                f"owner has {len(self.owner)} characters; at most {OWNER_CHARACTERS_MAX} are allowed",
                details=refused("owner", len(self.owner), OWNER_CHARACTERS_MAX),
            )
        if self.collection_uid is not None and not is_collection_uid(self.collection_uid):
            raise InvalidInput(f"collection_uid {self.collection_uid!r} is not 32 lower-case hex digits")
        for name in ("created_at", "updated_at", "resource_uid", "dropped_at"):
            if not isinstance(getattr(self, name), str | None):
                raise WrongShape(f"{name} is {getattr(self, name)!r}; it must be a string or null")
        if self.generation is not None:
            integer(self.generation, "generation", 0, GENERATION_MAX)
        _check_payload_indexes(self.payload_indexes)

    @property
    def schema_version(self) -> int:
        """The oldest schema that has all that the manifest says."""
        return 2 if any(index.type in _TYPES_OF_SCHEMA_2 for index in self.payload_indexes) else 1

    @property
    def shape(self) -> Shape:
        """The properties that never change while data exists."""
        return self.dimension, self.distance_metric, self.vector_type


def parse_metric(value: object) -> DistanceMetric:
    """Return the metric of that exact name; raise InvalidInput, which names the known ones."""
    return member(DistanceMetric, value, "distance_metric")


def parse_vector_type(value: object) -> VectorType:
    """Return the vector type of that exact name; raise InvalidInput, which names the known ones."""
    return member(VectorType, value, "vector_type")


def parse_index_config(value: object) -> IndexConfig:
    """Return settings from a mapping, or the defaults for None; raise WrongShape or InvalidInput."""
    if value is None:
        return IndexConfig()
    if not isinstance(value, dict):
        raise WrongShape(
            f"index_config is {type_name(value)}; it must be an object",
            details=refused("index_config", value),
        )
    refuse_unknown(value, INDEX_BOUNDS, "index_config")
    return IndexConfig(**value)


def parse_payload_indexes(value: object) -> tuple[PayloadIndex, ...]:
    """Return payload indexes from a list of {field, type}; raise WrongShape or InvalidInput."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise WrongShape(
            "payload_indexes must be a list of objects with field and type",
            details=refused("payload_indexes", value),
        )
    for position, item in enumerate(value):
        if not isinstance(item, dict) or set(item) != {"field", "type"}:
            raise WrongShape(
                f"payload_indexes: {item!r} must have exactly field and type",
                details=refused(f"payload_indexes[{position}]", item),
            )
    return tuple(PayloadIndex(field=item["field"], type=item["type"]) for item in value)


def parse_manifest(raw: bytes, file: str = "metadata.json") -> Manifest:
    """Return the manifest in `raw` (UTF-8 JSON); migrate older schemas in memory.

    Raises DamagedFile for bytes that are no manifest or break a limit, and NewerFormat for a later schema.
    """
    document = _decode(raw, file)
    version = document.get("schema_version", 0)
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise DamagedFile(f"schema_version {version!r} is no version", file=file)
    if version > SCHEMA_VERSION:
        raise NewerFormat(
            f"{file} has schema_version {version}; this release reads up to {SCHEMA_VERSION}",
            hint="run the release that wrote it, or a later one",
        )
    try:
        return _from_document(document)
    except KeyError as missing:
        raise DamagedFile(f"key {missing} is missing", file=file) from missing
    except (InvalidInput, TypeError) as broken:
        raise DamagedFile(str(broken), file=file) from broken


def render_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of `metadata.json`: d-vecDB's five keys, then those of schema 1, then unknown ones."""
    document = manifest_document(manifest)
    document.update(manifest.unknown)
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """Return the known keys of a manifest as a JSON-ready mapping, in file order."""
    document: dict[str, Any] = {
        "name": manifest.name,
        "dimension": manifest.dimension,
        "distance_metric": manifest.distance_metric.value,
        "vector_type": manifest.vector_type.value,
        "index_config": {name: getattr(manifest.index_config, name) for name in INDEX_BOUNDS},
        "schema_version": manifest.schema_version,
        "collection_uid": manifest.collection_uid,
        "created_at": manifest.created_at,
        "updated_at": manifest.updated_at,
        "owner": manifest.owner,
        "payload_indexes": [dataclasses.asdict(index) for index in manifest.payload_indexes],
        "managed_by": manifest.managed_by.value,
        "resource_uid": manifest.resource_uid,
        "generation": manifest.generation,
    }
    if manifest.dropped_at is not None:
        document["dropped_at"] = manifest.dropped_at
    return document


_SETTINGS: Final = frozenset(f.name for f in dataclasses.fields(Manifest)) - {"unknown"}
_KNOWN_KEYS: Final = _SETTINGS | {"schema_version"}


def _decode(raw: bytes, file: str) -> dict[str, Any]:
    if len(raw) > MANIFEST_BYTES_MAX:
        raise DamagedFile(f"{len(raw)} bytes; a manifest has at most {MANIFEST_BYTES_MAX}", file=file)
    try:
        document = json.loads(raw)
    except RecursionError:
        raise DamagedFile("not valid JSON: it nests too deep", file=file) from None
    except ValueError as broken:
        raise DamagedFile(f"not valid JSON: {broken}", file=file) from broken
    if not isinstance(document, dict):
        raise DamagedFile("not a JSON object", file=file)
    return document


def _from_document(document: dict[str, Any]) -> Manifest:
    values: dict[str, Any] = {key: document[key] for key in _SETTINGS if key in document}
    values |= {
        "name": document["name"],
        "dimension": document["dimension"],
        "distance_metric": parse_metric(document["distance_metric"]),
        "vector_type": parse_vector_type(document["vector_type"]),
        "index_config": parse_index_config(document["index_config"]),
        "payload_indexes": parse_payload_indexes(document.get("payload_indexes")),
        "managed_by": member(ManagedBy, document.get("managed_by", ManagedBy.API), "managed_by"),
        "unknown": {key: value for key, value in document.items() if key not in _KNOWN_KEYS},
    }
    return Manifest(**values)


def _check_payload_indexes(indexes: tuple[PayloadIndex, ...]) -> None:
    if len(indexes) > PAYLOAD_INDEXES_MAX:
        raise InvalidInput(
            f"payload_indexes has {len(indexes)} entries; at most {PAYLOAD_INDEXES_MAX}",
            details=refused("payload_indexes", len(indexes), PAYLOAD_INDEXES_MAX),
        )
    fields = [index.field for index in indexes]
    for name in fields:
        if fields.count(name) > 1:
            raise InvalidInput(
                f"payload_indexes names field {name!r} twice", details=refused("payload_indexes", name)
            )
