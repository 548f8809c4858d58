"""Events about a resource, as core v1 has them."""

from __future__ import annotations

import datetime
import uuid

from kubernetes.client import CoreV1Event, V1EventSource, V1ObjectMeta, V1ObjectReference

from vecstow_operator.kube import EVENT_CHARACTERS_MAX
from vecstow_operator.manager.status import Transition
from vecstow_operator.observed import Observed
from vecstow_operator.vocabulary import GROUP, MANAGER_FIELDS, VERSION


def event_of(resource: Observed, transition: Transition, namespace: str) -> CoreV1Event:
    """One occurrence, now."""
    now = datetime.datetime.now(datetime.UTC)
    return CoreV1Event(
        metadata=V1ObjectMeta(name=f"{resource.name[:200]}.{uuid.uuid4().hex[:16]}", namespace=namespace),
        involved_object=V1ObjectReference(
            api_version=f"{GROUP}/{VERSION}",
            kind="VectorCollection",
            name=resource.name,
            namespace=namespace,
            uid=resource.uid,
        ),
        reason=transition.reason.value,
        message=transition.message[:EVENT_CHARACTERS_MAX],
        type="Warning" if transition.is_warning else "Normal",
        first_timestamp=now,
        last_timestamp=now,
        count=1,
        source=V1EventSource(component=MANAGER_FIELDS),
        reporting_component=MANAGER_FIELDS,
    )
