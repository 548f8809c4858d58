"""Places that collections and keys share, so that the requests of one leave room for those of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from vecstow_engine.model.errors import Busy

Owner: TypeAlias = tuple[str, str]
"""A kind and a name."""


class Shares:
    """Used from one event loop. One owner has at most three quarters of `places`."""

    def __init__(self, places: int) -> None:
        self._each = max(1, 3 * places // 4)
        self._taken: dict[Owner, int] = {}

    def take(self, owners: Sequence[Owner]) -> None:
        """Take a place for each owner; raises Busy when one has its share already, and takes none."""
        for owner in owners:
            if self._taken.get(owner, 0) >= self._each:
                raise Busy(
                    f"{self._each} requests of {owner[0]} {owner[1]!r} are in flight, its share",
                    details={"limit": self._each},
                )
        for owner in owners:
            self._taken[owner] = self._taken.get(owner, 0) + 1

    def give(self, owners: Sequence[Owner]) -> None:
        """Give these places back."""
        for owner in owners:
            left = self._taken.pop(owner) - 1
            if left:
                self._taken[owner] = left
