"""Aliases of a running engine: durable before they are seen, and switched without a gap."""

import asyncio
import dataclasses
import errno
import shutil

import pytest
from structlog.testing import capture_logs

from tests.unit.interleaving import Slowed
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.metrics import EngineCollector
from vecstow_engine.model.aliases import Alias
from vecstow_engine.model.errors import (
    Conflict,
    DamagedFile,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    Quarantined,
    ReadOnly,
)
from vecstow_engine.service import aliases as service_aliases
from vecstow_engine.service import loader
from vecstow_engine.service.collection import Collection
from vecstow_engine.storage.aliases import change_aliases, read_aliases
from vecstow_engine.storage.files import temporary
from vecstow_engine.storage.manifests import update_manifest


@pytest.fixture
async def two(engine):
    """Two collections with one point each, and an alias of the first."""
    for number, name in enumerate(("docs-v1", "docs-v2"), start=1):
        engine.declare(name)
        await engine.put(name, a=number)
    engine.aliases.set("docs", "docs-v1")
    return engine


def written(engine, name, collection, resource_uid="r-1"):
    """Write an alias as the sidecar does, in another process."""
    alias = Alias(name, collection, resource_uid)
    change_aliases(engine.layout, lambda table: table.with_alias(alias))


async def test_every_method_takes_an_alias_and_names_the_collection(two):
    assert two.collection("docs").name == "docs-v1"
    assert await two.values("docs", "a") == [1]
    assert await two.nearest("docs", 1) == ["a"]
    assert await two.put("docs", b=3) == ["b"]
    assert await two.values("docs-v1", "b") == [3]
    assert await two.delete_points("docs", ["b"]) == [True]
    assert two.describe("docs")["name"] == "docs-v1"
    assert two.describe("docs-v1")["aliases"] == ["docs"]
    assert two.stats("docs")["name"] == "docs-v1"
    assert two.check("docs-v1")["clean"]


async def test_a_switch_is_seen_by_the_next_request_and_by_the_next_process(two):
    two.aliases.set("docs", "docs-v2")
    assert await two.values("docs", "a") == [2]
    two.stop()
    with RunningEngine(two.settings.data) as again:
        assert await again.values("docs", "a") == [2]
        assert [alias.document() for alias in again.aliases.listed()] == [
            {"alias": "docs", "collection": "docs-v2"}
        ]


async def test_a_switch_is_not_seen_before_it_is_durable(two, disk):
    seen = []
    real = disk.fsync
    disk.fsync = lambda fd: (seen.append(two.collection("docs").name), real(fd))
    two.aliases.set("docs", "docs-v2")
    assert set(seen) == {"docs-v1"}
    assert two.collection("docs").name == "docs-v2"


async def test_readers_during_many_switches_always_get_one_of_the_two(two):
    """A lookup never misses the alias: it reads the table of before or the one of after."""
    stop, wrong = asyncio.Event(), []

    async def read():
        while not stop.is_set():
            found = await two.values("docs", "a")
            if found not in ([1], [2]):
                wrong.append(found)
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for number in range(60):
        await asyncio.to_thread(two.aliases.set, "docs", f"docs-v{number % 2 + 1}")
    stop.set()
    await asyncio.gather(*readers)
    assert wrong == []


async def test_removed_alias_is_no_name_any_more_and_the_collection_stays(two):
    assert two.aliases.remove("docs").collection == "docs-v1"
    with pytest.raises(NotFound):
        two.collection("docs")
    with pytest.raises(NotFound, match="alias 'docs' does not exist"):
        two.aliases.remove("docs")
    assert await two.values("docs-v1", "a") == [1]


# Names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "collection", "error", "says"),
    [
        pytest.param("docs-v2", "docs-v1", Conflict, "is the name of a collection", id="a collection's name"),
        pytest.param("other", "docs", InvalidInput, "itself an alias", id="an alias of an alias"),
        pytest.param("docs", "none", NotFound, "'none' does not exist", id="no collection"),
        pytest.param("none", "none", NotFound, "does not exist", id="itself"),
    ],
)
async def test_a_refused_alias_changes_nothing(two, name, collection, error, says):
    before = two.layout.aliases.read_bytes()
    with pytest.raises(error, match=says):
        two.aliases.set(name, collection)
    assert two.layout.aliases.read_bytes() == before
    assert two.collection("docs").name == "docs-v1"


