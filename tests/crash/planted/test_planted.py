"""The planted bugs stay applicable, and what is proven is really the copy that has them."""

from __future__ import annotations

import compileall
import subprocess
import sys

import pytest

from tests.crash.planted import child
from tests.crash.planted.part import not_caught
from tests.crash.planted.patches import Change, DoesNotApply, PlantedBug, apply, plant, planted_bugs
from tests.crash.prove.parts import parts
from tests.engine_process import VECSTOW

BUGS = planted_bugs()
BUG = PlantedBug("99-bug", "", "", "some-part", (), "is missing", ())


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_applies_to_the_present_code_and_compiles(bug, tmp_path):
    engine = plant(bug, tmp_path)
    assert bug.changes
    for change in bug.changes:
        assert compileall.compile_file(tmp_path / change.file, quiet=1)
        assert change.after in (tmp_path / change.file).read_text()
    assert engine == tmp_path / "engine"


def test_they_are_numbered_and_each_names_a_part_that_exists():
    assert [bug.name[:2] for bug in BUGS] == [f"{number:02}" for number in range(1, len(BUGS) + 1)]
    assert len(BUGS) >= 12
    assert {bug.part for bug in BUGS} <= parts().keys()


def test_a_place_that_is_gone_or_not_the_only_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("a\nb\na\n")
    for before in ("c\n", "a\n"):
        with pytest.raises(DoesNotApply):
            apply(Change("file", before, "d\n"), tmp_path)


@pytest.fixture
def telling(tmp_path):
    """A copy of the engine that says so when it is imported."""
    engine = plant(BUG, tmp_path)
    with (engine / "vecstow_engine" / "__init__.py").open("a") as file:
        file.write("import sys; print('the copy', file=sys.stderr)\n")
    return engine


SPAWNED = """
import importlib, multiprocessing
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(
        target=importlib.import_module, args=("vecstow_engine",)
    )
    worker.start(), worker.join()
"""


def test_the_copy_is_what_python_the_command_and_spawned_processes_import(telling, tmp_path):
    environment = child.first_on_path(telling)
    (tmp_path / "spawned.py").write_text(SPAWNED)
    for command in ([VECSTOW, "--help"], [sys.executable, tmp_path / "spawned.py"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr.startswith("the copy")
    child.refuse_another(telling, environment)


def test_a_copy_that_is_not_imported_is_refused(telling, tmp_path):
    with pytest.raises(child.NotImported):
        child.refuse_another(tmp_path / "elsewhere", child.first_on_path(telling))


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        pytest.param(child.Ended(1, "", ("p1 is missing",)), None, id="caught by name"),
        pytest.param(child.Ended(0, "0 findings", ()), "not caught", id="nothing found"),
        pytest.param(child.Ended(1, "Traceback", ()), "not caught", id="the harness fell over"),
        pytest.param(child.Ended(1, "", ("p1 is there",)), "not by name", id="something else found"),
        pytest.param(
            child.Ended(1, "", ("the batch ended with\n… is missing",)), "not by name", id="a batch fell over"
        ),
    ],
)
def test_only_the_right_finding_counts(ended, why):
    told = not_caught(BUG, ended)
    assert told is None if why is None else why in told
