"""The points of the scenarios: what must still be there afterwards, and what lies on the volume for it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tests.crash.rest import Refused, Stored
from tests.operator.site import Site, collection
from tests.waiting import wait_for

POINTS: dict[str, Stored] = {
    f"point-{place}": (struct.pack("<4f", *(float(place == axis) for axis in range(4))), {"place": place})
    for place in range(4)
}
"""Points of length one, so that Cosine stores them as they are."""


def served_with_points(site: Site, name: str, **spec: Any) -> str:
    """Declare a collection, fill it, and wait until its status knows of the data; returns the data's uid."""
    site.apply(collection(name, **spec))
    site.wait_reason("Served", name)
    fill(site, name)
    return wait_for(lambda: collection_uid(site, name), "the uid of the data in the status")


def fill(site: Site, name: str) -> None:
    """Store all points."""
    with site.rest() as rest:
        rest.put_many(name, POINTS)


def points(site: Site, name: str) -> dict[str, Stored]:
    """Those of them that are served now; raises Refused."""
    with site.rest() as rest:
        return rest.get_many(name, POINTS)


def serves(site: Site, name: str) -> bool:
    """Whether all of them are served now."""
    try:
        return points(site, name) == POINTS
    except (Refused, OSError):
        return False


def refusal(site: Site, name: str) -> int | None:
    """The status that a read gets; None when it is answered."""
    try:
        points(site, name)
    except Refused as refused:
        return refused.status
    return None


def collection_uid(site: Site, name: str) -> str | None:
    """By the status."""
    uid: str | None = site.resource(name).get("status", {}).get("collectionUid")
    return uid


def manifest(site: Site, name: str) -> dict[str, Any]:
    """As it lies on the volume."""
    document: dict[str, Any] = json.loads(manifest_path(site, name).read_text())
    return document


def manifest_path(site: Site, name: str) -> Path:
    """Where it lies."""
    return site.data / name / "metadata.json"


def deleted(site: Site, name: str) -> list[Path]:
    """Return the folders of that name that were moved away."""
    return sorted(site.data.glob(f".deleted/{name}-*"))


def command_told(site: Site, name: str, kind: str) -> list[str]:
    """Arguments of the kubectl command that a condition's message ends with."""
    _, _, command = site.condition(kind, name)["message"].rpartition("kubectl ")
    return str(command).split()
