"""One case in a forked process: the engine may crash it or hang in it, which is a finding too."""

from __future__ import annotations

import os
import pickle
import select
import shutil
import signal
import time
import traceback
from pathlib import Path

from tests.crash.damage.cases import Case
from tests.crash.damage.trial import run_case
from tests.crash.damage.verdict import Verdict
from tests.crash.damage.volume import Volume
from tests.waiting import SECONDS_MAX


def run_apart(volume: Volume, case: Case, folder: Path) -> Verdict:
    """As `run_case`; whatever happens there is in the verdict."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _report(volume, case, folder, writer)
    os.close(writer)
    told = _read_all(reader, time.monotonic() + SECONDS_MAX)
    if told is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if told is None:
        return Verdict("hang", [f"it is not over after {SECONDS_MAX:g} s"])
    if not told:
        return Verdict("crash", [f"the process ended with {os.waitstatus_to_exitcode(status)}"])
    verdict: Verdict = pickle.loads(told)
    return verdict


def _report(volume: Volume, case: Case, folder: Path, writer: int) -> None:
    """In the child; never returns."""
    try:
        try:
            verdict = run_case(volume, case, folder)
        except BaseException:  # noqa: BLE001 - whatever it is, the verdict reports it
            verdict = Verdict("error", [traceback.format_exc()])
        with os.fdopen(writer, "wb") as stream:
            stream.write(pickle.dumps(verdict))
    finally:
        os._exit(0)


def _read_all(reader: int, deadline: float) -> bytes | None:
    """Return the bytes that the child sends until it ends; None when it does not end in time."""
    told = b""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            part = stream.read(1 << 16)
            if not part:
                return told
            told += part
