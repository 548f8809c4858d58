"""The entry point: quick to start, and every error one line with an exit code."""

import json
import subprocess
import sys

import pytest

from vecstow_engine import __version__
from vecstow_engine.cli import commands as entry

HEAVY = ("numpy", "httpx", "msgspec", "hnswlib", "fastapi", "uvicorn", "pydantic", "rich", "yaml", "sqlite3")


def test_help_loads_nothing_heavy():
    """So that `vecstow --help` answers in a tenth of a second."""
    program = (
        "import sys\n"
        "from vecstow_engine.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stderr.strip() == "[]"
    assert "vecstow serve --data" in answer.stdout


COMMANDS = [command.name for command in entry.app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_with_an_example_and_prints_json(vecstow, command):
    code, out, _ = vecstow(command, "--help")
    assert code == 0
    assert "Example" in out
    assert f"    vecstow {command}" in out or "&& vecstow" in out
    assert "--json" in out or command in ("serve", "maintenance")


@pytest.mark.parametrize("arguments", [("--version",), ("version",)])
def test_the_version_is_the_packages(vecstow, arguments):
    assert vecstow(*arguments)[:2] == (0, f"vecstow {__version__}\n")


def test_the_version_as_json(vecstow):
    assert json.loads(vecstow("version", "--json")[1]) == {"version": __version__}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(RuntimeError("boom"), "vecstow: unexpected RuntimeError: boom", id="a mistake of ours"),
        pytest.param(
            PermissionError(13, "Permission denied", "/data/x"),
            "vecstow: /data/x: Permission denied",
            id="an error of the system",
        ),
    ],
)
def test_no_error_ends_in_a_traceback(vecstow, monkeypatch, error, line):
    monkeypatch.delenv("VECSTOW_DEBUG", raising=False)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(entry, "app", fail)
    code, out, err = vecstow("ls")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == line
    assert "Traceback" not in err


def test_debugging_shows_the_traceback(vecstow, monkeypatch):
    monkeypatch.setenv("VECSTOW_DEBUG", "1")

    def fail(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr(entry, "app", fail)
    assert "Traceback" in vecstow("ls")[2]
