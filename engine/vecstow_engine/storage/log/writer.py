"""The write-ahead log of one collection: append, sync, rotate, trim.

Not thread-safe: the caller lets one thread write at a time. The log does not interpret its records.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from vecstow_engine.model.errors import READ_ONLY_HINT, OutcomeUnknown, ReadOnly, as_storage_error
from vecstow_engine.storage import files
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import SEGMENT_SUFFIX, segment_name
from vecstow_engine.storage.log.replay import Extent, records_of, segment_paths
from vecstow_engine.storage.log.segment import (
    Record,
    SegmentHeader,
    encode_header,
    encode_record,
    refuse_oversized,
)


@dataclass(slots=True)
class _Active:
    """The segment that receives appends."""

    path: Path
    seed: int
    size: int
    fd: int | None = None


class Log:
    """The log of one collection: appends records to the newest segment, and acknowledges after `fdatasync`.

    `last` is the newest durable sequence; it advances when the sync of an append returns. `broken` is the
    reason why no write is taken any more: a sync failed, a failed append could not be cut back, or the active
    segment is gone.
    """

    def __init__(
        self, folder: Path, identity: Identity, *, applied: int = 0, carried: Sequence[Extent] = ()
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.last = carried[-1].upto if carried else applied
        self.broken: str | None = None
        self._first = applied + 1
        self._carried = tuple(carried)
        self._active: _Active | None = None
        self._older = {path: path.stat().st_size for path in segment_paths(folder)}
        """The size in bytes of each segment before the active one."""
        self._is_alone = True
        """False while segments that recovery found still exist next to the active segment of this process."""
        self._is_removing = False
        """Whether some found segments may be removed, without a successful sync of the folder since."""

    @property
    def size(self) -> int:
        """Bytes of the active segment, header included; 0 before the first write of this process."""
        return self._active.size if self._active else 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments."""
        return self.size + sum(list(self._older.values()))

    def append(self, payloads: Sequence[tuple[int, bytes]]) -> list[int]:
        """Log each (type, payload) as one record, all with one sync; return their sequences.

        Raises TooLarge, DiskFull, or StorageError for another error of the disk: nothing is logged. Raises
        OutcomeUnknown when the sync failed, or when the cut of a failed append failed. Raises ReadOnly once
        `broken` is set, even without payloads: the records of a failed sync can reappear after a restart.
        """
        self._refuse_if_broken()
        for _, payload in payloads:
            refuse_oversized(len(payload))
        if not payloads:
            return []
        self.resume()
        active = self._opened()
        sequences = range(self.last + 1, self.last + 1 + len(payloads))
        parts: list[bytes] = []
        for sequence, (kind, payload) in zip(sequences, payloads, strict=True):
            parts += [encode_record(active.seed, sequence, sequence - 1, self.last, kind, payload), payload]
        self._write(active, parts)
        self._sync(active)
        self.last = sequences[-1]
        return list(sequences)

    def resume(self) -> None:
        """Continue after recovery (rule 7): write every found record to a new segment, then remove the old
        ones.

        The page cache may have shown data that the disk does not have, so nothing is appended to a found
        segment. Does nothing when this was done already. Raises the errors of `start_segment`; a later call
        continues where an error stopped this one.
        """
        if self._active is None:
            self._refuse_if_broken()
            self._start(self._first, records_of(self._carried))
            self._carried = ()
            self._is_alone = False
        if not self._is_alone:
            try:
                self._remove_all_but_active()
            except files.SyncFailed as error:
                self.broken = f"the removal of the segments before this start is not durable: {error}"
                raise self._read_only() from error
            except OSError as error:
                raise as_storage_error(error, "removing the log segments before this start") from error
            self._is_alone = True

    def skip_applied(self, applied: int) -> None:
        """Carry over only the records above `applied`; the effects of the others are durable in the files."""
        self._first = applied + 1
        above = (extent for extent in self._carried if extent.upto > applied)
        self._carried = tuple(replace(extent, after=max(extent.after, applied)) for extent in above)

    def start_segment(self) -> None:
        """Start a new segment, which is durable before it gets its name. On an error the active one stays
        active.

        Raises DiskFull or StorageError, or ReadOnly when the name could not be made durable.
        """
        self._refuse_if_broken()
        if self._carried or not self._is_alone:
            self.resume()  # The new header reports these records as durable, so they must be.
        self._start(self.last + 1, ())

    def trim(self, applied: int) -> None:
        """Remove the segments that are wholly at or below `applied`, oldest first; never the newest."""
        for path, following in pairwise(segment_paths(self.folder)):
            if int(following.stem) > applied + 1:
                break
            files.remove(path)  # Not synced: a segment that reappears holds nothing above `applied`.
            self._older.pop(path, None)

    def close(self) -> None:
        """Close the descriptor; the next append opens it again."""
        if self._active is not None and self._active.fd is not None:
            os.close(self._active.fd)
            self._active.fd = None

    def _start(self, first: int, carried: Iterable[Record]) -> None:
        header = SegmentHeader(self.identity, first, self.last, secrets.randbits(32))
        path = self.folder / segment_name(first)
        try:
            files.make_folder(self.folder.parent)
            files.make_folder(self.folder)
            with files.new_file(path) as fd:
                size = files.write_parts(fd, _encoded(header, carried))
        except files.SyncFailed as error:
            self.broken = f"the name of segment {path.name} could not be made durable: {error}"
            raise self._read_only() from error
        except OSError as error:
            raise as_storage_error(error, "starting a log segment") from error
        self.close()
        if self._active is not None:
            self._older[self._active.path] = self._active.size
        self._active = _Active(path, header.seed, size)
        self._older.pop(path, None)

    def _remove_all_but_active(self) -> None:
        """Remove the found segments, durably, before the next append: a torn tail that reappears after a
        crash holds sequences that new records use again.
        """
        assert self._active is not None
        suffixes = SEGMENT_SUFFIX, SEGMENT_SUFFIX + files.TEMPORARY_SUFFIX
        others = [path for path in self.folder.iterdir() if path.name.endswith(suffixes)]
        others.remove(self._active.path)
        if others or self._is_removing:
            with files.opened_folder(self.folder) as fd:  # Opened first: a failure can be retried.
                self._is_removing = True
                for path in sorted(others):
                    files.remove(path)
                    self._older.pop(path, None)
                files.sync(fd)

    def _refuse_if_broken(self) -> None:
        if self.broken is not None:
            raise self._read_only()

    def _read_only(self) -> ReadOnly:
        message = f"the collection takes no writes: {self.broken}"
        hint = READ_ONLY_HINT
        return ReadOnly(message, collection=self.identity.name, hint=hint)

    def _opened(self) -> _Active:
        active = self._active
        assert active is not None
        if active.fd is None:
            try:
                active.fd = files.open_existing(active.path)
            except FileNotFoundError as error:
                self.broken = f"its log segment {active.path.name} is gone"
                raise self._read_only() from error
        return active

    def _write(self, active: _Active, parts: Sequence[bytes]) -> None:
        assert active.fd is not None
        try:
            written = files.write_at(active.fd, active.size, parts)
        except OSError as error:
            self._cut_partial_append(active, error)
            raise as_storage_error(error, "appending to the log") from error
        active.size += written

    def _cut_partial_append(self, active: _Active, cause: OSError) -> None:
        """Cut a failed append, durably: its bytes would be a hole, or count as records after a restart."""
        assert active.fd is not None
        try:
            files.truncate(active.fd, active.size)
            files.data_sync(active.fd)
        except OSError as error:
            self.broken = f"after {cause} its log could not be cut back: {error}"
            raise self._outcome_unknown(self.broken) from error

    def _sync(self, active: _Active) -> None:
        assert active.fd is not None
        try:
            files.data_sync(active.fd)
        except OSError as error:
            self.broken = f"a sync of {active.path.name} failed: {error}"
            raise self._outcome_unknown(f"the sync of this write failed ({error})") from error

    def _outcome_unknown(self, reason: str) -> OutcomeUnknown:
        message = f"outcome unknown: {reason}"
        hint = "read it back after a restart of the engine"
        return OutcomeUnknown(message, collection=self.identity.name, hint=hint)


def _encoded(header: SegmentHeader, carried: Iterable[Record]) -> Iterator[bytes]:
    """Yield the parts of a segment with these records. All are durable when the segment gets its name."""
    yield encode_header(header)
    for r in carried:
        yield encode_record(header.seed, r.sequence, r.previous, header.synced, r.type, r.payload)
        yield r.payload
