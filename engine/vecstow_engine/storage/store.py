"""The durable state of one collection: its log and its layers.

`commit` logs and syncs a group of effects, then applies them; one thread at a time. `checkpoint` moves the
overlay into the files (rule 8). `_writing` is held during append and apply, and while the overlay is frozen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Final

import numpy as np

from vecstow_engine.model.errors import (
    READ_ONLY_HINT,
    DamagedFile,
    Quarantined,
    ReadOnly,
    StorageError,
    VecstowError,
    as_storage_error,
)
from vecstow_engine.model.payloads import PAYLOAD_BYTES_MAX
from vecstow_engine.model.points import make_labels
from vecstow_engine.storage import files
from vecstow_engine.storage.admission import admit
from vecstow_engine.storage.handles import DataFiles
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layers import Announce, Applied, Entry, Layers, Overlay, stamp_of
from vecstow_engine.storage.layout import POINTS, ROWS
from vecstow_engine.storage.log.segment import RECORD_BYTES_MAX, Effect, Upsert, encode_effect, without_absent
from vecstow_engine.storage.log.writer import Log
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.points.table_repair import rewrite
from vecstow_engine.storage.points.writer import could_not_open, vacuum, write_points
from vecstow_engine.storage.view import View

CHECKPOINT_ROWS: Final = 4096
CHECKPOINT_BYTES: Final = 16 << 20
"""A checkpoint gathers at most this many rows, of at most this many bytes, in memory at a time."""
POINT_BYTES_BESIDE_ROW: Final = 4 * 256 + PAYLOAD_BYTES_MAX + 2 + 4
"""The most bytes that a point adds to a record apart from its row: id, payload and both lengths."""


class Store:
    """The files and the overlay of one collection in use, made by recovery or by the first write."""

    def __init__(self, layers: Layers, log: Log, meta: Meta, data_files: DataFiles) -> None:
        self.layers = layers
        self.view = View(layers)
        self.log = log
        self.meta = meta
        self.data_files = data_files
        """The files that were opened. Code of this process that moves them retires this store first."""
        self.failure: str | None = None
        """The reason why no checkpoint can succeed in this process; None when one can."""
        self.remark: str | None = None
        """The latest repair of the point table by a checkpoint."""
        self._writing = threading.RLock()
        """Also held by a read that writes disturbed again and again; such reads can nest."""

    @property
    def identity(self) -> Identity:
        """The incarnation that the store holds."""
        return self.layers.identity

    @property
    def count(self) -> int:
        """The number of live points, including withheld ones."""
        return self.layers.slots.live_count

    @property
    def overlay_bytes(self) -> int:
        """Bytes of memory that the overlays take."""
        return sum(overlay.bytes for overlay in self.layers.overlays())

    @property
    def last_sequence(self) -> int:
        """The newest durable sequence. Readers see its effect once `commit` has applied it."""
        return self.log.last

    @property
    def broken(self) -> str | None:
        """The reason why this process takes no more writes; None while it does."""
        return self.log.broken or self.failure

    def writes_paused(self) -> AbstractContextManager[object]:
        """Return a context in which writes of the collection wait, so that no point changes."""
        return self._writing

    def commit(self, effects: Sequence[Effect], announce: Announce | None = None) -> list[Applied]:
        """Log all effects with one sync, then apply them; every refusal happens before anything is logged.

        Ids whose guards fail are left out, and deletes of absent ids are not logged. `Layers.apply` describes
        `announce`. Raises Unavailable for an id whose table row is damaged, and the errors of `Log.append`:
        DiskFull, StorageError, TooLarge, ReadOnly or OutcomeUnknown.
        """
        with self._writing, self._log_handle():
            self._refuse_if_failed()
            live = self._live_slots(effects)
            admitted = admit(effects, live, self.layers.slots.label, self._version)
            needed = without_absent([each.effect for each in admitted], live)
            sequences = iter(self.log.append([encode_effect(effect) for effect in needed if effect.ids]))
            applied = [
                self.layers.apply(each.effect, next(sequences) if logged.ids else 0, live, announce)
                for each, logged in zip(admitted, needed, strict=True)
            ]
            return [replace(done, rejected=a.rejected) for done, a in zip(applied, admitted, strict=True)]

    def replay(self, effect: Effect, sequence: int) -> Applied:
        """Apply an effect from the log."""
        return self.layers.apply(
            effect, sequence, self.layers.live_slots(effect.ids, in_table=self.meta.points > 0)
        )

    def checkpoint(self) -> bool:
        """Move the overlay into the files, and trim the log; return False when there was nothing to do.

        Raises DiskFull or Busy: nothing is lost, and a later checkpoint can succeed. Raises Quarantined when
        the data files lost their names; the log then stays complete. A failed sync, or a StorageError of the
        point table, ends the writes of this process, which cannot find out what is on the disk.
        """
        self._refuse_if_failed()
        if not self._freeze():
            return False
        with self.fatal_errors("a checkpoint"):
            self._write_frozen()
        self._refuse_without_files()
        self.log.trim(self.meta.applied)
        return True

    def checkpoint_replayed(self) -> None:
        """Move the overlay into the files during replay; the found segments do not change.

        The replayed records need not be durable in the log: from now on their effects are in the files.
        Raises the errors of `checkpoint`.
        """
        self._swap_overlay()
        with self.fatal_errors("a checkpoint"):
            self._write_frozen()
        self.log.skip_applied(self.meta.applied)

    def relocate(self, count_max: int, announce: Announce | None = None) -> Applied | None:
        """Write points of the highest slots again, into free lower slots; return None when none can move.

        The limit is `count_max` points, and as many as fit into one record at their largest size. A
        checkpoint then frees the space that `truncate` gives back. The caller updates the index.
        """
        count_max = min(count_max, RECORD_BYTES_MAX // (self.identity.stride + POINT_BYTES_BESIDE_ROW))
        with self._writing, self._log_handle():
            self._refuse_if_failed()
            with self.layers.lock:
                self.layers.slots.shrink()
                slots = self.layers.slots.highest_live(min(count_max, self.layers.slots.free_count))
                labels = make_labels(slots, self.layers.slots.epochs(slots))
                lower = int((slots >= self.count).sum())
            labels = labels[len(labels) - lower :]
            effect = self.view.as_upsert(labels)
            if not effect.ids:
                return None
            live = self.layers.live_slots(effect.ids)
            (sequence,) = self.log.append([encode_effect(effect)])
            return self.layers.apply(effect, sequence, live, announce)

    def truncate(self) -> int:
        """Cut the free end of the rows file and the free pages of the table; return the bytes that remain."""
        self._refuse_if_failed()
        with self.fatal_errors("compaction"):
            with self.layers.lock:
                rows_kept = self.layers.slots.shrink()
            with self.layers.rows() as rows:
                rows.truncate(rows_kept)
            vacuum(self.layers.folder / POINTS)
        return self.bytes_on_disk()

    def bytes_on_disk(self) -> int:
        """Return the size of rows file and point table together."""
        return sum((self.layers.folder / name).stat().st_size for name in (ROWS, POINTS))

    @contextmanager
    def fatal_errors(self, operation: str) -> Iterator[None]:
        """Turn the errors of a block into typed errors, and end the writes of this process when they must
        end.

        Writes end after a failed sync, and after a StorageError unless SQLite only failed to open the table.
        They go on after another OSError, for example on a full disk.
        """
        try:
            yield
        except files.SyncFailed as error:
            self.failure = f"{operation} failed: {error}"
            raise StorageError(self.failure, collection=self.identity.name) from error
        except OSError as error:
            raise as_storage_error(error, operation) from error
        except StorageError as error:
            if not could_not_open(error):
                self.failure = f"{operation} failed: {error}"
            raise

    def retire(self, reason: str, error: VecstowError | None = None) -> str | None:
        """Wait for the write under way, then refuse writes for `reason` and close every descriptor.

        Later reads and writes get `error`, by default NotFound. Returns the reason why writes were refused
        before; None when they were not.
        """
        with self._writing:
            before, self.failure = self.broken, reason
            self.layers.close(error)
        return before

    def close(self) -> None:
        """Close every descriptor; the store must not be used again."""
        self.layers.close()

    def _refuse_if_failed(self) -> None:
        if self.failure is not None:
            message = f"the collection takes no writes: {self.failure}"
            raise ReadOnly(message, collection=self.identity.name, hint=READ_ONLY_HINT)

    def _refuse_without_files(self) -> None:
        if (missing := self.data_files.missing()) is not None:
            raise Quarantined(missing.message, collection=self.identity.name)

    def _live_slots(self, effects: Sequence[Effect]) -> dict[str, int]:
        ids = [
            i for effect in effects if not (isinstance(effect, Upsert) and effect.all_new) for i in effect.ids
        ]
        return self.layers.live_slots(ids) if ids else {}

    def _version(self, point_id: str) -> str | None:
        """Return the version of a live point; None when its row of the table is damaged."""
        found, _ = self.layers.find([point_id])
        return stamp_of(self.identity, found[point_id]).version(found[point_id].payload) if found else None

    def _freeze(self) -> bool:
        if self.layers.frozen is not None:
            return True
        with self._writing:
            if not self.layers.active.last_sequence:
                return False
            with self._log_handle():
                self.log.start_segment()
            self._swap_overlay()
        return True

    def _swap_overlay(self) -> None:
        with self.layers.lock:
            self.layers.frozen = self.layers.active
            self.layers.active = Overlay(self.layers.active.epoch + 1)

    def _write_frozen(self) -> None:
        frozen = self.layers.frozen
        assert frozen is not None
        entries = sorted(frozen.live(), key=lambda entry: entry.slot)
        self._write_rows(entries)
        self._refuse_without_files()
        try:
            self.meta = self._write_table(frozen, entries)
        except DamagedFile as error:
            rewrite(self.layers.folder / POINTS)
            self.meta = self._write_table(frozen, entries)
            self.remark = f"{error.message}; no point was lost, and the table was rebuilt"
        with self.layers.lock:
            self.layers.slots.release(frozen.freed)
            self.layers.frozen = None

    def _write_table(self, frozen: Overlay, entries: Sequence[Entry]) -> Meta:
        points = (entry.stored() for entry in entries)
        path, applied = self.layers.folder / POINTS, frozen.last_sequence
        return write_points(path, frozen.freed, points, applied, checkpoints=frozen.epoch)

    def _write_rows(self, entries: Sequence[Entry]) -> None:
        count = max(1, min(CHECKPOINT_ROWS, CHECKPOINT_BYTES // self.identity.stride))
        with self.layers.rows() as rows:
            for start in range(0, len(entries), count):
                part = entries[start : start + count]
                slots = np.fromiter((entry.slot for entry in part), np.int64, len(part))
                rows.write(slots, np.stack([entry.row for entry in part]))
            rows.sync()

    def _log_handle(self) -> AbstractContextManager[Log]:
        return self.layers.borrow("log", lambda: self.log)
