"""Blue and green over HTTP: a new collection takes the readers over, and none of them sees a gap."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator

import pytest

from tests.crash.rest import Refused, Rest, Stored
from tests.engine_process import EngineProcess
from tests.waiting import wait_for

OLD: dict[str, Stored] = {"a": (struct.pack("<4f", 1, 0, 0, 0), {"of": "v1"})}
NEW: dict[str, Stored] = {"a": (struct.pack("<4f", 1, 0, 0, 0), {"of": "v2"})}
READERS = 3


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("aliases") / "data", "--rescan-seconds", 0.2) as engine:
        yield engine


class Readers:
    """Clients that search under the alias all the time, and keep what they see."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(READERS)]
        self.counts = {"v1": 0, "v2": 0}
        self.wrong: list[str] = []

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        with Rest(self._port) as rest:
            while not self._stop.is_set():
                try:
                    [hit] = rest.search("docs", OLD["a"][0])
                    self.counts[hit["metadata"]["of"]] += 1
                except Refused as refused:
                    self.wrong.append(str(refused))


def test_a_new_collection_takes_the_readers_over_without_a_gap(engine):
    with Rest(engine.port) as rest:
        rest.create("docs-v1", 4)
        rest.put_many("docs-v1", OLD)
        rest.call("PUT", "/aliases/docs", {"collection": "docs-v1"})
        with Readers(engine.port) as readers:
            wait_for(lambda: readers.counts["v1"] > 20, "the readers read")
            rest.create("docs-v2", 4)
            rest.put_many("docs-v2", NEW)
            rest.call("PUT", "/aliases/docs", {"collection": "docs-v2"})
            [hit] = rest.search("docs", OLD["a"][0])
            assert hit["metadata"] == {"of": "v2"}
            before = readers.counts["v1"]
            wait_for(lambda: readers.counts["v2"] > 20, "the readers read the new one")
            assert readers.counts["v1"] <= before + READERS
        assert readers.wrong == []
        rest.call("DELETE", "/collections/docs-v1")
        assert rest.get_many("docs", ["a"]) == NEW


def test_both_body_formats_take_an_alias_and_write_behind_it(engine):
    with Rest(engine.port) as rest:
        rest.create("packed", 4)
        rest.call("PUT", "/aliases/short", {"collection": "packed"})
        rest.put_many("short", {"b": OLD["a"]})
        rest.call("POST", "/collections/short/vectors", {"id": "c", "data": [0, 1, 0, 0]})
        assert rest.get_many("packed", ["b", "c"]).keys() == {"b", "c"}
        rest.delete_many("short", ["b"])
        assert rest.describe("short")["vector_count"] == 1
        assert rest.call("GET", "/aliases/short") == {"alias": "short", "collection": "packed"}


def test_a_collection_that_readers_reach_by_an_alias_is_kept(engine):
    with Rest(engine.port) as rest:
        rest.create("kept", 4)
        rest.call("PUT", "/aliases/keeper", {"collection": "kept"})
        for path in ("kept", "kept/hard-delete", "keeper", "keeper/hard-delete"):
            with pytest.raises(Refused, match="409"):
                rest.call("DELETE", f"/collections/{path}")
        with pytest.raises(Refused, match="409"):
            rest.create("keeper", 4)
        rest.call("DELETE", "/aliases/keeper")
        rest.call("DELETE", "/collections/kept")


def test_damage_of_the_file_shows_in_the_state_and_the_engine_goes_on(engine):
    with Rest(engine.port) as rest:
        rest.create("sound", 4)
        rest.call("PUT", "/aliases/well", {"collection": "sound"})
        file = engine.data / "aliases.json"
        whole = file.read_bytes()
        file.write_bytes(whole[:-5])
        wait_for(lambda: rest.call("GET", "/state")["aliases"]["fault"], "the fault in the state")
        assert rest.describe("well")["name"] == "sound"
        with pytest.raises(Refused, match="500"):
            rest.call("PUT", "/aliases/well", {"collection": "sound"})
        assert "vecstow_aliases_unreadable 1.0" in rest.text("/metrics")
    engine.kill()
    engine.start()
    with Rest(engine.port) as rest:
        assert rest.describe("sound")["state"] == "ready"
        with pytest.raises(Refused, match="503") as refused:
            rest.describe("well")
        assert "aliases.json" in str(refused.value)
        file.write_bytes(whole)
        wait_for(lambda: rest.call("GET", "/state")["aliases"]["fault"] is None, "the file is read again")
        assert rest.describe("well")["name"] == "sound"
