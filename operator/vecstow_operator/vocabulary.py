"""Every word that others see of the operator: labels, annotations, conditions, reasons, events.

docs/operator.md has them in one table; a test compares.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP: Final = "vecstow.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "vectorcollections"

FINALIZER: Final = "vecstow.dev/drop-collection"
"""Held by resources with `deletionPolicy: Delete`; kopf's own setting must name another one."""

MANAGER_FIELDS: Final = "vecstow-manager"
"""The manager's name in managedFields."""
PLUGIN_FIELDS: Final = "kubectl-vecstow"
"""The plugin's."""
TEST_FIELDS: Final = "vecstow-test"
"""That of `helm test`."""


class Label(StrEnum):
    """What pods and StatefulSets of an engine carry."""

    ENGINE = "vecstow.dev/engine"
    """The engine's name, which `spec.engine` refers to."""


class Annotation(StrEnum):
    """What a person may write on a VectorCollection."""

    REPLACE = "vecstow.dev/replace"
    """The uid of the collection of another shape that has the name, or its shape when it has no uid: that
    collection moves to `.deleted/`. The manager removes the annotation once that is done."""
    ACCEPT_EMPTY = "vecstow.dev/accept-empty"
    """The uid of the lost collection: begin anew without its vectors."""
    ACKNOWLEDGED = "vecstow.dev/acknowledged"
    """With commas: folders in `.quarantine/` whose damaged manifests somebody has looked at, and uids of
    repaired collections whose losses somebody has looked at."""


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
    """Reasons of conditions; of Ready, unless it says otherwise."""

    SERVED = "Served"
    """The engine serves this generation of this resource."""
    PENDING = "Pending"
    """The engine has not confirmed this generation yet."""
    RECOVERING = "Recovering"
    """The engine replays the log or loads the collection."""
    READ_ONLY = "ReadOnly"
    """A sync failed: reads are answered, writes are not."""
    QUARANTINED = "Quarantined"
    """The collection's files are damaged."""
    FOREIGN = "Foreign"
    """Another program wrote the files."""
    DATA_MISSING = "DataMissing"
    """The collection had vectors, and its data is gone."""
    VOLUME_REPLACED = "VolumeReplaced"
    """The collection had vectors, and the engine is on another volume without them."""
    CONFLICT = "Conflict"
    """The name is another resource's, or a collection of another shape has it."""
    REPLACED = "Replaced"
    """Of no condition: the sidecar reports a replacement, and the manager posts the event."""
    DRIFT_REVERTED = "DriftReverted"
    """Of no condition: the sidecar reports that it put a manifest right, and the manager posts the event."""
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
    """Of Degraded and Conflict, too: no sidecar reports to the engine."""
    DELETING = "Deleting"
    """The resource is being deleted."""
    POINTS_WITHHELD = "PointsWithheld"
    """Of Degraded: points fail their checks."""
    POINTS_LOST = "PointsLost"
    """Of Degraded: a repair could not save all points, and nobody has acknowledged it."""
    VOLUME_FULL = "VolumeFull"
    """Of Degraded: the engine's volume is full, and writes are refused."""
    MANIFEST_SET_ASIDE = "ManifestSetAside"
    """Of Degraded: a damaged manifest was copied to `.quarantine/` and written anew."""
    EXTRA_REPLICAS = "ExtraReplicas"
    """Of Degraded: the engine has more pods than the one that serves."""
    UNKNOWN = "Unknown"
    """Of Degraded: a newer sidecar found something that this manager does not know."""
    INDEXING = "Indexing"
    """Of Reconciling: searches are answered, and the graph is being built."""
    CONFIRMED = "Confirmed"
    """Of Synced: the engine follows this generation of this resource."""
    NONE = "None"
    """Of Reconciling and Stalled, when they are False."""
    SOUND = "Sound"
    """Of Degraded, when it is False."""
    NO_RIVAL = "NoRival"
    """Of Conflict, when it is False."""
    REQUESTED = "Requested"
    """Of Paused: `spec.paused`."""
    NOT_REQUESTED = "NotRequested"
    """Of Paused, when it is False."""


class EventReason(StrEnum):
    """Reasons of events; each is posted when the condition becomes so."""

    READY = "Ready"
    NOT_READY = "NotReady"
    DEGRADED = "Degraded"
    RECOVERED = "Recovered"
    CONFLICT = "Conflict"
    REPLACED = "Replaced"
    DRIFT_REVERTED = "DriftReverted"
    DROPPED = "Dropped"
    RELEASED = "Released"
