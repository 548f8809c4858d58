"""Each generated file equals what `make charts` generates now."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, CRD_CHART, ROOT, Helm
from tests.chart.made import DEFINITION, everything, readme


def test_made_files_are_as_they_are_made(helm_docs: Path) -> None:
    wanted = everything(helm_docs)
    assert {path: path.read_text() for path in wanted} == wanted


@pytest.mark.parametrize("chart", [CHART, CRD_CHART], ids=lambda chart: str(chart.name))
def test_every_value_has_a_comment(chart: Path, helm_docs: Path) -> None:
    """helm-docs has a strict mode, which knows an older kind of comments only."""
    rows = [line.split(" | ") for line in readme(chart, helm_docs).splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


def test_the_definition_is_rendered_as_it_is_and_stays_when_the_chart_goes(helm: Helm) -> None:
    [rendered] = helm.render({}, "crds", CRD_CHART).kind("CustomResourceDefinition")
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == yaml.safe_load((ROOT / "crds" / DEFINITION).read_text())
