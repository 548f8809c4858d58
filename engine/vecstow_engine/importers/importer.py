"""The interface of importers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.restoring import Settled


class Importer(Protocol):
    """A reader of one format."""

    def recognizes(self, rows: Path) -> bool:
        """Whether the file `rows` has this format, judged by its first bytes."""

    def build(
        self, layout: Layout, source: Path, staging: Path, wanted: Manifest
    ) -> tuple[Settled, ImportReport]:
        """Make the collection `wanted` from the files in `source`, in the new folder `staging`.

        The manifest is written last. Returns the collection and a report on the source. Raises InvalidInput
        when the files hold another shape, DamagedFile, DiskFull or StorageError.
        """
