"""A copy is a backup: under a hold an exact one; without, one that is right or says what is missing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.crash.journal import DIMENSION, Client, Shape, Writers, wrong
from tests.crash.rest import Rest, Stored
from tests.engine_process import EngineProcess
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.model.errors import Unavailable
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.lifecycle import State

SEED = 20_250_808
COPIES = 30
PASSES = (
    [["--bwlimit=0"]],
    [["--bwlimit=2000"]],
    [["--bwlimit=700", "--exclude=index.bin"]],
    [
        ["--bwlimit=2000", "--exclude=index.bin", "--exclude=vectors.bin"],
        ["--ignore-existing", "--exclude=wal"],
    ],
)
"""As fast as it can be; so slowly that several checkpoints are made meanwhile; interrupted and resumed."""
SEARCHED = 10
GRAPH = Shape("graph", "Euclidean", "Float32", ids_per_client=2000, batch_max=100)
HALVES = Shape("halves", "Cosine", "Float16", ids_per_client=100, batch_max=20)
BYTES = Shape("bytes", "Manhattan", "Int8", ids_per_client=100, batch_max=20)
SHAPES = [GRAPH, HALVES, BYTES]
FREQUENT_UPKEEP = ("--checkpoint-seconds", 0.1, "--reserve-bytes", 0)
RSYNC_CODES = (0, 23, 24)
"""Done; or a file was cut, or vanished, while it was read: normal on a volume in use."""

needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")

Marks = dict[tuple[str, str], int]
"""Per collection and id, a place among the states that its client submitted."""


def acknowledged(clients: list[Client]) -> Marks:
    return {key: history.acknowledged for client in clients for key, history in client.histories.items()}


def submitted(clients: list[Client]) -> Marks:
    return {key: len(history.states) for client in clients for key, history in client.histories.items()}


@pytest.fixture
def clients() -> list[Client]:
    return [Client(number, SHAPES, SEED) for number in range(3)]


@pytest.fixture
def engine(tmp_path, clients):
    with EngineProcess(tmp_path / "data", *FREQUENT_UPKEEP) as running:
        with Rest(running.port) as rest:
            for shape in SHAPES:
                rest.create(shape.name, DIMENSION, shape.metric, shape.vector_type)
            for client in clients:
                client.fill(rest)
        yield running


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["cp", "-a", "-T"], id="cp"),
        pytest.param(["rsync", "-a", *PASSES[2][0]], id="rsync", marks=needs_rsync),
    ],
)
@pytest.mark.timeout(240)
def test_a_copy_under_a_hold_has_everything_acknowledged_before_it(tmp_path, engine, clients, command):
    copy = tmp_path / "elsewhere"
    with Rest(engine.port) as rest, Writers(clients, engine.port, SHAPES):
        wait_until(lambda: all(client.answered > 5 for client in clients))
        rest.call("POST", "/hold", {"seconds": 60})
        floor = acknowledged(clients)
        wait_until(lambda: acknowledged(clients) != floor)
        subprocess.run([*command, f"{engine.data}/", copy], check=True)
        ceiling = submitted(clients)
        rest.call("DELETE", "/hold")
    with EngineProcess(copy) as elsewhere, Rest(elsewhere.port) as rest:
        for shape in SHAPES:
            assert rest.describe(shape.name)["state"] == "ready"
            ids = [point_id for client in clients for point_id in client.ids[shape.name]]
            found = rest.get_many(shape.name, ids)
            assert rest.describe(shape.name)["vector_count"] == len(found)
            assert_between(shape.name, found, clients, floor, ceiling)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_rsync
async def test_live_copies_are_right_or_say_what_is_missing(tmp_path, engine, clients):
    told: list[str] = []
    for number in range(COPIES):
        copy = tmp_path / f"copy-{number}"
        checkpointed = await asyncio.to_thread(checkpoint, engine, clients)
        with Writers(clients, engine.port, SHAPES):
            await asyncio.to_thread(wait_until, lambda: all(client.answered for client in clients))
            floor = acknowledged(clients)
            await asyncio.to_thread(rsync, engine.data, copy, PASSES[number % len(PASSES)])
            ceiling = submitted(clients)
        with RunningEngine(copy) as opened:
            for shape in SHAPES:
                told.append(await judge(opened, shape.name, clients, checkpointed, floor, ceiling))
        shutil.rmtree(copy)
    assert 0 < told.count("right") < len(told), f"no copy was mixed, or all were: {told}"


def checkpoint(engine: EngineProcess, clients: list[Client]) -> Marks:
    """Have the engine make checkpoints, which compacting does first; no client writes meanwhile."""
    with Rest(engine.port) as rest:
        for shape in SHAPES:
            rest.call("POST", f"/collections/{shape.name}/compact")
    return acknowledged(clients)


def rsync(source: Path, target: Path, passes: list[list[str]]) -> None:
    for flags in passes:
        command = ["rsync", "-a", *flags, f"{source}/", target]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode in RSYNC_CODES, done.stderr


async def judge(
    opened: RunningEngine,
    name: str,
    clients: list[Client],
    checkpointed: Marks,
    floor: Marks,
    ceiling: Marks,
) -> str:
    """Check what the copy answers; returns what it says of itself: "right", or what is missing.

    What was acknowledged before it began must be there; without the log, what was checkpointed by then.
    """
    collection = opened.collection(name)
    if collection.state is State.QUARANTINED:
        assert collection.reason
        return "quarantined"
    ids = [point_id for client in clients for point_id in client.ids[name]]
    found = await read(opened, name, ids)
    await assert_searches_resolve(opened, collection, found)
    # Reading found what fails its checks: only now is the state the last word.
    withheld = 0 if collection.store is None else len(collection.store.layers.withheld)
    assert (collection.state is State.DEGRADED) == (withheld > 0)
    told = ["degraded"] * (withheld > 0) + ["wal_missing"] * ("wal_missing" in (collection.reason or ""))
    since = checkpointed if "wal_missing" in told else floor
    assert_between(name, found, clients, since, ceiling, missing_max=withheld)
    assert len(found) <= collection.count <= len(found) + withheld
    return " and ".join(told) or "right"


async def read(opened: RunningEngine, name: str, ids: list[str]) -> dict[str, Stored]:
    """The points of these ids that there are, without those that are withheld: an error names one of them."""
    try:
        points = await opened.get_points(name, ids)
    except Unavailable:
        if len(ids) == 1:
            return {}
        half = len(ids) // 2
        return await read(opened, name, ids[:half]) | await read(opened, name, ids[half:])
    return {point.id: stored(point) for point in points if point is not None}


def stored(point: Any) -> Stored:
    payload = None if point.payload is None else msgspec.json.decode(point.payload)
    return point.vector.astype("<f4").tobytes(), payload


def assert_between(
    name: str,
    found: dict[str, Stored],
    clients: list[Client],
    floor: Marks,
    ceiling: Marks,
    missing_max: int = 0,
) -> None:
    """Each point has a state that it had between two moments; at most `missing_max` are missing though they
    must be there.
    """
    missing = []
    for client in clients:
        for point_id in client.ids[name]:
            history = client.histories[name, point_id]
            state = found.get(point_id)
            if state not in history.states[floor[name, point_id] : ceiling[name, point_id]]:
                missing.append(point_id)
                assert state is None, wrong(name, point_id, state, history)
    assert len(missing) <= missing_max, f"{name} does not say that {missing} are missing"


async def assert_searches_resolve(
    opened: RunningEngine, collection: Collection, found: dict[str, Stored]
) -> None:
    """Assert that each hit of a search exists, comes once, and has the distance of its vector."""
    for point_id in sorted(found)[:: len(found) // SEARCHED + 1]:
        vector = np.frombuffer(found[point_id][0], "<f4")
        hits = await opened.search(collection.name, SearchQuery.build(collection.manifest, vector, 10))
        assert len({hit.id for hit in hits}) == len(hits)
        for hit in hits:
            expected = distance(collection, vector, np.frombuffer(found[hit.id][0], "<f4"))
            assert hit.distance == pytest.approx(expected, rel=1e-4, abs=1e-4)
            payload = None if hit.payload is None else msgspec.json.decode(hit.payload)
            assert payload == found[hit.id][1]


def distance(collection: Collection, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if collection.name == GRAPH.name:
        return float(np.linalg.norm(one - other))
    if collection.name == BYTES.name:
        return float(np.abs(one - other).sum())
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))
