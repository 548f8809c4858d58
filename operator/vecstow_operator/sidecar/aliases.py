"""The part of a pass that brings the file of aliases to what the resources declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from vecstow_engine.model.aliases import AliasTable
from vecstow_engine.model.errors import DamagedFile, NewerFormat, VecstowError
from vecstow_operator.health import Metrics
from vecstow_operator.observed import Report
from vecstow_operator.sidecar.alias_decision import AliasDecision, decide_aliases, refused_aliases
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import Claims, Folder

GRACE_SECONDS: Final = 60.0
"""How long an alias stays that was taken out of a resource, unless another resource claims it."""

log = structlog.stdlib.get_logger(__name__)


class AliasReconciler:
    """Not thread-safe: one loop calls it. Times are monotonic seconds."""

    def __init__(self, volume: CollectionFolders, metrics: Metrics) -> None:
        self._volume = volume
        self._metrics = metrics
        self._unclaimed_since: dict[str, float] = {}
        """The start of the time without a claim, by alias. A new process begins again at 0."""
        self._failure: str | None = None
        """The reason why the last change failed, which is logged once."""

    def run(self, claims: Claims, *, is_complete: bool, now: float) -> list[Report]:
        """Change the aliases that differ, and return the reports of this pass. Raises OSError."""
        try:
            decision = self._reconcile(claims, is_complete, now)
        except (VecstowError, OSError) as error:
            return self._failed(claims, error)
        self._failure = None
        self._unclaimed_since = {name: self._unclaimed_since.get(name, now) for name in decision.unclaimed}
        return list(decision.reports)

    def _reconcile(self, claims: Claims, is_complete: bool, now: float) -> AliasDecision:
        table = self._volume.aliases()
        is_declared = any(claim.aliases for rivals in claims.values() for claim in rivals)
        if not is_declared and all(alias.resource_uid is None for alias in table):
            return AliasDecision(table)
        expired = {name for name, since in self._unclaimed_since.items() if now - since >= GRACE_SECONDS}

        def decide(table: AliasTable, folders: Mapping[str, Folder]) -> AliasDecision:
            return decide_aliases(table, claims, folders, expired, is_complete=is_complete)

        decision = decide(table, self._volume.look())
        if decision.table == table:
            return decision
        decision = self._volume.change_aliases(decide)
        self._metrics.reconciles.inc()
        log.info("aliases written", count=len(decision.table))
        return decision

    def _failed(self, claims: Claims, error: VecstowError | OSError) -> list[Report]:
        """Return the reports of an error, which is logged when it is new. A damaged file stays as it is."""
        self._metrics.errors.labels("volume").inc()
        reason = str(error)
        if self._failure != reason:
            log.error("aliases could not be changed", reason=reason)
        self._failure = reason
        is_unreadable = isinstance(error, DamagedFile | NewerFormat)
        problem = reason if is_unreadable else f"the aliases cannot be written: {reason}"
        return refused_aliases(claims, problem, error.hint if isinstance(error, VecstowError) else None)
