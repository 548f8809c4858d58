"""The owner of the files: what the manifest, the headers and the meta row say, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.identity import Identity, identity_of, read_header
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout, rfc3339
from vecstow_engine.storage.log.replay import FoundSegment, read_log
from vecstow_engine.storage.log.segment import SegmentHeader
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.points.records import Meta


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of each file about itself; None for a file that says nothing, or is not there."""

    name: str
    manifest: Manifest | None
    manifest_fault: str | None
    """Why there is no manifest."""
    header: Identity | None
    """The claim of `vectors.bin`."""
    meta: Meta | None
    """The claim of `points.db`."""
    segments: tuple[FoundSegment, ...] = ()
    """The segments of the log of `uid`."""

    @property
    def uid(self) -> str | None:
        """The incarnation that most of them name; else that of the meta row, the header, the manifest."""
        of_data = [claim.uid for claim in (self.meta, self.header) if claim is not None]
        of_manifest = [self.manifest.collection_uid] if self.manifest else []
        said = Counter([*of_data, *filter(None, of_manifest)])
        return said.most_common(1)[0][0] if said else None


@dataclass(frozen=True, slots=True)
class Identification:
    """The collection as its files identify it."""

    manifest: Manifest | None
    """As it should be; None when nothing tells the shape."""
    impossible: str | None = None
    """Why nothing can be done here."""
    hint: str | None = None
    warnings: tuple[str, ...] = ()


def read_claims(layout: Layout, name: str, meta: Meta | None) -> Claims:
    """Read manifest, header and log of a folder. Raises NewerFormat for what a later release wrote."""
    folder = layout.collection(name)
    manifest, fault = _manifest(layout, name)
    claims = Claims(name, manifest, fault, _header(folder / ROWS), meta)
    segments = read_log(layout.log(claims.uid)) if claims.uid is not None else []
    return dataclasses.replace(claims, segments=tuple(segments))


def judge(claims: Claims) -> Identification:
    """Decide which collection this is. Pure."""
    manifest, uid = claims.manifest, claims.uid
    stranger = _stranger(claims, uid)
    if stranger is not None:
        return Identification(manifest, stranger, "put the right file back")
    identity = _identity(claims, uid)
    if manifest is not None:
        return _with_manifest(manifest, identity, uid)
    if identity is None:
        return Identification(
            None, "no file tells its dimension, metric and type",
            f"put {MANIFEST} back from a copy",
        )  # fmt: skip
    rebuilt = Manifest(claims.name, *identity.shape, collection_uid=identity.uid, created_at=rfc3339())
    lost = "index settings are the defaults; owner, payload indexes and who manages it are not known"
    return Identification(rebuilt, warnings=(f"{MANIFEST} is rebuilt from the headers: {lost}",))


def _with_manifest(manifest: Manifest, identity: Identity | None, uid: str | None) -> Identification:
    if identity is None or (manifest.collection_uid == uid and manifest.shape == identity.shape):
        return Identification(manifest)
    dimension, metric, vector_type = identity.shape
    right = dataclasses.replace(
        manifest, collection_uid=uid, dimension=dimension, distance_metric=metric, vector_type=vector_type
    )
    return Identification(right, warnings=_differences(manifest, right))


def _differences(found: Manifest, right: Manifest) -> tuple[str, ...]:
    if found.shape != right.shape:
        words = "dimension {}, {}, {}".format(*right.shape)
        return (f"{MANIFEST} says another shape than the data has, which is {words}",)
    if found.collection_uid is None:
        return ()
    uids = found.collection_uid, right.collection_uid
    return ("{} names incarnation {}, but the data is of {}".format(MANIFEST, *uids),)


def _stranger(claims: Claims, uid: str | None) -> str | None:
    """A data file of another incarnation: which of its points are this one's is unknown."""
    if claims.meta is not None and claims.meta.uid != uid:
        return f"{POINTS} belongs to incarnation {claims.meta.uid}, not {uid}"
    if claims.header is not None and claims.header.uid != uid:
        return f"{ROWS} belongs to incarnation {claims.header.uid}, not {uid}"
    return None


def _identity(claims: Claims, uid: str | None) -> Identity | None:
    """The shape by the header of the rows, by the newest header of the log, by the manifest."""
    if claims.header is not None:
        return claims.header
    if (newest := newest_header(claims.segments)) is not None and newest.identity.uid == uid:
        return newest.identity
    if claims.manifest is not None and uid is not None:
        return identity_of(claims.manifest, uid)
    return None


def _manifest(layout: Layout, name: str) -> tuple[Manifest | None, str | None]:
    try:
        manifest = read_manifest(layout.collection(name))
    except DamagedFile as error:
        return None, error.reason
    return manifest, None if manifest is not None else "it is missing"


def _header(path: Path) -> Identity | None:
    try:
        return read_header(path)
    except (DamagedFile, OSError):
        return None


def newest_header(segments: Sequence[FoundSegment]) -> SegmentHeader | None:
    """Return the header of the newest segment that has one."""
    headers = [segment.header for segment in segments if segment.header is not None]
    return headers[-1] if headers else None
