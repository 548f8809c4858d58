"""create: what a new collection costs, and what its syncs alone cost on the same disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness.context import Context
from benchmarks.harness.figures import Figure, Series, Target
from benchmarks.harness.server import Server
from benchmarks.harness.wire import Connection
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.storage.manifests import write_manifest

NAME = "create"
CREATE_MS_MAX = 2.6


def measure(context: Context) -> Iterator[Figure]:
    """Each collection over REST, then at once the same three syncs by hand, so both meet the same disk."""
    series = Series()
    for run in range(context.runs):
        context.say(f"run {run + 1}")
        series.add(**_run(context))
    syncs = "its syncs"
    yield Figure(
        NAME, "POST /collections: p50", "ms", series["create_p50"], series["syncs_p50"], syncs,
        target=Target(at_most=CREATE_MS_MAX),
        note="create: its syncs are mkdir, fsync of the parent, write, fsync, rename, fsync of the folder.",
    )  # fmt: skip
    yield Figure(NAME, "POST /collections: p99", "ms", series["create_p99"], series["syncs_p99"], syncs)
    yield Figure(NAME, "a manifest's rewrite: p50", "ms", series["rewrite_p50"])
    yield Figure(NAME, "a manifest's size", "bytes", series["manifest_bytes"])


def _run(context: Context) -> dict[str, float]:
    volume = context.volume()
    by_hand = context.volume()
    by_hand.mkdir()
    create_ms, syncs_ms = [], []
    with Server(volume) as server, server.connect() as connection:
        connection.call("GET", "/collections")  # the first call of a process loads what the others use
        for number in range(context.sizes.creates):
            create_ms.append(_create_ms(connection, f"collection-{number:04}", context.sizes.dimension))
            content = (volume / f"collection-{number:04}" / "metadata.json").read_bytes()
            syncs_ms.append(_syncs_ms(by_hand / f"collection-{number:04}", content))
    return {
        "create_p50": float(np.percentile(create_ms, 50)),
        "create_p99": float(np.percentile(create_ms, 99)),
        "syncs_p50": float(np.percentile(syncs_ms, 50)),
        "syncs_p99": float(np.percentile(syncs_ms, 99)),
        "rewrite_p50": _rewrite_p50_ms(context, by_hand / "rewritten"),
        "manifest_bytes": len(content),
    }


def _create_ms(connection: Connection, name: str, dimension: int) -> float:
    document = {"name": name, "dimension": dimension, "distance_metric": "Cosine"}
    started = time.perf_counter()
    connection.call("POST", "/collections", document)
    return 1000 * (time.perf_counter() - started)


def _syncs_ms(folder: Path, content: bytes) -> float:
    started = time.perf_counter()
    folder.mkdir()
    _sync(folder.parent, os.O_DIRECTORY)
    temporary = folder / "metadata.json.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    temporary.rename(folder / "metadata.json")
    _sync(folder, os.O_DIRECTORY)
    return 1000 * (time.perf_counter() - started)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    os.fsync(descriptor)
    os.close(descriptor)


def _rewrite_p50_ms(context: Context, folder: Path) -> float:
    """The engine's own function on a manifest that is there already."""
    manifest = Manifest(
        name=folder.name, dimension=context.sizes.dimension, distance_metric=DistanceMetric.COSINE
    )
    write_manifest(folder, manifest)
    milliseconds = []
    for _ in range(context.sizes.creates):
        started = time.perf_counter()
        write_manifest(folder, manifest)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return float(np.percentile(milliseconds, 50))
