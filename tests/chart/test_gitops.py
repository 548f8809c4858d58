"""Argo CD's health check, run by the interpreter that Argo CD has, on statuses as the manager writes them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.declared import HAD, claim, engine_of, pod, state_of
from vecstow_operator.manager import status
from vecstow_operator.manager.assessment import assess

CHECK = Path(__file__).parents[2] / "examples" / "gitops" / "argocd-health.lua"
NOW = "2026-01-01T00:00:00Z"


def health(glua: Path, folder: Path, resource: dict[str, Any]) -> str:
    """Return the check's result for a resource: `Status: message`."""
    script = folder / "check.lua"
    script.write_text(
        f"obj = {lua(resource)}\n"
        f"local found = (function()\n{CHECK.read_text()}\nend)()\n"
        "print(found.status .. ': ' .. found.message)\n"
    )
    done = subprocess.run([glua, script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def lua(value: Any) -> str:
    """A literal of Lua."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {lua(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(lua, value)) + "}"
    return json.dumps(value)


def served(state: str = "ready", generation: int = 1, **spec: Any) -> dict[str, Any]:
    """A resource with the status that the manager writes when an engine's row is in that state."""
    resource = claim(status=HAD, **spec)
    engine = engine_of(pod(state_of(resource, state=state)))
    built = status.build(resource, assess(resource, engine), HAD, NOW)
    return {"metadata": {"name": "notes", "generation": generation}, "status": built}


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        pytest.param(served(), "Healthy: served by", id="ready"),
        pytest.param(served("degraded"), "Degraded: points", id="points are withheld"),
        pytest.param(served("quarantined"), "Degraded: ", id="damaged"),
        pytest.param(served("recovering"), "Progressing: ", id="replays its log"),
        pytest.param(served(generation=2), "Progressing: the last change", id="edited"),
        pytest.param(served(paused=True), "Suspended: ", id="paused"),
        pytest.param({"metadata": {"generation": 1}}, "Progressing: nobody", id="new"),
        pytest.param(
            served() | {"metadata": {"generation": 1, "deletionTimestamp": NOW}},
            "Progressing: it is being deleted", id="being deleted",
        ),
    ],
)  # fmt: skip
def test_health_is_what_people_would_say(glua: Path, tmp_path: Path, resource: Any, expected: str) -> None:
    assert health(glua, tmp_path, resource).startswith(expected)
