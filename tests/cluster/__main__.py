"""`python -m tests.cluster`: a control plane to play with, until Ctrl-C."""

from __future__ import annotations

import signal

from tests.cluster.binaries import NotBuilt, build, kubernetes_version
from tests.cluster.control_plane import ControlPlane
from tests.cluster.folder import temporary_folder

MESSAGE = """\
Kubernetes {version} is up at {url}: API server, controllers and etcd, but no node, so no pod runs.

  export KUBECONFIG={kubeconfig}
  export PATH={programs}:$PATH
  kubectl api-resources

Its logs are in {folder}. Ctrl-C ends it, and nothing of it stays."""


def main() -> None:
    """Raise one, say how to use it, and wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with temporary_folder() as folder, ControlPlane(build(), folder) as cluster:
        values = {
            "kubeconfig": cluster.kubeconfig,
            "programs": cluster.programs,
            "folder": folder,
            "url": cluster.url,
        }
        print(MESSAGE.format(version=kubernetes_version(), **values), flush=True)
        signal.pause()


if __name__ == "__main__":
    try:
        main()
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
    except KeyboardInterrupt:
        print("\nended")
