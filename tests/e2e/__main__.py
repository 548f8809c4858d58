"""`python -m tests.e2e`: a Kubernetes with a node to play with, until Ctrl-C."""

from __future__ import annotations

import os
import signal

from tests.cluster.folder import temporary_folder
from tests.cluster.go_module import NotBuilt
from tests.e2e.images import IMAGE
from tests.e2e.node import Node
from tests.e2e.supplies import supplies

MESSAGE = """\
A node is Ready, with the image {image}. It is in a network of its own:

  nsenter --target={pid} --net -- env KUBECONFIG={kubeconfig} PATH={programs}:$PATH bash
  kubectl get pods --all-namespaces

Its files and logs are in {folder}. Ctrl-C ends it, and nothing of it stays."""


def main() -> None:
    """Raise one, say how to use it, and wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made = supplies()
    with temporary_folder() as folder, Node(made, folder) as node:
        values = {
            "image": IMAGE,
            "pid": os.getpid(),
            "kubeconfig": node.cluster.kubeconfig,
            "programs": f"{made.kubernetes}:{made.helm.parent}",
            "folder": folder,
        }
        print(MESSAGE.format(**values), flush=True)
        signal.pause()


if __name__ == "__main__":
    try:
        main()
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
    except KeyboardInterrupt:
        print("\nended")
