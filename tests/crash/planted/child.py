"""The proof against a copy of the engine, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.planted.patches import REPOSITORY
from tests.engine_process import VECSTOW

SECONDS_MAX = 300.0
_WHERE = "import vecstow_engine; print(vecstow_engine.__file__)"


@dataclass(frozen=True)
class Ended:
    """How a run of the proof ended."""

    code: int
    said: str
    findings: tuple[str, ...]


class NotImported(Exception):
    """Raised when another engine than the copy would be proven."""


def prove(engine: Path, says: str, *arguments: str) -> Ended:
    """Run `tests.crash.prove` with the copy of the engine in `engine`, until a finding matches `says`.

    A bug shows in several ways, and which one comes first depends on the record.
    """
    environment = first_on_path(engine) | {"TMPDIR": str(engine.parent)}  # what findings keep goes with it
    refuse_another(engine, environment)
    report = engine.with_name("report.json")
    prove = [sys.executable, "-m", "tests.crash.prove"]
    command: list[str | Path] = [*prove, "--stop-at", says, "--json", report, *arguments]
    code, said = _run_as_group(command, environment)
    results: list[dict[str, Any]] = json.loads(report.read_text()) if report.exists() else []
    findings = [finding["what"] for result in results for finding in result["findings"]]
    return Ended(code, said, tuple(findings))


def first_on_path(engine: Path) -> dict[str, str]:
    """An environment in which the copy is imported: by us, by `vecstow`, by spawned processes."""
    others = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": f"{engine}:{others}" if others else str(engine)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles the copy again
    return environment


def refuse_another(engine: Path, environment: dict[str, str]) -> None:
    """Raise NotImported unless both Python and the command `vecstow` take the copy."""
    imported = _run([sys.executable, "-c", _WHERE], environment).stdout
    if not Path(imported.strip()).is_relative_to(engine):
        raise NotImported(f"python imports {imported}")
    told = _run([VECSTOW, "serve", "--help"], environment | {"PYTHONVERBOSE": "1"}).stderr
    if f"{engine}/vecstow_engine/cli/main.py" not in told:
        raise NotImported(f"{VECSTOW} does not import {engine}")


def _run_as_group(command: list[str | Path], environment: dict[str, str]) -> tuple[int, str]:
    """A program that starts others: they end with it when it takes too long."""
    process = subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=SECONDS_MAX)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, said


def _run(command: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
