"""Volumes that are full, damaged, exchanged or copied, and the commands that people type then."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crash.rest import Refused, Rest
from tests.e2e.load import DIMENSION, Load
from tests.e2e.node import HelmFailed, Node
from tests.e2e.pods import USER
from tests.e2e.release import PORT, Release, Values, make_namespace
from tests.e2e.volumes import SMALL_BYTES, SMALL_STORAGE_CLASS, STORAGE_CLASS
from tests.operator.site import collection
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

LARGE = 512
ROW = bytes(4 * LARGE)
"""A vector of the collection that fills a volume."""
BATCH = 1_000
POINTS = 50
MANY = 6_000
LIMIT = 10
VECTOR = bytes(4 * DIMENSION)
DISK_FULL = 507
COLLECTIONS = ("first", "second", "third")


def test_a_full_volume_refuses_inserts_until_it_has_grown(node: Node, release: Release) -> None:
    small = node.add_small_volume(f"small-{release.namespace}")
    release.install({"persistence.storageClass": SMALL_STORAGE_CLASS, "persistence.size": "100Mi"})
    release.declare("large", LARGE)
    release.declare("small", DIMENSION)
    with release.rest() as rest:
        rest.put("small", "a", (VECTOR, None))
        stored = fill(rest, "large")
        # The log is refused first; the checkpoint after it takes the reserve, and then the volume is full.
        wait_for(lambda: metric(release, "vecstow_volume_full") == 1, "the metric of a full volume")
        assert rest.search("large", ROW, limit=1)
        rest.delete_many("large", stored[:1])
        assert len(rest.get_many("large", stored)) == len(stored) - 1
        small.grow(4 * SMALL_BYTES)
        release.until(lambda again: insert(again, "large", "last"), "room for an insert")
        release.until(lambda _: metric(release, "vecstow_volume_full") == 0, "an end of the alert")
        assert len(rest.get_many("large", stored)) == len(stored) - 1


def fill(rest: Rest, name: str) -> list[str]:
    """Insert until the volume is full; returns the ids that are stored."""
    stored: list[str] = []
    for number in range(2 * SMALL_BYTES // (BATCH * len(ROW))):
        ids = [f"{number}-{place}" for place in range(BATCH)]
        if not insert(rest, name, *ids):
            return stored
        stored += ids
    raise AssertionError("the volume took more than it has")


def insert(rest: Rest, name: str, *ids: str) -> bool:
    """Whether there is room; raises Refused for another reason."""
    try:
        rest.put_many(name, dict.fromkeys(ids, (ROW, None)))
    except Refused as refused:
        if refused.status != DISK_FULL:
            raise
        return False
    return True


def metric(release: Release, name: str) -> float:
    headers = {"api-key": release.keys["admin"]}
    url = f"http://{release.address}:{PORT}/metrics"
    text = httpx.get(url, headers=headers, trust_env=False).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.fixture
def three(release: Release) -> Release:
    """Three collections with a few points each."""
    release.install()
    for name in COLLECTIONS:
        release.apply(collection(name, DIMENSION, distanceMetric="Euclidean"))
    release.wait_ready(*COLLECTIONS)
    with release.rest() as rest:
        for name in COLLECTIONS:
            rest.put_many(name, {str(number): (VECTOR, {"n": number}) for number in range(POINTS)})
    # The API server knows what each had: it outlives the volume.
    for name in COLLECTIONS:
        release.kubectl(
            "wait", f"vcol/{name}", f"--for=jsonpath={{.status.vectorCount}}={POINTS}", "--timeout=90s"
        )
    return release


def stop(release: Release) -> None:
    """With its checkpoint, so that files have what is damaged."""
    scale(release, 0)


def scale(release: Release, replicas: int) -> None:
    release.kubectl("scale", "statefulset", release.fullname, f"--replicas={replicas}")
    wait_for(
        lambda: len(release.get("pods", "--selector=vecstow.dev/engine")["items"]) == replicas, "its pods"
    )


def start(release: Release) -> None:
    scale(release, 1)
    wait_for(release.pod_ready, "a pod that is Ready", 180)


def test_a_damaged_manifest_is_written_anew_and_told(three: Release) -> None:
    stop(three)
    (three.data() / "first" / "metadata.json").write_text("{")
    start(three)
    three.wait_ready(*COLLECTIONS)
    three.wait_reason("first", "ManifestSetAside", "Degraded")
    told = three.shell("kubectl vecstow status").stdout
    assert ".quarantine/first-" in told
    assert_points(three, "first", POINTS)


def test_a_damaged_graph_is_made_anew_without_a_word(three: Release) -> None:
    with three.rest() as rest:
        rest.put_many("second", {str(number): (VECTOR, None) for number in range(MANY)})
    three.until(lambda rest: rest.describe("second")["indexed"] == MANY, "an index of all")
    stop(three)
    graph = three.data() / "second" / "index.bin"
    damage(graph, graph.stat().st_size // 2, 64)
    start(three)
    three.wait_ready(*COLLECTIONS)
    assert_points(three, "second", MANY)


def test_a_damaged_table_of_points_is_told_and_repaired_while_others_serve(three: Release) -> None:
    stop(three)
    table = three.data() / "third" / "points.db"
    damage(table, 0, 100)
    start(three)
    three.wait_ready("first", "second")
    three.wait_reason("third", "Quarantined")
    with Load(three, "first") as load:
        load.wait_for_more()
        told = three.shell("kubectl vecstow status").stdout
        assert "points.db" in told
        assert "kubectl vecstow repair" in three.condition("third")["message"]
        dry_run = next_command(told, "third")
        assert dry_run.endswith(" --dry-run")
        assert f"{POINTS} points kept" in three.shell(dry_run).stdout
        three.typed(dry_run.removesuffix(" --dry-run"))
        load.wait_for_more()
    load.verify()
    three.wait_ready("third")
    assert_points(three, "third", POINTS)


def next_command(told: str, name: str) -> str:
    """Return the command that the plugin names next for that resource."""
    about = told.partition(f"\n{name}: ")[2]
    return about.partition("next: ")[2].splitlines()[0]


def damage(file: Path, offset: int, count: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        found = stream.read(count)
        stream.seek(offset)
        stream.write(bytes(byte ^ 0xFF for byte in found))


def assert_points(release: Release, name: str, count: int) -> None:
    with release.rest() as rest:
        assert len(rest.get_many(name, map(str, range(count)))) == count
        assert len(rest.search(name, VECTOR, limit=LIMIT)) == min(count, LIMIT)


def test_an_empty_volume_in_the_place_of_another_is_not_ready_until_it_is_accepted(three: Release) -> None:
    stop(three)
    data = three.data()
    data.rename(data.with_name("elsewhere"))
    start(three)
    for name in COLLECTIONS:
        three.wait_reason(name, "VolumeReplaced")
    with three.rest() as rest, pytest.raises(Refused) as refused:
        rest.search("first", VECTOR)
    assert refused.value.status == 503
    report = three.shell("kubectl vecstow status").stdout
    assert f"PersistentVolume {three.get('pvc', three.claim)['spec']['volumeName']}" in report
    assert next_command(report, "first") == "kubectl get pv"
    three.typed("kubectl vecstow accept-empty first")
    three.wait_ready("first")
    assert_points(three, "first", 0)
    assert three.condition("second")["reason"] == "VolumeReplaced"


def test_a_copy_made_under_a_hold_is_adopted_where_nobody_knows_of_it(node: Node, three: Release) -> None:
    other = Release(node, make_namespace(node))
    other.make_keys()
    copied = node.add_volume(other.namespace) / "data"
    three.typed("kubectl vecstow hold --seconds 120")
    shutil.copytree(three.data(), copied, ignore=shutil.ignore_patterns("LOCK"))
    three.typed("kubectl vecstow hold --release")
    subprocess.run(["chown", "--recursive", f"{USER}:{USER}", copied], check=True)
    other.apply(bound_claim("restored", other.namespace))
    other.install({"persistence.existingClaim": "restored"})
    assert other.get("vcol")["items"] == []
    other.typed("kubectl vecstow adopt")
    other.wait_ready(*COLLECTIONS)
    for name in COLLECTIONS:
        assert_points(other, name, POINTS)
    node.kubectl("delete", "namespace", other.namespace, "--wait=false")


def bound_claim(name: str, volume: str) -> dict[str, Any]:
    """A claim of exactly that volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": STORAGE_CLASS,
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": volume,
        },
    }


