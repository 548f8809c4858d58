"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.load import generator

PACKAGES: Final = ("hnswlib", "numpy", "msgspec", "uvloop", "uvicorn", "fastapi")


def facts(folder: Path) -> dict[str, Any]:
    """Processor, memory, disk of `folder`, versions, and how busy the machine was already."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(folder),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "load_generator": generator(),
    }


def _file_system(folder: Path) -> str:
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
