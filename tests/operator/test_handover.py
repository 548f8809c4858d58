"""A manager that ends in order leaves nothing that its successor has to wait for."""

from __future__ import annotations

import signal
from typing import Any

from tests.operator.site import Site, collection


def lease(site: Site) -> dict[str, Any]:
    """Its spec."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases/vecstow-manager"
    spec: dict[str, Any] = site.cluster.read(path)["spec"]
    return spec


def test_lease_of_a_manager_that_was_told_to_end_is_anyones_at_once(shared: Site) -> None:
    shared.apply(collection("before"))
    shared.wait_reason("Served", "before")
    first = lease(shared)["holderIdentity"]
    assert shared.manager.end(signal.SIGTERM) == 0
    left = lease(shared)
    assert (left.get("holderIdentity", ""), left["leaseDurationSeconds"]) == ("", 1)
    shared.manager.start()
    shared.apply(collection("after"))
    shared.wait_reason("Served", "after")
    assert lease(shared)["holderIdentity"] not in ("", first)
