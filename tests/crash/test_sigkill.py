"""SIGKILL in mid-ingest, again and again: what was acknowledged is there, and nothing else came about."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.crash.journal import Client, Shape, Writers
from tests.crash.served import assert_clean, declare_and_fill, verify
from tests.engine_process import EngineProcess

SEED = 20_250_807
KILLS = 50
CHECKED_EVERY = 10
WAIT_SECONDS_MAX = 90.0

GRAPH = Shape("graph", "Euclidean", "Float32", ids_per_client=2000, batch_max=100)
"""Large enough for snapshots of its graph while the engine runs."""
HALVES = Shape("halves", "Cosine", "Float16", ids_per_client=100, batch_max=20)
BYTES = Shape("bytes", "Manhattan", "Int8", ids_per_client=100, batch_max=20)
SHAPES = [GRAPH, HALVES, BYTES]
CLIENTS = 4
FREQUENT_UPKEEP = ("--checkpoint-seconds", 0.3, "--reserve-bytes", 0)
"""Every collection has a checkpoint, and with it a new segment, about twice a second."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_lose_no_acknowledged_write_and_bring_nothing_back(tmp_path):
    engine = EngineProcess(tmp_path / "data", *FREQUENT_UPKEEP)
    rng = np.random.default_rng(SEED)
    clients = [Client(number, SHAPES, SEED) for number in range(CLIENTS)]
    with engine:
        declare_and_fill(engine, clients, SHAPES)
        for number in range(1, KILLS + 1):
            written, is_time = plan(engine, rng, number)
            with Writers(clients, engine.port, written):
                wait_for(lambda is_time=is_time: is_time() and any(client.answered for client in clients))
                engine.kill()
            if number % CHECKED_EVERY == 0:
                assert_clean(engine)
            if number % 5 == 0:
                # Only a cache; without it the engine makes one of its own accord, in the next round.
                (engine.data / GRAPH.name / "index.bin").unlink(missing_ok=True)
            engine.start()
            verify(engine, clients, SHAPES, rng)
        assert engine.stop() == 0
        assert_clean(engine)
        engine.start()
        verify(engine, clients, SHAPES, rng)


def plan(
    engine: EngineProcess, rng: np.random.Generator, number: int
) -> tuple[list[Shape], Callable[[], bool]]:
    """Choose the shapes that a round writes, and a function that is true when the round ends.

    A round ends in the middle of a snapshot or just after one, in the middle of a checkpoint, or at a random
    moment.
    """
    folder = engine.data / GRAPH.name
    if number % 10 in (1, 6) and number > 1:
        # The graph's snapshot waits until no row waits for the graph. Its temporary file is there for a
        # moment that a busy machine may miss; the kill points of the proof hit each of its calls.
        whole, partial = folder / "index.bin", folder / "index.bin.tmp"
        if number % 10 == 6:
            return [HALVES, BYTES], whole.exists
        return [HALVES, BYTES], lambda: partial.exists() or whole.exists()
    if number % 5 == 3:
        return SHAPES, lambda: size(folder / "points.db-wal") > 0
    until = time.monotonic() + rng.uniform(0.02, 0.6)
    return SHAPES, lambda: time.monotonic() >= until


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "the moment to kill it did not come"
        time.sleep(0.001)
