"""The custom resource `VectorCollection`, and its manifest.

A file, `kubectl apply` and the sidecar all declare collections through these functions. All three therefore
get the same manifest and the same errors, in the resource's own spelling. Pure, with the standard library
only: the command line decodes YAML, and the operator decodes the API server's JSON.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from vecstow_engine.model.aliases import ALIASES_OF_RESOURCE_MAX
from vecstow_engine.model.errors import Conflict, InvalidInput, WrongShape
from vecstow_engine.model.fields import (
    boolean,
    integer,
    mapping,
    member,
    optional,
    refuse_unknown,
    required,
    string,
    type_name,
)
from vecstow_engine.model.manifest import (
    DIMENSION_MAX,
    INDEX_BOUNDS,
    OWNER_CHARACTERS_MAX,
    PAYLOAD_FIELD_CHARACTERS_MAX,
    PAYLOAD_INDEX_TYPES,
    PAYLOAD_INDEXES_MAX,
    IndexConfig,
    ManagedBy,
    Manifest,
    PayloadIndex,
    Shape,
)
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import is_collection_name

API_VERSION: Final = "vecstow.dev/v1alpha1"
KIND: Final = "VectorCollection"
ENGINE_DEFAULT: Final = "vecstow"
METADATA_NAME_CHARACTERS_MAX: Final = 253

INDEX_FIELDS: Final = {
    "maxConnections": "max_connections",
    "efConstruction": "ef_construction",
    "efSearch": "ef_search",
    "maxLayer": "max_layer",
}
"""The fields of `spec.index`, and their names in the manifest."""

_TOP_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_SPEC_FIELDS: Final = (
    "dimension",
    "distanceMetric",
    "vectorType",
    "index",
    "payloadIndexes",
    "aliases",
    "owner",
    "collectionName",
    "engine",
    "deletionPolicy",
    "paused",
)
_NAME_RULE: Final = (
    "1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit, and not wal, deleted, restore, import or "
    "cleanup"
)
_DNS_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_DNS_SUBDOMAIN: Final = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class DeletionPolicy(StrEnum):
    """The fate of the collection when its resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True)
class CollectionResource:
    """A valid `VectorCollection`, with every default filled in."""

    name: str
    """`metadata.name`, a lower-case RFC 1123 subdomain."""
    collection_name: str
    dimension: int
    distance_metric: DistanceMetric
    vector_type: VectorType
    index_config: IndexConfig
    payload_indexes: tuple[PayloadIndex, ...]
    aliases: tuple[str, ...]
    """Second names for the collection."""
    owner: str | None
    engine: str
    deletion_policy: DeletionPolicy
    paused: bool
    uid: str | None
    """`metadata.uid`: absent from a file, set by the API server."""
    generation: int | None

    @property
    def shape(self) -> Shape:
        """The properties that never change while data exists; the same as `Manifest.shape`."""
        return self.dimension, self.distance_metric, self.vector_type


def manifest_from_resource(
    resource: CollectionResource, managed_by: ManagedBy, existing: Manifest | None
) -> Manifest:
    """Return the manifest that the resource declares, merged with the one that exists.

    The uid, the times and the unknown keys of `existing` stay. The caller stamps the times when the result
    differs. Raises Conflict when `existing` has another shape, is marked as dropped, or belongs to a
    Kubernetes resource while `managed_by` is something else.
    """
    owned = managed_by is ManagedBy.KUBERNETES
    wanted = Manifest(
        name=resource.collection_name,
        dimension=resource.dimension,
        distance_metric=resource.distance_metric,
        vector_type=resource.vector_type,
        index_config=resource.index_config,
        owner=resource.owner,
        payload_indexes=resource.payload_indexes,
        managed_by=managed_by,
        resource_uid=resource.uid if owned else None,
        generation=resource.generation if owned else None,
    )
    if existing is None:
        return wanted
    _check_mergeable(wanted, existing)
    return dataclasses.replace(
        wanted,
        collection_uid=existing.collection_uid,
        created_at=existing.created_at,
        updated_at=existing.updated_at,
        unknown=existing.unknown,
    )


