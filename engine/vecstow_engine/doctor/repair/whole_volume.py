"""A whole volume without an engine, or some of its collections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vecstow_engine.doctor.repair.collection import Planned, nobody, repair_collection
from vecstow_engine.doctor.repair.plan import Progress, RepairReport, no_progress
from vecstow_engine.model.errors import NotFound
from vecstow_engine.storage.discovery import Found, discover
from vecstow_engine.storage.layout import POINTS, ROWS, Layout
from vecstow_engine.storage.staging import finish_interrupted
from vecstow_engine.storage.volume import alone, stopped_volume, unserved


def repair_volume(
    data: Path,
    names: Sequence[str] | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
    planned: Planned = nobody,
) -> RepairReport:
    """Repair the collections of a stopped volume, all or those of these names, one after the other.

    With `dry_run` nothing is written; `planned` hears of each plan before it is carried out. Raises
    VolumeRefused while an engine runs, or when `data` is no folder, NotFound for a name that has no folder
    and where there is no collection (both before anything is written), DiskFull before anything of a
    collection was changed, StorageError.
    """
    layout = stopped_volume(data)
    report = RepairReport()
    with _locked(layout, names, dry_run=dry_run):
        if not dry_run:
            finish_interrupted(layout)
        for name in _wanted(layout, names):
            report.collections[name] = repair_collection(
                layout, name, dry_run=dry_run, progress=progress, planned=planned
            )
    return report


@contextmanager
def _locked(layout: Layout, names: Sequence[str] | None, *, dry_run: bool) -> Iterator[None]:
    """As the one engine of the volume, which takes no room for itself; a dry run leaves no trace."""
    command = _command(names, dry_run=dry_run)
    with unserved(layout, command):
        if dry_run:
            yield
            return
        if not layout.staging.is_dir():  # what a crash cut may be the only collection
            _wanted(layout, names)
    with alone(layout, command):
        yield


def _command(names: Sequence[str] | None, *, dry_run: bool) -> str:
    """Return the command for an engine, which repairs one collection at a time."""
    name = names[0] if names else "NAME"
    return f"vecstow check {name} --repair{' --dry-run' if dry_run else ''}"


def _wanted(layout: Layout, names: Sequence[str] | None) -> list[str]:
    folders = discover(layout)
    found = [folder.name for folder in folders]
    if names is None and not any(_may_be_one(layout, folder) for folder in folders):
        raise NotFound(
            f"no collections in {layout.data}", operation="repair",
            hint="--data names the directory that an engine uses",
        )  # fmt: skip
    for name in names or ():
        if name not in found:
            raise NotFound(
                f"{layout.data} has no collection {name!r}", collection=name,
                hint=_hint(layout, name),
            )  # fmt: skip
    return list(found) if names is None else list(names)


def _may_be_one(layout: Layout, found: Found) -> bool:
    """A folder without a manifest and without data is no collection's."""
    folder = layout.collection(found.name)
    return not found.bare or (folder / ROWS).exists() or (folder / POINTS).exists()


def _hint(layout: Layout, name: str) -> str:
    if (layout.staging / name).is_dir():
        return "a crash cut its repair or import: without --dry-run it is finished first"
    return f"vecstow ls --data {layout.data}"
