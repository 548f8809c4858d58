"""A signal at any moment after exec ends a program in time, also as process 1 of a container.

The kernel drops a signal for process 1 that has no handler for it; `env --block-signal`, with which image and
chart start every program, keeps what comes before there is one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine_process import VECSTOW, EngineProcess, end_with_parent
from tests.ports import free_port
from tests.waiting import wait_for
from vecstow_engine.cli.commands import app

ENDED_EARLY = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""Before it owns anything, a program ends with the code that a shell gives."""
OPERATOR = VECSTOW.with_name("vecstow-operator")
BLOCKED = ["env", "--block-signal=TERM,INT"]
MOMENTS = ("", "/libpython|/python3", "/_socket|/select", "/numpy/", "/hnswlib", "/uvloop/", "/httptools/")
"""Files that `vecstow serve` maps, in the order that it comes to need them; the first is mapped at once."""


def _can_be_first() -> bool:
    tried = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False)
    return tried.returncode == 0


as_first = pytest.mark.skipif(not _can_be_first(), reason="making a PID namespace needs root")


@contextmanager
def first_process(log: Path, *command: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A program as process 1 of a namespace, once it loses no signals, and its id here."""
    whole = ["unshare", "--pid", "--fork", "--kill-child", *BLOCKED, *map(str, command)]
    with log.open("ab") as output:
        outer = subprocess.Popen(whole, stdout=output, stderr=output, preexec_fn=end_with_parent)
    try:
        yield outer, wait_for(lambda: _child_that_hears(outer.pid), log.read_text)
    finally:
        outer.kill()
        outer.wait()


def _child_that_hears(parent: int) -> int | None:
    """The child once it is no `unshare` any more, and blocks signals or handles them by now."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        status = Path(f"/proc/{child}/status").read_text()
        masks = [int(mask, 16) for mask in re.findall(r"Sig(?:Blk|Cgt):\s*(\w+)", status)]
        hears = any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)
        if hears and not status.startswith("Name:\tunshare"):
            return int(child)
    return None


def has_mapped(pid: int, pattern: str) -> bool:
    return bool(re.search(pattern, Path(f"/proc/{pid}/maps").read_text()))


@as_first
@pytest.mark.parametrize(
    ("moment", "number"),
    [(moment, signal.SIGTERM) for moment in MOMENTS] + [(moment, signal.SIGINT) for moment in MOMENTS[::3]],
)
def test_a_signal_during_the_start_ends_the_first_process(tmp_path, moment, number):
    serve = (VECSTOW, "serve", "--data", tmp_path / "data", "--port", free_port())
    with first_process(tmp_path / "log", *serve) as (outer, pid):
        wait_for(lambda: has_mapped(pid, moment), f"{moment} is not mapped")
        os.kill(pid, number)
        assert outer.wait(60) in (0, ENDED_EARLY[number]), (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


@as_first
@pytest.mark.parametrize(
    "command",
    [
        pytest.param((VECSTOW, "maintenance", "--data", "{data}"), id="maintenance"),
        pytest.param((VECSTOW, "check", "--data", "{data}"), id="check"),
        pytest.param((VECSTOW, "--help"), id="help"),
        pytest.param((OPERATOR, "--help"), id="operator"),
    ],
)
def test_a_signal_that_came_before_python_did_ends_any_program(tmp_path, command):
    """A short program would end before a signal that is not sent until it runs."""
    (tmp_path / "data").mkdir()
    named = [str(part).format(data=tmp_path / "data") for part in command]
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with first_process(tmp_path / "log", "sh", "-c", 'read _ <"$0"; exec "$@"', gate, *named) as (outer, pid):
        os.kill(pid, signal.SIGTERM)
        gate.write_text("\n")
        assert outer.wait(60) == 143


@pytest.mark.parametrize(
    "start", ["vecstow_engine.cli.main:main", "vecstow_operator.start:main", "vecstow_operator.start:plugin"]
)
def test_an_interrupt_while_typer_builds_the_command_ends_in_one_code(start):
    module, function = start.split(":")
    program = (
        "import signal, typer\n"
        f"from {module} import {function} as start\n"
        "typer.main.get_command = lambda app: signal.raise_signal(signal.SIGINT)\n"
        "start()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("number", ENDED_EARLY, ids=lambda number: number.name)
def test_a_signal_as_soon_as_the_port_is_open_ends_the_engine_in_order(tmp_path, number):
    engine = EngineProcess(tmp_path / "data")
    for _ in range(3):
        engine.launch()
        # Logged before anything is awaited: uvicorn has not taken the signals yet.
        wait_for(lambda: "listening" in engine.log.read_text(), engine.log.read_text)
        assert engine._end(number) == 0
        assert "stopped" in engine.log.read_text()
        engine.log.unlink()


@pytest.mark.parametrize("number", ENDED_EARLY, ids=lambda number: number.name)
def test_a_signal_ends_the_volume_of_maintenance(tmp_path, number):
    process = subprocess.Popen([VECSTOW, "maintenance", "--data", tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    process.send_signal(number)
    assert process.wait(60) == 0
    process.stdout.close()


def test_more_signals_while_the_engine_ends_change_nothing(tmp_path):
    with EngineProcess(tmp_path / "data") as engine:
        while engine.process.poll() is None:
            engine.process.send_signal(signal.SIGTERM)
        assert engine.process.returncode == 0
        engine.process = None
    assert "stopped" in engine.log.read_text()


def test_the_first_module_of_the_command_imports_nothing_that_takes_time():
    """Signals are heard once it runs."""
    program = "import sys, vecstow_engine.cli.main\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"typer", "click", "json", "logging", "subprocess"} & set(answer.stdout.split())
    assert {command.name for command in app.registered_commands} >= {"serve", "maintenance"}
