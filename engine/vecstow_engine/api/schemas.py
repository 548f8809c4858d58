"""The bodies and answers of the routes that FastAPI serves, for Pydantic and OpenAPI.

These classes check only names and types of fields. The model (`Manifest`, `parse_metric`, …) checks values,
so that REST, files and resources share one set of limits.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from vecstow_engine.model.fields import refuse_unknown
from vecstow_engine.model.manifest import DIMENSION_MAX

T = TypeVar("T")

DISTANCE_METRICS: list[JsonValue] = ["Cosine", "Euclidean", "DotProduct", "Manhattan"]
VECTOR_TYPES: list[JsonValue] = ["Float32", "Float16", "Int8"]


class Body(BaseModel):
    """A request body: unknown fields and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        if isinstance(value, dict):
            refuse_unknown(value, cls.model_fields)
        return value


class CreateBody(Body):
    """A collection to create."""

    name: str = Field(examples=["docs"], description="1 to 64 of A-Z a-z 0-9 _ -")
    dimension: int = Field(
        examples=[3],
        description="1 to 65536; fixed for good",
        json_schema_extra={"minimum": 1, "maximum": DIMENSION_MAX},
    )
    distance_metric: str = Field(examples=["Cosine"], json_schema_extra={"enum": DISTANCE_METRICS})
    vector_type: str | None = Field(default="Float32", json_schema_extra={"enum": [*VECTOR_TYPES, None]})
    index_config: dict[str, Any] | None = Field(
        default=None,
        description="max_connections 2 to 512, ef_construction 16 to 2000, ef_search 1 to 1000, "
        "max_layer 1 to 32 (kept, has no effect)",
        examples=[{"max_connections": 16, "ef_construction": 200, "ef_search": 50, "max_layer": 16}],
    )
    owner: str | None = None
    payload_indexes: list[dict[str, Any]] | None = Field(
        default=None, examples=[[{"field": "tenant", "type": "keyword"}]]
    )


class AliasBody(Body):
    """The collection that an alias leads to."""

    collection: str = Field(examples=["docs-v2"])


class PayloadIndexesBody(Body):
    """The payload indexes of a collection, in place of the present ones."""

    payload_indexes: list[dict[str, Any]] = Field(
        description="at most 64 of {field, type}; type keyword, integer, float, boolean, datetime or text",
        examples=[[{"field": "tenant", "type": "keyword"}, {"field": "year", "type": "integer"}]],
    )


class RestoreBody(Body):
    """A dropped collection to bring back."""

    backup_path: str = Field(description="`path` as GET /collections/deleted gives it")
    new_name: str | None = None


class CleanupBody(Body):
    """Which dropped collections to remove for good."""

    retention_hours: float = Field(default=24.0, ge=0)


class ImportBody(Body):
    """A folder that d-vecDB wrote, to be copied into a collection."""

    orphaned_path: str
    collection_name: str
    dimension: int = Field(json_schema_extra={"minimum": 1, "maximum": DIMENSION_MAX})
    distance_metric: str = Field(json_schema_extra={"enum": DISTANCE_METRICS})
    vector_type: str = Field(default="Float32", json_schema_extra={"enum": VECTOR_TYPES})


class HoldBody(Body):
    """How long the files shall stay as they are."""

    seconds: float = Field(default=60.0, gt=0, examples=[60])


class RepairBody(Body):
    """Whether to repair, or to say what a repair would do."""

    dry_run: bool = False


class Envelope(BaseModel, Generic[T]):
    """Every answer that succeeded."""

    success: bool = Field(examples=[True])
    data: T
    error: None = None


class ErrorEnvelope(BaseModel):
    """Every answer that did not."""

    success: bool = Field(examples=[False])
    data: None = None
    error: str = Field(examples=["dimension is 0; it must be from 1 to 65536"])
    message: str
    details: dict[str, Any] = Field(
        examples=[{"kind": "InvalidInput", "field": "dimension", "value": 0, "limit": 1}]
    )


class Named(BaseModel):
    """The collection that an operation changed."""

    name: str
    message: str


class Alias(BaseModel):
    """A second name, and the collection that it leads to."""

    alias: str
    collection: str


class BackedUp(BaseModel):
    """Where a backup lies."""

    collection: str
    backup_path: str
    message: str


class Deleted(BaseModel):
    """A dropped collection that can still be restored."""

    name: str
    path: str
    deleted_timestamp: Any
    age_hours: float


class CollectionStats(BaseModel):
    """Sizes in bytes, as d-vecDB's client expects them."""

    name: str
    vector_count: int
    dimension: int
    index_size: int
    memory_usage: int


class ServerStats(BaseModel):
    """Totals, as d-vecDB's client expects them; sizes in bytes."""

    total_vectors: int
    total_collections: int
    memory_usage: int
    disk_usage: int
    uptime_seconds: int


class PayloadIndexState(BaseModel):
    """A declared payload index: whether it answers, and the bytes of memory that it takes."""

    field: str
    type: str
    ready: bool
    bytes: int


class Description(BaseModel):
    """A collection: its manifest and its live facts. More keys may come."""

    model_config = ConfigDict(extra="allow")

    name: str
    dimension: int
    distance_metric: str
    vector_type: str
    index_config: dict[str, int]
    aliases: list[str]
    vector_count: int
    indexed: int
    state: str
    reason: str | None = None
    progress: Any = None
    payload_index_state: list[PayloadIndexState] = []


class Hold(BaseModel):
    """Until when the files stay as they are (RFC 3339)."""

    until: str | None
    message: str
