"""Commands to type when something is wrong. Pure but for looking for a backup."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from itertools import chain, count
from typing import Final
from urllib.parse import quote

from vecstow_engine.doctor.check.findings import Link, NextStep, NextSteps
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import COLLECTION_NAME_CHARACTERS_MAX
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import Layout

LATER_RELEASE: Final = "run the release that wrote it, or a later one"

BACKUPS_TRIED_MAX: Final = 3
"""The older ones of more backups are not read."""

_BACKUP_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")


def restore(
    layout: Layout, name: str, is_sound: Callable[[Layout, str], bool], *, served: bool = False
) -> NextSteps:
    """Restore the newest sound backup next to the damaged collection; without one, a copy of the volume."""
    if (backup := restore_backup(layout, name, is_sound, served=served)) is not None:
        return (backup,)
    copy = f"copy {name}/ and its log back from a copy of the volume"
    if served:
        copy = f"stop the engine, {copy}, and start the engine"
    if _backups(layout, name):
        copy = f"{copy}: the newest backups fail their checks, too"
    return NextStep(copy), NextStep(command=check_again(layout, name, served=served), link=Link.THEN)


def restore_backup(
    layout: Layout, name: str, is_sound: Callable[[Layout, str], bool], *, served: bool = False
) -> NextStep | None:
    """Restore the newest sound backup next to the damaged collection; None when there is none.

    `is_sound` gets a backup and the collection's name, newest first.
    """
    for backup in _backups(layout, name)[:BACKUPS_TRIED_MAX]:
        if is_sound(Layout(layout.backups / backup), name):
            where = _where(layout, served=served)
            return NextStep(
                f"restore the backup of {_time_of(backup, name)}, which lacks later writes",
                f"vecstow restore .backups/{backup}{where} --new-name {_new_name(layout, name)}",
            )
    return None


def sentence(steps: NextSteps) -> str:
    """The steps in one line."""
    return "".join(str(step) if step.link is Link.NEXT else f", {step.link.value}: {step}" for step in steps)


def alternative(steps: NextSteps) -> NextSteps:
    """The same steps, as another way to the end of those before them."""
    return dataclasses.replace(steps[0], link=Link.OR), *steps[1:]


def check_again(layout: Layout, name: str, *, served: bool) -> str:
    """The check of one collection; by an engine, or on the volume."""
    return f"vecstow check {name}{_where(layout, served=served)}"


def repair(layout: Layout, name: str, *, served: bool) -> NextStep:
    """Let repair print what it would do; by an engine, or on the volume."""
    command = f"{check_again(layout, name, served=served)} --repair --dry-run"
    return NextStep("print what a repair saves", command)


def at_rest(step: NextStep, *, served: bool) -> NextSteps:
    """Change files that a running engine would not look at again."""
    if not served:
        return (step,)
    changed = dataclasses.replace(step, link=Link.THEN)
    return NextStep("stop the engine"), changed, NextStep("start the engine", link=Link.THEN)


def insert_again(name: str, point_id: str, mend: NextSteps, *, served: bool) -> NextSteps:
    """Replace a point whose stored vector is damaged; `mend`: what to do without its vector.

    A stopped volume is mended first: no engine takes the point.
    """
    insert = f"insert the point again: PUT /collections/{name}/vectors/{quote(point_id, safe='')}"
    if served:
        return NextStep(insert), *alternative(mend)
    return *mend, NextStep(f"start the engine, and {insert}", link=Link.OR)


def find_log(layout: Layout, uid: str, applied: int | None) -> NextSteps:
    """Where the rest of a log may be that is gone; `applied`: sequence of the last checkpoint."""
    checkpoint = "the last checkpoint" + ("" if applied is None else f" (sequence {applied})")
    log = layout.log(uid).relative_to(layout.data)
    lost = (
        f"acknowledged writes after {checkpoint} are lost unless a copy of the volume has {log}: "
        "copy that back while no engine runs, and before anything is written: "
        "a new log's segments have those names"
    )
    return (NextStep(lost),)


def set_aside(layout: Layout, path: str) -> NextStep:
    """Move something that no collection needs out of the way."""
    quarantine = shlex.quote(str(layout.quarantine))
    command = f"mkdir -p {quarantine} && mv {shlex.quote(str(layout.data / path))} {quarantine}/"
    return NextStep(command=command)


def replace_volume_id(layout: Layout) -> NextSteps:
    """Bring the volume's id back, or let the next start make one."""
    remove = f"rm {shlex.quote(str(layout.volume_id))}"
    again = NextStep("remove it: the next start makes a new id", remove, Link.OR)
    return NextStep(f"put {layout.volume_id.name} back from a copy"), again


def put_manifest_right(identity: Identity) -> NextStep:
    """Declare again what the data is."""
    dimension, metric, vector_type = identity.shape
    shape = f'"dimension": {dimension}, "distance_metric": "{metric}", "vector_type": "{vector_type}"'
    return NextStep(f"write into metadata.json what the data is: {shape}")


def import_foreign(manifest: Manifest) -> NextSteps:
    """Make a collection of another program's files; an engine must be running."""
    name = manifest.name
    shape = "--dimension {} --metric {} --type {}".format(*manifest.shape)
    return (NextStep(command=f"vecstow import {name} --orphan {name} {shape}"),)


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


def _where(layout: Layout, *, served: bool) -> str:
    """The option that names a stopped volume."""
    return "" if served else f" --data {shlex.quote(str(layout.data))}"


def _new_name(layout: Layout, name: str) -> str:
    """A name that no folder of the volume has."""
    suffixes = chain(["-restored"], (f"-restored-{number}" for number in count(2)))
    names = (name[: COLLECTION_NAME_CHARACTERS_MAX - len(suffix)] + suffix for suffix in suffixes)
    return next(each for each in names if not layout.collection(each).exists())
