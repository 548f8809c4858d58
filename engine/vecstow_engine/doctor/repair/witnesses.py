"""Which of the points that were met are the live ones.

Whole proof first: the meta row has the count of all points and the sum of their checksums. It is tried on
what the tree leads to, with the pages that must be its own, then on every point anywhere that the index of
ids leads to. Where neither fits, points are lost, and each one must have a witness of its own: the place
where it stands and, if it is intact, the index.
"""

from __future__ import annotations

from vecstow_engine.doctor.repair.evidence import Evidence
from vecstow_engine.doctor.repair.survey import Standing
from vecstow_engine.storage.points.records import Meta


def choose_points(evidence: Evidence, meta: Meta | None, *, index_intact: bool) -> bool:
    """Choose the live points; True when they are proven to be all that there were."""
    in_use = evidence.standing_at_least(Standing.LOOSE)
    if _fits(evidence.choose(before=in_use), meta):
        return True
    entries = evidence.count("SELECT 1 FROM listed")
    if not index_intact or (meta is not None and entries != meta.points):
        evidence.choose(after=evidence.standing_at_least(Standing.PLACED))
        return False
    listed = evidence.is_listed()
    if _fits(evidence.choose(before=listed), meta):
        return True
    count, _ = evidence.choose(after=f"{in_use} AND {listed}")
    return meta is None and count == entries


def _fits(found: tuple[int, int], meta: Meta | None) -> bool:
    return meta is not None and found == (meta.points, meta.checksum_sum)