def test_maintenance_keeps_the_volume_for_whoever_repairs_it(three: Release) -> None:
    with three.rest("admin") as rest:
        copied = rest.call("POST", "/collections/first/backup")["backup_path"]
    three.upgrade({"engine.maintenance": True})
    wait_for(lambda: "is not served" in logs(three), lambda: logs(three))
    damage(three.data() / "third" / "points.db", 0, 100)
    found = three.shell(f"kubectl exec {three.pod} -- vecstow check")
    assert found.returncode == 1
    assert "vecstow check third --data" in found.stdout
    three.execute("vecstow", "check", "third", "--repair")
    assert "0 errors" in three.execute("vecstow", "check")
    three.execute("vecstow", "restore", copied, "--new-name", "again")
    three.upgrade()
    three.wait_ready(*COLLECTIONS)
    for name in (*COLLECTIONS, "again"):
        assert_points(three, name, POINTS)


def logs(release: Release) -> str:
    try:
        return release.kubectl("logs", release.pod, "--container=engine")
    except Exception as reason:  # noqa: BLE001 - there may be no pod, or not yet
        return str(reason)


def test_a_second_pod_on_the_volume_is_refused_and_says_so(three: Release) -> None:
    second = Release(three.node, three.namespace, "second-vecstow")
    shared: Values = {"persistence.existingClaim": three.claim, "manager.enabled": False}
    shared |= {"engine.name": "second", "engine.settings.lock-wait-seconds": 1}
    second.install(shared, wait=False)
    refused = wait_for(
        lambda: text if "cannot be served" in (text := logs(second)) else "", lambda: logs(second), 120
    )
    assert "is held" in refused  # the same text: the container begins again, and its log too
    assert not second.pod_ready()
    assert_points(three, "first", POINTS)


def test_another_size_is_refused_with_what_to_type(three: Release) -> None:
    larger: Values = {"persistence.size": "2Gi"}
    with pytest.raises(
        HelmFailed, match=rf"claim {three.claim} \({STORAGE_CLASS}\) does not allow expansion"
    ):
        three.upgrade(larger)
    expandable = json.dumps({"allowVolumeExpansion": True})
    three.node.kubectl("patch", "storageclass", STORAGE_CLASS, "--patch", expandable)
    with pytest.raises(HelmFailed) as refused:
        three.upgrade(larger)
    [command] = [line.strip() for line in str(refused.value).splitlines() if "  kubectl " in line]
    three.typed(command)
    three.upgrade(larger)
    three.wait_ready(*COLLECTIONS)
    assert_points(three, "first", POINTS)
    claim = three.get("pvc", three.claim)
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
