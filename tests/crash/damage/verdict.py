"""Judges of the engine's reports on one collection, given the damaged file.

A manifest has no checksum: one that parses is one that a person may have written. So for a damaged
metadata.json the points and the shape are judged, and the settings are not. The end of a log that is gone as
a whole, from the beginning of a record on, leaves no trace. Then the state after an earlier record is right
too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO

from tests.crash.damage.cases import Case
from tests.crash.damage.reading import Seen
from tests.crash.damage.volume import Truth, Volume
from tests.crash.ledger import Points
from vecstow_engine.doctor.check import CheckReport, Severity
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.log.segment import HEADER_BYTES as HEADER_BYTES_OF_SEGMENT
from vecstow_engine.storage.log.segment import RECORD_HEADER_BYTES, decode_header
from vecstow_engine.storage.log.segment_reader import iterate_records

LISTED_MAX = 100
WITH_OFFSETS = ("vectors.bin", ".log")
DATA_FILES = ("metadata.json", "vectors.bin", "points.db", ".log")


@dataclass
class Verdict:
    """How a case ended, and what is wrong with that."""

    ending: str
    wrong: list[str] = field(default_factory=list)
    repair: str | None = None
    """How the repair of it ended."""

    @property
    def is_trouble(self) -> bool:
        """Something that was stored is not served, or a checkpoint may fail."""
        return self.ending in ("degraded", "not mended", "quarantined", "undeclared")


def owner_of(label: str) -> str | None:
    """The collection that a file belongs to; None: the volume. Copies and dropped ones have owners too."""
    first, _, rest = label.partition("/")
    return rest.partition("/")[0] if first in ("wal", ".deleted", ".backups") else first if rest else None


def judge(case: Case, truth: Truth, seen: Seen) -> Verdict:
    """Judge the collection whose file was damaged."""
    if not seen.served:
        return _of_closed(case, seen)
    verdict = Verdict(_ending(seen), list(seen.wrong))
    in_log = case.label.endswith(".log")
    states = truth.states[truth.applied :] if in_log else [truth.last]
    if not any(_fits(seen, state) for state in states):
        verdict.wrong.append(_difference(seen, truth.last))
    elif seen.points.keys() | seen.withheld.keys() != truth.last.keys() or (
        in_log and not _fits(seen, truth.last)
    ):
        verdict.ending = "end of the log lost"
        if seen.reason is None and _leaves_a_trace(case.content):
            verdict.wrong.append("the end of its log is lost, and nothing says so")
    verdict.wrong += _wrongly_withheld(seen)
    return verdict


def _ending(seen: Seen) -> str:
    if seen.withheld:
        return "degraded"
    if "could not be rebuilt" in (seen.reason or ""):
        return "not mended"
    return "rebuilt" if seen.rebuilt else "right"


def judge_neighbour(name: str, truth: Truth, seen: Seen) -> list[str]:
    """Nothing has happened to it."""
    wrong = list(seen.wrong)
    if seen.state != "ready" or seen.reason is not None:
        wrong.append(f"its neighbour {name} is {seen.state}: {seen.reason}")
    if seen.withheld or not _fits(seen, truth.last):
        wrong.append(f"its neighbour {name}: " + _difference(seen, truth.last))
    return wrong


def judge_rows(volume: Volume, case: Case, truth: Truth, seen: Seen) -> list[str]:
    """Judge damage to `vectors.bin`, whose outcome follows from the bytes.

    The collection is quarantined, or exactly the changed rows are withheld.
    """
    whole, found = volume.files[volume.labels[case.label]], case.content or b""
    stride = truth.manifest.vector_type.row_bytes(truth.manifest.dimension)
    end = HEADER_BYTES + stride * (max(truth.slots.values()) + 1)
    is_lost = found[:HEADER_BYTES] != whole[:HEADER_BYTES] or len(found) < end
    if is_lost:
        return [] if seen.state == "quarantined" else [f"it is {seen.state}, without its header or its end"]
    changed = {
        point_id
        for point_id, slot in truth.slots.items()
        for start in [HEADER_BYTES + stride * slot]
        if found[start : start + stride] != whole[start : start + stride]
    }
    if seen.withheld.keys() == changed:
        return []
    return [f"rows of {sorted(changed)} are damaged, and {sorted(seen.withheld)} are withheld"]


def judge_check(verdict: Verdict, report: CheckReport, name: str | None, *, is_empty: bool) -> list[str]:
    """A check says "error" where something is not served, and nowhere else."""
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    about = [finding for finding in errors if finding.collection == name]
    wrong = [f"the check accuses {finding}" for finding in errors if finding.collection != name]
    if verdict.is_trouble and not about and not is_empty:
        wrong.append(f"the check finds no error, and a start makes it {verdict.ending}")
    if verdict.ending in ("right", "rebuilt") and about:
        wrong.append(f"the check finds an error, and a start serves everything: {about[0]}")
    return wrong


def _of_closed(case: Case, seen: Seen) -> Verdict:
    if seen.state == "notfound" and case.label.endswith("metadata.json") and case.content is None:
        return Verdict("undeclared")
    verdict = Verdict("quarantined")
    if seen.state != "quarantined":
        verdict.wrong.append(f"it is {seen.state}: {seen.reason}")
    if not any(name in (seen.reason or "") for name in DATA_FILES):
        verdict.wrong.append(f"it is {seen.state}, and no file is named: {seen.reason}")
    if case.content and case.label.endswith(WITH_OFFSETS) and "at byte" not in (seen.reason or ""):
        verdict.wrong.append(f"it is {seen.state}, and no place in the file is named: {seen.reason}")
    return verdict


def _fits(seen: Seen, state: Points) -> bool:
    """Whether the served points are those of `state`, and the withheld ones are in `state` but not served."""
    told = {point_id: point for point_id, point in state.items() if point_id not in seen.withheld}
    return seen.points == told and seen.withheld.keys() <= state.keys()


def _difference(seen: Seen, wanted: Points) -> str:
    lost = sorted(wanted.keys() - seen.points.keys() - seen.withheld.keys())
    strange = sorted((seen.points.keys() | seen.withheld.keys()) - wanted.keys())
    other = sorted(i for i in wanted.keys() & seen.points.keys() if wanted[i] != seen.points[i])
    return (
        f"lost {lost[:5]}, not stored {strange[:5]}, changed {other[:5]}; it is {seen.state}: {seen.reason}"
    )


def _leaves_a_trace(segment: bytes | None) -> bool:
    """Something other than zeros follows the last record: no whole number of records is gone."""
    if segment is None:
        return False
    end = HEADER_BYTES_OF_SEGMENT
    for record in iterate_records(BytesIO(segment), decode_header(segment, "").seed):
        end = record.offset + RECORD_HEADER_BYTES + len(record.payload)
    return any(segment[end:])


def _wrongly_withheld(seen: Seen) -> list[str]:
    wrong = []
    if seen.withheld and seen.state != "degraded":
        wrong.append(f"{sorted(seen.withheld)[:3]} are withheld, and it is {seen.state}")
    if seen.state == "degraded" and not seen.withheld:
        wrong.append(f"it is degraded, and every point is served: {seen.reason}")
    if seen.listed != min(len(seen.withheld), LISTED_MAX):
        wrong.append(f"{len(seen.withheld)} points are withheld, and {seen.listed} are listed")
    wrong += [told for told in seen.withheld.values() if not any(name in told for name in DATA_FILES)]
    return wrong
