"""The generated files of the charts and their sources: `make charts` writes them, a test compares them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.chart.helm import CHART, CRD_CHART, ROOT
from tests.cluster.go_module import NotBuilt
from tests.e2e.programs import HELM_DOCS

DEFINITION = "vecstow.dev_vectorcollections.yaml"
NAME = "  name: vectorcollections.vecstow.dev\n"
KEPT = "  annotations:\n    helm.sh/resource-policy: keep\n"
HEAD = f"# Made of crds/{DEFINITION} by `make charts`.\n"


def definition() -> str:
    """The custom resource's, as a template: with the chart's end it stays, and every resource with it."""
    source = (ROOT / "crds" / DEFINITION).read_text()
    assert "{{" not in source, "a template must not take it for its own"
    assert source.count(NAME) == 1
    return HEAD + source.replace(NAME, NAME + KEPT)


def readme(chart: Path, helm_docs: Path) -> str:
    """The chart's README."""
    command = [str(helm_docs), f"--chart-search-root={chart}", "--dry-run", "--sort-values-order=file"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def everything(helm_docs: Path) -> dict[Path, str]:
    """Every file that is made, and what must stand in it."""
    return {
        CRD_CHART / "templates" / DEFINITION: definition(),
        CRD_CHART / "README.md": readme(CRD_CHART, helm_docs),
        CHART / "README.md": readme(CHART, helm_docs),
    }


if __name__ == "__main__":
    try:
        program = HELM_DOCS.build() / HELM_DOCS.name
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
    for path, text in everything(program).items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
