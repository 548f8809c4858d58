"""Recovery: the opening of a collection from the volume alone, in three steps.

    observe      reads all files; raises for files that are unreadable or do not belong together
    make_plan    decides what is replayed; raises for a collection that must not open; pure
    apply_plan   makes the journal of SQLite durable, rebuilds trees, removes temporaries, replays the log
                 and, if the log has records or a torn tail, begins a new segment

Nothing on the volume changes before the first two steps have passed: a collection that is refused keeps every
byte. `service.loader` decides by the error:

    DamagedFile, NewerFormat          quarantined; a changed manifest is a reason to open again
    Foreign                           foreign
    Busy, DiskFull                    opened again after a pause
    LogChanged, other StorageErrors   quarantined until the next start or a repair
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vecstow_engine.model.errors import Busy, DamagedFile, DiskFull, ReadOnly, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layers import Applied, Layers
from vecstow_engine.storage.layout import POINTS, Layout, timestamp
from vecstow_engine.storage.log.replay import FoundSegment, Replayable, records_of
from vecstow_engine.storage.log.segment import Effect, Record, decode_effect
from vecstow_engine.storage.log.writer import Log
from vecstow_engine.storage.manifests import update_manifest
from vecstow_engine.storage.points.reader import peek_meta
from vecstow_engine.storage.points.table_repair import mend
from vecstow_engine.storage.points.writer import fold_journal
from vecstow_engine.storage.recovery_plan import Observation, Plan, make_plan, observe
from vecstow_engine.storage.rows import SlotTable
from vecstow_engine.storage.store import Store

WAL_MISSING: Final = (
    "wal_missing: there is no log; what came after the last checkpoint is lost, if anything did"
)
TORN_TAIL_BYTES_MAX: Final = 64 << 20
"""The length above which a torn tail is not copied to `.quarantine/`."""
REPLAY_BYTES_MAX: Final = 64 << 20
"""The default bytes of replayed changes in memory at which replay makes a checkpoint."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A collection after its recovery."""

    manifest: Manifest
    store: Store | None
    """None when the collection never held data; its first write creates the files."""
    warnings: tuple[str, ...] = ()
    wal_missing: bool = False
    replayed: int = 0
    """The number of records above the applied sequence."""
    changes: tuple[Applied, ...] = ()
    """The changes of those records for the index. Replay moves earlier changes into the files when memory is
    short; the index finds their points there, by `VectorIndex.reconcile`."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The warnings, and a remark when there is no log."""
        return (*self.warnings, WAL_MISSING) if self.wal_missing else self.warnings


