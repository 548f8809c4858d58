"""The metadata of one record: JSON, or else the most likely reading of bytes without types."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

from vecstow_engine.importers.dvecdb.field_statistics import FieldStatistics
from vecstow_engine.importers.dvecdb.untyped_metadata import Interpretation, Kind, Options, Search
from vecstow_engine.importers.report import ImportReport

STEPS: Final = 1_000
"""The steps of one search, plus one for every 8 bytes."""
STEPS_OF_SIZE_MAX: Final = 16_000
STEPS_FIRST: Final = 5_000
"""The steps of a search while no field is known."""
STEPS_LOW: Final = 100
SURVEY_UNBIASED: Final = 20
"""The number of records that the survey reads as if any field were possible."""
KNOWN_COST_MAX: Final = 15.0
"""The cost above which a reading with known fields is compared with readings of other fields."""
ODDNESS_MAX: Final = 3
"""A reading with more oddness counts as damage ..."""
ODD_BEFORE_ACCEPTED: Final = 2
"""... unless this many records had its form before: data changes its form, damage does not repeat."""
ODD_FORMS_MAX: Final = 1_000
FAILURES_MAX: Final = 100
"""The number of unreadable records in a row after which each gets fewer steps."""

_U64: Final = struct.Struct("<Q")

Candidate: TypeAlias = tuple[bytes, int]
"""Bytes that metadata may fill, and the least offset in them at which the metadata may end."""


class MetadataReader:
    """A reader of metadata that learns its fields; one per file."""

    def __init__(self, report: ImportReport) -> None:
        self._report = report
        self._fields = FieldStatistics()
        self._failures = 0
        self._record = 0
        self._odd: dict[frozenset[tuple[str, Kind]], set[int]] = {}
        """The records in which each odd form was found."""

    def survey(self, records: Iterable[bytes]) -> None:
        """Learn the fields from whole records, before any record is read.

        The survey has two rounds: the first gathers statistics of all records, and the second reads each
        record with these statistics.
        """
        records = [raw for raw in records if len(raw) > 8]
        first = FieldStatistics()
        for self._record, raw in enumerate(records):
            # Early readings must not decide how later records are read.
            unbiased = first.records < SURVEY_UNBIASED
            known = [] if unbiased else self._known(raw, len(raw), first)
            first.learn(known or self._new(raw, len(raw), first, STEPS_FIRST if unbiased else STEPS))
        self._odd.clear()
        for self._record, raw in enumerate(records):
            self._fields.learn(self._known(raw, len(raw), first) or self._new(raw, len(raw), first))
        self._odd.clear()
        self._failures = 0

    def read(self, candidates: Iterable[Candidate], offset: int) -> tuple[dict[str, Any], int] | None:
        """Return the metadata of the record at `offset`, and its length; None when no candidate can be read.

        A candidate with known fields is preferred to all others.
        """
        self._record = offset
        tried: list[Candidate] = []
        for candidate in candidates:
            found = _json_object(*candidate)
            if found is not None:
                return found
            readings = self._known(*candidate, self._fields)
            if readings:
                return self._chosen(readings, offset), readings[0].end
            tried.append(candidate)
        for candidate in tried:
            readings = self._new(*candidate, self._fields)
            if readings:
                return self._chosen(readings, offset, learn=True), readings[0].end
        return None

    def open_ended(self, raw: bytes, offset: int) -> tuple[dict[str, Any], int] | None:
        """Return the metadata at the start of `raw`, whose end is unknown, and its length; else None.

        Only known fields count, and only when the last value is of a kind that does not fit everywhere.
        """
        readings = [
            reading
            for reading in self._known(raw, 0, self._fields)
            if reading.last is not None and reading.last.kind in ("string", "number")
        ]
        if not readings:
            return None
        # Choose the reading that explains the most bytes. Zeros do not count, because they fit anything.
        reading = max(readings, key=lambda reading: (len(raw[: reading.end].rstrip(b"\0")), -reading.cost))
        self._report.doubt("*", "no record follows: the end was taken from what other records hold", offset)
        return self._chosen([reading], offset), reading.end

    def _chosen(self, readings: list[Interpretation], offset: int, *, learn: bool = False) -> dict[str, Any]:
        """Return the values of the most likely reading; `learn` adds its fields to the known ones."""
        if len(readings) > 1:
            self._report.doubt("*", "the record can be read in several ways: the likeliest was taken", offset)
        elif learn:
            self._fields.learn(readings)
        return self._fields.values(readings[0], lambda path, reason: self._report.doubt(path, reason, offset))

    def _known(self, raw: bytes, end_min: int, fields: FieldStatistics) -> list[Interpretation]:
        """Return the readings with known fields only, or none when even these are unlikely together."""
        readings = self._search(raw, end_min, fields.known_kinds, STEPS, oddness_costs=False)
        return readings if readings and readings[0].cost <= KNOWN_COST_MAX else []

    def _new(
        self, raw: bytes, end_min: int, fields: FieldStatistics, steps: int = STEPS
    ) -> list[Interpretation]:
        """Return the readings with any fields, rated by the known ones."""
        readings = self._search(raw, end_min, fields.any_kinds, steps)
        if readings and not self._is_plausible(readings[0], fields):
            readings = []
        self._failures = 0 if readings else self._failures + 1
        return readings

    def _is_plausible(self, reading: Interpretation, fields: FieldStatistics) -> bool:
        """Whether a reading is data and not damage: not too odd, or odd in a way that repeats."""
        oddities = fields.oddities(reading)
        if sum(oddities.values()) <= ODDNESS_MAX:
            return True
        form = frozenset(oddities)
        if form not in self._odd and len(self._odd) == ODD_FORMS_MAX:
            return False
        records = self._odd.setdefault(form, set())
        if len(records) <= ODD_BEFORE_ACCEPTED:
            records.add(self._record)
        return len(records) > ODD_BEFORE_ACCEPTED

    def _search(
        self, raw: bytes, end_min: int, options: Options, steps: int, *, oddness_costs: bool = True
    ) -> list[Interpretation]:
        steps = STEPS_LOW if self._failures >= FAILURES_MAX else steps
        steps += min(len(raw) // 8, STEPS_OF_SIZE_MAX)
        return Search(raw, end_min, options, steps, oddness_costs=oddness_costs).run()


def _json_object(raw: bytes, end_min: int) -> tuple[dict[str, Any], int] | None:
    """Return the object and its end when `raw` begins with a length and as many bytes of JSON; else None."""
    if raw[8:9] != b"{":
        return None
    end = 8 + _U64.unpack_from(raw)[0]
    if not end_min <= end <= len(raw):
        return None
    try:
        document = msgspec.json.decode(raw[8:end])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (document, end) if isinstance(document, dict) else None
