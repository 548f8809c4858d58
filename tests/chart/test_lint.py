"""`helm lint --strict` has nothing to say of either chart, whatever the values."""

from __future__ import annotations

import pytest

from tests.chart.helm import CHART, CRD_CHART, Helm
from tests.chart.matrix import CASES


@pytest.mark.parametrize("case", CASES)
def test_the_chart_is_clean(helm: Helm, case: str) -> None:
    assert "0 chart(s) failed" in helm.run("lint", CHART, "--strict", values=CASES[case].values)


def test_the_chart_of_the_definition_is_clean(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", CRD_CHART, "--strict")
