"""One manager at a time: a Lease, renewed before each pass."""

from __future__ import annotations

import datetime
import os
import socket
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import structlog
from kubernetes.client import CoordinationV1Api, V1OwnerReference
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from urllib3.exceptions import HTTPError

from vecstow_operator.kube import NOT_UNDERSTOOD, Away
from vecstow_operator.vocabulary import MANAGER_FIELDS

log = structlog.stdlib.get_logger(__name__)

DURATION_SECONDS: Final = 15
RENEW_SECONDS: Final = 10
RETRY_SECONDS: Final = 4
RELEASED_SECONDS: Final = 1
"""The duration of a Lease without a holder: it must be above 0."""
TIMEOUT_SECONDS: Final = (2.0, 5.0)
"""The limits to connect, and to read the answer."""
_WRITTEN_WITH: Final = {"_request_timeout": TIMEOUT_SECONDS, "field_manager": MANAGER_FIELDS}
_UNANSWERED: Final = (ApiException, HTTPError, OSError, ConfigException, *NOT_UNDERSTOOD)


class Lease:
    """Whether this process may act. A holder keeps it until `leaseDurationSeconds` pass without a renewal.

    The Lease is owned by the pod of its holder, so Kubernetes removes it after an uninstall.
    """

    def __init__(self, name: str, namespace: str, pod: V1OwnerReference | None = None) -> None:
        lock: Any = LeaseLock(name, namespace, f"{socket.gethostname()}-{os.getpid()}")
        lock.api_instance = _Leases(pod)
        self._lock = lock
        self._seen: dict[str, Any] = {}
        """The Lease as it was read last."""
        self._seen_at = float("-inf")
        """The monotonic time when that content was first read."""
        self._held_until = float("-inf")
        self._tried_at = float("-inf")
        self._was_held = False

    def is_held(self) -> bool:
        """Whether this process may act now. Renew the Lease when that is due."""
        now = time.monotonic()
        if now - self._tried_at >= RETRY_SECONDS:
            self._tried_at = now
            if self._renewed():
                self._held_until = now + RENEW_SECONDS
        is_held = time.monotonic() < self._held_until  # a renewal may take longer than the lease lasts
        if self._was_held != is_held:
            self._was_held = is_held
            log.info("lease taken" if self._was_held else "lease lost")
        return self._was_held

    def seize(self, seconds: int) -> None:
        """Take the Lease from any holder for `seconds`; return when the former holder acts no more.

        Raises Away.
        """
        lock, record = self._lock, _record(self._lock.identity, seconds)
        try:
            is_there, found = lock.get(lock.name, lock.namespace)
            if not is_there and found.status != HTTPStatus.NOT_FOUND:
                raise Away(f"Lease {lock.name} cannot be read: {found.status} {found.reason}")
            if not (lock.update if is_there else lock.create)(lock.name, lock.namespace, record):
                raise Away(f"Lease {lock.name} cannot be written: refused, or another wrote it meanwhile")
        except _UNANSWERED as error:
            raise Away(f"Lease {lock.name} cannot be taken: {error}") from error
        time.sleep(RENEW_SECONDS)

    def release(self) -> None:
        """Free the Lease for another manager at once. This process must not act after that."""
        if not self._was_held:
            return
        lock, nobody = self._lock, _record("", RELEASED_SECONDS)
        with suppress(*_UNANSWERED):
            is_there, found = lock.get(lock.name, lock.namespace)
            if is_there and found.holder_identity == lock.identity:
                lock.update(lock.name, lock.namespace, nobody)

    def _renewed(self) -> bool:
        """Take or renew the Lease. Return False while another holds it."""
        lock, record = self._lock, _record(self._lock.identity, DURATION_SECONDS)
        try:
            is_there, found = lock.get(lock.name, lock.namespace)
            if not is_there:
                is_free = found.status == HTTPStatus.NOT_FOUND
                return is_free and bool(lock.create(lock.name, lock.namespace, record))
            if found.holder_identity == lock.identity:
                record.acquire_time = found.acquire_time or record.acquire_time
            elif not self._is_over(found):
                return False
            return bool(lock.update(lock.name, lock.namespace, record))
        except _UNANSWERED:
            return False

    def _is_over(self, found: LeaderElectionRecord) -> bool:
        """Whether the Lease of another has expired. Its time starts when it is seen: clocks differ."""
        if vars(found) != self._seen:
            if found.holder_identity and found.holder_identity != self._seen.get("holder_identity"):
                log.info("lease held by another", holder=found.holder_identity)
            self._seen, self._seen_at = vars(found), time.monotonic()
        seconds = float(found.lease_duration or DURATION_SECONDS)
        return not found.holder_identity or time.monotonic() - self._seen_at >= seconds


def _record(holder: str, seconds: int) -> LeaderElectionRecord:
    """Return a record that is valid from now on."""
    now = str(datetime.datetime.now(datetime.UTC))
    return LeaderElectionRecord(holder, seconds, now, now)


class _Leases:
    """The calls that LeaseLock makes, with the arguments that it does not set.

    These are a time limit, so that a silent API server blocks no pass, the field manager, and the owner. The
    owner stays as it is when a pod takes the Lease for an uninstall.
    """

    def __init__(self, owner: V1OwnerReference | None) -> None:
        api: Any = CoordinationV1Api()
        self._owner = owner
        self.read_namespaced_lease = partial(api.read_namespaced_lease, _request_timeout=TIMEOUT_SECONDS)
        self._create = partial(api.create_namespaced_lease, **_WRITTEN_WITH)
        self._replace = partial(api.replace_namespaced_lease, **_WRITTEN_WITH)

    def create_namespaced_lease(self, namespace: str, body: Any) -> Any:
        return self._create(namespace, self._owned(body))

    def replace_namespaced_lease(self, name: str, namespace: str, body: Any) -> Any:
        return self._replace(name, namespace, self._owned(body))

    def _owned(self, body: Any) -> Any:
        if self._owner is not None:
            body.metadata.owner_references = [self._owner]
        return body


def owner_of(name: str | None, uid: str | None) -> V1OwnerReference | None:
    """Return the pod of this process as an owner; None where the pod is not known."""
    if not name or not uid:
        return None
    return V1OwnerReference(api_version="v1", kind="Pod", name=name, uid=uid)
