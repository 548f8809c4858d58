"""`points.db` as SQLite sees it: pages, trees and the index of ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from vecstow_engine.doctor.check.findings import Severity
from vecstow_engine.doctor.check.inquiry import Inquiry
from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage.layout import POINTS
from vecstow_engine.storage.points.reader import PointTable, private_copy
from vecstow_engine.storage.points.table_repair import Fault, find_faults, mend

PAGE_BYTES: Final = 4096
"""SQLite's default, which is never changed."""

_PAGE = re.compile(r"[Pp]age (\d+)")


def check_structure(inquiry: Inquiry, table: PointTable) -> None:
    """Report what SQLite's own check finds; what a start rebuilds is rebuilt on a copy."""
    path, next_steps = inquiry.folder / POINTS, inquiry.mend
    errors: list[str] | None = None
    with inquiry.reading(path, next_steps):
        errors = _errors_after_start(inquiry, table)
    _tell(inquiry, errors or [])


def _errors_after_start(inquiry: Inquiry, table: PointTable) -> list[str]:
    """Raises DamagedFile for what a start cannot rebuild."""
    faults = find_faults(table)
    if not faults:
        return _integrity_errors(table)
    for fault in faults:
        message = f"{fault.value}, which are intact; the next start rebuilds it"
        if inquiry.served and fault is not Fault.PAGES:
            message += ", and until then points may seem absent"
            inquiry.add(Severity.ERROR, inquiry.folder / POINTS, message, next_steps=inquiry.mend)
        else:
            inquiry.add(Severity.WARNING, inquiry.folder / POINTS, message)
    with private_copy(table.path) as copy:
        mend(copy, faults)
        with closing(PointTable(copy, at_rest=True)) as mended:
            return _integrity_errors(mended)


def _integrity_errors(table: PointTable) -> list[str]:
    """A tree that cannot be walked need not be one that is read."""
    try:
        return table.integrity_errors()
    except DamagedFile as error:
        return [error.reason]


def _tell(inquiry: Inquiry, errors: Sequence[str]) -> None:
    """Points are read all the same: what is wrong here may concern none of them."""
    for error in errors:
        page = _PAGE.search(error)
        inquiry.add(
            Severity.ERROR, inquiry.folder / POINTS, f"SQLite's integrity check: {error}",
            offset=(int(page[1]) - 1) * PAGE_BYTES if page else None,
            next_steps=inquiry.mend,
        )  # fmt: skip