async def test_an_alias_leads_to_no_collection_that_cannot_be_read(two):
    """The readers keep what they have."""
    two.stop()
    (two.layout.collection("docs-v2") / "points.db").write_bytes(b"x" * 9000)
    with RunningEngine(two.settings.data) as again:
        with pytest.raises(Quarantined):
            again.aliases.set("docs", "docs-v2")
        assert await again.values("docs", "a") == [1]


async def test_an_alias_cannot_have_the_name_of_a_folder_that_is_not_served(two):
    two.layout.collection("bare").mkdir()
    with pytest.raises(Conflict, match="name of a collection"):
        two.aliases.set("bare", "docs-v1")


async def test_no_collection_is_made_with_the_name_of_an_alias(two):
    backup = two.backup("docs-v2")
    with pytest.raises(Conflict, match="is an alias"):
        two.declare("docs")
    with pytest.raises(Conflict, match="is an alias"):
        two.catalog.restore(backup, "docs")
    two.drop("docs-v2")
    with pytest.raises(Conflict, match="is an alias"):
        two.catalog.restore(two.newest_deleted(), "docs")
    manifest = dataclasses.replace(two.collection("docs-v1").manifest, name="docs", collection_uid=None)
    with pytest.raises(Conflict, match="is an alias"):
        two.catalog.import_orphan(f"{backup}/docs-v2", manifest)
    assert not two.layout.collection("docs").exists()
    assert not any(two.layout.staging.glob("*"))
    assert two.collection("docs").name == "docs-v1"


async def test_a_client_that_creates_if_needed_finds_the_collection_behind_an_alias(two):
    manifest = dataclasses.replace(two.collection("docs-v1").manifest, name="docs", collection_uid=None)
    assert two.catalog.create(manifest, exist_ok=True) is False
    other = dataclasses.replace(manifest, dimension=5)
    with pytest.raises(Conflict):
        two.catalog.create(other, exist_ok=True)


async def test_a_folder_with_the_name_of_an_alias_takes_precedence_and_is_reported(two):
    """Such a folder comes by hand alone. The alias is back when the folder is gone."""
    shutil.copytree(two.layout.collection("docs-v2"), two.layout.collection("docs"))
    manifest = two.layout.collection("docs") / "metadata.json"
    manifest.write_text(manifest.read_text().replace('"docs-v2"', '"docs"'))
    two.refresh({})
    assert two.collection("docs").name == "docs"
    [problem] = two.state_document()["aliases"]["problems"]
    assert (problem["alias"], problem["collection"]) == ("docs", "docs-v1")
    assert "a collection has this name" in problem["reason"]
    assert two.describe("docs-v1")["aliases"] == []
    two.drop("docs")
    assert two.collection("docs").name == "docs-v1"
    assert two.state_document()["aliases"] == {"count": 1, "fault": None, "problems": []}


# Drops -----------------------------------------------------------------------------------------------------


async def test_a_collection_behind_an_alias_is_not_dropped(two):
    for drop in (two.drop, two.hard_delete):
        with pytest.raises(Conflict, match="alias 'docs'"):
            drop("docs-v1")
    two.aliases.set("docs", "docs-v2")
    two.drop("docs-v1")
    assert await two.values("docs", "a") == [2]


async def test_metrics_count_the_aliases_that_are_served_and_those_that_are_not(two):
    def values():
        return {
            (sample.name, sample.labels.get("state")): sample.value
            for family in EngineCollector(two, 10).collect()
            for sample in family.samples
            if "alias" in sample.name
        }

    written(two, "lost", "none")
    two.refresh({})
    assert values() == {
        ("vecstow_aliases", "served"): 1,
        ("vecstow_aliases", "not_served"): 1,
        ("vecstow_aliases_unreadable", None): 0,
    }
    two.layout.aliases.write_text("{")
    two.refresh({})
    assert values()["vecstow_aliases_unreadable", None] == 1


