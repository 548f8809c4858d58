"""Collections whose files vanish while they are served: somebody removed or exchanged the folder.

Nothing more is written then, the log least of all: it and the files, wherever they are now, are all there is.
A drop moves the files of a collection that is served with its `upkeep` and the registry's `changing` held; a
repair takes the collection out of service with both held, and moves them after that; nobody else does. So who
holds either of the two, and finds files missing, knows that it was not this engine.
"""

from __future__ import annotations

import structlog

from vecstow_engine.model.errors import DamagedFile, Quarantined
from vecstow_engine.service import lifecycle
from vecstow_engine.service.collection import Collection, quarantined

log = structlog.stdlib.get_logger(__name__)


def refuse_if_gone(collection: Collection) -> None:
    """Raise Quarantined when the data files of a served collection lost their names; it serves no more then.

    The caller holds its `upkeep` or the registry's `changing`.
    """
    store = collection.store
    missing = store.data_files.missing() if store is not None and collection.serves() else None
    if store is None or missing is None:
        return
    error = _error(collection, missing)
    collection.move_to(lifecycle.Quarantined(error, reopens=True))
    if (failure := store.retire("its data files are gone", error)) is not None:
        collection.fail(failure)
    raise error


def close_without_folder(collection: Collection, missing: DamagedFile) -> None:
    """One without data has nothing else to lose: whoever declares it again brings it back."""
    collection.move_to(lifecycle.Quarantined(_error(collection, missing), reopens=True))


def stand_in(lost: Collection) -> Collection:
    """What takes its place, without its memory; with its lock, since its last checkpoint may still go on."""
    assert lost.store is not None and lost.error is not None
    other = Collection(lost.manifest)
    other.take_over(lost)
    awaited = lost.store.data_files if lost.reopens else None
    other.move_to(lifecycle.Quarantined(lost.error, reopens=lost.reopens, awaited=awaited))
    return other


def _error(collection: Collection, missing: DamagedFile) -> Quarantined:
    hint = "put it back, or a copy, and touch metadata.json; the log below wal/ is kept as it is"
    error = quarantined(collection.name, missing.message, missing.details, hint)
    log.error(
        "files of a served collection are gone", collection=collection.name, reason=missing.message, next=hint
    )
    return error