def parse_resource(document: Mapping[str, Any], *, strict: bool = True) -> CollectionResource:
    """Return a resource from its decoded YAML or JSON; raise WrongShape or InvalidInput naming the field.

    Documents of the API server are not read `strict`ly. It refuses fields that its definition lacks, so an
    unknown field comes from a newer definition, which may give it a default in every resource.
    """
    document = mapping(document, "the document")
    if document.get("apiVersion") != API_VERSION or document.get("kind") != KIND:
        raise WrongShape(
            f"apiVersion {document.get('apiVersion')!r} with kind {document.get('kind')!r} is not known; "
            f"it must be apiVersion {API_VERSION}, kind {KIND}"
        )
    refuse_unknown(document, _TOP_FIELDS, whole="the document")
    metadata = mapping(required(document, "metadata"), "metadata")
    spec = mapping(required(document, "spec"), "spec")
    if strict:
        refuse_unknown(spec, _SPEC_FIELDS, "spec")
    name = _metadata_name(metadata)
    collection_name = _collection_name(spec, name)
    return CollectionResource(
        name=name,
        collection_name=collection_name,
        dimension=integer(required(spec, "dimension", "spec."), "spec.dimension", 1, DIMENSION_MAX),
        distance_metric=member(
            DistanceMetric, required(spec, "distanceMetric", "spec."), "spec.distanceMetric"
        ),
        vector_type=member(VectorType, optional(spec, "vectorType", VectorType.FLOAT32), "spec.vectorType"),
        index_config=_index_config(optional(spec, "index", {}), strict),
        payload_indexes=_payload_indexes(optional(spec, "payloadIndexes", []), strict),
        aliases=_aliases(optional(spec, "aliases", []), collection_name),
        owner=_owner(spec.get("owner")),
        engine=_engine(optional(spec, "engine", ENGINE_DEFAULT)),
        deletion_policy=member(
            DeletionPolicy, optional(spec, "deletionPolicy", DeletionPolicy.RETAIN), "spec.deletionPolicy"
        ),
        paused=boolean(optional(spec, "paused", False), "spec.paused"),
        uid=metadata.get("uid"),
        generation=metadata.get("generation"),
    )


def _check_mergeable(wanted: Manifest, existing: Manifest) -> None:
    name = existing.name
    if existing.dropped_at is not None:
        raise Conflict(
            f"collection {name!r} was dropped at {existing.dropped_at} and still lies in its folder",
            collection=name,
            hint="the engine moves it to .deleted/ when it runs; then apply again",
        )
    if existing.managed_by is ManagedBy.KUBERNETES and wanted.managed_by is not ManagedBy.KUBERNETES:
        raise Conflict(
            f"collection {name!r} belongs to the Kubernetes resource with uid {existing.resource_uid}",
            collection=name,
            hint="change that resource instead: kubectl edit vcol",
        )
    fixed = (
        ("spec.dimension", wanted.dimension, existing.dimension),
        ("spec.distanceMetric", wanted.distance_metric.value, existing.distance_metric.value),
        ("spec.vectorType", wanted.vector_type.value, existing.vector_type.value),
    )
    differences = [f"{field} is {new}, but it has {old}" for field, new, old in fixed if new != old]
    if differences:
        raise Conflict(
            f"collection {name!r} exists with another shape: {'; '.join(differences)}",
            collection=name,
            hint="a shape never changes: declare another spec.collectionName, or drop this collection first",
        )


def _metadata_name(metadata: Mapping[str, Any]) -> str:
    name = string(required(metadata, "name", "metadata."), "metadata.name")
    if len(name) > METADATA_NAME_CHARACTERS_MAX or _DNS_SUBDOMAIN.fullmatch(name) is None:
        raise InvalidInput(
            f"metadata.name {name[:80]!r} is not legal: lower-case letters, digits, '-' and '.', "
            f"at most {METADATA_NAME_CHARACTERS_MAX}, beginning and ending with a letter or digit",
            hint="spec.collectionName may have upper-case letters and '_'",
        )
    return name


