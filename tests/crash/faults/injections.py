"""Which errors are let happen at which calls."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tests.crash.faults.control import ALWAYS, SYNCS, Action, Call, Fault, Kind

HALF, BYTE, FULL = "half", "byte", "full"
"""A write is cut to its half, or to one byte; or to its half, and then there is no room."""
INTERRUPTED_TIMES = 3
"""A call that is interrupted for ever is no error that a disk has."""
HOWS = {
    Kind.WRITE: ("EIO", "ENOSPC", FULL, "EINTR", HALF, BYTE),
    Kind.TRUNCATE: ("EIO", "ENOSPC", "EINTR"),
    Kind.ALLOCATE: ("EIO", "ENOSPC", "EINTR"),
    Kind.CREATE: ("EIO", "ENOSPC", "EMFILE", "EINTR"),
    Kind.OPEN: ("EIO", "EMFILE", "EINTR"),
    Kind.RENAME: ("EIO", "ENOSPC"),
    Kind.UNLINK: ("EIO",),
    Kind.RMDIR: ("EIO",),
    Kind.MKDIR: ("EIO", "ENOSPC"),
    Kind.LINK: ("EIO", "ENOSPC"),
    Kind.FSYNC: ("EIO", "ENOSPC", "EINTR"),
    Kind.FDATASYNC: ("EIO", "ENOSPC", "EINTR"),
}
"""The errors that each kind of call can meet; a disk makes no other error of unlink and rmdir."""


@dataclass(frozen=True)
class Injection:
    """An error at the `nth` call of a kind in a round, and, when it is sticky, at all that follow."""

    kind: Kind
    how: str
    nth: int
    sticky: bool

    def __str__(self) -> str:
        return f"{self.kind.name}:{self.how}:{self.nth}{'+' if self.sticky else ''}"

    @classmethod
    def parse(cls, text: str) -> Injection:
        """The inverse of str."""
        kind, how, nth = text.split(":")
        return cls(Kind[kind], how, int(nth.removesuffix("+")), nth.endswith("+"))

    @property
    def fault(self) -> Fault:
        """Return the fault to arm."""
        times = ALWAYS if self.sticky else 1
        if self.how in (HALF, BYTE):
            return Fault(Action.CUT, self.nth, (self.kind,), times, bytes=int(self.how == BYTE))
        if self.how == FULL:
            times = ALWAYS if self.sticky else 2
            return Fault(Action.CUT_THEN_FAIL, self.nth, (self.kind,), times, errno.ENOSPC)
        if self.how == "EINTR" and self.sticky:
            times = INTERRUPTED_TIMES
        return Fault(Action.FAIL, self.nth, (self.kind,), times, getattr(errno, self.how))

    @property
    def is_invisible(self) -> bool:
        """Whether the caller goes on after a short or interrupted call. SQLite does not after a sync."""
        return self.how in (HALF, BYTE) or (self.how == "EINTR" and self.kind not in SYNCS)

    @property
    def is_no_room(self) -> bool:
        """The disk says that it is full."""
        return self.how in ("ENOSPC", FULL)

    @property
    def is_the_last(self) -> bool:
        """After it the server is killed: of what a full disk leaves half done nothing may count."""
        return self.is_no_room and self.nth % 2 == 0

    @property
    def is_failed_sync(self) -> bool:
        """A sync fails."""
        return self.kind in SYNCS


def every(calls: Sequence[Call], seed: int) -> Iterator[Injection]:
    """Every error at every call: pass by pass, each with one place of every error that is not used up."""
    rng = np.random.default_rng([seed, 2])
    counts = Counter(call.kind for call in calls)
    groups = [(kind, how, sticky) for kind in Kind for how in HOWS[kind] for sticky in (False, True)]
    places = {group: rng.permutation(counts[group[0]]).tolist() for group in groups}
    for number in range(max(counts.values())):
        for place in rng.permutation(len(groups)).tolist():
            kind, how, sticky = groups[place]
            left = places[groups[place]]
            if number < len(left):
                yield Injection(kind, how, left[number] + 1, sticky)
