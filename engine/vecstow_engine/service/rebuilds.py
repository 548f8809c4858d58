"""Rebuilds of graphs: each takes the memory of a second graph, and waits until there is room."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.memory_accounts import Accounts

log = structlog.stdlib.get_logger(__name__)


class Rebuilds:
    """The start of rebuilds. Methods may be called from any thread."""

    def __init__(self, accounts: Accounts, begun: Callable[[Collection], None]) -> None:
        self._accounts = accounts
        self._begun = begun

    def fits(self, collection: Collection) -> bool:
        """Whether there is memory for a second graph; without it, record the rebuild as postponed."""
        index = collection.index
        assert index is not None
        size = 0 if index.rebuilding else index.rebuild_bytes
        if self._accounts.fits(size):
            return True
        self._postpone(collection, size)
        return False

    def begin(self, collection: Collection, config: IndexConfig) -> bool:
        """Build a second graph with these settings while the first one serves; return False without room."""
        if not self.fits(collection):
            return False
        assert collection.index is not None
        collection.index.start_rebuild(config)
        self._account_for(collection)
        return True

    def begin_in_place(self, collection: Collection, config: IndexConfig) -> None:
        """Begin a rebuild; if two graphs do not fit, drop the first: searches are exact meanwhile."""
        if self.begin(collection, config):
            return
        index = collection.index
        assert index is not None
        index.start_over(config)
        log.info("graph is rebuilt in the place of the old one", collection=collection.name)
        self._account_for(collection)

    def _account_for(self, collection: Collection) -> None:
        collection.postponed_rebuild = None
        self._accounts.update(collection)
        self._begun(collection)

    def _postpone(self, collection: Collection, size: int) -> None:
        plan = self._accounts.plan
        room = max(0, plan.data_bytes - self._accounts.data_bytes)
        is_news = collection.postponed_rebuild is None
        collection.postponed_rebuild = (
            f"its graph is not rebuilt: a second one needs {size} bytes, and {room} are left of the limit "
            f"{plan.limit_bytes} (--memory-limit)"
        )
        if is_news:
            log.warning(
                "rebuild is postponed", collection=collection.name, reason=collection.postponed_rebuild,
                next=f"vecstow compact {collection.name}",
            )  # fmt: skip
