"""The change that the sidecar makes to one collection in a pass, and its reports: pure.

The order of the questions is fixed. Is the resource being deleted? Does another resource own the name? Does
the manifest differ? Is the data there?
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vecstow_engine.model.manifest import ManagedBy, Manifest, Shape
from vecstow_engine.model.resource import CollectionResource, manifest_from_resource
from vecstow_operator.observed import InvalidResource, Observed, Report, report_on
from vecstow_operator.vocabulary import Annotation, Reason

_DECLARED: Final = (
    "dimension",
    "distance_metric",
    "vector_type",
    "index_config",
    "payload_indexes",
    "owner",
    "managed_by",
    "resource_uid",
)
"""The fields of a manifest that the resource declares."""

KUBECTL_ANNOTATE: Final = "kubectl annotate vcol"

Claims = Mapping[str, tuple[Observed, ...]]
"""All resources that want the name of a collection, by that name."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a collection; with all fields at their defaults there is none."""

    manifest: Manifest | None = None
    problem: str | None = None
    """The reason why a manifest that is there cannot be read."""
    is_newer: bool = False
    """Whether the problem is that a newer release wrote the manifest."""
    has_data: bool = False
    shape: Shape | None = None
    """The shape of the data, where no manifest can be read."""
    is_alias: bool = False
    """Whether an alias has the name. A folder that is there takes precedence over it."""

    @property
    def is_there(self) -> bool:
        """Whether there is a manifest, readable or not, or data."""
        return self.manifest is not None or self.problem is not None or self.has_data


@dataclass(frozen=True, slots=True)
class Decision:
    """The change of one manifest, and reports. At most one of `write` and `drop` is set."""

    write: Manifest | None = None
    drop: bool = False
    set_aside: bool = False
    """Whether to copy the present manifest, which cannot be read, to `.quarantine/` first."""
    reports: tuple[Report, ...] = ()
    reverted: Report | None = None
    """The report of drift that `write` reverts."""

    @property
    def changes(self) -> bool:
        """Whether it changes the volume."""
        return self.drop or self.write is not None


def decide(claims: Sequence[Observed], folder: Folder, volume_id: str | None) -> Decision:
    """Return the decision about one collection; `claims` are all resources that want its name."""
    owner = _owner(claims, folder.manifest)
    if owner is None:
        return Decision(write=_released(folder.manifest))
    reports = tuple(_report_on_loser(claim, owner) for claim in claims if claim is not owner)
    decision = _for_owner(owner, folder, volume_id)
    return dataclasses.replace(decision, reports=(*decision.reports, *reports))


def _owner(claims: Iterable[Observed], manifest: Manifest | None) -> Observed | None:
    """Return the resource whose uid the manifest has, or else the oldest one that is not being deleted.

    A lost manifest names no owner. The resource that had the data before, by its status, owns it then.
    """
    ranked = sorted(claims, key=lambda c: (c.is_deleting, c.known.collection_uid is None, c.age))
    uid = manifest.resource_uid if manifest is not None else None
    return next((claim for claim in ranked if claim.uid == uid), ranked[0] if ranked else None)


def _released(manifest: Manifest | None) -> Manifest | None:
    """Return the manifest of a collection whose resource is gone: it stays, and REST may drop it."""
    if manifest is None or manifest.managed_by is not ManagedBy.KUBERNETES or manifest.dropped_at is not None:
        return None
    return dataclasses.replace(manifest, managed_by=ManagedBy.API, resource_uid=None, generation=None)


def _report_on_loser(loser: Observed, owner: Observed) -> Report:
    if loser.is_deleting:
        return report_on(loser, Reason.DELETING, "another resource has the collection, and keeps it")
    return report_on(
        loser,
        Reason.CONFLICT,
        f"collection {loser.collection_name!r} belongs to the resource {owner.name!r}",
        f"delete one of the two: kubectl delete vcol {loser.name}",
    )


