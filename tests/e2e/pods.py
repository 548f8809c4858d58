"""Pods of the project's image, as Pod Security `restricted` wants them."""

from __future__ import annotations

from typing import Any

from tests.e2e.images import IMAGE

USER = 65532


def pod(name: str, *command: str) -> dict[str, Any]:
    """A pod that runs `command` once."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(*command) | {"restartPolicy": "Never"},
    }


def pod_spec(*command: str) -> dict[str, Any]:
    """Return the spec that one container `main` needs to be admitted; its root is read-only."""
    may = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {"name": "main", "image": IMAGE, "command": list(command), "securityContext": may}
    return {
        "containers": [container],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def service(name: str, port: int) -> dict[str, Any]:
    """A Service of the pods of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


def stateful_set(name: str, storage_class: str, *command: str) -> dict[str, Any]:
    """One pod that runs `command`, with a volume of its own at /data."""
    spec = pod_spec(*command)
    spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": "10Mi"}},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            "volumeClaimTemplates": [claim],
        },
    }
