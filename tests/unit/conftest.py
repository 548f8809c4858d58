"""Fixtures that several unit tests share."""

import pytest

from vecstow_engine.cli.main import main


@pytest.fixture
def vecstow(capsys):
    """Runs one command in this process; returns its exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
