"""Every alert fires when it should and is silent when it should be, by Prometheus' own promtool."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.alert_cases import CASES, STEP_SECONDS, Case
from tests.chart.conftest import Render
from tests.chart.helm import NAMESPACE

ABSENCE = ("VecstowEngineDown", "VecstowSidecarDown", "VecstowManagerDown")
"""They fire where nothing is."""
ELSEWHERE = {
    "another namespace": (f"namespace='{NAMESPACE}'", "namespace='other'"),
    "another release": ("pod='one-vecstow-", "pod='one-vecstow-copy-"),
    "a release whose name ends in the same way": ("pod='one-vecstow-", "pod='no-one-vecstow-"),
}


@pytest.fixture(scope="module")
def rules(render: Render) -> dict[str, dict[str, Any]]:
    """By the alert's name, as rendered."""
    [group] = render("everything monitored").one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def run(promtool: Path, folder: Path, rules: dict[str, Any], *tests: dict[str, Any]) -> str:
    """Return the complaints of `promtool test rules`, empty when all is as expected."""
    (folder / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "vecstow", "rules": list(rules.values())}]})
    )
    step = f"{STEP_SECONDS}s"
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": step, "tests": list(tests)}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [promtool, "test", "rules", "tests.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""


def trial(rule: dict[str, Any], case: Case, fires: bool = True) -> dict[str, Any]:
    """One case as promtool reads it."""
    told = [
        {"exp_labels": rule["labels"] | labels, "exp_annotations": rule["annotations"]}
        for labels in case.fires
    ]
    return {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [{"series": name, "values": values} for name, values in case.values.items()],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": rule["alert"], "exp_alerts": told if fires else []}
        ],
    }


@pytest.mark.parametrize(
    ("alert", "case"),
    [
        pytest.param(alert, case, id=f"{alert}-{case.name}")
        for alert, cases in CASES.items()
        for case in cases
    ],
)
def test_alert_fires_when_it_should(
    promtool: Path, tmp_path: Path, rules: dict[str, Any], alert: str, case: Case
) -> None:
    assert run(promtool, tmp_path, rules, trial(rules[alert], case)) == ""


@pytest.mark.parametrize("place", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("alert", [alert for alert in CASES if alert not in ABSENCE])
def test_alert_is_about_this_release_alone(
    promtool: Path, tmp_path: Path, rules: dict[str, Any], alert: str, place: tuple[str, str]
) -> None:
    firing = next(case for case in CASES[alert] if case.fires)
    moved = {name.replace(*place): values for name, values in firing.values.items()}
    assert moved != firing.values
    test = trial(rules[alert], Case(firing.name, moved, firing.at), fires=False)
    assert run(promtool, tmp_path, rules, test) == ""


def test_every_alert_has_a_case_that_fires_and_one_that_does_not(rules: dict[str, Any]) -> None:
    assert CASES.keys() == rules.keys()
    assert [alert for alert, cases in CASES.items() if len({bool(case.fires) for case in cases}) < 2] == []


def test_promtool_would_tell_an_alert_that_stays_silent(
    promtool: Path, tmp_path: Path, rules: dict[str, Any]
) -> None:
    silent = {"VecstowEngineDown": rules["VecstowEngineDown"] | {"expr": "vector(1) > 1"}}
    case = CASES["VecstowEngineDown"][0]
    assert "FAILED" in run(promtool, tmp_path, silent, trial(rules["VecstowEngineDown"], case))


@pytest.mark.parametrize(
    "case", ["everything monitored", "monitored without keys and manager", "long release name"]
)
def test_rules_are_right_in_form(promtool: Path, render: Render, tmp_path: Path, case: str) -> None:
    [monitored] = render(case).kind("PrometheusRule")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(monitored["spec"]))
    done = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_about_what_is_off_are_not_there(render: Render, rules: dict[str, Any]) -> None:
    [group] = render("monitored without keys and manager").one("PrometheusRule")["spec"]["groups"]
    missing = rules.keys() - {rule["alert"] for rule in group["rules"]}
    assert missing == {"VecstowKeysNotReloaded", "VecstowManagerDown", "VecstowResourcesNotReady"}