async def test_an_alias_outlives_the_drop_of_a_resource_and_works_again_after_a_restore(two):
    """A mark on the volume drops the collection, whatever leads to it."""
    update_manifest(
        two.layout, "docs-v1", lambda found: dataclasses.replace(found, dropped_at="2026-01-01T00:00:00Z")
    )
    two.refresh({})
    with pytest.raises(NotFound) as raised:
        two.collection("docs")
    assert "'docs-v1', to which the alias 'docs' leads, does not exist" in raised.value.message
    assert "PUT /aliases/docs" in raised.value.hint
    [problem] = two.state_document()["aliases"]["problems"]
    assert problem == {
        "alias": "docs", "collection": "docs-v1", "reason": "collection 'docs-v1' does not exist"
    }  # fmt: skip
    two.catalog.restore(two.newest_deleted(), None)
    assert await two.values("docs", "a") == [1]


# Failures --------------------------------------------------------------------------------------------------


async def test_rule_05_after_a_failed_sync_the_old_collection_is_served_until_the_next_start(two, disk):
    disk.fail("sync data/")
    with pytest.raises(OutcomeUnknown):
        two.aliases.set("docs", "docs-v2")
    assert two.collection("docs").name == "docs-v1"
    two.refresh({})  # the page cache has the new file, and the disk perhaps not
    assert two.collection("docs").name == "docs-v1"
    with pytest.raises(ReadOnly):
        two.aliases.set("docs", "docs-v2")
    assert "sync" in two.state_document()["failure"]
    two.stop()
    with RunningEngine(two.settings.data) as again:
        assert again.collection("docs").name == "docs-v2"
        again.aliases.set("docs", "docs-v1")


async def test_a_sync_of_the_temporary_file_that_failed_changes_nothing(two, disk):
    disk.fail("sync aliases.json.tmp")
    with pytest.raises(Exception, match="failed"):
        two.aliases.set("docs", "docs-v2")
    assert two.collection("docs").name == "docs-v1"
    assert not temporary(two.layout.aliases).exists()
    two.aliases.set("docs", "docs-v2")
    assert two.collection("docs").name == "docs-v2"


async def test_a_switch_on_a_full_disk_takes_the_reserve(tmp_path, disk):
    with RunningEngine(tmp_path / "data", reserve_bytes=1 << 16) as engine:
        engine.declare()
        disk.fail("write aliases.json.tmp", errno.ENOSPC)
        engine.aliases.set("second", "notes")
        assert engine.collection("second").name == "notes"
        assert engine.volume.full


async def test_damage_at_a_start_stops_the_aliases_and_no_collection(two):
    two.stop()
    raw = two.layout.aliases.read_bytes()
    two.layout.aliases.write_bytes(raw.replace(b"docs-v1", b"docs-v2"))
    with RunningEngine(two.settings.data) as again:
        assert await again.values("docs-v1", "a") == [1]
        for ask in (again.collection, again.aliases.get):
            with pytest.raises(Quarantined, match="aliases are unknown") as raised:
                ask("docs")
            assert "mv" in raised.value.hint
        with pytest.raises(Quarantined):
            again.aliases.listed()
        with pytest.raises(DamagedFile):
            again.aliases.set("docs", "docs-v2")
        assert "checksum" in again.state_document()["aliases"]["fault"]
        again.declare("more")
        two.layout.aliases.write_bytes(raw)
        again.refresh({})
        assert await again.values("docs", "a") == [1]
        assert again.state_document()["aliases"]["fault"] is None


async def test_damage_while_the_engine_runs_leaves_the_aliases_that_it_knows(two):
    raw = two.layout.aliases.read_bytes()
    two.layout.aliases.write_bytes(raw[:-9])
    with capture_logs() as logs:
        two.refresh({})
        two.refresh({})
    assert [line["log_level"] for line in logs if line["event"] == "aliases cannot be read"] == ["error"]
    assert await two.values("docs", "a") == [1]
    assert two.state_document()["aliases"]["fault"]
    with pytest.raises(DamagedFile):
        two.aliases.set("docs", "docs-v2")
    two.layout.aliases.unlink()
    with capture_logs() as logs:
        two.refresh({})
    assert "aliases are gone with their file" in [line["event"] for line in logs]
    with pytest.raises(NotFound):
        two.collection("docs")
    two.aliases.set("docs", "docs-v2")
    assert await two.values("docs", "a") == [2]


# Other programs --------------------------------------------------------------------------------------------


