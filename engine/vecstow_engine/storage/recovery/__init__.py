"""Recovery: the opening of a collection from the volume alone, in three steps.

    observation   `observe` reads all files; raises for files that are unreadable or do not belong together
    plan          `make_plan` decides what is replayed; raises for a collection that must not open; pure
    apply         `apply_plan` makes the journal of SQLite durable, rebuilds trees, removes temporaries,
                  replays the log and begins a new segment

Nothing on the volume changes before the first two steps have passed: a collection that is refused keeps every
byte. The steps raise DamagedFile (the collection is quarantined), Foreign or NewerFormat.

    opened = open_store(layout, manifest, handles)
    opened.store  # None: the collection never held data
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.recovery.apply import Opened, apply_plan
from vecstow_engine.storage.recovery.observation import match_files, observe
from vecstow_engine.storage.recovery.plan import make_plan, refuse_strangers

REPLAY_BYTES_MAX: Final = 64 << 20
"""The default bytes of replayed changes in memory at which replay makes a checkpoint."""

__all__ = ["Opened", "match_files", "open_store", "refuse_strangers"]


def open_store(
    layout: Layout,
    manifest: Manifest,
    handles: HandleCache,
    *,
    is_rival: bool = False,
    replay_bytes_max: int = REPLAY_BYTES_MAX,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Opened:
    """Open one collection. `is_rival`: whether another folder claims the same uid.

    Replay takes `replay_bytes_max` bytes of memory for changes, and one record. `progress` gets the number of
    replayed records and the number of all records.
    """
    found = observe(layout, manifest)
    if found is None:
        return Opened(manifest, None)
    plan = make_plan(found, manifest.name, is_rival=is_rival)
    return apply_plan(layout, manifest, handles, plan, replay_bytes_max, progress)
