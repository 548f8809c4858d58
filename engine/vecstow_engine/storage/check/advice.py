"""What to type when something is wrong. Pure but for looking for a backup."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import Layout

LATER_RELEASE: Final = "run the release that wrote it, or a later one"

BACKUPS_TRIED_MAX: Final = 3
"""Of more backups the older ones are not read."""

_BACKUP_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")


def restore(
    layout: Layout, name: str, is_sound: Callable[[Layout, str], bool], *, served: bool = False
) -> str:
    """Bring the newest sound backup back beside the damaged collection; without one, a copy of the volume."""
    if (command := restore_backup(layout, name, is_sound)) is not None:
        return command
    copy = f"copy {name}/ and its log back from a copy of the volume"
    again = f"vecstow check {name}" if served else f"{check_again(layout, name)}"
    steps = f"{while_stopped(copy) if served else copy}, then: {again}"
    return f"{steps}  # the newest backups fail their checks, too" if _backups(layout, name) else steps


def restore_backup(layout: Layout, name: str, is_sound: Callable[[Layout, str], bool]) -> str | None:
    """Bring the newest sound backup back beside the damaged collection; None when there is none.

    `is_sound` gets a backup and the collection's name, newest first.
    """
    for backup in _backups(layout, name)[:BACKUPS_TRIED_MAX]:
        if is_sound(Layout(layout.backups / backup), name):
            command = f"vecstow restore .backups/{backup} --new-name {_new_name(name)}"
            return f"{command}  # this backup is of {_time_of(backup, name)}; later writes are not in it"
    return None


def check_again(layout: Layout, name: str) -> str:
    """The check of one collection, offline."""
    return f"vecstow check {name} --data {shlex.quote(str(layout.data))}"


def repair(layout: Layout, name: str, *, served: bool) -> str:
    """Let repair say what it would do; by an engine, or on the volume."""
    check = f"vecstow check {name}" if served else check_again(layout, name)
    return f"{check} --repair --dry-run"


def while_stopped(command: str) -> str:
    """Change files that a running engine would not look at again."""
    return f"stop the engine, then: {command}, then start it again"


def insert_again(name: str, point_id: str, mend: str) -> str:
    """Replace a point whose stored vector is damaged; `mend`: what to do without its vector."""
    path = f"/collections/{name}/vectors/{quote(point_id, safe='')}"
    return f"insert the point again: PUT {path}; or: {mend}"


def find_log(layout: Layout, uid: str, applied: int | None) -> str:
    """Where the rest of a log may be that is gone; `applied`: sequence of the last checkpoint."""
    checkpoint = "the last checkpoint" + ("" if applied is None else f" (sequence {applied})")
    log = layout.log(uid).relative_to(layout.data)
    return (
        f"acknowledged writes after {checkpoint} are lost unless a copy of the volume has {log}: "
        "copy that back while no engine runs, and before anything is written: "
        "a new log's segments have those names"
    )


def set_aside(layout: Layout, path: str) -> str:
    """Move something that nobody needs out of the way."""
    quarantine = shlex.quote(str(layout.quarantine))
    return f"mkdir -p {quarantine} && mv {shlex.quote(str(layout.data / path))} {quarantine}/"


def put_manifest_right(identity: Identity) -> str:
    """Declare again what the data is."""
    dimension, metric, vector_type = identity.shape
    shape = f'"dimension": {dimension}, "distance_metric": "{metric}", "vector_type": "{vector_type}"'
    return f"write into metadata.json what the data is: {shape}"


def import_foreign(manifest: Manifest) -> str:
    """Make a collection of another program's files; an engine must be running."""
    name = manifest.name
    shape = "--dimension {} --metric {} --type {}".format(*manifest.shape)
    return f"vecstow import {name} --orphan {name} {shape}"


def _backups(layout: Layout, name: str) -> list[str]:
    """Newest first."""
    if not layout.backups.is_dir():
        return []
    prefix = f"{name}-"
    names = (path.name for path in layout.backups.iterdir())
    of_name = (n for n in names if n.startswith(prefix) and _BACKUP_TIME.fullmatch(n.removeprefix(prefix)))
    return sorted(of_name, reverse=True)


def _time_of(backup: str, name: str) -> str:
    return _BACKUP_TIME.sub(r"\1-\2-\3T\4:\5:\6Z", backup.removeprefix(f"{name}-"))


def _new_name(name: str) -> str:
    return f"{name[:55]}-restored"
