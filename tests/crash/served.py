"""The content of a running engine, compared with the journals of its writers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from tests.crash.journal import DIMENSION, Client, Shape
from tests.crash.rest import Rest, Stored
from tests.engine_process import VECSTOW, EngineProcess

SEARCHED = 8
"""Points per collection that are looked for by their vectors."""


def declare_and_fill(engine: EngineProcess, clients: list[Client], shapes: list[Shape]) -> None:
    with Rest(engine.port) as rest:
        for shape in shapes:
            rest.create(shape.name, DIMENSION, shape.metric, shape.vector_type)
        for client in clients:
            client.fill(rest)


def verify(
    engine: EngineProcess, clients: list[Client], shapes: list[Shape], rng: np.random.Generator
) -> None:
    """Every id that was ever used is what it must be, and nothing else is there."""
    found: dict[str, dict[str, Stored]] = {}
    with Rest(engine.port) as rest:
        for shape in shapes:
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
    """Assert that no search finds the points deleted in this round by the vectors that they had."""
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
    command: list[str | Path] = [VECSTOW, "check", "--data", engine.data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
