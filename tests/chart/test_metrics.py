"""Alerts and dashboard ask for metrics that engine, sidecar and manager really export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.chart.alert_cases import CASES
from tests.chart.helm import CHART
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.api.metrics import STATES, EngineCollector, HttpMetrics
from vecstow_engine.service.engine import Engine
from vecstow_engine.service.request_memory import RequestMemory
from vecstow_engine.service.settings import Settings
from vecstow_operator.health import Metrics

ALERTS = yaml.safe_load((CHART / "alerts.yaml").read_text())
DASHBOARD = json.loads((CHART / "dashboard.json").read_text())
OF_THE_SCRAPE = {"namespace", "pod", "container", "instance"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
OWN_LABELS = {"vecstow_read_only": {"collection"}, "vecstow_http_request_duration_seconds_bucket": {"le"}}
"""Labels of the metrics that have no samples while all is well."""
METRIC = re.compile(r"\b(?:vecstow|process)_[a-z_]+\b")
SELECTOR = re.compile(r"((?:vecstow|process)_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*["\']')
PANELS = [panel["title"] for panel in DASHBOARD["panels"]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Name of each metric, and the labels that its samples have."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "keys.yaml").write_text("keys: [{name: a, role: read, key: 0123456789abcdef}]")
    registry, operator = CollectorRegistry(), Metrics()
    metrics = HttpMetrics(registry)
    metrics.watch(lambda: 0.0, RequestMemory(1))
    metrics.watch_keys(KeyFile(folder / "keys.yaml"))
    metrics.observe("/collections", "GET", 200, 0.001)
    operator.not_ready.labels("Pending").set(0)
    engine = Engine(Settings(data=folder / "data"))
    registry.register(EngineCollector(engine, collections_max=100))
    engine.start()
    try:
        text = generate_latest(registry).decode()
    finally:
        engine.stop()
    return dict([*families(text), *families(generate_latest(operator.registry).decode())])


def families(text: str) -> Iterator[tuple[str, set[str]]]:
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels}
        for suffix in SUFFIXES.get(family.type, ("",)):
            yield family.name + suffix, labels


def queries(panel: dict[str, Any]) -> str:
    return " ".join(target["expr"] for target in panel["targets"])


def texts() -> Iterator[tuple[str, str]]:
    """Each expression, and where it stands."""
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)
    yield from ((panel["title"], queries(panel)) for panel in DASHBOARD["panels"])
    variables = DASHBOARD["templating"]["list"]
    yield from ((each["name"], each["query"]) for each in variables if each["type"] == "query")
    yield from (
        (f"{alert}, {case.name}", " ".join(case.values)) for alert, cases in CASES.items() for case in cases
    )


@pytest.mark.parametrize(("place", "text"), list(texts()), ids=[place for place, _ in texts()])
def test_metrics_and_labels_are_exported(exported: dict[str, set[str]], place: str, text: str) -> None:
    """In the alerts' cases, too: one that is misspelt alike would still fire."""
    names = set(METRIC.findall(text))
    assert names - exported.keys() == set()
    assert names or "no engine" in place or "neither answers" in place
    for name, selector in SELECTOR.findall(text.replace("PODS", "")):
        asked = set(MATCHER.findall(selector)) - OF_THE_SCRAPE
        assert asked <= exported[name] | OWN_LABELS.get(name, set()), name


def test_states_of_alerts_are_states_of_collections() -> None:
    text = " ".join(expression for _, expression in texts())
    asked = {state for found in re.findall(r"state=~?[\"']([a-z_|]+)", text) for state in found.split("|")}
    assert asked <= set(STATES)
    assert asked >= {"quarantined", "foreign", "degraded", "recovering"}


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    assert len(set(PANELS)) == len(PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(PANELS)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in DASHBOARD["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    for number, (x, y, w, h) in enumerate(places):
        for a, b, c, d in places[:number]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h, "panels overlap"
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__all"} <= variables