def _for_owner(owner: Observed, folder: Folder, volume_id: str | None) -> Decision:
    if folder.is_newer:
        return Decision(reports=(report_on(owner, Reason.NEWER_FORMAT, folder.problem or ""),))
    if owner.is_deleting and not _lost_its_manifest(owner, folder):
        return _end(owner, folder)
    resource = owner.declared
    if isinstance(resource, InvalidResource):
        return Decision(reports=(report_on(owner, Reason.INVALID, resource.message, resource.hint),))
    if owner.is_paused:
        return Decision()
    if folder.manifest is not None and folder.manifest.dropped_at is not None:
        return Decision()  # the engine moves it away first
    return _declare(owner, resource, folder, volume_id)


def _lost_its_manifest(owner: Observed, folder: Folder) -> bool:
    """Whether the resource's data lacks a manifest. A drop needs one, since the mark is in it."""
    is_there = folder.problem is not None or folder.has_data
    return folder.manifest is None and is_there and owner.known.collection_uid is not None


def _end(owner: Observed, folder: Folder) -> Decision:
    """Decide about a resource that is being deleted: its present policy counts."""
    manifest = folder.manifest
    if manifest is None or manifest.resource_uid != owner.uid:
        return Decision(reports=(report_on(owner, Reason.DELETING, "nothing on the volume is its own"),))
    if owner.is_paused or manifest.dropped_at is not None:
        return Decision()  # a drop is final: the engine moves the collection away
    if owner.is_retained:
        report = report_on(owner, Reason.DELETING, "the collection is retained")
        return Decision(write=_released(manifest), reports=(report,))
    return Decision(drop=True)


def _declare(
    owner: Observed, resource: CollectionResource, folder: Folder, volume_id: str | None
) -> Decision:
    if folder.is_alias and not folder.is_there:
        name = owner.collection_name
        message = f"{name!r} is an alias: no collection can have the name"
        hint = f"take it out of spec.aliases where it is declared, or: vecstow aliases rm {name}"
        return Decision(reports=(report_on(owner, Reason.CONFLICT, message, hint),))
    manifest = folder.manifest
    there = folder.shape if manifest is None else manifest.shape
    if there is not None and there != resource.shape and not _is_own(owner, manifest):
        return _replace(owner, resource, folder, there, volume_id)
    # The resource's own manifest may have been edited: even its shape is restored then.
    existing = manifest and dataclasses.replace(
        manifest,
        dimension=resource.dimension,
        distance_metric=resource.distance_metric,
        vector_type=resource.vector_type,
    )
    wanted = manifest_from_resource(resource, ManagedBy.KUBERNETES, existing)
    uid, reports = _expected_data(owner, folder, volume_id)
    if reports and folder.has_data and not _is_own(owner, manifest):
        return Decision(reports=reports)  # taking the data over would hide the loss
    wanted = dataclasses.replace(wanted, collection_uid=uid)
    if manifest is None and folder.has_data and owner.known.collection_uid is not None:
        # The manifest is new, and its data older. A running engine knows the time of its creation better.
        wanted = dataclasses.replace(wanted, created_at=owner.created_at)
    if wanted == manifest:
        return Decision(reports=reports)
    return Decision(
        write=wanted,
        set_aside=folder.problem is not None,
        reports=reports,
        reverted=_reverted(owner, folder, wanted),
    )


def _reverted(owner: Observed, folder: Folder, wanted: Manifest) -> Report | None:
    """Report drift: another writer changed or removed the manifest of this generation."""
    there = folder.manifest
    if there is None:
        what = "was gone next to its data" if folder.has_data and folder.problem is None else None
    elif _is_own(owner, there) and there.generation in (None, owner.generation):
        fields = [field for field in _DECLARED if getattr(there, field) != getattr(wanted, field)]
        what = f"was changed by another program or a person ({', '.join(fields)})" if fields else None
    else:
        what = None
    if what is None:
        return None
    name = owner.collection_name
    message = f"the manifest of collection {name!r} {what}, and is as the resource declares it again"
    return report_on(owner, Reason.DRIFT_REVERTED, message)


