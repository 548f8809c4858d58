"""The operator's commands: a bad flag is named before anything is done; a release ends when all is let go."""

import signal
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from vecstow_operator import cli, start
from vecstow_operator.kube import Away, Undefined
from vecstow_operator.manager.lease import Lease
from vecstow_operator.manager.passes import Manager


@pytest.mark.parametrize("role", ["sidecar", "manager"])
def test_unknown_log_format_is_named_with_the_known_ones(role):
    needed = {"sidecar": ["--engine", "vecstow", "--data", "."], "manager": []}[role]
    result = CliRunner().invoke(cli.app, [role, *needed, "--log-format", "xml"])
    assert result.exit_code == 2
    assert "'xml' is not one of 'text', 'json'" in result.output


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
    monkeypatch.setattr(Manager, "release_all", release_all)
    result = CliRunner().invoke(cli.app, ["release"])
    assert (result.exit_code, result.stdout, answers) == (code, said, [])


def test_signal_is_heard_before_anything_is_imported(monkeypatch):
    """The first process of a container hears none that it has no handler for."""
    heard = []

    def run():
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
        heard.append(ended.value.code)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "vecstow_operator.cli", SimpleNamespace(main=run))
    try:
        start.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [128 + signal.SIGTERM]
