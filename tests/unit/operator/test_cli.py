"""The operator's commands: a bad flag is named before anything is done; a release ends when all is let go."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from vecstow_operator import cli
from vecstow_operator.kube import Away, Undefined
from vecstow_operator.manager.lease import Lease
from vecstow_operator.manager.writer import ResourceWriter


@pytest.mark.parametrize("role", ["sidecar", "manager"])
def test_unknown_log_format_is_named_with_the_known_ones(role):
    needed = {"sidecar": ["--engine", "vecstow", "--data", "."], "manager": []}[role]
    result = CliRunner().invoke(cli.app, [role, *needed, "--log-format", "xml"])
    assert result.exit_code == 2
    assert "'xml' is not one of 'text', 'json'" in result.output


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        pytest.param("sidecar", ["--engine-url", "127.0.0.1:3030"], "is no address", id="no scheme"),
        pytest.param("sidecar", ["--engine-url", "http://127.0.0.1:tcp"], "is no address", id="port of text"),
        pytest.param("sidecar", ["--engine-url", "unix:///run/x"], "is no address", id="socket"),
        pytest.param("round-trip", ["--engine-url", "http://"], "is no address", id="no host"),
        pytest.param("round-trip", ["--engine-url", "http://a:b@c"], "is no address", id="password"),
        pytest.param("sidecar", ["--health-port", "99999"], "or equal to 65535", id="port too high"),
        pytest.param("sidecar", ["--tick-seconds", "0"], "or equal to 0.1", id="no pause"),
    ],
)
def test_flag_that_could_never_work_is_named_before_anything_is_done(command, arguments, said):
    needed = {"sidecar": ["--data", "."], "round-trip": []}[command]
    result = CliRunner().invoke(cli.app, [command, "--engine", "vecstow", *needed, *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        pytest.param([0], 0, "", id="nobody is held"),
        pytest.param([3, 0], 0, "3 resources are let go\n", id="some were"),
        pytest.param([Away("429"), 3, 0], 0, "3 resources are let go\n", id="refused for a moment"),
        pytest.param(
            [Undefined("404")], 0, "there is no definition of VectorCollection here, and no resource\n",
            id="the definition is gone",
        ),
        pytest.param([Away("403")] * 5, 1, "", id="refused for good"),
        pytest.param([1] * 5, 1, "1 resources are let go\n" * 5, id="held again and again"),
    ],
)  # fmt: skip
def test_release_goes_on_until_nobody_is_held(monkeypatch, answers, code, said):
    def release_all(self):
        answer = answers.pop(0)
        if isinstance(answer, Away):
            raise answer
        return answer

    monkeypatch.setattr(cli, "_configure_logging", lambda log_format: None)
    monkeypatch.setattr(cli, "_cluster", lambda namespace: SimpleNamespace(namespace="apps"))
    monkeypatch.setattr(cli, "RELEASE_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(Lease, "seize", lambda self, seconds: None)
    monkeypatch.setattr(ResourceWriter, "release_all", release_all)
    result = CliRunner().invoke(cli.app, ["release"])
    assert (result.exit_code, result.stdout, answers) == (code, said, [])


def test_signal_is_heard_before_anything_is_imported():
    """The first process of a container hears none that it has no handler for."""
    program = (
        "import signal, sys, types\n"
        "fake = types.SimpleNamespace(main=lambda: signal.raise_signal(signal.SIGTERM))\n"
        "sys.modules['vecstow_operator.cli'] = fake\n"
        "from vecstow_operator.start import main\n"
        "main()"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 128 + signal.SIGTERM
