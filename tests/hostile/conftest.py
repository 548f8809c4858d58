"""The engine that all attacks are made on."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.hostile.memory_limit import memory_limit
from tests.hostile.site import MIB, PATIENCE_SECONDS, LimitedEngine

LIMIT_BYTES = 512 * MIB
POINTS = 300
PAYLOAD_BYTES = 60_000


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitedEngine]:
    """An engine with 512 MiB: a collection that is attacked, with large payloads, and another one."""
    data = tmp_path_factory.mktemp("hostile") / "data"
    flags = (
        "--body-seconds-max", 10,
        "--write-stall-seconds-max", 2,
        "--answer-bytes-per-second-min", 8 * MIB,
    )  # fmt: skip
    with memory_limit(LIMIT_BYTES) as limit, LimitedEngine(data, limit, *flags) as engine:
        with httpx.Client(base_url=engine.url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
            for name, dimension in (("theirs", 4), ("ours", 2)):
                new = {"name": name, "dimension": dimension, "distance_metric": "Euclidean"}
                client.post("/collections", json=new).raise_for_status()
            for start in range(0, POINTS, 50):
                client.post("/collections/theirs/vectors/batch", json=_points(start)).raise_for_status()
            client.post("/collections/ours/vectors", json={"id": "a", "data": [1, 2]}).raise_for_status()
        yield engine
        assert engine.is_alive, engine.log.read_text()[-4000:]
        assert engine.stop() == 0


def _points(start: int) -> dict[str, object]:
    payload = {"x": "y" * PAYLOAD_BYTES}
    numbers = range(start, start + 50)
    return {
        "vectors": [
            {"id": f"p{number}", "data": [1, 2, 3, number], "metadata": payload | {"n": number}}
            for number in numbers
        ]
    }