def _collection_name(spec: Mapping[str, Any], metadata_name: str) -> str:
    given = spec.get("collectionName")
    field = "metadata.name" if given is None else "spec.collectionName"
    name = metadata_name if given is None else string(given, field)
    if not is_collection_name(name):
        raise InvalidInput(
            f"{field} {name[:80]!r} is not a legal collection name: {_NAME_RULE}",
            hint="set spec.collectionName to a legal one" if given is None else None,
        )
    return name


def _index_config(value: object, strict: bool) -> IndexConfig:
    index = mapping(value, "spec.index")
    if strict:
        refuse_unknown(index, INDEX_FIELDS, "spec.index")
    return IndexConfig(
        **{
            key: integer(index[field], f"spec.index.{field}", *INDEX_BOUNDS[key])
            for field, key in INDEX_FIELDS.items()
            if index.get(field) is not None
        }
    )


def _payload_indexes(value: object, strict: bool) -> tuple[PayloadIndex, ...]:
    if not isinstance(value, list):
        raise WrongShape(f"spec.payloadIndexes is {type_name(value)}; it must be a list of field and type")
    if len(value) > PAYLOAD_INDEXES_MAX:
        raise InvalidInput(f"spec.payloadIndexes has {len(value)} entries; at most {PAYLOAD_INDEXES_MAX}")
    indexes: dict[str, PayloadIndex] = {}
    for position, item in enumerate(value):
        index = _payload_index(item, f"spec.payloadIndexes[{position}]", strict)
        if index.field in indexes:
            raise InvalidInput(f"spec.payloadIndexes[{position}].field {index.field!r} is named twice")
        indexes[index.field] = index
    return tuple(indexes.values())


def _payload_index(value: object, where: str, strict: bool) -> PayloadIndex:
    item = mapping(value, where)
    if strict:
        refuse_unknown(item, ("field", "type"), where)
    field = string(required(item, "field", f"{where}."), f"{where}.field")
    if not 1 <= len(field) <= PAYLOAD_FIELD_CHARACTERS_MAX:
        raise InvalidInput(
            f"{where}.field has {len(field)} characters; 1 to {PAYLOAD_FIELD_CHARACTERS_MAX} are allowed"
        )
    kind = required(item, "type", f"{where}.")
    if kind not in PAYLOAD_INDEX_TYPES:
        raise InvalidInput(f"{where}.type {kind!r} is not one of {', '.join(PAYLOAD_INDEX_TYPES)}")
    return PayloadIndex(field=field, type=kind)


def _aliases(value: object, collection_name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise WrongShape(f"spec.aliases is {type_name(value)}; it must be a list of names")
    if len(value) > ALIASES_OF_RESOURCE_MAX:
        raise InvalidInput(f"spec.aliases has {len(value)} entries; at most {ALIASES_OF_RESOURCE_MAX}")
    names: list[str] = []
    for position, item in enumerate(value):
        field = f"spec.aliases[{position}]"
        name = string(item, field)
        if not is_collection_name(name):
            raise InvalidInput(f"{field} {name[:80]!r} is not legal: {_NAME_RULE}")
        if name == collection_name:
            raise InvalidInput(f"{field} {name!r} is the collection's own name")
        if name in names:
            raise InvalidInput(f"{field} {name!r} is named twice")
        names.append(name)
    return tuple(names)


def _owner(value: object) -> str | None:
    if value is None:
        return None
    owner = string(value, "spec.owner")
    if len(owner) > OWNER_CHARACTERS_MAX:
        raise InvalidInput(f"spec.owner has {len(owner)} characters; at most {OWNER_CHARACTERS_MAX}")
    return owner


def _engine(value: object) -> str:
    engine = string(value, "spec.engine")
    if _LABEL_VALUE.fullmatch(engine) is None:
        raise InvalidInput(
            f"spec.engine {engine[:80]!r} is not legal: 1 to 63 of A-Z a-z 0-9 - _ ., "
            "beginning and ending with a letter or digit"
        )
    return engine
