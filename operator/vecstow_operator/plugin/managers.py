"""Whether a manager works in the namespace, by its Lease, which it renews every few seconds."""

from __future__ import annotations

import datetime
from http import HTTPStatus
from typing import Any, Final

from kubernetes import client
from kubernetes.client.exceptions import ApiException

LEASE: Final = "vecstow-manager"
STALE_SECONDS: Final = 60.0
"""More than the clocks of two machines should differ, and four times the duration of a Lease."""
AWAY: Final = "what kubectl get vcol shows is of the time in its column OBSERVED"


def missing_manager(api: client.ApiClient, namespace: str) -> str | None:
    """Return a sentence that no manager is at work; None when one is, or its Lease may not be read."""
    try:
        lease: Any = client.CoordinationV1Api(api).read_namespaced_lease(LEASE, namespace)
    except ApiException as error:
        is_missing = error.status == HTTPStatus.NOT_FOUND
        return f"no manager has run in namespace {namespace}: no status is written" if is_missing else None
    return sentence_of(lease.spec, datetime.datetime.now(datetime.UTC))


def sentence_of(spec: Any, now: datetime.datetime) -> str | None:
    """Return a sentence that the holder of a Lease is away at that time; None: it is not. Pure."""
    if not spec.holder_identity:
        return f"no manager runs: the last one ended in order; {AWAY}"
    if spec.renew_time is None or (now - spec.renew_time).total_seconds() > STALE_SECONDS:
        return f"manager {spec.holder_identity} has not renewed its Lease since {spec.renew_time}; {AWAY}"
    return None
