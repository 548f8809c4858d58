"""`python -m tests.e2e`: a Kubernetes with a node, and Vecstow installed on it, to play with until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.cluster.folder import temporary_folder
from tests.cluster.go_module import NotBuilt
from tests.e2e.images import DOCUMENTED_IMAGE, IMAGE
from tests.e2e.node import Node
from tests.e2e.release import Release, install_crds, make_namespace
from tests.e2e.supplies import supplies

MESSAGE = """\
A node is up, and Vecstow on it. The node is in a network of its own; a shell that sees it:

  nsenter --target={pid} --net -- env KUBECONFIG={kubeconfig} PATH={path} VECSTOW_API_KEY={key} bash

and in it, for example:

  kubectl get pods
  kubectl apply --filename examples/kubernetes/collection.yaml
  kubectl wait --for=condition=Ready vcol/app-notes
  kubectl apply --filename examples/kubernetes/fill.yaml
  kubectl wait --for=condition=Complete job/fill && kubectl logs job/fill
  kubectl vecstow status
  kubectl port-forward service/vecstow 3030 &
  vecstow ls

Its files and logs are in {folder}. Ctrl-C ends it, and nothing of it stays."""


def main() -> None:
    """Raise one, install, say how to use it, and wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made = supplies()
    with temporary_folder() as folder, Node(made, folder) as node:
        install_crds(node)
        release = Release(node, make_namespace(node, "vecstow"))
        release.make_keys()
        release.install()
        # What examples/kubernetes/fill.yaml asks for.
        node.tag_image(IMAGE, DOCUMENTED_IMAGE)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vecstow-app"}}
        release.apply(secret | {"stringData": {"key": release.keys["app"]}})
        release.kubectl("config", "set-context", "--current", f"--namespace={release.namespace}")
        values = {
            "pid": os.getpid(),
            "kubeconfig": node.cluster.kubeconfig,
            "path": f"{made.kubernetes}:{made.helm.parent}:{Path(sys.executable).parent}:$PATH",
            "key": release.keys["admin"],
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
