"""The last word of the log on each id, as evidence."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vecstow_engine.doctor.check.content import content_problem
from vecstow_engine.doctor.repair.chain import Chain, Gap
from vecstow_engine.storage.log.effects import Effect, Upsert, decode_effect
from vecstow_engine.storage.log.replay import Extent


def without_unusable(chain: Chain, stride: int) -> Chain:
    """The chain, with the records that pass their checksums but cannot be applied as gaps."""
    usable: list[Extent] = []
    gaps = list(chain.gaps)
    for extent in chain.extents:
        for record in extent.records():
            try:
                decode_effect(record, stride)
            except ValueError:
                gaps.append(Gap(record.previous, record.sequence, str(extent.segment.path), record.offset))
                if record.previous > extent.after:
                    usable.append(dataclasses.replace(extent, upto=record.previous))
                extent = dataclasses.replace(extent, after=record.sequence)
        if extent.upto > extent.after:
            usable.append(extent)
    gaps.sort(key=lambda gap: gap.after)
    return dataclasses.replace(chain, extents=tuple(usable), gaps=tuple(gaps))


def effect_rows(chain: Chain, stride: int, applied: int, data: Path) -> Iterator[tuple[Any, ...]]:
    """(id, sequence, decisive, row, payload, offset, file, flaw) of each id in each record, ascending.

    Decisive: every record after it that `applied` contains is known too, so that it is the last word.
    """
    decisive_after = chain.decisive_after(applied)
    for extent in chain.extents:
        file = os.path.relpath(extent.segment.path, data)
        for record in extent.records():
            place = record.sequence, record.sequence > decisive_after
            for point_id, row, payload in _changes(decode_effect(record, stride)):
                flaw = content_problem(point_id, payload) if row is not None else None
                yield point_id, *place, row, payload, record.offset, file, flaw


def _changes(effect: Effect) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """(id, row, payload); no row for a deleted id. Of an id that stands twice the last place counts."""
    if not isinstance(effect, Upsert):
        yield from ((point_id, None, None) for point_id in effect.ids)
        return
    last_place = {point_id: line for line, point_id in enumerate(effect.ids)}
    for point_id, line in last_place.items():
        yield point_id, effect.rows[line].tobytes(), effect.payloads[line]
