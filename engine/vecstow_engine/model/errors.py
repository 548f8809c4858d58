"""Every error that Vecstow raises on purpose.

VecstowError
├── InvalidInput            a value that breaks a stated limit
│   └── WrongShape          a body or file with missing, unknown or mistyped fields
├── TooLarge                more bytes or items than the limit allows
├── NotFound                no such collection, point, backup or path
├── Conflict                it exists already, or something else owns or holds it
├── Busy                    a queue or buffer is at its limit; nothing was logged
├── Unavailable             the collection or the volume cannot answer now
│   ├── Recovering          the write-ahead log is being replayed
│   ├── ReadOnly            a sync failed: no more writes until the next start
│   ├── Quarantined         damage was found; nothing is served
│   └── Foreign             the data files are another program's
├── DiskFull                the volume has no room; nothing was changed
├── OutcomeUnknown          only the next start can tell whether it happened
└── StorageError            a file is not what it must be
    ├── DamagedFile         content that fails its checks
    ├── NewerFormat         written by a later release
    └── VolumeRefused       the data directory cannot be used (lock, network file system)
"""

from __future__ import annotations


class VecstowError(Exception):
    """The root. `message` names the field, the value and the limit; `hint` says what to do."""

    def __init__(
        self,
        message: str,
        *,
        collection: str | None = None,
        operation: str | None = None,
        hint: str | None = None,
        details: dict[str, object] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.collection = collection
        self.operation = operation
        self.hint = hint
        self.details = details or {}
        self.retry_after_seconds = retry_after_seconds


class InvalidInput(VecstowError):
    """Raised when a value breaks a stated limit; nothing was changed."""


class WrongShape(InvalidInput):
    """Raised when a body or a file lacks a field, has an unknown one, or one of the wrong type."""


class TooLarge(VecstowError):
    """Raised when a body or a batch has more bytes or items than the limit allows."""


class NotFound(VecstowError):
    """Raised when the named collection, point, backup or path does not exist."""


class Conflict(VecstowError):
    """Raised when the target exists already, or another owner or a hold forbids the change."""


class Busy(VecstowError):
    """Raised when a bounded queue or buffer stayed full; the write was not logged."""


class Unavailable(VecstowError):
    """Raised when the collection or the volume cannot answer in its present state."""


class Recovering(Unavailable):
    """Raised while a collection's write-ahead log is being replayed."""


class ReadOnly(Unavailable):
    """Raised for writes to a collection whose sync failed; reads go on."""


class Quarantined(Unavailable):
    """Raised for a collection in which damage was found that cannot be withheld point by point."""


class Foreign(Unavailable):
    """Raised for a collection whose data files were written by another program."""


class DiskFull(VecstowError):
    """Raised when the volume has no room for a write; nothing was changed."""


class OutcomeUnknown(VecstowError):
    """Raised when a sync of this very write failed, or a change of names stopped where a start goes on."""


class StorageError(VecstowError):
    """Raised when a file is not what it must be."""


class DamagedFile(StorageError):
    """Raised when a file's content fails its checks; carries the file and the byte offset."""

    def __init__(
        self, message: str, *, file: str, offset: int | None = None, hint: str | None = None
    ) -> None:
        where = file if offset is None else f"{file} at byte {offset}"
        super().__init__(f"{where}: {message}", hint=hint, details={"file": file, "offset": offset})
        self.reason = message
        """The message without the place."""
        self.file = file
        self.offset = offset


class NewerFormat(StorageError):
    """Raised when a file was written by a later release; it is left untouched."""


class VolumeRefused(StorageError):
    """Raised when the data directory is in use by another engine or lies on a network file system."""


class VolumeHeld(VolumeRefused):
    """Raised when the data directory is in use by another engine."""
