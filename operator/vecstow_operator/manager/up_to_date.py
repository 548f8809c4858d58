"""The resources that need no write until they or their engines change."""

from __future__ import annotations

from collections.abc import Mapping

from vecstow_operator.manager.engines import EngineView
from vecstow_operator.manager.resource_cache import CachedResource

Pair = tuple[CachedResource, EngineView]
"""A resource and its engine, as a pass saw them."""


class UpToDate:
    """The resources that needed no write, by uid, as a pass saw them."""

    def __init__(self) -> None:
        self._pairs: dict[str, Pair] = {}

    def __contains__(self, uid: object) -> bool:
        return uid in self._pairs

    def add(self, pair: Pair) -> None:
        """Record that this resource needs no write."""
        self._pairs[pair[0].resource.uid] = pair

    def forget_changed(self, present: Mapping[str, Pair]) -> None:
        """Forget resources that are gone, and those that differ from `present`, or whose engines do."""
        self._pairs = {
            uid: pair for uid, pair in self._pairs.items() if uid in present and _is_same(pair, present[uid])
        }


def _is_same(one: Pair, other: Pair) -> bool:
    return one[1] is other[1] and one[0] == other[0]
