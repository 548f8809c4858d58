"""Programs end with the process that started them; those that are not built are asked for."""

from __future__ import annotations

import dataclasses
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.folder import PREFIX, remove_left_behind
from tests.cluster.programs import Program, StartFailed


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Program]:
    program = Program(["sleep", "600"], tmp_path / "log")
    yield program
    program.kill()


def test_a_killed_program_is_gone_and_can_be_started_again(sleeper: Program) -> None:
    sleeper.start()
    first = sleeper.pid
    assert first is not None
    sleeper.kill()
    assert sleeper.pid is None
    assert not Path(f"/proc/{first}").exists()
    sleeper.start()
    assert sleeper.pid not in (None, first)


def test_a_program_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    program = Program(["sh", "-c", "echo no such flag >&2; exit 1"], tmp_path / "log")
    program.start()
    with pytest.raises(StartFailed, match="sh has ended: no such flag"):
        program.wait_until(lambda: False, 30)
    program.kill()


def test_a_program_that_is_not_ready_in_time_is_told(sleeper: Program) -> None:
    sleeper.start()
    with pytest.raises(StartFailed, match="sleep was not ready"):
        sleeper.wait_until(lambda: False, 0.1)


def test_a_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from tests.cluster.programs import Program\n"
        "program = Program(['sh', '-c', 'echo ready; exec sleep 600'], pathlib.Path(sys.argv[1]))\n"
        "program.start(); program.wait_until(program.log.read_bytes, 30)\n"
        "print(program.pid, flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "log"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    readable, _, _ = select.select([child], [], [], 30)
    os.close(child)
    assert readable


def test_folders_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left, used = tmp_path / f"{PREFIX}{gone.pid}-x", tmp_path / f"{PREFIX}{os.getpid()}-x"
    (left / "etcd").mkdir(parents=True)
    used.mkdir()
    remove_left_behind(tmp_path)
    assert list(tmp_path.iterdir()) == [used]


def test_a_changed_module_has_another_place(tmp_path: Path) -> None:
    before = binaries.KUBERNETES.place()
    folder = tmp_path / "binary"
    shutil.copytree(binaries.KUBERNETES.folder, folder)
    module = dataclasses.replace(binaries.KUBERNETES, folder=folder)
    assert module.place() == before
    (folder / "main.go").write_text("package main\n")
    assert module.place() != before
    assert module.place().name.startswith(f"kubernetes-{binaries.kubernetes_version()}-")


def test_without_go_and_without_the_programs_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(binaries.NotBuilt, match="type `make test-operator`"):
        binaries.built()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(binaries.NotBuilt, match="not on the PATH"):
        binaries.build()
