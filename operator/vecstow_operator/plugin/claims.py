"""The PersistentVolumeClaims of engines, and their part in a line of `status`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from vecstow_operator.plugin.status_lines import WHOLE, Line
from vecstow_operator.vocabulary import Label, Reason

VOLUME: Final = "data"
"""The name of the engine's volume in its pod."""
TERMINATING: Final = "ClaimTerminating"
RECIPE: Final = 'docs/operations.md, "The volume of before"'
_LOSSES: Final = (Reason.VOLUME_REPLACED.value, Reason.DATA_MISSING.value)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim that an engine's pod mounts."""

    name: str
    volume: str
    """The PersistentVolume."""
    is_ending: bool


def claims_of(api: client.ApiClient, namespace: str, pods: Iterable[Any]) -> dict[str, Claim]:
    """Return the claim of each engine, by its name; those that the caller may not read are left out."""
    core, found = client.CoreV1Api(api), {}
    for pod in pods:
        for name in _names(pod):
            try:
                claim: Any = core.read_namespaced_persistent_volume_claim(name, namespace)
            except ApiException:
                continue
            is_ending = claim.metadata.deletion_timestamp is not None
            volume = claim.spec.volume_name or "none"
            found[pod.metadata.labels[Label.ENGINE]] = Claim(name, volume, is_ending)
    return found


def _names(pod: Any) -> Iterator[str]:
    for volume in pod.spec.volumes or ():
        if volume.name == VOLUME and volume.persistent_volume_claim is not None:
            yield volume.persistent_volume_claim.claim_name


def with_claims(lines: Iterable[Line], claims: Mapping[str, Claim]) -> Iterator[Line]:
    """Yield each line, with the facts about the claim of its engine that matter to it."""
    for line in lines:
        claim = claims.get(line.engine)
        yield line if claim is None else _with_claim(line, claim)


def _with_claim(line: Line, claim: Claim) -> Line:
    if claim.is_ending and line.reason in (*WHOLE, *_LOSSES):
        return dataclasses.replace(
            line,
            reason=TERMINATING if line.reason in WHOLE else line.reason,
            message=f"claim {claim.name} is being deleted, and goes when the pod ends, with PersistentVolume "
            f"{claim.volume} where its reclaim policy is Delete; {RECIPE}, keeps it",
            next_command=f"kubectl patch pv {claim.volume} --patch "
            """'{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}'""",
        )
    if line.reason in _LOSSES:
        bound = f"claim {claim.name} is bound to PersistentVolume {claim.volume}; {RECIPE}, binds another"
        return dataclasses.replace(line, message=f"{line.message}; {bound}", next_command="kubectl get pv")
    return line
