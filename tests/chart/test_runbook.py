"""docs/operations.md helps with every alert, in commands that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from tests.chart.conftest import Render
from tests.chart.helm import CHART, ROOT, container
from tests.chart.matrix import KEYS
from tests.chart.site import Site
from vecstow_engine.api.access import Role
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.cli.commands import app as vecstow
from vecstow_operator.plugin.cli import app as plugin
from vecstow_operator.round_trip import NAME_PREFIX

PAGE = (ROOT / "docs" / "operations.md").read_text()
SECTION = PAGE[PAGE.index("## What each alert means") :]
ALERTS = [rule["alert"] for rule in yaml.safe_load((CHART / "alerts.yaml").read_text())]
FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PROGRAMS = {("vecstow",): vecstow, ("kubectl", "vecstow"): plugin}
RELEASE = "vecstow"
"""The release's name in the page's commands."""


def anchors() -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def typed(text: str) -> Iterator[list[str]]:
    """The words of each command in the fences, a pipe's parts apart."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "|" in words:
                yield words[: words.index("|")]
                words = words[words.index("|") + 1 :]
            if words := [word for word in words if word != "&"]:
                yield words


def test_every_alert_leads_to_its_paragraph(render: Render) -> None:
    [group] = render("everything monitored").one("PrometheusRule")["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for rule in group["rules"]]
    assert [link.partition("#")[0] for link in links] == ["https://example.org/operations"] * len(ALERTS)
    assert [link.partition("#")[2] for link in links] == [alert.lower() for alert in ALERTS]
    assert {alert.lower() for alert in ALERTS} <= anchors()


def test_there_is_a_paragraph_for_each_alert_and_for_nothing_else() -> None:
    assert re.findall(r"^### (.+)$", SECTION, re.MULTILINE) == ALERTS


def test_links_inside_the_page_lead_somewhere() -> None:
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors()


@pytest.mark.parametrize("words", list(typed(PAGE)), ids=" ".join)
def test_commands_of_ours_exist(words: list[str]) -> None:
    for prefix, app in PROGRAMS.items():
        rest = words[words.index("--") + 1 :] if "--" in words else words
        if tuple(rest[: len(prefix)]) == prefix:
            name, *arguments = rest[len(prefix) :]
            command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
            command.make_context(name, arguments)


@pytest.mark.parametrize("words", [w for w in typed(SECTION) if w[0] == "kubectl"], ids=" ".join)
def test_objects_that_are_named_are_there(render: Render, words: list[str]) -> None:
    rendered = render("release called as the chart")
    names = {f"{found['kind'].lower()}/{found['metadata']['name']}" for found in rendered.objects}
    names |= {f"pod/{RELEASE}-0", "secret/vecstow-keys", "crd/vectorcollections.vecstow.dev"}
    names |= {"lease/vecstow-manager"}
    text = " ".join(words)
    for kind, name in re.findall(r"\b(pod|deployment|lease|crd|statefulset)[/ ]([\w.-]+)", text):
        assert f"{kind}/{name}" in names
    for pod in re.findall(rf"\b{RELEASE}-\d\b", text):
        assert f"pod/{pod}" in names
    for name in re.findall(r"--container (\S+)", text):
        assert container(rendered.engine_pod, name)
    for label in re.findall(r"-l (\S+)", text):
        assert label in rendered.engine["spec"]["template"]["metadata"]["labels"]


def test_files_that_are_named_are_where_the_chart_puts_them(render: Render) -> None:
    variables = container(render("default").engine_pod, "engine")["env"]
    [data] = [each["value"] for each in variables if each["name"] == "VECSTOW_DATA"]
    named = re.findall(r"/var/lib/\S*", SECTION)
    assert set(named) == {data}


def test_values_that_are_named_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    tops = "|".join(values)
    named = set(re.findall(rf"\b((?:{tops})\.[a-zA-Z.]+[a-zA-Z])\b", PAGE)) - {"keys.yaml"}
    assert len(named) > 8
    for path in named:
        found = values
        for key in path.split("."):
            assert key in found, path
            found = found[key]


def test_the_keys_of_the_page_are_those_that_the_chart_asks_for(site: Site, tmp_path: Path) -> None:
    """Typed as it stands."""
    commands = "".join(FENCE.findall(PAGE[PAGE.index("## Keys") : PAGE.index("## States")]))
    script = commands.replace("kubectl ", f"kubectl --namespace={site.namespace} ")
    path = {"PATH": f"{Path(sys.executable).parent}:{site.cluster.programs}:/usr/bin:/bin"}
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True, env=site.cluster.environment | path)
    keys = {key.name: key for key in KeyFile(tmp_path / "keys" / "keys.yaml").ring.keys}
    assert {name: keys[name].role for name in ("sidecar", "manager", "test")} == {
        "sidecar": Role.SIDECAR, "manager": Role.MONITOR, "test": Role.WRITE,
    }  # fmt: skip
    assert keys["test"].patterns == (f"{NAME_PREFIX}*",)
    assert keys["shop"].patterns == ("shop-*",)
    site.ask(KEYS)
