"""Every word of the operator that others see: labels, annotations, conditions, reasons, events.

docs/operator.md lists each word, and a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP: Final = "vecstow.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "vectorcollections"

FINALIZER: Final = "vecstow.dev/drop-collection"
"""The finalizer of resources with `deletionPolicy: Delete`. kopf's setting must name another."""

MANAGER_FIELDS: Final = "vecstow-manager"
"""The manager's name in managedFields."""
PLUGIN_FIELDS: Final = "kubectl-vecstow"
"""The plugin's name in managedFields."""
TEST_FIELDS: Final = "vecstow-test"
"""The name of `helm test` in managedFields."""


class Label(StrEnum):
    """Labels of the pods and StatefulSets of an engine."""

    ENGINE = "vecstow.dev/engine"
    """The engine's name, which `spec.engine` refers to."""


class Annotation(StrEnum):
    """Annotations that a person may write on a VectorCollection."""

    REPLACE = "vecstow.dev/replace"
    """The uid of the collection of another shape that has the name, or its shape when it has no uid. That
    collection moves to `.deleted/`, and the manager removes the annotation."""
    ACCEPT_EMPTY = "vecstow.dev/accept-empty"
    """The uid of the lost collection: start again without its vectors."""
    ACKNOWLEDGED = "vecstow.dev/acknowledged"
    """Acknowledged damage, with commas: folders in `.quarantine/` with damaged manifests, and uids of
    repaired collections with losses."""


class Condition(StrEnum):
    """Types of conditions."""

    READY = "Ready"
    SYNCED = "Synced"
    DEGRADED = "Degraded"
    CONFLICT = "Conflict"
    PAUSED = "Paused"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Reason(StrEnum):
    """Reasons of conditions: of Ready, where no other condition is named."""

    SERVED = "Served"
    """The engine serves this generation of this resource."""
    PENDING = "Pending"
    """The engine has not confirmed this generation yet."""
    RECOVERING = "Recovering"
    """The engine replays the log or loads the collection."""
    READ_ONLY = "ReadOnly"
    """Reads are answered, writes are not until a restart or a repair, mostly after a failed sync."""
    QUARANTINED = "Quarantined"
    """The collection's files are damaged, missing, of a newer format, or could not be opened."""
    FOREIGN = "Foreign"
    """Another program wrote the files."""
    DATA_MISSING = "DataMissing"
    """The collection had vectors, and its data is gone."""
    VOLUME_REPLACED = "VolumeReplaced"
    """The collection had vectors, and the engine is on another volume without them."""
    CONFLICT = "Conflict"
    """The name is another resource's, or a collection of another shape has it."""
    REPLACED = "Replaced"
    """No condition: the sidecar reports a replacement, and the manager posts the event."""
    DRIFT_REVERTED = "DriftReverted"
    """No condition: the sidecar reports that it restored a manifest, and the manager posts the event."""
    INVALID = "Invalid"
    """The resource breaks a rule that the API server did not check."""
    NEWER_FORMAT = "NewerFormat"
    """A newer release wrote the manifest."""
    STORAGE_FAILED = "StorageFailed"
    """The sidecar or the engine cannot write on the volume."""
    ENGINE_MISSING = "EngineMissing"
    """No engine of that name is in the namespace."""
    ENGINE_SCALED_DOWN = "EngineScaledDown"
    """The engine has no replicas."""
    ENGINE_UNREACHABLE = "EngineUnreachable"
    """An engine pod does not answer, or is not there yet."""
    ENGINE_NOT_READY = "EngineNotReady"
    """The engine serves the collection, and its pod is not ready: clients do not reach it by a Service."""
    KEY_REFUSED = "KeyRefused"
    """The engine refuses the manager's key, or there is none to send."""
    SIDECAR_SILENT = "SidecarSilent"
    """Also Degraded and Conflict: no sidecar reports to the engine."""
    DELETING = "Deleting"
    """The resource is being deleted."""
    POINTS_WITHHELD = "PointsWithheld"
    """Degraded: points fail their checks."""
    POINTS_LOST = "PointsLost"
    """Degraded: a repair could not save all points, and the loss is not acknowledged."""
    VOLUME_FULL = "VolumeFull"
    """Degraded: the engine's volume is full, and writes are refused."""
    MANIFEST_SET_ASIDE = "ManifestSetAside"
    """Degraded: a damaged manifest was copied to `.quarantine/` and written again."""
    ALIAS_REFUSED = "AliasRefused"
    """Degraded: an alias that the resource declares belongs to another one, or cannot be set."""
    EXTRA_REPLICAS = "ExtraReplicas"
    """Degraded: the engine has more pods than the one that serves."""
    UNKNOWN = "Unknown"
    """Degraded: a newer sidecar reports a reason that this manager does not know."""
    INDEXING = "Indexing"
    """Reconciling: searches are answered, and the graph is being built."""
    CONFIRMED = "Confirmed"
    """Synced: the engine follows this generation of this resource."""
    NONE = "None"
    """Reconciling and Stalled, when they are False."""
    SOUND = "Sound"
    """Degraded, when it is False."""
    NO_RIVAL = "NoRival"
    """Conflict, when it is False."""
    REQUESTED = "Requested"
    """Paused: `spec.paused` is true."""
    NOT_REQUESTED = "NotRequested"
    """Paused, when it is False."""


class EventReason(StrEnum):
    """Reasons of events."""

    READY = "Ready"
    NOT_READY = "NotReady"
    DEGRADED = "Degraded"
    RECOVERED = "Recovered"
    CONFLICT = "Conflict"
    REPLACED = "Replaced"
    DRIFT_REVERTED = "DriftReverted"
    DROPPED = "Dropped"
    RELEASED = "Released"
