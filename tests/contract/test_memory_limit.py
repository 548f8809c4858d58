"""A real engine filled to its memory limit: it refuses, stays up, and takes writes again when there is room.

Few rows of many dimensions fill it soon.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from tests.engine_process import VECSTOW, EngineProcess
from tests.waiting import wait_for
from vecstow_engine.service.memory_plan import MIB

pytestmark = pytest.mark.timeout(600)

LIMIT_BYTES = 256 * MIB
DIMENSION = 4096
BATCH = 125
"""Rows of 2 MB."""
CHEAP = {"max_connections": 16, "ef_construction": 16, "ef_search": 50, "max_layer": 16}
GROUPS = Path("/sys/fs/cgroup/memory")
ENTER = 'echo $$ > "$0" && exec "$@"'


class Client(httpx.Client):
    """Fills collections of an engine."""

    def __init__(self, engine: EngineProcess) -> None:
        super().__init__(base_url=engine.url, trust_env=False, timeout=60)
        self._generator = np.random.default_rng(0)

    def declare(self, name: str) -> None:
        body = {"name": name, "dimension": DIMENSION, "distance_metric": "Euclidean", "index_config": CHEAP}
        assert self.post("/collections", json=body).is_success

    def write(self, name: str, count: int = BATCH) -> httpx.Response:
        rows = self._generator.standard_normal((count, DIMENSION)).astype("<f4")
        body = msgspec.msgpack.encode({"vectors": rows.tobytes()})
        headers = {"content-type": "application/msgpack"}
        return self.post(f"/collections/{name}/vectors/batch", content=body, headers=headers)

    def fill(self, name: str) -> tuple[list[str], httpx.Response]:
        """Write until the engine refuses for good; returns the ids, and the refusal."""
        ids: list[str] = []
        while (answer := self.write(name)).status_code != 507:
            if answer.status_code != 429:
                assert answer.is_success, answer.text
                ids += answer.json()["data"]
        return ids, answer

    def is_indexed(self) -> bool:
        rows = self.get("/state").json()["data"]["collections"]
        return all(row["indexed"] == row["vector_count"] for row in rows)

    def is_found(self, name: str, point_id: str) -> bool:
        """Whether a point is found by its own vector."""
        vector = self.get(f"/collections/{name}/vectors/{point_id}").json()["data"]["data"]
        query = {"vector": vector, "limit": 1, "ef_search": 500}
        hits = self.post(f"/collections/{name}/search", json=query).json()["data"]
        return [hit["id"] for hit in hits] == [point_id]


def peak_bytes(engine: EngineProcess) -> int:
    """The most resident memory that the engine ever had."""
    assert engine.process is not None
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def assert_it_serves_at_its_limit(engine: EngineProcess) -> None:
    with Client(engine) as client:
        client.declare("small")
        assert client.write("small", 20).is_success
        client.declare("large")
        ids, refusal = client.fill("large")
        details = refusal.json()["details"]
        assert details["kind"] == "OutOfMemory"
        assert details["field"] == "memory_limit"
        assert details["value"] > details["limit"]
        assert len(ids) * DIMENSION * 4 > 40 * MIB
        wait_for(client.is_indexed, engine.log.read_text)
        assert client.is_found("large", ids[-1])
        assert client.delete(f"/collections/large/vectors/{ids[0]}").is_success
        assert client.get("/health/live").is_success
        assert client.delete("/collections/large").is_success
        wait_for(lambda: client.write("small").is_success, engine.log.read_text)
    assert peak_bytes(engine) < LIMIT_BYTES


def test_an_engine_at_its_limit_refuses_stays_up_and_resumes(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "data", "--memory-limit", "256MiB") as engine:
        assert_it_serves_at_its_limit(engine)


def test_a_volume_that_does_not_fit_is_served_without_its_graphs(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "data", "--memory-limit", "1GiB") as engine:
        with Client(engine) as client:
            client.declare("large")
            ids = [point_id for _ in range(30) for point_id in client.write("large").json()["data"]]
        assert engine.stop() == 0
        engine.flags = ["--memory-limit", "256MiB"]
        engine.start()
        with Client(engine) as client:
            [row] = client.get("/state").json()["data"]["collections"]
            assert row["state"] == "ready"
            assert "its graph is not in memory" in row["reason"]
            assert client.is_found("large", ids[-1])
            assert client.write("large").status_code == 507
        assert peak_bytes(engine) < LIMIT_BYTES


class InGroup(EngineProcess):
    """An engine in a control group of its own, from its first instruction on."""

    def __init__(self, data: Path, group: Path) -> None:
        super().__init__(data)
        self.group = group

    def launch(self) -> None:
        with self.log.open("ab") as log:
            command = ["sh", "-c", ENTER, self.group / "cgroup.procs", VECSTOW, *self.command]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A group that the kernel keeps below the limit."""
    made = GROUPS / f"vecstow-test-{os.getpid()}"
    try:
        made.mkdir()
        (made / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield made
    wait_for(lambda: not (made / "cgroup.procs").read_text(), lambda: "the group is not empty")
    made.rmdir()


def test_the_kernel_never_ends_an_engine_that_finds_its_limit_by_itself(tmp_path: Path, group: Path) -> None:
    with InGroup(tmp_path / "data", group) as engine:
        with Client(engine) as client:
            assert client.get("/state").json()["data"]["memory"]["limit_bytes"] == LIMIT_BYTES
        assert_it_serves_at_its_limit(engine)
    assert "oom_kill 0" in (group / "memory.oom_control").read_text()
