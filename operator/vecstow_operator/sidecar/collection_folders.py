"""The volume of this pod: its folders as decisions see them, and the changes of manifests.

The engine works on the same folders, so each change is decided again under the lock of the manifests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from vecstow_engine.model.aliases import AliasTable
from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.model.manifest import Manifest, parse_manifest
from vecstow_engine.model.names import is_collection_name
from vecstow_engine.storage.aliases import Signature, change_aliases, read_aliases, signature_of
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.manifests import (
    change_manifest,
    copy_manifest_aside,
    dropped,
    drops_wait,
    manifests_locked,
    read_manifest,
    stored_shape,
)
from vecstow_operator.sidecar.alias_decision import AliasDecision
from vecstow_operator.sidecar.decision import Decision, Folder
from vecstow_operator.vocabulary import Reason

log = structlog.stdlib.get_logger(__name__)
_VOLUME_ID_BYTES = 32
_ABSENCE: Final = (Reason.DATA_MISSING, Reason.VOLUME_REPLACED)
_Signature = tuple[int, int, int]
"""Inode, size and time of the last change of a manifest."""


@dataclass(slots=True)
class CollectionFolders:
    """The folders of a volume. A manifest is read again only after a change."""

    layout: Layout
    _read: dict[str, tuple[_Signature | None, Folder]] = field(default_factory=dict)
    _aliases: tuple[Signature | None, AliasTable] | None = None

    @property
    def is_there(self) -> bool:
        """Whether an engine has made the data directory."""
        return self.layout.data.is_dir()

    def volume_id(self) -> str | None:
        """Return the volume's id; None until an engine has created it."""
        try:
            raw = self.layout.volume_id.read_bytes()[:_VOLUME_ID_BYTES]
        except FileNotFoundError:
            return None
        return raw.decode("ascii", "replace")

    def look(self) -> dict[str, Folder]:
        """Return every folder that is or could become a collection, by name."""
        with os.scandir(self.layout.data) as entries:
            names = [
                e.name for e in entries if is_collection_name(e.name) and e.is_dir(follow_symlinks=False)
            ]
        self._read = {name: self._look_at(name) for name in names}
        return {name: folder for name, (_, folder) in self._read.items()}

    def evidence(self) -> dict[str, list[str]]:
        """Return, by collection, the folders in `.quarantine/` that hold only its damaged manifest."""
        found: dict[str, list[str]] = {}
        with contextlib.suppress(FileNotFoundError):  # a person may remove them at the same time
            for copy in sorted(self.layout.quarantine.glob(f"*/*/{MANIFEST}")):
                folder = copy.parent
                if list(folder.parent.iterdir()) == [folder] and list(folder.iterdir()) == [copy]:
                    found.setdefault(folder.name, []).append(folder.parent.name)
        return found

    def deleted(self, name: str) -> dict[str, Manifest]:
        """Return the manifests in `.deleted/` of collections of that name, by folder."""
        found: dict[str, Manifest] = {}
        for path in sorted(self.layout.deleted.glob(f"{name}-*/{MANIFEST}")):
            with contextlib.suppress(DamagedFile, NewerFormat, OSError):
                if (manifest := parse_manifest(path.read_bytes(), str(path))).name == name:
                    found[path.parent.name] = manifest
        return found

    def is_being_made(self, name: str) -> bool:
        """Whether an engine is creating the collection's folder: its absence proves nothing then."""
        return (self.layout.staging / name).is_dir()

    def aliases(self) -> AliasTable:
        """Return the aliases of the volume; read them again only after a change.

        Raises DamagedFile or NewerFormat.
        """
        signature = signature_of(self.layout)
        if self._aliases is None or self._aliases[0] != signature:
            self._aliases = signature, read_aliases(self.layout)
        return self._aliases[1]

    def is_alias(self, name: str) -> bool:
        """Whether an alias has the name; False while the aliases cannot be read."""
        with contextlib.suppress(DamagedFile, NewerFormat):
            return self.aliases().get(name) is not None
        return False

    def change_aliases(
        self, decide: Callable[[AliasTable, Mapping[str, Folder]], AliasDecision]
    ) -> AliasDecision:
        """Decide by the aliases and folders as they are under the lock, and write the aliases.

        Raises DamagedFile, NewerFormat, StorageError, DiskFull or an OSError.
        """
        made: list[AliasDecision] = []

        def table_of(table: AliasTable) -> AliasTable:
            made.append(decide(table, self.look()))
            return made[-1].table

        change_aliases(self.layout, table_of)
        return made[-1]

    def change(self, name: str, decide: Callable[[Folder], Decision]) -> Decision:
        """Decide by the folder as it is under the lock, and change it. Return the decision as carried out.

        A collection that is being created waits, and so does a drop during a hold. Raises StorageError,
        DiskFull or an OSError.
        """
        with manifests_locked(self.layout):
            folder = _look(self.layout.collection(name))
            folder = dataclasses.replace(folder, is_alias=self.is_alias(name))
            decision = decide(folder)
            if not decision.changes:
                return decision
            if self.is_being_made(name):
                return Decision(reports=tuple(r for r in decision.reports if r.reason not in _ABSENCE))
            if decision.drop and drops_wait(self.layout):
                return Decision(reports=decision.reports)
            self._do(name, folder, decision)
            return decision

    def _do(self, name: str, folder: Folder, decision: Decision) -> None:
        if decision.set_aside:
            copy = copy_manifest_aside(self.layout, name)
            log.warning("damaged manifest set aside", collection=name, copy=str(copy), reason=folder.problem)
        if decision.drop:
            assert folder.manifest is not None
            change_manifest(self.layout, dropped(folder.manifest))
            log.info("collection marked as dropped", collection=name)
        elif decision.write is not None:
            change_manifest(self.layout, decision.write)
            owner, generation = decision.write.resource_uid, decision.write.generation
            log.info("manifest written", collection=name, resource_uid=owner, generation=generation)

    def _look_at(self, name: str) -> tuple[_Signature | None, Folder]:
        folder = self.layout.collection(name)
        signature = _signature(folder / MANIFEST)
        known = self._read.get(name)
        if known is None or known[0] != signature or signature is None:
            return signature, _look(folder)
        return signature, dataclasses.replace(known[1], has_data=_has_data(folder))


def _look(folder: Path) -> Folder:
    """Read the manifest before the data: data is older than the manifest that has its uid."""
    try:
        manifest = read_manifest(folder)
    except NewerFormat as error:
        return Folder(problem=error.message, is_newer=True, has_data=_has_data(folder))
    except DamagedFile as error:
        return Folder(problem=error.message, has_data=_has_data(folder), shape=stored_shape(folder))
    shape = stored_shape(folder) if manifest is None else None
    return Folder(manifest, has_data=_has_data(folder), shape=shape)


def _has_data(folder: Path) -> bool:
    try:
        return any(has_content(folder / name) for name in (ROWS, POINTS))
    except OSError:
        return True  # a file that cannot be read may have content


def _signature(path: Path) -> _Signature | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
