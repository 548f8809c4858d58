"""The shares of the requests in flight: no key and no collection takes all places."""

from __future__ import annotations

from collections.abc import Sequence

from vecstow_engine.api.request import Request
from vecstow_engine.model.errors import Busy

Owner = tuple[str, str]
"""A kind (`key` or `collection`) and a name."""


class Shares:
    """Places for requests in flight: each owner takes at most three quarters of `places`.

    Used from one event loop.
    """

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


def owners_of(request: Request) -> list[Owner]:
    """Return the owners whose shares of the requests in flight a request takes: key and collection."""
    owners = [] if request.key is None else [("key", request.key.name)]
    if request.match is not None:
        owners.append(("collection", request.collection))
    return owners
