"""The part "damage" sees what it is there to see."""

import os
import signal

import pytest

from tests.crash.damage import child
from tests.crash.damage.cases import make_case
from tests.crash.damage.child import run_apart
from tests.crash.damage.kinds import KINDS
from tests.crash.damage.part import Damage
from tests.crash.damage.volume import whole_volume
from tests.crash.prove.runner import silence
from vecstow_engine.storage import snapshots, view

SEED = 3


@pytest.fixture(scope="module")
def volume():
    silence()
    return whole_volume()


def test_one_round_damages_every_file_and_in_every_way(volume):
    cases = [make_case(volume, SEED, number) for number in range(len(volume.labels) * len(KINDS))]
    assert {case.label for case in cases} == volume.labels.keys()
    assert {case.kind for case in cases} == KINDS.keys()
    assert all(case.content != volume.files[volume.labels[case.label]] for case in cases)
    assert len({(case.label, case.content) for case in cases}) > len(cases) / 2


def test_number_gives_the_same_case_again(volume):
    """Also where the volume was rebuilt: its uids and times, which differ then, decide nothing."""
    assert list(volume.labels) == sorted(volume.labels)
    assert [make_case(volume, SEED, n) for n in range(40)] == [make_case(volume, SEED, n) for n in range(40)]


def test_crash_is_told(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "run_case", lambda *given: os.kill(os.getpid(), signal.SIGSEGV))
    verdict = run_apart(volume, make_case(volume, SEED, 0), tmp_path)
    assert (verdict.ending, verdict.wrong) == ("crash", ["the process ended with -11"])


def test_hang_is_told(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "run_case", lambda *given: signal.pause())
    monkeypatch.setattr(child, "SECONDS_MAX", 0.2)
    assert run_apart(volume, make_case(volume, SEED, 0), tmp_path).ending == "hang"


@pytest.mark.timeout(300)
def test_index_that_nobody_verifies_is_found(volume, tmp_path, monkeypatch):
    def unverified(folder, table, applied):
        size = (folder / "index.bin").stat().st_size
        return next((entry for entry in table.snapshots() if entry.bytes == size), None), "no such size"

    monkeypatch.setattr("vecstow_engine.service.loader.valid_snapshot", unverified)
    assert snapshots.valid_snapshot is not unverified
    assert Damage(1, 0, 15, "graph/index.bin").run(tmp_path).findings


def test_rows_that_nobody_verifies_are_found(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(view, "_first_bad", lambda points, rows: None)
    found = Damage(1, 0, 8, "graph/vectors.bin").run(tmp_path).findings
    assert any("are damaged, and [] are withheld" in finding.what for finding in found)
