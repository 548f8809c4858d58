"""One `VectorCollection` as the API server gave it: what decisions need of it, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vecstow_engine.model.resource import ENGINE_DEFAULT, CollectionResource, DeletionPolicy, parse_resource
from vecstow_operator.vocabulary import FINALIZER, Annotation


@dataclass(frozen=True, slots=True)
class Loss:
    """Vectors that a repaired collection lacks, until somebody acknowledges it."""

    collection_uid: str
    """The incarnation that the repair made."""
    counted: int
    """The last count before."""
    missing: int | None = None
    """None until the incarnation is served and counted."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the status says that the collection has had: it survives the volume."""

    collection_uid: str | None = None
    volume_id: str | None = None
    vector_count: int = 0
    loss: Loss | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One resource of a complete list."""

    name: str
    uid: str
    generation: int
    created_at: str
    """RFC 3339 in UTC, so that text compares as time does."""
    document: Mapping[str, Any]
    """What `manifest_from_resource` takes."""
    annotations: Mapping[str, str]
    is_deleting: bool
    has_finalizer: bool
    """Ours."""
    known: Known

    @property
    def collection_name(self) -> str:
        """The name that it wants, legal or not."""
        return str(self.document["spec"].get("collectionName") or self.name)

    @property
    def engine(self) -> str:
        """The engine that it wants."""
        return str(self.document["spec"].get("engine") or ENGINE_DEFAULT)

    @property
    def is_paused(self) -> bool:
        """Whether nothing of it is to be reconciled."""
        return self.document["spec"].get("paused") is True

    @property
    def is_retained(self) -> bool:
        """Whether the collection stays when the resource goes."""
        return bool(self.document["spec"].get("deletionPolicy") != DeletionPolicy.DELETE.value)

    @property
    def age(self) -> tuple[str, str]:
        """Sorts the oldest first."""
        return self.created_at, self.uid

    def parsed(self) -> CollectionResource:
        """Raises InvalidInput or WrongShape for what the API server let through."""
        return parse_resource(self.document, strict=False)

    @property
    def acknowledged(self) -> list[str]:
        """Folders in `.quarantine/`, and uids of repaired collections, that somebody has looked at."""
        return [name for name in self.annotations.get(Annotation.ACKNOWLEDGED, "").split(",") if name]

    def accepts_loss_of(self, collection_uid: str) -> bool:
        """Whether somebody said that this incarnation need not come back."""
        return self.annotations.get(Annotation.ACCEPT_EMPTY) == collection_uid

    def is_other_than_known(self, collection_uid: str | None, volume_id: str | None) -> bool:
        """Whether another collection is on another volume, and nobody accepted that the known one is lost.

        Repair gives another uid, and a copy may lie on another volume; both at once are another's.
        """
        known = self.known
        if None in (collection_uid, known.collection_uid, known.volume_id):
            return False
        is_other = collection_uid != known.collection_uid and volume_id != known.volume_id
        return is_other and not self.accepts_loss_of(str(known.collection_uid))

    @property
    def has_lost_data(self) -> bool:
        """Whether data of its own would be missing if it began without, and nobody accepted that."""
        uid = self.known.collection_uid
        return uid is not None and not self.accepts_loss_of(uid)

    def may_replace(self, collection: str) -> bool:
        """Whether the collection with this mark (`sidecar.decision.mark_of`) may be dropped for it."""
        return self.annotations.get(Annotation.REPLACE) == collection


def observed(document: Mapping[str, Any]) -> Observed:
    """From the API server's JSON, which may lack what no schema filled in."""
    metadata = document["metadata"]
    status = document.get("status") or {}
    return Observed(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        created_at=metadata.get("creationTimestamp") or "",
        document={
            "apiVersion": document.get("apiVersion"),
            "kind": document.get("kind"),
            "metadata": {key: metadata.get(key) for key in ("name", "uid", "generation")},
            "spec": document.get("spec") or {},
        },
        annotations=metadata.get("annotations") or {},
        is_deleting=metadata.get("deletionTimestamp") is not None,
        has_finalizer=FINALIZER in (metadata.get("finalizers") or ()),
        known=Known(
            collection_uid=status.get("collectionUid"),
            volume_id=status.get("volumeId"),
            vector_count=status.get("vectorCount") or 0,
            loss=_loss(status.get("loss")),
        ),
    )


def _loss(document: Mapping[str, Any] | None) -> Loss | None:
    if document is None:
        return None
    return Loss(document["collectionUid"], document["counted"], document.get("missing"))


def finalizers(found: Iterable[str], *, held: bool) -> list[str]:
    """A resource's finalizers with or without ours; those of others stay as they are."""
    others = [name for name in found if name != FINALIZER]
    return [*others, FINALIZER] if held else others
