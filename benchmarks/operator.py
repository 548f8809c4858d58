"""operator: resources by the thousand on a real API server, from the first apply to all Ready; then at rest.

Etcd, API server, controllers, engine, sidecar and manager share this machine's processors. What Kubernetes
stores lies in memory, the volume on the disk.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from kubernetes import client, config, watch

from benchmarks.harness.context import Context
from benchmarks.harness.figures import BenchmarkFailed, Figure, Series, Target
from tests.cluster.binaries import build
from tests.cluster.control_plane import ControlPlane
from tests.cluster.folder import temporary_folder
from tests.operator.site import CRD, Role, Site, collection, running
from tests.waiting import wait_for
from vecstow_operator.cli import MANAGER_TICK_SECONDS, SIDECAR_TICK_SECONDS
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION

NAME = "operator"
READY_SECONDS_MAX = {1000: 15.0, 5000: 75.0}
IDLE_OF = 1000
"""Resources while it is measured what the roles take at rest."""
IDLE_SECONDS = 60.0
IDLE_SHARE_MAX = 0.03
RESIDENT_MIB_MAX = 150.0
PASSES = "vecstow_operator_pass_seconds"
DRIFTS = 10
"""Manifests that are damaged one after the other, with `IDLE_OF` resources."""
DRIFT_SECONDS_MAX = 10.0
APPLIERS = 4
GIVEN_UP_SECONDS = 300.0
LOOK_SECONDS = 0.01


def measure(context: Context) -> Iterator[Figure]:
    """Each size on a cluster and a volume of its own, at the ticks that are the defaults."""
    programs = build()
    for count, seconds_max in READY_SECONDS_MAX.items():
        series = Series()
        for run in range(context.runs):
            context.say(f"{count:,} resources, run {run + 1}")
            with temporary_folder() as folder, ControlPlane(programs, folder) as cluster:
                _run(cluster, context.volume().parent, count, series)
        yield from _figures(count, seconds_max, series)


def _run(cluster: ControlPlane, folder: Path, count: int, series: Series) -> None:
    cluster.kubectl("apply", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRD))
    cluster.kubectl("create", "namespace", NAME)
    ticks = {"sidecar": SIDECAR_TICK_SECONDS, "manager": MANAGER_TICK_SECONDS}
    with running(cluster, NAME, folder, ticks=ticks) as site:
        config.load_kube_config(str(cluster.kubeconfig))
        for _, role in _roles(site):
            wait_for(lambda role=role: role.metric(f"{PASSES}_count"), "the first pass")  # type: ignore[misc]
        began = time.perf_counter()
        _apply(count)
        applied = time.perf_counter() - began
        _wait_ready(count)
        series.add(ready=time.perf_counter() - began, applied=applied)
        if count == IDLE_OF:
            _rest(site, series)
            _drift(site, series)
        for name, role in _roles(site):
            series.add(**{f"{name} resident": _resident_mib(role)})


def _apply(count: int) -> None:
    api = client.CustomObjectsApi()

    def create(numbers: range) -> None:
        for number in numbers:
            document = collection(_name(number), 8)
            api.create_namespaced_custom_object(GROUP, VERSION, NAME, PLURAL, document)

    with ThreadPoolExecutor(APPLIERS) as pool:
        for done in [pool.submit(create, range(first, count, APPLIERS)) for first in range(APPLIERS)]:
            done.result()


def _wait_ready(count: int) -> None:
    """By a watch: to list thousands again and again is work for the API server, and would be measured."""
    events: Any = watch.Watch()
    listing = client.CustomObjectsApi().list_namespaced_custom_object
    limit = {"timeout_seconds": int(GIVEN_UP_SECONDS)}
    ready: set[str] = set()
    for event in events.stream(listing, GROUP, VERSION, NAME, PLURAL, **limit):
        if _is_ready(event["object"]):
            ready.add(event["object"]["metadata"]["name"])
        if len(ready) == count:
            return
    raise BenchmarkFailed(f"{len(ready)} of {count} were Ready after {GIVEN_UP_SECONDS:g} s")


def _name(number: int) -> str:
    return f"notes-{number:05}"


def _is_ready(document: dict[str, object]) -> bool:
    status = document.get("status")
    conditions = status.get("conditions", ()) if isinstance(status, dict) else ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _rest(site: Site, series: Series) -> None:
    """Measure what each role takes while nothing changes, and how often the engine is asked."""
    time.sleep(MANAGER_TICK_SECONDS * 3)
    before = {name: _processor_seconds(role) for name, role in _roles(site)}
    asked, passes, began = _asked(site), _passes(site.manager), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    seconds = time.perf_counter() - began
    for name, role in _roles(site):
        series.add(**{f"{name} idle": (_processor_seconds(role) - before[name]) / seconds})
    series.add(requests=(_asked(site) - asked) / max(_passes(site.manager) - passes, 1.0))


def _drift(site: Site, series: Series) -> None:
    """Measure how long a manifest stays wrong after an edit or a removal at any moment of a tick."""
    lasted = []
    for place in range(DRIFTS):
        time.sleep(SIDECAR_TICK_SECONDS * place / DRIFTS)
        manifest = site.data / _name(place) / "metadata.json"
        wanted = _declared(manifest)
        if place % 2:
            manifest.unlink()
        else:
            manifest.write_text(json.dumps(wanted | {"dimension": 9}))
        began = time.perf_counter()
        while _declared(manifest) != wanted:
            if time.perf_counter() - began > GIVEN_UP_SECONDS:
                raise BenchmarkFailed(f"{manifest} stayed as it was for {GIVEN_UP_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)
        lasted.append(time.perf_counter() - began)
    series.add(**{"drift median": median(lasted), "drift max": max(lasted)})


def _declared(manifest: Path) -> dict[str, Any]:
    """All of it but when it was written; empty while there is none, or half of one."""
    try:
        found: dict[str, Any] = json.loads(manifest.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {key: value for key, value in found.items() if key not in ("created_at", "updated_at")}


def _roles(site: Site) -> tuple[tuple[str, Role], ...]:
    return ("sidecar", site.sidecar), ("manager", site.manager)


def _processor_seconds(role: Role) -> float:
    assert role.process is not None
    fields = Path(f"/proc/{role.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(role: Role) -> float:
    assert role.process is not None
    pages = int(Path(f"/proc/{role.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _asked(site: Site) -> float:
    """How often the engine answered GET /state."""
    text = httpx.get(f"{site.engine.url}/metrics", trust_env=False).text
    return _sum(
        text, lambda labels: 'route="/state"' in labels, "vecstow_http_request_duration_seconds_count"
    )


def _passes(role: Role) -> float:
    return _sum(role.metrics(), lambda labels: True, f"{PASSES}_count")


def _sum(text: str, wanted: Callable[[str], bool], name: str) -> float:
    found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in found if wanted(labels))


def _figures(count: int, seconds_max: float, series: Series) -> Iterator[Figure]:
    target = Target(at_most=seconds_max)
    yield Figure(NAME, f"{count:,}: from the first apply to all Ready", "s", series["ready"], target=target)
    yield Figure(NAME, f"{count:,}: of it until all are applied", "s", series["applied"])
    for name in ("sidecar", "manager"):
        if count == IDLE_OF:
            idle = Target(at_most=IDLE_SHARE_MAX)
            yield Figure(NAME, f"{count:,}: {name} at rest", "of a core", series[f"{name} idle"], target=idle)
        room = Target(at_most=RESIDENT_MIB_MAX)
        yield Figure(NAME, f"{count:,}: {name}, resident", "MiB", series[f"{name} resident"], target=room)
    if count == IDLE_OF:
        once = Target(at_most=1.0)
        yield Figure(NAME, f"{count:,}: state requests a tick and pod", "", series["requests"], target=once)
        in_time = Target(at_most=DRIFT_SECONDS_MAX)
        for name in ("median", "max"):
            figure = f"{count:,}: until a damaged manifest is right, {name} of {DRIFTS}"
            yield Figure(NAME, figure, "s", series[f"drift {name}"], target=in_time)
