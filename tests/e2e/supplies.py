"""The supplies of a node, all made here and kept in the cache.

`python -m tests.e2e.supplies` makes what is missing, which takes some minutes the first time.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import KUBERNETES
from tests.cluster.go_module import NotBuilt
from tests.e2e import images
from tests.e2e.programs import COREDNS, HELM, PAUSE

COMMANDS = (
    "buildah",
    "conntrack",
    "containerd",
    "debootstrap",
    "ip",
    "mkfs.xfs",
    "nft",
    "nsenter",
    "openssl",
    "runc",
)
"""Programs from the machine's own packages."""


@dataclass(frozen=True)
class Supplies:
    """Where each lies."""

    kubernetes: Path
    """The folder of its programs."""
    helm: Path
    coredns: Path
    pause: Path
    image: Path
    """The project's image, as a file."""


def supplies() -> Supplies:
    """All of it, made where it is missing; raises NotBuilt."""
    if missing := [command for command in COMMANDS if shutil.which(command) is None]:
        raise NotBuilt(f"missing: {', '.join(missing)}; type `sh scripts/e2e-packages.sh`")
    return Supplies(
        kubernetes=KUBERNETES.build(),
        helm=HELM.build() / HELM.name,
        coredns=COREDNS.build() / COREDNS.name,
        pause=PAUSE.build() / PAUSE.name,
        image=images.archive(),
    )


if __name__ == "__main__":
    try:
        print(supplies())
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
