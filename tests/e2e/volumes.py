"""Volumes that a pod finds on the node: PersistentVolumes of kind `local`, made by hand as they must be."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.machine import Machine
from tests.e2e.settings import NODE

STORAGE_CLASS = "local"
SMALL_STORAGE_CLASS = "small"
SMALL_BYTES = 300 << 20
"""XFS takes no less."""


def storage_class(name: str) -> dict[str, object]:
    """A class without a provisioner, whose volumes are bound when a pod needs one."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": name,
            "annotations": {
                "storageclass.kubernetes.io/is-default-class": str(name == STORAGE_CLASS).lower()
            },
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def persistent_volume(name: str, path: Path, capacity: str, class_name: str) -> dict[str, object]:
    """A volume in the folder `path` of the node."""
    on_the_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": capacity},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": class_name,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_the_node]}]}},
        },
    }


class SmallFileSystem:
    """A file system so small that a test can fill it, in a file of the folder `folder`; it can grow."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._machine = machine
        self._file = folder / "disk"
        self.path = folder / "mounted"
        """Where the machine, and it alone, has the file system."""
        self.path.mkdir()
        with self._file.open("wb") as disk:
            disk.truncate(SMALL_BYTES)
        # XFS, for ext4 asks for CAP_SYS_RESOURCE to grow, which a container may lack.
        subprocess.run(["mkfs.xfs", "-q", self._file], check=True)

    def mount(self) -> None:
        """To be done after each start of the machine, as /etc/fstab would."""
        self._machine.run("mount", "-o", "loop", self._file, self.path)

    def grow(self, size_bytes: int) -> None:
        """Make it larger while it is in use."""
        with self._file.open("r+b") as disk:
            disk.truncate(size_bytes)
        device = self._machine.run("findmnt", "--noheadings", "--output=SOURCE", self.path).strip()
        self._machine.run("losetup", "--set-capacity", device)
        self._machine.run("xfs_growfs", self.path)
