"""The standard streams, whatever the caller closed, filled or will not read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vecstow_engine.storage.layout import Layout

VECSTOW = Path(sys.executable).with_name("vecstow")


def shell(command, **environment):
    """Run a line of a shell; `vecstow` is the command."""
    done = subprocess.run(
        ["bash", "-c", f"vecstow() {{ {VECSTOW} \"$@\"; }}\n{command}"],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", ["version", "version --json", "ls --help"])
def test_a_full_disk_under_stdout_is_an_error(arguments):
    code, _, err = shell(f"vecstow {arguments} > /dev/full")
    assert code == 1
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_a_reader_that_has_enough_is_no_error():
    code, out, err = shell("vecstow --help | head -n 1; exit ${PIPESTATUS[0]}")
    assert out.startswith("Usage: vecstow")
    assert (code in (0, 1), err) == (True, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_error(tmp_path, closed):
    """A file of the volume would take its descriptor, and get what is printed."""
    assert shell(f"vecstow apply -f {RESOURCE} --data {tmp_path} {closed}")[0] == 0
    manifest = Layout(tmp_path).collection("packages").joinpath("metadata.json")
    assert manifest.read_text().startswith("{")


RESOURCE = Path(__file__).parents[3] / "examples" / "packages" / "collection.yaml"


def test_stdin_that_is_closed_holds_no_document(tmp_path):
    code, _, err = shell(f"vecstow apply -f - --data {tmp_path} <&-")
    assert (code, err) == (1, "vecstow: nothing to apply: no document in -\n")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "TERM": "dumb", "HOME": "/proc/nowhere"},
        {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
    ],
)  # fmt: skip
def test_text_of_any_language_is_printed_in_any_environment(tmp_path, environment):
    (tmp_path / "r.yaml").write_text(RESOURCE.read_text().replace("examples", "Zoë"), encoding="utf-8")
    assert shell(f"vecstow apply -f {tmp_path / 'r.yaml'} --data {tmp_path / 'd'}", **environment)[0] == 0
    code, out, err = shell(f"vecstow show packages --data {tmp_path / 'd'}", **environment)
    assert (code, err) == (0, "")
    assert "Zo" in out
