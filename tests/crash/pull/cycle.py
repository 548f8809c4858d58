"""One file system pulled away from under a server that is written to.

`python -m tests.crash.pull.cycle KIND SEED`, in a mount namespace of its own and an empty folder. The last
line that it writes says how it ended.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.crash.journal import Client, Shape, Writers
from tests.crash.pull.disk import KINDS, PulledDisk
from tests.crash.rest import Refused, Stored
from tests.crash.served import assert_clean, declare_and_fill, verify
from tests.engine_process import EngineProcess
from tests.unit.running_engine import wait_until

GRAPH = Shape("graph", "Euclidean", "Float32", ids_per_client=2000, batch_max=100)
"""Large enough for snapshots of its graph while the engine runs."""
HALVES = Shape("halves", "Cosine", "Float16", ids_per_client=60, batch_max=20)
BYTES = Shape("bytes", "Manhattan", "Int8", ids_per_client=60, batch_max=20)
SHAPES = [GRAPH, HALVES, BYTES]
CLIENTS = 3
FLAGS = ("--checkpoint-seconds", 0.2, "--reserve-bytes", 0)
WRITING_SECONDS_MAX = 0.8


class Gone(Exception):
    """Raised when an answer comes after the disk began to go: no client would have received it."""


class PulledClient(Client):
    """A client of a server whose disk is pulled away.

    An fdatasync that is under way in that moment may return 0 for what is lost: ext4 and XFS both let waiters
    go when their journal is aborted. So answers count up to the pull; and no request that begins after
    it may be answered with success.
    """

    def __init__(self, number: int, seed: int, disk: PulledDisk) -> None:
        super().__init__(number, SHAPES, seed)
        self._disk = disk

    def write(self, port: int, stopped: Callable[[], bool], shapes: list[Shape]) -> None:
        with contextlib.suppress(Gone, Refused):
            super().write(port, stopped, shapes)

    def _do(self, name: str, states: Mapping[str, Stored | None], request: Callable[[], None]) -> None:
        is_too_late = self._disk.is_gone

        def heard() -> None:
            request()
            assert not is_too_late, f"a write to {name} was acknowledged after the disk was gone"
            if self._disk.is_going:
                raise Gone

        super()._do(name, states, heard)


def cycle(kind: str, seed: int, folder: Path) -> dict[str, int]:
    """Pull it, mount it again, and verify everything; returns figures. What is wrong is an AssertionError."""
    rng = np.random.default_rng([seed, len(kind)])
    disk = PulledDisk(KINDS[kind], folder)
    clients: list[Client] = [PulledClient(number, seed, disk) for number in range(CLIENTS)]
    disk.mount()
    engine = EngineProcess(disk.mount_point, *FLAGS)
    with engine:
        declare_and_fill(engine, clients, SHAPES)
        write_and_pull(engine, disk, clients, rng)
    disk.unmount()
    answered = sum(client.answered for client in clients)
    under_way = sum(bool(client.unanswered) for client in clients)
    disk.mount()
    with engine:
        verify(engine, clients, SHAPES, rng)
        assert engine.stop() == 0
    assert_clean(engine)
    disk.unmount()
    return {"requests answered": answered, "requests under way": under_way}


def write_and_pull(
    engine: EngineProcess, disk: PulledDisk, clients: list[Client], rng: np.random.Generator
) -> None:
    """At a random moment; in every second case the server meets the errors before it is killed."""
    with Writers(clients, engine.port, SHAPES):
        until = time.monotonic() + rng.uniform(0.1, WRITING_SECONDS_MAX)
        wait_until(lambda: time.monotonic() >= until and all(client.answered for client in clients))
        disk.pull()
        if rng.random() < 0.5:
            wait_until(lambda: all(client.unanswered for client in clients))
        engine.kill()


if __name__ == "__main__":
    print(json.dumps(cycle(sys.argv[1], int(sys.argv[2]), Path.cwd())))
