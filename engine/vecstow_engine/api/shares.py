"""Places for requests in flight that collections and keys share: one owner always leaves room for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from vecstow_engine.model.errors import Busy

Owner: TypeAlias = tuple[str, str]
"""A kind (`key` or `collection`) and a name."""


class Shares:
    """The places taken by each owner: at most three quarters of `places`. Used from one event loop."""

    def __init__(self, places: int) -> None:
        self._each = max(1, 3 * places // 4)
        self._taken: dict[Owner, int] = {}

    def take(self, owners: Sequence[Owner]) -> None:
        """Take a place for each owner; raise Busy, and take none, when an owner has its share already."""
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