def _is_own(owner: Observed, manifest: Manifest | None) -> bool:
    """Whether the manifest has the resource's uid, or its data's when an edit removed that."""
    if manifest is None:
        return False
    uid = manifest.collection_uid
    return manifest.resource_uid == owner.uid or (uid is not None and uid == owner.known.collection_uid)


def _replace(
    owner: Observed, resource: CollectionResource, folder: Folder, there: Shape, volume_id: str | None
) -> Decision:
    """Drop the collection of another shape where the annotation allows it; otherwise report a conflict.

    Without a manifest the owner of the data is unknown, and nothing can be marked as dropped. Missing data
    of the resource comes first: this may be the wrong volume.
    """
    mark = mark_of(folder.manifest) if folder.manifest is not None else None
    if mark is not None and owner.may_replace(mark) and volume_id is not None:
        if owner.has_lost_data:
            return Decision(reports=(_missed(owner, volume_id, owner.known.collection_uid),))
        return Decision(drop=True)
    shapes = f"{_text(there)}; wanted is {_text(resource.shape)}"
    message = f"collection {owner.collection_name!r} is there with another shape: {shapes}"
    if mark is None:
        hint = f"its manifest is lost: kubectl vecstow repair {owner.name} writes it again"
    else:
        annotation = f"{Annotation.REPLACE.value}={mark}"
        hint = f"to have it moved to .deleted/: {KUBECTL_ANNOTATE} --overwrite {owner.name} {annotation}"
    return Decision(reports=(report_on(owner, Reason.CONFLICT, message, hint),))


def mark_of(manifest: Manifest) -> str:
    """Return the value of `vecstow.dev/replace` that allows to replace this incarnation alone."""
    return manifest.collection_uid or "-".join(str(value) for value in manifest.shape)


def replaced(owner: Observed, folder: str, manifest: Manifest) -> Report:
    """Return the report that a collection moved to this folder of `.deleted/`, as the annotation allowed."""
    return report_on(
        owner,
        Reason.REPLACED,
        f"collection {owner.collection_name!r} of another shape ({_text(manifest.shape)}) moved to "
        f".deleted/{folder}, as {Annotation.REPLACE.value} asked; it rests there until its retention ends",
    )


def _text(shape: Shape) -> str:
    return ", ".join(str(value) for value in shape)


def _expected_data(
    owner: Observed, folder: Folder, volume_id: str | None
) -> tuple[str | None, tuple[Report, ...]]:
    """Return the uid that the manifest must name, and the reports of data that is gone.

    With the uid of data that is gone, the engine quarantines the collection instead of serving it empty. For
    a folder with data, the manifest's own uid stays: the engine fills in a missing one from the headers.
    """
    found = folder.manifest.collection_uid if folder.manifest is not None else None
    if folder.has_data:
        is_other = owner.is_other_than_known(found, volume_id)
        return found, (_missed(owner, volume_id, owner.known.collection_uid),) if is_other else ()
    expected = found or owner.known.collection_uid
    if expected is None or owner.accepts_loss_of(expected):
        return None, ()
    return expected, (_missed(owner, volume_id, expected),)


def _missed(owner: Observed, volume_id: str | None, uid: str | None) -> Report:
    known = owner.known
    was_elsewhere = known.volume_id not in (None, volume_id)
    had = f" ({known.vector_count} vectors)" if known.collection_uid == uid else ""
    where = f": it was on volume {known.volume_id}" if was_elsewhere else ""
    annotation = f"{Annotation.ACCEPT_EMPTY.value}={uid}"
    return report_on(
        owner,
        Reason.VOLUME_REPLACED if was_elsewhere else Reason.DATA_MISSING,
        f"the data of collection {owner.collection_name!r}{had} is not on this volume{where}",
        'bring the volume back (docs/operations.md, "The volume of before"); '
        f"or, to begin without the vectors: {KUBECTL_ANNOTATE} --overwrite {owner.name} {annotation}",
    )
