"""Fixtures that several unit tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.recorded_disk import RecordedDisk
from tests.unit.running_engine import RunningEngine
from vecstow_engine.cli.main import main

MEMORY_TESTS = ("tests.unit.storage.", "tests.unit.doctor.test_repair_")


@pytest.fixture
def vecstow(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Runs one command in this process; returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> RecordedDisk:
    """The disk under test: its steps are on record, and fail when a test says so."""
    return RecordedDisk(monkeypatch)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RunningEngine]:
    """An engine with the empty collection `notes`."""
    with RunningEngine(tmp_path / "data") as running:
        running.declare()
        yield running


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """For storage and repair a folder in memory: they sync thousands of times, and none is about a disk."""
    memory = "/dev/shm"
    if not request.module.__name__.startswith(MEMORY_TESTS) or not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
