"""The test of an installation: it declares, fills, searches and drops a collection. `helm test` runs it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from vecstow_operator.keys import EngineKey
from vecstow_operator.vocabulary import GROUP, PLURAL, TEST_FIELDS, VERSION

NAME_PREFIX: Final = "vecstow-test-"
"""The prefix of resource and collection: a key for the test needs `write` on these alone."""
STEP_SECONDS_MAX: Final = 120.0
LOOK_SECONDS: Final = 0.5
TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=30.0)
VECTORS: Final = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0]}
QUERY: Final = [0.1, 0.9, 0.2]
NEAREST: Final = "y"

log = structlog.stdlib.get_logger(__name__)


class Failed(Exception):
    """Raised when a step does not succeed; the message names the step and the last observation."""


class RoundTrip:
    """One test, with a random name, so that two tests never meet."""

    def __init__(self, namespace: str, engine: str, engine_url: str, key: EngineKey) -> None:
        self.name = NAME_PREFIX + secrets.token_hex(4)
        self._namespace = namespace
        self._engine = engine
        self._url = f"{engine_url.rstrip('/')}/collections/{self.name}"
        self._key = key
        self._objects = client.CustomObjectsApi()
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def run(self) -> None:
        """Run the test, and delete the resource and its collection even after a failure.

        Raises Failed, ApiException, NoKey or HTTPError.
        """
        self._declare()
        try:
            self._wait("served", self._is_ready)
            self._fill()
            self._search()
        finally:
            self._objects.delete_namespaced_custom_object(*self._where())
        self._wait("dropped", self._is_gone)

    def _declare(self) -> None:
        spec = {
            "engine": self._engine,
            "dimension": len(QUERY),
            "distanceMetric": "Cosine",
            "deletionPolicy": "Delete",
        }
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "VectorCollection",
            "metadata": {"name": self.name},
            "spec": spec,
        }
        self._objects.create_namespaced_custom_object(
            GROUP, VERSION, self._namespace, PLURAL, body, field_manager=TEST_FIELDS
        )
        log.info("declared", collection=self.name)

    def _is_ready(self) -> tuple[bool, object]:
        found: Any = self._objects.get_namespaced_custom_object(*self._where())
        conditions = found.get("status", {}).get("conditions", ())
        ready = next((each for each in conditions if each["type"] == "Ready"), {"status": "no condition yet"})
        return ready["status"] == "True", ready

    def _is_gone(self) -> tuple[bool, object]:
        try:
            return False, self._objects.get_namespaced_custom_object(*self._where())
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return True, None
            raise

    def _fill(self) -> None:
        vectors = [{"id": name, "data": vector} for name, vector in VECTORS.items()]
        self._post("vectors/batch", {"vectors": vectors})
        log.info("filled", vectors=len(VECTORS))

    def _search(self) -> None:
        found = self._post("search", {"vector": QUERY, "limit": 1})
        if [hit["id"] for hit in found] != [NEAREST]:
            raise Failed(f"the search must find {NEAREST!r}, and finds {found}")
        log.info("searched", nearest=NEAREST)

    def _post(self, path: str, body: object) -> Any:
        headers = {"Content-Type": "application/json"} | self._key.headers()
        answer = self._pool.request("POST", f"{self._url}/{path}", body=json.dumps(body), headers=headers)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            message = answer.data[:500].decode(errors="replace")
            raise Failed(f"POST {self._url}/{path} is answered {answer.status}: {message}")
        return json.loads(answer.data)["data"]

    def _wait(self, what: str, look: Callable[[], tuple[bool, object]]) -> None:
        end = time.monotonic() + STEP_SECONDS_MAX
        while not (seen := look())[0]:
            if time.monotonic() > end:
                raise Failed(
                    f"{self.name} is not {what} after {STEP_SECONDS_MAX:.0f} s; seen last: {seen[1]}"
                )
            time.sleep(LOOK_SECONDS)
        log.info(what, collection=self.name)

    def _where(self) -> tuple[str, str, str, str, str]:
        return GROUP, VERSION, self._namespace, PLURAL, self.name
