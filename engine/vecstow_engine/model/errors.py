"""The errors that Vecstow raises.

VecstowError
├── InvalidInput            a value that breaks a stated limit
│   └── WrongShape          a body or file with missing, unknown or mistyped fields
├── TooLarge                more bytes or items than the limit allows
├── NotFound                no such collection, point, backup or path
├── Conflict                the target exists already, or something else owns or holds it
├── Busy                    a queue or buffer is at its limit; nothing was logged
├── Unavailable             the collection or the volume cannot answer now
│   ├── Recovering          the collection is being opened or repaired, or waits for that
│   ├── ReadOnly            no more writes until the next start or a repair, mostly after a failed sync
│   ├── Quarantined         the files are damaged, gone or cannot be opened; nothing is served
│   └── Foreign             the data files are another program's
├── DiskFull                the volume has no room; nothing was changed
├── OutOfMemory             the memory limit has no room; nothing was changed
├── OutcomeUnknown          only the next start can show whether the change happened
└── StorageError            a file fails a check, or an operation on a file fails
    ├── DamagedFile         content that fails its checks
    ├── NewerFormat         written by a later release
    └── VolumeRefused       the data directory cannot be used (lock, network file system)
        ├── VolumeHeld      another engine uses the data directory
        └── VolumeServed    an engine serves the data directory, and can do the work
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

MESSAGE_CHARACTERS_MAX: Final = 600
"""Longer messages lose their middle, which quotes a client's value; their ends name the limit."""
DETAIL_CHARACTERS_MAX: Final = 300
DETAIL_ITEMS_MAX: Final = 50
READ_ONLY_HINT: Final = (
    "examine the disk; then restart the engine, which replays the log, or repair the collection"
)
"""The ways out of `read_only`. This process cannot tell which bytes the disk has."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class VecstowError(Exception):
    """The root of the tree. `message` names the field, the value and the limit; `hint` says what to do.

    No error repeats more than a few hundred characters of a client's text: longer texts lose their middle.
    """

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
        message = shortened(message, MESSAGE_CHARACTERS_MAX)
        super().__init__(message)
        self.message = message
        self.collection = collection and shortened(collection, DETAIL_CHARACTERS_MAX)
        self.operation = operation
        self.hint = hint and shortened(hint, MESSAGE_CHARACTERS_MAX)
        self.details = {name: _detail(value) for name, value in (details or {}).items()}
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
    """Raised when the target exists already, or another owner, a hold or other writes forbid the change."""


class Busy(VecstowError):
    """Raised when a queue or buffer stayed full, or the point table stayed in use; nothing was logged."""


class Unavailable(VecstowError):
    """Raised when the collection or the volume cannot answer in its present state."""


class Recovering(Unavailable):
    """Raised while a collection is being opened or repaired, or waits for its next opening."""


class ReadOnly(Unavailable):
    """Raised for writes after a failed sync or a lost log segment, until a start or a repair; reads go on."""


class Quarantined(Unavailable):
    """Raised for a collection whose files are damaged as a whole, missing, or of a newer format."""


class Foreign(Unavailable):
    """Raised for a collection whose data files were written by another program."""


class DiskFull(VecstowError):
    """Raised when the volume has no room for a write; nothing was changed."""


class OutOfMemory(VecstowError):
    """Raised when a write needs more memory than the limit leaves; nothing was changed."""


class OutcomeUnknown(VecstowError):
    """Raised when the sync of this write failed, or a change of names stopped where a start continues it."""


class StorageError(VecstowError):
    """Raised when a file fails a check, or an operation on a file fails."""


class DamagedFile(StorageError):
    """Raised when a file's content fails its checks; carries the file and the byte offset."""

    def __init__(
        self, message: str, *, file: str, offset: int | None = None, hint: str | None = None
    ) -> None:
        where = file if offset is None else f"{file} at byte {offset}"
        super().__init__(f"{where}: {message}", hint=hint, details={"file": file, "offset": offset})
        self.reason = message
        """The message without file and offset."""
        self.file = file
        self.offset = offset


class NewerFormat(StorageError):
    """Raised when a file was written by a later release; it is left untouched."""


class VolumeRefused(StorageError):
    """Raised when the data directory cannot be used, for example on a network file system."""


class VolumeHeld(VolumeRefused):
    """Raised when the data directory is in use by another engine."""


class VolumeServed(VolumeRefused):
    """Raised when a command needs a stopped volume, and an engine serves it. That engine can do the work.

    `lacks` is the argument that a request to the engine needs in addition; empty when it needs none.
    """

    def __init__(self, message: str, *, lacks: str = "") -> None:
        added = f"{lacks} and " if lacks else ""
        hint = f"ask that engine: the same command, with {added}--url and its address instead of --data"
        super().__init__(message, hint=hint)
        self.lacks = lacks


def is_no_room(error: BaseException) -> bool:
    """Whether an OSError reports that the volume or the quota is full."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def as_storage_error(error: OSError, operation: str) -> VecstowError:
    """Return the typed error for an OSError of a write that changed nothing."""
    if is_no_room(error):
        return DiskFull(
            f"the volume is full while {operation}; nothing was changed",
            operation=operation,
            hint="delete or compact collections, or enlarge the volume; writes resume by themselves",
        )
    return StorageError(f"{operation} failed: {error}", operation=operation)


def refused(field: str, value: object, limit: object = None) -> dict[str, object]:
    """Return the details of a refused value: its field, the value, and the limit that it breaks.

    `limit` is a bound, a list of legal values, or a rule in words; None when there is none.
    """
    details: dict[str, object] = {"field": field, "value": by_kind(value)}
    return details if limit is None else details | {"limit": limit}


def by_kind(value: object) -> object:
    """Return `value`, or a description of an object or a list, which may be large."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    return f"a list of {len(value)} values" if isinstance(value, list | tuple) else value


def shortened(text: str, characters_max: int) -> str:
    """Return `text` as valid Unicode, without its middle when it is longer than `characters_max`."""
    if len(text) > characters_max:
        tail = characters_max // 3
        text = f"{text[: characters_max - tail - 1]}…{text[-tail:]}"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _detail(value: Any) -> Any:
    """Return a detail in a form that every body format can carry."""
    if isinstance(value, str):
        return shortened(value, DETAIL_CHARACTERS_MAX)
    if isinstance(value, dict):
        return {
            str(name)[:DETAIL_CHARACTERS_MAX]: _detail(inner)
            for name, inner in islice(value.items(), DETAIL_ITEMS_MAX)
        }
    if isinstance(value, list | tuple):
        return [_detail(inner) for inner in islice(value, DETAIL_ITEMS_MAX)]
    if isinstance(value, int) and value.bit_length() > 63:
        return shortened(
            str(value) if value.bit_length() < 1024 else "a large integer", DETAIL_CHARACTERS_MAX
        )
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity and no NaN
    return value if value is None or isinstance(value, int | float) else type(value).__name__
