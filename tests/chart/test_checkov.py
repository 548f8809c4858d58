"""checkov finds nothing in the manifests that is not decided here, with its reason."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.chart.conftest import Render

OF_ALL = {
    "CKV_K8S_11": "no CPU limit: it would slow searches down while the processor is idle; memory has one",
    "CKV_K8S_15": "IfNotPresent: a released tag never changes, and a node starts without a registry",
    "CKV_K8S_43": "the digest is the installer's to choose (image.digest); a chart cannot know a mirror's",
}
OF_HOOKS = OF_ALL | {
    "CKV2_K8S_6": "no NetworkPolicy: it listens on no port",
    "CKV_K8S_8": "no liveness probe: it ends by itself",
    "CKV_K8S_9": "no readiness probe: it serves nobody",
}
OF_MAINTENANCE = OF_ALL | {
    "CKV_K8S_8": "no liveness probe: nothing runs that could hang",
    "CKV_K8S_9": "no readiness probe: it would hold up the very upgrade that leads there",
}


@pytest.mark.parametrize("case", ["everything monitored", "without keys", "maintenance"])
def test_every_finding_is_a_decision(render: Render, checkov: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "manifest.yaml").write_text(render(case).manifest)
    command = ["-P", "-m", "checkov.main", f"--directory={tmp_path}", "--framework=kubernetes"]
    options = ["--output=json", "--compact", "--quiet", "--skip-download", "--soft-fail"]
    done = subprocess.run(
        [checkov, *command, *options], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 300
    decided = {
        "Deployment.chart-tests.one-vecstow-manager": OF_ALL,
        "StatefulSet.chart-tests.one-vecstow": OF_MAINTENANCE if case == "maintenance" else OF_ALL,
    }
    found = {(each["resource"], each["check_id"]) for each in report["results"]["failed_checks"]}
    assert {each for each in found if each[1] not in decided.get(each[0], OF_HOOKS)} == set()
    assert {check for _, check in found} >= OF_HOOKS.keys()
