"""For each alert: what makes it fire, and what looks like that and does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chart.helm import NAMESPACE

POD = "one-vecstow-0"
MANAGER_POD = "one-vecstow-manager-5d8f7c9b6-x2x7k"
AGE = "vecstow_operator_last_complete_pass_age_seconds"
STEP_SECONDS = 30
Labels = Mapping[str, str]


def series(name: str, pod: str = POD, container: str = "engine", **labels: str) -> str:
    """As a scrape stores it."""
    scraped = {"namespace": NAMESPACE, "pod": pod, "container": container, "instance": "10.0.0.7:3030"}
    return f"{name}{{{', '.join(f'{key}={value!r}' for key, value in (scraped | labels).items())}}}"


@dataclass(frozen=True)
class Case:
    """Series values at 30 s steps, in promtool's notation, and the alerts that fire at one moment."""

    name: str
    values: Mapping[str, str]
    at: str
    fires: tuple[Labels, ...] = field(default=())
    """The labels that each firing alert has besides the rule's own."""


OF_POD = {"namespace": NAMESPACE, "pod": POD}
READY = series("vecstow_ready")
SIDECAR_AGE = series(AGE, container="sidecar")
MANAGER_AGE = series(AGE, pod=MANAGER_POD, container="manager")
STARTED = series("process_start_time_seconds")
AVAILABLE = series("vecstow_volume_available_bytes")
BYTES = series("vecstow_volume_bytes")
FULL = series("vecstow_volume_full")
DATA = series("vecstow_memory_plan_bytes", part="data")
GRAPHS = series("vecstow_memory_bytes", part="graphs")
GROWTH = series("vecstow_memory_bytes", part="growth")
POSTPONED = series("vecstow_memory_postponed_collections")
LAG = series("vecstow_checkpoint_lag_seconds")
RELOADED = series("vecstow_keys_last_reload_successful")


def collections(state: str) -> str:
    """How many are in it."""
    return series("vecstow_collections", state=state)


def not_ready(reason: str) -> str:
    """How many are not, as the manager tells."""
    return series("vecstow_operator_not_ready", pod=MANAGER_POD, container="manager", reason=reason)


def requests(status: str, route: str = "/collections/{collection}/search") -> str:
    """Answered so far."""
    return series("vecstow_http_requests_total", route=route, method="POST", status=status)


