"""Run a soak; exit 1 for a finding."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.crash.journal import DIMENSION, Writers
from tests.crash.rest import Refused, Rest
from tests.engine_process import EngineProcess
from tests.soak.clients import KEYS, SoakClient, key_file, key_of, shapes_of

MIB = 1 << 20
LIMIT_BYTES = 1024 * MIB
DISK_BYTES = 2048 * MIB
ROUND_SECONDS = 20.0
FULL_SECONDS = 3.0
STARVING_OPERATIONS = 20
"""Operations on average from which on a collection without any is starved: chance gives 1 in 500 million."""


class FaultyEngine(EngineProcess):
    """An engine whose hnswlib fails now and then."""

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.faulty", *self.command], stdout=log, stderr=log
            )

    def resident_bytes_max(self) -> int:
        """The most memory that this process had."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own, which can be filled; False where only root may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path) -> None:
    """Leave hardly any room for a while."""
    ballast = folder / "ballast"
    stats = os.statvfs(folder)
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        leave = random.choice([0, 50_000, 500_000])
        os.posix_fallocate(file.fileno(), 0, max(1, stats.f_bavail * stats.f_frsize - leave))
    time.sleep(FULL_SECONDS)
    ballast.unlink()


class Soak:
    """The engine, its clients, and what was found."""

    def __init__(self, root: Path, clients: int, seed: int, *, can_fill: bool) -> None:
        keys = root / "keys.yaml"
        keys.write_text(key_file())
        keys.chmod(0o600)
        self.disk = root / "disk"
        self.engine = FaultyEngine(
            self.disk / "data", "--keys", keys, "--memory-limit", "1GiB", "--checkpoint-seconds", "2",
            "--reserve-bytes", 4 * MIB,
        )  # fmt: skip
        self.engine.log = root / "engine.log"
        self.done: Counter[str] = Counter()
        self.told: Counter[int] = Counter()
        self.clients = [SoakClient(number, seed, self.done, self.told) for number in range(clients)]
        self.shapes = [shape for key in range(KEYS) for shape in shapes_of(key)]
        self.can_fill = can_fill
        self.findings: list[str] = []
        self.figures: Counter[str] = Counter()
        self.resident_bytes_max = 0

    def declare(self) -> None:
        """Create every collection."""
        with Rest(self.engine.port, key=key_of(99)) as rest:
            for shape in self.shapes:
                rest.create(shape.name, DIMENSION, shape.metric, shape.vector_type)

    def round(self, seconds: float) -> None:
        """Let the clients work, fill the disk for a while, and end the engine in one of two ways."""
        with Writers(self.clients, self.engine.port, self.shapes):
            time.sleep(seconds / 2)
            if self.can_fill and self.figures["rounds"] % 2:
                fill_disk(self.disk)
                self.figures["full disks"] += 1
            time.sleep(seconds / 2)
            self._look()
            if self.figures["rounds"] % 3 < 2:
                self.engine.kill()
                self.figures["kills"] += 1
        if self.engine.process is not None:
            self._expect(self.engine.stop() == 0, "the engine did not exit with 0")
        self.figures["rounds"] += 1
        if self.done.total() >= STARVING_OPERATIONS * len(self.shapes):
            starved = [shape.name for shape in self.shapes if not self.done[shape.name]]
            self._expect(not starved, f"starved until round {self.figures['rounds']}: {starved}")
            self.figures["operations"] += self.done.total()
            self.done.clear()

    def verify(self) -> None:
        """Every id of every client is what was acknowledged last."""
        found = {}
        with Rest(self.engine.port, key=key_of(99)) as rest:
            for shape in self.shapes:
                ids = [i for client in self.clients for i in client.ids.get(shape.name, ())]
                found[shape.name] = rest.get_many(shape.name, ids)
                self.figures["points verified"] += len(ids)
        for client in self.clients:
            self.findings += client.findings
            client.findings = []
            try:
                client.settle({name: found[name] for name in client.ids})
            except AssertionError as lost:
                self.findings.append(f"client {self.clients.index(client)}: {lost}")

    def _look(self) -> None:
        """Read the figures of a process before its end."""
        self.resident_bytes_max = max(self.resident_bytes_max, self.engine.resident_bytes_max())
        with Rest(self.engine.port, key=key_of(99)) as rest:
            for line in rest.text("/metrics").splitlines():
                if line.startswith("vecstow_work_failures_total"):
                    self.figures["failed attempts"] += int(float(line.split()[-1]))

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.findings.append(otherwise)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    random.seed(options.seed)
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    (root / "disk").mkdir()
    with small_disk(root / "disk") as can_fill:
        soak = Soak(root, options.clients, options.seed, can_fill=can_fill)
        run(soak, options.seconds)
    soak.figures["operations"] += soak.done.total()
    print(f"seed {options.seed}, {options.clients} clients")
    for name, value in soak.figures.items():
        print(f"{name}: {value:,}")
    print("refusals by status:", dict(sorted(soak.told.items())))
    limit, most = LIMIT_BYTES // MIB, soak.resident_bytes_max // MIB
    print(f"resident memory at most: {most} MiB of {limit}")
    for finding in soak.findings:
        print("FINDING:", finding)
    if soak.findings:
        print(f"kept: {root / 'engine.log'}")
        return 1
    shutil.rmtree(root)
    return 0


def run(soak: Soak, seconds: float) -> None:
    """Rounds until the time is over; each begins with a start and a verification."""
    ends = time.monotonic() + seconds
    soak.engine.start()
    soak.declare()
    try:
        while time.monotonic() < ends:
            soak.round(ROUND_SECONDS)
            soak.engine.start()
            soak.verify()
        if soak.resident_bytes_max >= LIMIT_BYTES:
            soak.findings.append("the engine took more memory than its limit")
    except (Refused, OSError, AssertionError) as error:
        soak.findings.append(f"the run ended early: {error!r}"[:2000])
    finally:
        soak.engine.kill()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
