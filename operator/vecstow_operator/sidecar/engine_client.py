"""Requests to the engine of the sidecar's pod, over localhost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

import urllib3

from vecstow_operator.keys import REFUSALS, EngineKey, NoKey
from vecstow_operator.sidecar.decision import SidecarReport

TIMEOUT: Final = urllib3.Timeout(connect=1.0, read=30.0)


class EngineAway(Exception):
    """Raised when the engine took no reports."""


class EngineRefuses(EngineAway):
    """Raised when the engine wants a key, or another one: waiting does not help."""


class EngineClient:
    """A client of one engine."""

    def __init__(self, url: str, key: EngineKey | None = None) -> None:
        self._url = url.rstrip("/")
        self._key = key or EngineKey()
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def poke(self, findings: Iterable[SidecarReport]) -> None:
        """Send the reports, and start a rescan of manifests: `POST /state/refresh`. Raises EngineAway."""
        body = json.dumps({"resources": [finding.document() for finding in findings]})
        try:
            headers = {"Content-Type": "application/json"} | self._key.headers()
            answer = self._pool.request("POST", f"{self._url}/state/refresh", body=body, headers=headers)
        except NoKey as error:
            raise EngineRefuses(str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EngineAway(str(error)) from error
        if answer.status != 200:
            kind = EngineRefuses if answer.status in REFUSALS else EngineAway
            said = f"{answer.status}: {answer.data[:200].decode(errors='replace')}"
            raise kind(f"it says {said}; the key comes from {self._key.source}")
