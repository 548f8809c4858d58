"""A number of connections that search as fast as they are answered: by wrk, else by Python processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.harness.closed_loop import Probe
from benchmarks.harness.figures import BenchmarkFailed

SCRIPT: Final = Path(__file__).with_name("requests.lua")
PROCESSES_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Load:
    """The outcome of a load."""

    rate: float
    """Answers per second."""
    p50_ms: float
    p99_ms: float
    max_ms: float


def generator() -> str:
    """Which load generator this machine has."""
    if shutil.which("wrk"):
        return "wrk"
    return f"{PROCESSES_MAX} Python processes: wrk is not installed (apt-get install wrk)"


def drive(port: int, requests: Path, connections: int, seconds: float) -> Load:
    """Cycle through the requests in a file of `wire.write_requests`; raises BenchmarkFailed for errors."""
    if shutil.which("wrk"):
        return _drive_wrk(port, requests, connections, seconds)
    return _drive_processes(port, requests, connections, seconds)


def _drive_wrk(port: int, requests: Path, connections: int, seconds: float) -> Load:
    # wrk counts whole seconds, and reads its requests within them.
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "30s",
        "-s",
        SCRIPT,
    ]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}", "--", requests], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    if done.returncode != 0 or not lines:
        raise BenchmarkFailed(f"wrk failed: {done.stdout}{done.stderr}")
    result = json.loads(lines[0].removeprefix("result "))
    if result["failed"] or not result["requests"]:
        raise BenchmarkFailed(f"{result['failed']} of {result['requests']} requests failed")
    return Load(result["requests"] / result["seconds"], result["p50_ms"], result["p99_ms"], result["max_ms"])


def _drive_processes(port: int, requests: Path, connections: int, seconds: float) -> Load:
    processes = min(PROCESSES_MAX, connections)
    with ExitStack() as stack:
        probes = []
        for number in range(processes):
            share = connections // processes + (number < connections % processes)
            result = requests.with_name(f"{requests.name}.{number}.npz")
            probes.append(stack.enter_context(Probe(port, requests, result, share)))
        time.sleep(seconds)
        results = [probe.stop() for probe in probes]
    sent_at = np.concatenate([times for times, _ in results])
    latencies = np.concatenate([latency for _, latency in results])
    span = (sent_at + latencies / 1000).max() - sent_at.min()
    return Load(len(sent_at) / span, *np.percentile(latencies, (50, 99, 100)).tolist())
