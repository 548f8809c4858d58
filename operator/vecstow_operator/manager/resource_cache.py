"""Resources as they were read. Equal parts of thousands of them are kept once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vecstow_operator.manager import status
from vecstow_operator.observed import Observed, observed

ALIKE_MAX: Final = 10_000
"""The documents that are kept because others may have the same content."""


@dataclass(frozen=True, slots=True)
class CachedResource:
    """One resource as it was read."""

    resource: Observed
    version: str
    """The resourceVersion."""
    status: Mapping[str, Any]
    finalizers: tuple[str, ...]

    @property
    def observed_at(self) -> str:
        """RFC 3339: the time of the manager's last look, by the status; empty when it has none."""
        return str(self.status.get("observedAt", ""))


class ResourceCache:
    """Builds resources whose equal parts are the same object. Thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[str, Mapping[str, Any]] = {}

    def of(self, document: Mapping[str, Any]) -> CachedResource:
        """Return a resource from the API server's JSON."""
        metadata, known = document["metadata"], status.own(document.get("status") or {})
        if "conditions" in known:
            known["conditions"] = [self._alike(condition) for condition in known["conditions"]]
        return CachedResource(
            observed({**document, "spec": self._alike(document.get("spec") or {})}),
            metadata["resourceVersion"],
            known,
            tuple(metadata.get("finalizers") or ()),
        )

    def _alike(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the first document of the same content, which must not be changed."""
        if len(self._kept) > ALIKE_MAX:
            self._kept = {}
        return self._kept.setdefault(repr(document), document)
