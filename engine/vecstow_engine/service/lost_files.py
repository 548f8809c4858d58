"""Collections whose files vanish while they are served, because another program moved the folder.

Nothing more is written then, least of all the log: the log and the files, wherever they are, hold all data.

The engine itself moves files of a served collection only in a drop, which holds the collection's `upkeep` and
the registry's `changing`. A repair takes the collection out of service with both held, and moves the files
later. A thread that holds one of the two and finds files missing therefore knows that another program did it.
"""

from __future__ import annotations

import structlog

from vecstow_engine.model.errors import DamagedFile, Quarantined
from vecstow_engine.service import lifecycle
from vecstow_engine.service.collection import Collection, quarantined

log = structlog.stdlib.get_logger(__name__)


def refuse_if_gone(collection: Collection) -> None:
    """Quarantine a served collection whose data files lost their names, and raise Quarantined.

    The caller holds the collection's `upkeep` or the registry's `changing`.
    """
    store = collection.store
    missing = store.data_files.missing() if store is not None and collection.serves() else None
    if store is None or missing is None:
        return
    error = _error(collection, missing)
    collection.move_to(lifecycle.Quarantined(error))
    # A commit under way may fail its sync first. Only then is it known whether the collection reopens.
    if (failure := store.retire("its data files are gone", error)) is not None:
        collection.fail(failure)
    else:
        collection.move_to(lifecycle.Quarantined(error, reopens=True))
    raise error


def close_without_folder(collection: Collection, missing: DamagedFile) -> None:
    """Quarantine a collection without data whose folder is gone. A new declaration restores it in full."""
    collection.move_to(lifecycle.Quarantined(_error(collection, missing), reopens=True))


def stand_in(lost: Collection) -> Collection:
    """Return a quarantined collection that takes the place of `lost`, without its memory.

    Both share the upkeep lock, since the last checkpoint of `lost` may still go on.
    """
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
