"""The settings of the engine, each with unit, default and reason; read once at the edge.

Each field is a flag of `vecstow serve` (`checkpoint_bytes` is `--checkpoint-bytes`) and an environment
variable (`VECSTOW_CHECKPOINT_BYTES`). docs/settings.md lists all of them, and a test compares.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """The volume, and when it is written."""

    reserve_bytes: int = 64 * MIB
    """Space kept back so that drops and checkpoints work on a full disk; at most 2 % of the volume."""
    checkpoint_bytes: int = 32 * MIB
    """Memory of changes, or bytes of their log, at which a checkpoint begins; bounds replay after a crash."""
    checkpoint_seconds: float = 60.0
    """Age of the oldest change at which a checkpoint begins."""
    overlay_bytes_max: int = 192 * MIB
    """Memory of changes per collection, or bytes of their log, at which writers wait; also during a hold."""
    handles_max: int = 128
    """Files and connections kept open while idle, over all collections."""
    retention_hours: float = 24.0
    """How long a dropped collection can be restored before it is purged; 0 keeps it for ever."""
    rescan_seconds: float = 2.0
    """How often manifests are looked at for changes that other programs made."""
    lock_wait_seconds: float = 0.0
    """How long a start waits for the engine before it to leave the volume, before it is refused."""
    allow_network_file_system: bool = False
    """Serve a volume on NFS, CIFS or 9p, where locks and syncs cannot be relied on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """The graphs and the threads that build and search them."""

    index_threads: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    """Threads of one insertion or search call; default: the processors, at most 8."""
    slice_seconds: float = 0.02
    """How long a search may wait for a slice of insertions."""
    tail_bytes_max: int = 96 * MIB
    """Memory of rows per collection that are not in the graph yet, at which writers wait."""
    snapshot_growth_ratio: float = 0.25
    """Share of new rows in a graph at which index.bin is written again."""
    rebuild_deleted_ratio: float = 0.25
    """Share of deleted rows in a graph at which it is rebuilt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Limits of what one client may ask for."""

    body_bytes_max: int = 64 * MIB
    """Bytes of a request's body."""
    batch_points_max: int = 10_000
    """Points of one batch."""
    queue_bytes_max: int = 128 * MIB
    """Bytes of writes that wait for the log, over all collections."""
    write_wait_seconds: float = 30.0
    """How long a write waits for room before it is answered 429."""
    search_queue_max: int = 1024
    """Searches that wait in one collection before others are answered 429."""
    hold_seconds_max: float = 3600.0
    """The longest hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The volume, and what the engine is called."""

    data: Path
    """The data directory."""
    name: str = "vecstow"
    """The engine's name in `GET /state`."""
    pod_uid: str = ""
    """The pod's uid in `GET /state`; empty outside of Kubernetes."""
    import_root: Path | None = None
    """A folder besides the data directory from which collections may be imported."""
    memory_limit: str = ""
    """Memory that the engine may take, such as 1GiB or 512Mi (docs/sizing.md); default: the control group's
    limit, else the machine's memory. At least 256 MiB."""
    storage: StorageSettings = field(default_factory=StorageSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
