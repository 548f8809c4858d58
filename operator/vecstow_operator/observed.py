"""One `VectorCollection` of the API server, as decisions see it, and reports on it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.resource import ENGINE_DEFAULT, CollectionResource, DeletionPolicy, parse_resource
from vecstow_operator.vocabulary import FINALIZER, Annotation, Reason

log = logging.getLogger(__name__)
"""The standard logger: `kubectl vecstow` imports this module, and configures no log."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Vectors that a repaired collection lacks, until a person acknowledges the loss."""

    collection_uid: str
    """The incarnation that the repair made."""
    counted: int
    """The last count before the repair."""
    missing: int | None = None
    """None until the incarnation is served and counted."""


@dataclass(frozen=True, slots=True)
class Known:
    """The data that the collection has had, by the resource's status, which survives the volume."""

    collection_uid: str | None = None
    volume_id: str | None = None
    vector_count: int = 0
    loss: Loss | None = None


@dataclass(frozen=True, slots=True)
class InvalidResource:
    """A declaration that the API server accepted and that breaks a rule."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Observed:
    """One resource of a complete list."""

    name: str
    uid: str
    generation: int
    created_at: str
    """RFC 3339 in UTC, so that text compares as time does."""
    spec: Mapping[str, Any]
    """As written, valid or not."""
    declared: CollectionResource | InvalidResource
    """The spec, parsed."""
    annotations: Mapping[str, str]
    is_deleting: bool
    has_finalizer: bool
    """Whether it has Vecstow's finalizer."""
    known: Known

    @property
    def collection_name(self) -> str:
        """The name that it claims, legal or not."""
        return str(self.spec.get("collectionName") or self.name)

    @property
    def engine(self) -> str:
        """The engine that it refers to."""
        return str(self.spec.get("engine") or ENGINE_DEFAULT)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that it declares; none when it is invalid."""
        return self.declared.aliases if isinstance(self.declared, CollectionResource) else ()

    @property
    def is_paused(self) -> bool:
        """Whether reconciliation is paused."""
        return self.spec.get("paused") is True

    @property
    def is_retained(self) -> bool:
        """Whether the collection stays when the resource goes."""
        return bool(self.spec.get("deletionPolicy") != DeletionPolicy.DELETE.value)

    @property
    def age(self) -> tuple[str, str]:
        """A key that sorts the oldest resource first."""
        return self.created_at, self.uid

    @property
    def acknowledged(self) -> list[str]:
        """Folders in `.quarantine/`, and uids of repaired collections, that a person has looked at."""
        return [name for name in self.annotations.get(Annotation.ACKNOWLEDGED, "").split(",") if name]

    def accepts_loss_of(self, collection_uid: str) -> bool:
        """Whether a person accepted the loss of this incarnation."""
        return self.annotations.get(Annotation.ACCEPT_EMPTY) == collection_uid

    def is_other_than_known(self, collection_uid: str | None, volume_id: str | None) -> bool:
        """Whether another collection is on another volume, and the loss of the known one is not accepted.

        A repair changes the uid alone, and a copy the volume alone. A foreign collection differs in both.
        """
        known = self.known
        if None in (collection_uid, known.collection_uid, known.volume_id):
            return False
        is_other = collection_uid != known.collection_uid and volume_id != known.volume_id
        return is_other and not self.accepts_loss_of(str(known.collection_uid))

    @property
    def has_lost_data(self) -> bool:
        """Whether an empty start would lose known data, and that loss is not accepted."""
        uid = self.known.collection_uid
        return uid is not None and not self.accepts_loss_of(uid)

    def may_replace(self, collection: str) -> bool:
        """Whether the collection with this mark (`sidecar.decision.mark_of`) may be dropped for it."""
        return self.annotations.get(Annotation.REPLACE) == collection


@dataclass(frozen=True, slots=True)
class Report:
    """A fact about one resource. The manager reads the sidecar's reports in the state of the engine."""

    collection: str
    resource_uid: str
    reason: Reason
    message: str
    hint: str | None = None
    """The command that helps."""

    @property
    def text(self) -> str:
        """The message of a condition."""
        return self.message if self.hint is None else f"{self.message}; {self.hint}"

    def document(self) -> dict[str, str | None]:
        """Return the report as JSON."""
        return dataclasses.asdict(self) | {"reason": self.reason.value}


def report_on(resource: Observed, reason: Reason, message: str, hint: str | None = None) -> Report:
    """Return a report on this resource."""
    return Report(resource.collection_name, resource.uid, reason, message, hint)


def parse_report(document: Mapping[str, Any]) -> Report:
    """Return a report from JSON. A reason of a newer sidecar becomes part of the message."""
    reason, message = document["reason"], str(document["message"])
    if reason not in set(Reason):
        reason, message = Reason.UNKNOWN, f"{reason}: {message}"
    uid, hint = str(document["resource_uid"]), document.get("hint")
    return Report(str(document.get("collection", "")), uid, Reason(reason), message, hint)


def observed(document: Mapping[str, Any]) -> Observed:
    """Return a resource from the API server's JSON, which may lack fields that no schema filled in."""
    metadata = document["metadata"]
    status = document.get("status") or {}
    spec = document.get("spec") or {}
    return Observed(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        created_at=metadata.get("creationTimestamp") or "",
        spec=spec,
        declared=_declared(document, metadata, spec),
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


def _declared(
    document: Mapping[str, Any], metadata: Mapping[str, Any], spec: Mapping[str, Any]
) -> CollectionResource | InvalidResource:
    declaration = {
        "apiVersion": document.get("apiVersion"),
        "kind": document.get("kind"),
        "metadata": {key: metadata.get(key) for key in ("name", "uid", "generation")},
        "spec": spec,
    }
    try:
        return parse_resource(declaration, strict=False)
    except VecstowError as error:
        return InvalidResource(error.message, error.hint)
    except Exception as error:
        log.exception("resource %s could not be read", metadata["name"])
        return InvalidResource(f"it cannot be read: {error!r}", None)


def _loss(document: Mapping[str, Any] | None) -> Loss | None:
    if document is None:
        return None
    return Loss(document["collectionUid"], document["counted"], document.get("missing"))


def finalizers(found: Iterable[str], *, held: bool) -> list[str]:
    """Return a resource's finalizers with or without Vecstow's; those of others stay as they are."""
    others = [name for name in found if name != FINALIZER]
    return [*others, FINALIZER] if held else others
