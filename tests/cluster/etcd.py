"""etcd, the API server's store, over its JSON gateway."""

from __future__ import annotations

import base64

import httpx

SECONDS_MAX = 10.0


class Etcd:
    """The etcd that answers at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def healthy(self) -> bool:
        """Whether it takes writes."""
        try:
            return httpx.get(f"{self.url}/health", trust_env=False, timeout=SECONDS_MAX).status_code == 200
        except httpx.TransportError:
            return False

    def revision(self) -> int:
        """The newest revision: the resourceVersion that the API server gives to the last change."""
        answer = self._post("kv/range", {"key": base64.b64encode(b"/").decode(), "count_only": True})
        return int(answer["header"]["revision"])

    def compact(self) -> int:
        """Forget all history; returns the revision that is left, the newest one."""
        revision = self.revision()
        self._post("kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def _post(self, call: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        answer = httpx.post(f"{self.url}/v3/{call}", json=body, trust_env=False, timeout=SECONDS_MAX)
        answer.raise_for_status()
        content: dict[str, dict[str, str]] = answer.json()
        return content
