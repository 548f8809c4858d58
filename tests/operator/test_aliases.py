"""Aliases that resources declare, on a real API server: a switch in one `kubectl apply` has no gap."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.crash.rest import Refused, Rest
from tests.operator.points import fill
from tests.operator.site import Site, collection
from tests.waiting import wait_for


class Reader:
    """A client that asks under an alias all the time, and keeps each new answer."""

    def __init__(self, port: int, alias: str) -> None:
        self._port, self._alias = port, alias
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.seen: list[str] = []
        self.refused: list[str] = []

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        with Rest(self._port) as rest:
            while not self._stop.is_set():
                try:
                    name = str(rest.describe(self._alias)["name"])
                except Refused as error:
                    self.refused.append(str(error))
                    continue
                if self.seen[-1:] != [name]:
                    self.seen.append(name)


def aliases(site: Site, name: str) -> Any:
    """Return the aliases in the status of a resource."""
    return site.resource(name)["status"].get("aliases")


@pytest.mark.parametrize("first", ["new", "old"])
def test_an_alias_moves_in_one_apply_without_a_gap(shared: Site, first: str) -> None:
    """Whichever of the two resources kubectl changes first."""
    old, new, alias = f"{first}-1", f"{first}-2", f"{first}-alias"
    shared.apply(collection(old, aliases=[alias]), collection(new))
    for name in (old, new):
        shared.wait_reason("Served", name)
        fill(shared, name)
    with Reader(shared.engine.port, alias) as reader:
        wait_for(lambda: reader.seen == [old], "the alias leads to the old collection")
        changed = [collection(new, aliases=[alias]), collection(old)]
        shared.apply(*(changed if first == "new" else reversed(changed)))
        wait_for(lambda: reader.seen == [old, new], lambda: f"the switch, seen is {reader.seen}")
    assert reader.refused == []
    wait_for(lambda: aliases(shared, new) == [alias], "the alias in the status")
    shared.wait_reason("Served", new)


def test_the_resource_that_claimed_an_alias_first_keeps_it_and_the_other_says_so(shared: Site) -> None:
    shared.apply(collection("first", aliases=["both"]))
    shared.wait_reason("Served", "first")
    shared.apply(collection("second", aliases=["both"]))
    wait_for(
        lambda: shared.condition("Degraded", "second").get("reason") == "AliasRefused", "the loser is told"
    )
    assert "belongs to the resource 'first'" in shared.condition("Degraded", "second")["message"]
    shared.wait_reason("Served", "second")
    with shared.rest() as rest:
        assert rest.describe("both")["name"] == "first"
        with pytest.raises(Refused, match="409"):
            rest.call("PUT", "/aliases/both", {"collection": "second"})
    shared.kubectl("delete", "vcol", "first")
    wait_for(lambda: aliases(shared, "second") == ["both"], "the alias moves to the other resource")
    wait_for(lambda: shared.condition("Degraded", "second")["status"] == "False", "no refusal any more")


def test_a_retained_collection_keeps_its_alias_for_rest(shared: Site) -> None:
    shared.apply(collection("kept", aliases=["kept-alias"]))
    shared.wait_reason("Served", "kept")
    shared.kubectl("delete", "vcol", "kept")

    def is_free() -> bool:
        with shared.rest() as rest:
            try:
                rest.call("PUT", "/aliases/kept-alias", {"collection": "kept"})
            except Refused:
                return False
            return True

    wait_for(is_free, "REST may change the alias")
    with shared.rest() as rest:
        assert rest.describe("kept-alias")["name"] == "kept"
