"""The write-ahead log of one collection: append, sync, rotate, trim.

Not thread-safe: the caller lets one thread write at a time. The log does not know what its records mean.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from vecstow_engine.model.errors import OutcomeUnknown, ReadOnly
from vecstow_engine.storage import files
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.layout import SEGMENT_SUFFIX, segment_name
from vecstow_engine.storage.log.replay import Extent, records_of
from vecstow_engine.storage.log.segment import (
    Record,
    SegmentHeader,
    encode_header,
    encode_record,
    refuse_oversized,
)


@dataclass(slots=True)
class _Active:
    """The segment that grows."""

    path: Path
    seed: int
    size: int
    fd: int | None = None


class Log:
    """Appends records to the newest segment; acknowledges nothing before `fdatasync` returned.

    `last` is the newest sequence in the log, `synced` the newest known durable; they differ only while an
    append runs, or for ever after a sync failed (`broken` then says why, and no write is taken).
    """

    def __init__(
        self, folder: Path, identity: Identity, *, applied: int = 0, carried: Sequence[Extent] = ()
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.last = carried[-1].upto if carried else applied
        self.synced = self.last
        self.broken: str | None = None
        self._first = applied + 1
        self._carried = tuple(carried)
        self._active: _Active | None = None
        self._older = {path: path.stat().st_size for path in self.segments()}
        """Bytes of the segments before the growing one."""
        self._is_alone = True
        """Not so while a segment of this process goes on beside those that it was made of."""
        self._is_removing = False
        """Some of those may have gone, and no sync of the folder has told since."""

    @property
    def size(self) -> int:
        """Bytes of the growing segment, header included; 0 before the first write of this process."""
        return self._active.size if self._active else 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments."""
        return self.size + sum(list(self._older.values()))

    def append(self, payloads: Sequence[tuple[int, bytes]]) -> list[int]:
        """Log each (type, payload) as one record, all with one sync; returns their sequences.

        Raises TooLarge or DiskFull (nothing is logged), OutcomeUnknown (the sync failed) or ReadOnly (an
        earlier one did, also when there is nothing to log: what it covered may come back).
        """
        self._refuse_if_broken()
        for _, payload in payloads:
            refuse_oversized(len(payload))
        if not payloads:
            return []
        self.resume()
        active = self._opened()
        parts, sequences = self._encode(payloads, active.seed)
        self._write(active, parts)
        self._sync(active)
        self.last = self.synced = sequences[-1]
        return sequences

    def resume(self) -> None:
        """Go on after recovery (rule 7): a new segment with every record that was found, then the old ones
        go.

        The page cache may have shown what the disk does not have, so nothing found is appended to. Does
        nothing when the log is already growing. Raises as `start_segment`, and goes on where it stopped.
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
                raise files.as_storage_error(error, "removing the log segments before this start") from error
            self._is_alone = True

    def skip_applied(self, applied: int) -> None:
        """Carry over only the records above `applied`: the others are durable in the point table."""
        self._first = applied + 1
        self._carried = tuple(
            replace(extent, after=max(extent.after, applied))
            for extent in self._carried
            if extent.upto > applied
        )

    def start_segment(self) -> None:
        """Go on in a new segment, durable before it has its name. On an error the log goes on where it was.

        Raises DiskFull, StorageError, or ReadOnly when the name could not be made durable.
        """
        self._refuse_if_broken()
        if self._carried or not self._is_alone:
            self.resume()  # its header calls them durable: they must be
        self._start(self.last + 1, ())

    def segments(self) -> list[Path]:
        """The segment files, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.endswith(SEGMENT_SUFFIX))

    def trim(self, applied: int) -> None:
        """Remove the segments that lie wholly at or below `applied`, oldest first; never the newest."""
        paths = self.segments()
        for path, following in pairwise(paths):
            if int(following.stem) > applied + 1:
                break
            files.remove(path)  # not synced: a segment that comes back holds nothing above `applied`
            self._older.pop(path, None)

    def close(self) -> None:
        """Close the descriptor; the next append opens it again."""
        if self._active is not None and self._active.fd is not None:
            os.close(self._active.fd)
            self._active.fd = None

    def _start(self, first: int, carried: Iterable[Record]) -> None:
        header = SegmentHeader(self.identity, first, self.synced, secrets.randbits(32))
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
            raise files.as_storage_error(error, "starting a log segment") from error
        self.close()
        if self._active is not None:
            self._older[self._active.path] = self._active.size
        self._active = _Active(path, header.seed, size)
        self._older.pop(path, None)

    def _remove_all_but_active(self) -> None:
        """Durably, before anything is appended: a torn tail that comes back holds sequences that are given
        out anew.
        """
        assert self._active is not None
        suffixes = SEGMENT_SUFFIX, SEGMENT_SUFFIX + files.TEMPORARY_SUFFIX
        others = [path for path in self.folder.iterdir() if path.name.endswith(suffixes)]
        others.remove(self._active.path)
        if others or self._is_removing:
            with files.opened_folder(self.folder) as fd:  # before anything goes: when this fails, try again
                self._is_removing = True
                for path in sorted(others):
                    files.remove(path)
                    self._older.pop(path, None)
                files.sync(fd)

    def _refuse_if_broken(self) -> None:
        if self.broken is not None:
            raise self._read_only()

    def _read_only(self) -> ReadOnly:
        return ReadOnly(
            f"the collection takes no writes: {self.broken}",
            collection=self.identity.name,
            hint="restart the engine: it replays the log in a new process",
        )

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

    def _encode(self, payloads: Sequence[tuple[int, bytes]], seed: int) -> tuple[list[bytes], list[int]]:
        parts: list[bytes] = []
        sequences = []
        previous = self.last
        for record_type, payload in payloads:
            sequence = previous + 1
            parts += [encode_record(seed, sequence, previous, self.synced, record_type, payload), payload]
            sequences.append(sequence)
            previous = sequence
        return parts, sequences

    def _write(self, active: _Active, parts: Sequence[bytes]) -> None:
        assert active.fd is not None
        try:
            written = files.write_at(active.fd, active.size, parts)
        except OSError as error:
            self._cut_partial_append(active, error)
            raise files.as_storage_error(error, "appending to the log") from error
        active.size += written

    def _cut_partial_append(self, active: _Active, cause: OSError) -> None:
        """Nothing of a failed append may stay: it would be a hole, or count after a restart."""
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
        return OutcomeUnknown(
            f"outcome unknown: {reason}",
            collection=self.identity.name,
            hint="read it back after a restart of the engine",
        )


def _encoded(header: SegmentHeader, carried: Iterable[Record]) -> Iterator[bytes]:
    """Yield the parts of a segment that holds these records, all of them durable when it gets its name."""
    yield encode_header(header)
    for record in carried:
        yield encode_record(
            header.seed, record.sequence, record.previous, header.synced, record.type, record.payload
        )
        yield record.payload