def open_store(
    layout: Layout,
    manifest: Manifest,
    handles: HandleCache,
    *,
    is_rival: bool = False,
    replay_bytes_max: int = REPLAY_BYTES_MAX,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Opened:
    """Open one collection. `is_rival`: whether another folder claims the same uid, as the registry knows.

    Replay takes `replay_bytes_max` bytes of memory for changes, and one record. `progress` gets the number of
    replayed records and the number of all records.
    """
    found = observe(layout, manifest)
    if found is None:
        return Opened(manifest, None)
    plan = make_plan(found, manifest.name, is_rival=is_rival)
    return apply_plan(layout, manifest, handles, plan, replay_bytes_max, progress)


def apply_plan(
    layout: Layout,
    manifest: Manifest,
    handles: HandleCache,
    plan: Plan,
    replay_bytes_max: int,
    progress: Callable[[int, int], None],
) -> Opened:
    """Carry out the plan. Raises DamagedFile when a tree cannot be rebuilt, DiskFull or StorageError.

    An error leaves the found segments unchanged, so that the next recovery begins with the same log.
    """
    found, replayable = plan.found, plan.replayable
    if fold_journal(found.folder / POINTS):
        _refuse_other_meta(found)
    mended = mend(found.folder / POINTS, list(found.faults)) if found.faults else []
    for path in found.temporaries:
        files.remove(path)
    served = dataclasses.replace(found.identity, name=manifest.name)
    log = Log(layout.log(served.uid), served, applied=found.meta.applied, carried=replayable.extents)
    layers = Layers(found.folder, served, SlotTable(found.slots), handles, found.meta.checkpoints + 1)
    store = Store(layers, log, found.meta, found.data_files)
    try:
        changes = _replay(store, replayable, replay_bytes_max, progress)
        warnings = [*mended, *replayable.warnings, *_set_aside(layout, manifest.name, replayable.torn)]
        if plan.begins_segment:
            warnings += _resume(log)
        manifest = _with_uid(layout, manifest, served.uid)
        is_missing = not found.segments
        return Opened(manifest, store, tuple(warnings), is_missing, replayable.count, tuple(changes))
    except BaseException:
        store.close()
        raise


def _refuse_other_meta(found: Observation) -> None:
    """Raise Busy when the folded table has another meta row than the observed one.

    After a failed writeback the page cache may drop frames of `-wal` between the two reads.
    """
    if peek_meta(found.folder / POINTS) != found.meta:
        raise Busy(f"{POINTS} changed while it was opened", operation="recovery", retry_after_seconds=5)


def _replay(
    store: Store, replayable: Replayable, bytes_max: int, progress: Callable[[int, int], None]
) -> list[Applied]:
    """Apply the records in parts that fit into memory; return the changes of the last part."""
    changes: list[Applied] = []
    total = replayable.count
    for done, record in enumerate(records_of(replayable.extents), start=1):
        changes.append(store.replay(_effect_of(record, store.log), record.sequence))
        if store.overlay_bytes >= bytes_max:
            store.checkpoint_replayed()
            changes.clear()
        progress(done, total)
    return changes


def _effect_of(record: Record, log: Log) -> Effect:
    try:
        return decode_effect(record, log.identity.stride)
    except ValueError as error:
        message = f"record {record.sequence} passes its checksum, but cannot be applied: {error}"
        raise DamagedFile(message, file=str(log.folder), offset=record.offset) from error


def _set_aside(layout: Layout, name: str, torn: Sequence[FoundSegment]) -> list[str]:
    """Copy torn tails to `.quarantine/` before their segments go: normal after a crash, but evidence."""
    warnings = []
    for segment in torn:
        warnings.append(
            f"{segment.path}: torn tail of {segment.tail_bytes} bytes at byte {segment.valid_bytes}"
        )
        if segment.tail_bytes <= TORN_TAIL_BYTES_MAX:
            folder = layout.quarantine / f"{name}-{timestamp()}"
            try:
                files.make_folder(layout.quarantine)
                files.make_folder(folder)
                aside = folder / f"{segment.path.name}.torn-at-{segment.valid_bytes}"
                files.copy_end(segment.path, segment.valid_bytes, aside)
            except OSError as error:
                warnings.append(f"{segment.path}: the torn tail could not be set aside: {error}")
    return warnings


def _resume(log: Log) -> list[str]:
    try:
        log.resume()
    except DiskFull as error:
        return [f"the log goes on with the first write that finds room: {error.message}"]
    except StorageError as error:  # The found segments stay readable; the next `resume` continues.
        return [f"the log goes on with the first write that the disk takes: {error.message}"]
    except ReadOnly as error:  # `Log.broken` is set: the collection is served, and is `read_only`.
        return [error.message]
    return []


def _with_uid(layout: Layout, manifest: Manifest, uid: str) -> Manifest:
    """Write the header's uid into a manifest without one: a person wrote it, or it replaced a lost one."""
    if manifest.collection_uid is not None:
        return manifest

    def decide(found: Manifest | None) -> Manifest | None:
        return found and dataclasses.replace(found, collection_uid=uid)

    return update_manifest(layout, manifest.name, decide)[1] or manifest