CASES: dict[str, list[Case]] = {
    "VecstowEngineDown": [
        Case("no engine", {}, "5m", ({},)),
        Case("its volume is not discovered", {READY: "0x20"}, "5m", ({},)),
        Case("it went away", {READY: "1x10 stale"}, "11m", ({},)),
        Case("another release's engine is well", {series("vecstow_ready", pod="two-0"): "1x20"}, "6m", ({},)),
        Case("it is well", {READY: "1x20"}, "10m"),
        Case("it restarts", {READY: "1x4 stale _x4 1x20"}, "6m"),
        Case("it was away for less than five minutes", {READY: "1x4 stale"}, "6m30s"),
    ],
    "VecstowSidecarDown": [
        Case("the engine serves alone", {READY: "1x20"}, "5m", ({"container": "sidecar"},)),
        Case("the sidecar went away", {READY: "1x30", SIDECAR_AGE: "1x4 stale"}, "8m",
             ({"container": "sidecar"},)),
        Case("the manager is no sidecar", {READY: "1x20", MANAGER_AGE: "1x20"}, "6m",
             ({"container": "sidecar"},)),
        Case("both are well", {READY: "1x20", SIDECAR_AGE: "1x20"}, "10m"),
        Case("neither answers, which another alert tells", {}, "10m"),
        Case("the engine is just starting", {READY: "0x20"}, "10m"),
    ],
    "VecstowManagerDown": [
        Case("no manager", {SIDECAR_AGE: "1x40"}, "10m", ({"container": "manager"},)),
        Case("it is well", {MANAGER_AGE: "1x40"}, "15m"),
        Case("a new pod takes over", {
            MANAGER_AGE: "1x10 stale",
            series(AGE, pod="one-vecstow-manager-7b6d5c4f9-abcde", container="manager"): "_x12 1x40",
        }, "15m"),
    ],
    "VecstowRestarts": [
        Case("four in half an hour", {STARTED: "100x5 200x5 300x5 400x5 500x5"}, "15m", (OF_POD,)),
        Case("four that are rebuilt, each with another address", {
            STARTED.replace("10.0.0.7", f"10.0.0.{number}"): f"_x{5 * number} {number}00x4"
            for number in range(5)
        }, "15m", (OF_POD,)),
        Case("three in half an hour", {STARTED: "100x5 200x5 300x5 400x20"}, "15m"),
        Case("four in two hours", {STARTED: "1x60 2x60 3x60 4x60 5x60"}, "2h"),
        Case("the sidecar's", {
            series("process_start_time_seconds", container="sidecar"): "100x5 200x5 300x5 400x5 500x5",
        }, "15m"),
    ],
    "VecstowCollectionNotServed": [
        Case("damaged", {collections("quarantined"): "0x2 1x10"}, "4m", (OF_POD | {"state": "quarantined"},)),
        Case("another program's", {collections("foreign"): "2x10"}, "4m", (OF_POD | {"state": "foreign"},)),
        Case("both", {collections("quarantined"): "1x10", collections("foreign"): "1x10"}, "4m",
             (OF_POD | {"state": "foreign"}, OF_POD | {"state": "quarantined"})),
        Case("none", {collections("quarantined"): "0x10", collections("ready"): "5x10"}, "4m"),
        Case("states that serve, or soon will", {
            collections("degraded"): "1x10", collections("recovering"): "1x10",
            collections("read_only"): "1x10",
        }, "4m"),
    ],
    "VecstowCollectionReadOnly": [
        Case("one", {series("vecstow_read_only", collection="docs"): "1x10"}, "1m",
             (OF_POD | {"collection": "docs"},)),
        Case("all names", {series("vecstow_read_only", collection="_names"): "1x10"}, "1m",
             (OF_POD | {"collection": "_names"},)),
        Case("until the next start", {series("vecstow_read_only", collection="docs"): "1x4 stale"}, "3m"),
    ],
    "VecstowPointsWithheld": [
        Case("in one collection", {collections("degraded"): "1x20"}, "5m", (OF_POD,)),
        Case("in none", {collections("degraded"): "0x20"}, "10m"),
        Case("repaired in time", {collections("degraded"): "1x6 0x20"}, "6m"),
    ],
    "VecstowRecoversLong": [
        Case("for half an hour", {collections("recovering"): "1x80"}, "30m", (OF_POD,)),
        Case("for a quarter", {collections("recovering"): "1x30 0x50"}, "31m"),
    ],
    "VecstowVolumeFull": [
        Case("the engine says so", {FULL: "0x4 1x10"}, "3m", (OF_POD,)),
        Case("there is room", {FULL: "0x10", requests("503"): "0+9x10"}, "4m"),
        Case("there is room again", {FULL: "1x4 0x30"}, "12m"),
    ],
    "VecstowVolumeFilling": [
        Case("a tenth is free", {BYTES: "100x40", AVAILABLE: "10x40"}, "15m", (OF_POD,)),
        Case("a fifth is free", {BYTES: "100x40", AVAILABLE: "20x40"}, "20m"),
        Case("for five minutes", {BYTES: "100x40", AVAILABLE: "10x10 90x30"}, "16m"),
    ],
    "VecstowMemoryNearLimit": [
        Case("nearly all is taken", {DATA: "100x40", GRAPHS: "80x40", GROWTH: "12x40"}, "15m", (OF_POD,)),
        Case("a graph waits", {DATA: "100x40", GRAPHS: "1x40", POSTPONED: "1x40"}, "15m", (OF_POD,)),
        Case("half is free", {DATA: "100x40", GRAPHS: "50x40", GROWTH: "0x40", POSTPONED: "0x40"}, "20m"),
        Case("for five minutes", {DATA: "100x40", GRAPHS: "95x10 10x30"}, "16m"),
    ],
    "VecstowCheckpointLate": [
        Case("for a quarter of an hour", {LAG: "0+30x60"}, "21m", (OF_POD,)),
        Case("as it should be", {LAG: "60x60"}, "30m"),
    ],
    "VecstowBusy": [
        Case("one in ten", {requests("200"): "0+90x60", requests("429"): "0+10x60"}, "21m", (OF_POD,)),
        Case("one in fifty", {requests("200"): "0+98x60", requests("429"): "0+2x60"}, "21m"),
        Case("for five minutes", {requests("200"): "0+90x60", requests("429"): "0+10x10 100x50"}, "21m"),
    ],
    "VecstowErrors": [
        Case("one in ten", {requests("200"): "0+90x40", requests("503"): "0+10x40"}, "11m", (OF_POD,)),
        Case("one in ten, while probes are answered", {
            requests("200"): "0+9x40", requests("500"): "0+1x40",
            requests("200", "/ready"): "0+1000x40", requests("200", "/metrics"): "0+1000x40",
        }, "11m", (OF_POD,)),
        Case("one in fifty", {requests("200"): "0+98x40", requests("503"): "0+2x40"}, "20m"),
        Case("what clients do wrong", {requests("200"): "0+50x40", requests("404"): "0+50x40"}, "20m"),
        Case("probes while it starts", {
            requests("503", "/ready"): "0+10x40", requests("200"): "0+10x40",
        }, "20m"),
        Case("nobody asks", {requests("200"): "5x40", requests("503"): "5x40"}, "20m"),
    ],
    "VecstowKeysNotReloaded": [
        Case("a mistake in the file", {RELOADED: "1x2 0x20"}, "7m", (OF_POD,)),
        Case("the file is right", {RELOADED: "1x20"}, "10m"),
        Case("a file that is mended at once", {RELOADED: "1x2 0x4 1x20"}, "7m"),
    ],
    "VecstowResourcesNotReady": [
        Case("the volume is another one", {not_ready("VolumeReplaced"): "2x40"}, "15m",
             ({"namespace": NAMESPACE, "reason": "VolumeReplaced"},)),
        Case("what waits is followed in time", {not_ready("Pending"): "1x20 0x40"}, "20m"),
        Case("nobody wants it to serve", {not_ready("EngineScaledDown"): "1x60"}, "25m"),
    ],
    "VecstowOperatorBlind": [
        Case("the sidecar", {SIDECAR_AGE: "0+30x40"}, "11m", (OF_POD | {"container": "sidecar"},)),
        Case("the manager", {MANAGER_AGE: "0+30x40"}, "11m",
             ({"namespace": NAMESPACE, "pod": MANAGER_POD, "container": "manager"},)),
        Case("both see everything", {SIDECAR_AGE: "25x40", MANAGER_AGE: "2x40"}, "20m"),
        Case("for four minutes", {SIDECAR_AGE: "0+30x8 0x40"}, "10m"),
    ],
}  # fmt: skip
