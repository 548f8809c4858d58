"""SIGKILL in mid-ingest, again and again: what was acknowledged is there, and nothing else came about."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.crash.journal import DIMENSION, Client, Shape, Writers
from tests.crash.rest import Rest, Stored
from tests.engine_process import VECSTOW, EngineProcess

SEED = 20_250_807
KILLS = 50
CHECKED_EVERY = 10
SEARCHED = 8
"""Points per collection that are looked for by their vectors after each restart."""
WAIT_SECONDS_MAX = 20.0

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
        declare_and_fill(engine, clients)
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
            verify(engine, clients, rng)
        assert engine.stop() == 0
        assert_clean(engine)
        engine.start()
        verify(engine, clients, rng)


def declare_and_fill(engine: EngineProcess, clients: list[Client]) -> None:
    with Rest(engine.port) as rest:
        for shape in SHAPES:
            rest.create(shape.name, DIMENSION, shape.metric, shape.vector_type)
        for client in clients:
            client.fill(rest)


def plan(
    engine: EngineProcess, rng: np.random.Generator, number: int
) -> tuple[list[Shape], Callable[[], bool]]:
    """What is written in a round, and when it ends: in the middle of a snapshot or just after one, in the
    middle of a checkpoint, or at a random moment.
    """
    folder = engine.data / GRAPH.name
    if number % 10 in (1, 6) and number > 1:
        # The graph's snapshot waits until no row waits for the graph.
        name = "index.bin.tmp" if number % 10 == 1 else "index.bin"
        return [HALVES, BYTES], (folder / name).exists
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


def verify(engine: EngineProcess, clients: list[Client], rng: np.random.Generator) -> None:
    """Every id that was ever used is what it must be, and nothing else is there."""
    found: dict[str, dict[str, Stored]] = {}
    with Rest(engine.port) as rest:
        for shape in SHAPES:
            facts = rest.describe(shape.name)
            assert facts["state"] == "ready", facts
            ids = [point_id for client in clients for point_id in client.ids[shape.name]]
            found[shape.name] = rest.get_many(shape.name, ids)
            assert facts["vector_count"] == len(found[shape.name])
            assert_searched_once(rest, shape.name, found[shape.name], rng)
            assert_gone_is_not_searched(rest, shape.name, clients, found[shape.name])
    for client in clients:
        client.settle(found)


def assert_searched_once(rest: Rest, name: str, points: dict[str, Stored], rng: np.random.Generator) -> None:
    """A point's own vector finds it, once, and all that is found are points that are there."""
    for point_id in rng.choice(sorted(points), min(SEARCHED, len(points)), replace=False).tolist():
        hits = [hit["id"] for hit in rest.search(name, points[point_id][0])]
        assert hits.count(point_id) == 1, f"{point_id} in {name}: {hits}"
        assert len(set(hits)) == len(hits)
        assert set(hits) <= points.keys()


def assert_gone_is_not_searched(
    rest: Rest, name: str, clients: list[Client], points: dict[str, Stored]
) -> None:
    """What was deleted in this round is not found by the vectors that it had."""
    gone = [
        (point_id, state[0])
        for client in clients
        for point_id in client.ids[name]
        if point_id not in points
        for state in client.histories[name, point_id].states[-2:]
        if state is not None
    ]
    for point_id, vector in gone[:: len(gone) // SEARCHED + 1]:
        assert point_id not in [hit["id"] for hit in rest.search(name, vector)]


def assert_clean(engine: EngineProcess) -> None:
    """`vecstow check` on the stopped volume finds no damage."""
    command = [VECSTOW, "check", "--data", engine.data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
