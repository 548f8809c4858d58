"""Attempts at the engine's own work for a collection: a failed attempt is reported and repeated later.

An error ends only the attempt that raised it. The error is logged, counted by kind of work, and kept on the
collection until an attempt succeeds. A pause follows each failure, twice as long each time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

import structlog

from vecstow_engine.model.backoff import Backoff
from vecstow_engine.model.errors import DiskFull, VecstowError

PAUSE_SECONDS: Final = 1.0
PAUSE_SECONDS_MAX: Final = 300.0
FULL_PAUSE_SECONDS_MAX: Final = 30.0
"""The longest pause after DiskFull: room can come at any time, and writers wait for the checkpoint."""
REASON_CHARACTERS_MAX: Final = 300

log = structlog.stdlib.get_logger(__name__)


class Work(StrEnum):
    """The kinds of work; log, metrics and states use these names."""

    OPENING = "opening"
    FOLLOWING = "following its manifest"
    LOOKING = "looking for its files"
    AWAITING = "waiting for its files"
    COMMITTING = "committing"
    INDEXING = "indexing"
    PAYLOAD_INDEXES = "payload indexes"
    UPKEEP = "upkeep"
    CHECKPOINT = "checkpoint"
    SNAPSHOT = "index snapshot"
    PAYLOAD_SNAPSHOT = "payload index snapshot"
    REBUILD = "rebuild"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason why the last attempt failed, and the pause before the next one."""

    reason: str
    pause_seconds: float
    until: float
    """The end of the pause, time.monotonic."""


class Holder(Protocol):
    """The collection or the folder that work is done for."""

    troubles: dict[Work, Trouble]

    @property
    def name(self) -> str:
        """Return the collection's name."""


@dataclass(slots=True)
class Folder:
    """A folder that is not a collection yet."""

    name: str
    troubles: dict[Work, Trouble] = field(default_factory=dict)


class Attempts:
    """The record of failed attempts; the engine has one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.failures: Counter[Work] = Counter()
        """Failed attempts since the start, by kind of work."""

    def may_begin(self, work: Work, holder: Holder) -> bool:
        """Whether the holder has no pause for this kind of work."""
        trouble = holder.troubles.get(work)
        return trouble is None or time.monotonic() >= trouble.until

    @contextmanager
    def at(self, work: Work, holder: Holder) -> Iterator[None]:
        """Make the with block one attempt: record an exception of the block, and raise none."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # The caller goes on with the next collection.
            self.fail(work, holder, error)
        else:
            self.succeed(work, holder)

    def fail(self, work: Work, holder: Holder, error: Exception) -> Trouble:
        """Record the error of an attempt, and begin a pause."""
        before = holder.troubles.get(work)
        longest = FULL_PAUSE_SECONDS_MAX if isinstance(error, DiskFull) else PAUSE_SECONDS_MAX
        backoff = Backoff(PAUSE_SECONDS, longest)
        seconds = backoff.after(None if before is None else before.pause_seconds)
        trouble = Trouble(_reason(error), seconds, time.monotonic() + seconds)
        holder.troubles[work] = trouble
        with self._lock:
            self.failures[work] += 1
        is_news = before is None or before.reason != trouble.reason
        is_foreseen = isinstance(error, VecstowError | OSError)
        log.error(
            "work for a collection failed",
            work=work.value,
            collection=holder.name,
            reason=trouble.reason,
            again_in_seconds=seconds,
            exc_info=error if is_news and not is_foreseen else None,
        )
        return trouble

    def succeed(self, work: Work, holder: Holder) -> None:
        """Forget the error of the last attempt."""
        holder.troubles.pop(work, None)


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, VecstowError | OSError) else f"{type(error).__name__}: {error}"
    return text.removesuffix(": ")[:REASON_CHARACTERS_MAX]