async def test_what_another_program_wrote_is_made_durable_and_then_served(two, disk):
    written(two, "docs", "docs-v2")
    disk.steps.clear()
    assert two.collection("docs").name == "docs-v1"
    two.refresh({})
    assert two.collection("docs").name == "docs-v2"
    assert disk.matching("sync aliases.json", "sync data/") == ["sync aliases.json", "sync data/"]
    disk.steps.clear()
    two.refresh({})
    assert disk.matching("sync *") == []


async def test_a_change_that_another_program_made_already_is_durable_when_it_is_answered(two, disk):
    """The other program may have ended between its rename and its sync."""
    written(two, "docs", "docs-v2", None)
    disk.steps.clear()
    two.aliases.set("docs", "docs-v2")
    assert disk.matching("*") == ["sync aliases.json", "sync data/"]
    assert two.collection("docs").name == "docs-v2"


async def test_what_this_engine_wrote_is_not_synced_again(two, disk):
    two.aliases.set("docs", "docs-v2")
    disk.steps.clear()
    two.refresh({})
    two.aliases.set("docs", "docs-v2")
    assert disk.matching("*aliases*", "sync *") == []


async def test_a_file_that_changes_while_it_is_read_is_read_again(two, monkeypatch):
    """Otherwise a start next to a busy sidecar would know no alias until the next scan."""
    real, changes = service_aliases.sync_aliases, iter(["docs-v2", "docs-v1", "docs-v2"])

    def sync(layout):
        real(layout)
        if (collection := next(changes, None)) is not None:
            written(two, "docs", collection)

    monkeypatch.setattr(service_aliases, "sync_aliases", sync)
    written(two, "docs", "docs-v2")
    two.refresh({})
    assert two.collection("docs").name == "docs-v2"
    assert list(changes) == []


async def test_a_hold_delays_no_switch(two):
    two.hold.begin(60)
    two.aliases.set("docs", "docs-v2")
    assert await two.values("docs", "a") == [2]
    assert read_aliases(two.layout).get("docs").collection == "docs-v2"


async def test_a_failed_sync_of_what_another_program_wrote_is_not_served(two, disk):
    written(two, "docs", "docs-v2")
    disk.fail("sync aliases.json")
    two.refresh({})
    two.refresh({})
    assert two.collection("docs").name == "docs-v1"
    assert "sync" in two.state_document()["failure"]


async def test_an_alias_of_a_resource_is_changed_by_the_resource_alone(two):
    written(two, "docs", "docs-v2", "r-7")
    two.refresh({})
    with pytest.raises(Conflict, match="r-7") as raised:
        two.aliases.set("docs", "docs-v1")
    assert "kubectl" in raised.value.hint
    with pytest.raises(Conflict):
        two.aliases.remove("docs")
    assert two.collection("docs").name == "docs-v2"


async def test_an_alias_waits_until_its_new_collection_is_served(two, monkeypatch):
    """The manifest of the new collection is on the volume, and the engine has not opened its data yet."""
    backup = two.backup("docs-v2")
    two.drop("docs-v2")
    written(two, "docs", "docs-v3")
    two.refresh({})
    assert two.collection("docs").name == "docs-v1"
    slow = Slowed(monkeypatch, loader, "open_store")
    opening = asyncio.create_task(asyncio.to_thread(two.catalog.restore, backup, "docs-v3"))
    assert await asyncio.to_thread(slow.entered.wait, 20)
    two.aliases.follow_waiting()
    assert two.registry.find("docs-v3") is not None
    assert two.collection("docs").name == "docs-v1"
    slow.goes_on.set()
    await opening
    two.aliases.follow_waiting()
    assert await two.values("docs", "a") == [2]
    assert read_aliases(two.layout).get("docs").resource_uid == "r-1"


async def test_a_switch_to_a_collection_that_is_being_dropped_is_refused(two):
    """The sidecar has marked it, and the engine has not seen the mark."""
    update_manifest(
        two.layout, "docs-v2", lambda found: dataclasses.replace(found, dropped_at="2026-01-01T00:00:00Z")
    )
    assert isinstance(two.collection("docs-v2"), Collection)
    with pytest.raises(NotFound, match="being dropped"):
        two.aliases.set("docs", "docs-v2")
