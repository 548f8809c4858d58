"""The programs of a Kubernetes cluster, built from the Go module in `binary/` and kept for every later run.

`python -m tests.cluster.binaries` builds them where they are missing, which takes some minutes.
"""

from __future__ import annotations

from pathlib import Path

from tests.cluster.go_module import GoModule, NotBuilt

__all__ = ["KUBERNETES", "NotBuilt", "build", "built", "kubernetes_version"]

KUBERNETES = GoModule(
    title="Kubernetes",
    name="kubernetes",
    folder=Path(__file__).with_name("binary"),
    hint="type `make test-operator` or `make cluster`",
    requirement="k8s.io/kubernetes",
    # The names that `binary/main.go` knows.
    links=(
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "kubectl",
        "kubelet",
    ),
    variables={
        "k8s.io/component-base/version.gitVersion": "{version}",
        "k8s.io/component-base/version.gitMajor": "{major}",
        "k8s.io/component-base/version.gitMinor": "{minor}",
    },
)


def kubernetes_version() -> str:
    """The version that the module requires, as `v1.2.3`."""
    return KUBERNETES.version


def built() -> Path:
    """The folder of the programs. Never builds: raises NotBuilt."""
    return KUBERNETES.built()


def build() -> Path:
    """The folder of the programs, built when it is missing. Of two callers, one waits for the other."""
    return KUBERNETES.build()


if __name__ == "__main__":
    try:
        print(build())
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
