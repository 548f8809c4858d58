"""The programs that a real node needs next to Kubernetes, each built from a Go module in `go/`."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.binaries import KUBERNETES
from tests.cluster.go_module import GoModule

HERE = Path(__file__).with_name("go")
HINT = "type `python -m tests.e2e.programs`"

HELM = GoModule(
    title="Helm",
    name="helm",
    folder=HERE / "helm",
    hint=HINT,
    requirement="helm.sh/helm/v4",
    package="helm.sh/helm/v4/cmd/helm",
    variables={"helm.sh/helm/v4/internal/version.version": "{version}"},
)
HELM_DOCS = GoModule(
    title="helm-docs",
    name="helm-docs",
    folder=HERE / "helm-docs",
    hint="type `make charts`",
    requirement="github.com/norwoodj/helm-docs",
    package="github.com/norwoodj/helm-docs/cmd/helm-docs",
)
COREDNS = GoModule(
    title="CoreDNS",
    name="coredns",
    folder=HERE / "coredns",
    hint=HINT,
    requirement="github.com/coredns/coredns",
)
# What Argo CD runs health checks with.
GLUA = GoModule(
    title="gopher-lua",
    name="glua",
    folder=HERE / "glua",
    hint=HINT,
    requirement="github.com/yuin/gopher-lua",
    package="github.com/yuin/gopher-lua/cmd/glua",
)
PAUSE = GoModule(title="The pause container", name="pause", folder=HERE / "pause", hint=HINT)
ALL = (KUBERNETES, HELM, COREDNS, PAUSE)


def build_all() -> None:
    """Build what is missing: some minutes the first time, and nothing later."""
    for module in ALL:
        module.build()


if __name__ == "__main__":
    build_all()
