"""What to type when something is wrong. Pure but for looking which backups there are."""

from __future__ import annotations

import re
import shlex
from typing import Final
from urllib.parse import quote

from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import Layout

LATER_RELEASE: Final = "run the release that wrote it, or a later one"

_BACKUP_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")


def restore(layout: Layout, name: str) -> str:
    """Bring the newest backup back beside the damaged collection; without one, a copy of the volume."""
    backup = _newest_backup(layout, name)
    if backup is not None:
        return f"vecstow restore .backups/{backup} --new-name {_new_name(name)}"
    return f"copy {name}/ and its log back from a copy of the volume, then: {check_again(layout, name)}"


def check_again(layout: Layout, name: str) -> str:
    """The check of one collection, offline."""
    return f"vecstow check {name} --data {shlex.quote(str(layout.data))}"


def insert_again(name: str, point_id: str) -> str:
    """Replace a point whose stored vector is damaged."""
    path = f"/collections/{name}/vectors/{quote(point_id, safe='')}"
    return f"insert the point again: PUT {path}, or vecstow import {name}"


def without_log(layout: Layout, name: str, uid: str) -> str:
    """Serve what the last checkpoint has, and keep the log as evidence."""
    log, quarantine = shlex.quote(str(layout.log(uid))), shlex.quote(str(layout.quarantine))
    return (
        f"mkdir -p {quarantine} && mv {log} {quarantine}/{name}-log  "
        f"# gives up what came after the last checkpoint; or: {restore(layout, name)}"
    )


def set_aside(layout: Layout, path: str) -> str:
    """Move something that nobody needs out of the way."""
    quarantine = shlex.quote(str(layout.quarantine))
    return f"mkdir -p {quarantine} && mv {shlex.quote(str(layout.data / path))} {quarantine}/"


def import_again(folder: str, identity: Identity) -> str:
    """Make a collection again of data files whose manifest is lost; an engine must be running."""
    return _import(folder, *identity.shape)


def put_manifest_right(identity: Identity) -> str:
    """Declare again what the data is."""
    dimension, metric, vector_type = identity.shape
    shape = f'"dimension": {dimension}, "distance_metric": "{metric}", "vector_type": "{vector_type}"'
    return f"write into metadata.json what the data is: {shape}"


def import_foreign(manifest: Manifest) -> str:
    """Make a collection of another program's files; an engine must be running."""
    return _import(manifest.name, *manifest.shape)


def _import(folder: str, dimension: int, metric: str, vector_type: str) -> str:
    shape = f"--dimension {dimension} --metric {metric} --type {vector_type}"
    return f"vecstow import {folder} --orphan {folder} {shape}"


def _newest_backup(layout: Layout, name: str) -> str | None:
    if not layout.backups.is_dir():
        return None
    prefix = f"{name}-"
    names = (path.name for path in layout.backups.iterdir())
    of_name = (n for n in names if n.startswith(prefix) and _BACKUP_TIME.fullmatch(n.removeprefix(prefix)))
    return max(of_name, default=None)


def _new_name(name: str) -> str:
    return f"{name[:55]}-restored"
