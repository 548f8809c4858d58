"""The operator's flags: a bad one is named before anything is done."""

import pytest
from typer.testing import CliRunner

from vecstow_operator.cli import app


@pytest.mark.parametrize("role", ["sidecar", "manager"])
def test_unknown_log_format_is_named_with_the_known_ones(role):
    needed = {"sidecar": ["--engine", "vecstow", "--data", "."], "manager": []}[role]
    result = CliRunner().invoke(app, [role, *needed, "--log-format", "xml"])
    assert result.exit_code == 2
    assert "'xml' is not one of 'text', 'json'" in result.output
