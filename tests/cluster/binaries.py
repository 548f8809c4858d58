"""The programs of a Kubernetes cluster, built from the Go module in `binary/` and kept for every later run.

`python -m tests.cluster.binaries` builds them where they are missing, which takes some minutes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULE = Path(__file__).with_name("binary")
BINARY = "kubernetes"
PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
"""The names that `binary/main.go` knows: links to the one binary."""


class NotBuilt(Exception):
    """Raised when the programs are missing and are not, or cannot be, built; its message says what to do."""


def kubernetes_version() -> str:
    """The version that the module requires, as `v1.2.3`."""
    required = re.search(r"^\s+k8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert required is not None
    return required[1]


def place() -> Path:
    """The folder of the programs, whether it is there or not: another module has another one."""
    digest = hashlib.sha256()
    for file in sorted(MODULE.iterdir()):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return _cache() / f"kubernetes-{kubernetes_version()}-{digest.hexdigest()[:16]}"


def built() -> Path:
    """The folder of the programs. Never builds: raises NotBuilt."""
    folder = place()
    if not folder.is_dir():
        raise NotBuilt(
            f"Kubernetes {kubernetes_version()} is not built: "
            "type `make test-operator` or `make cluster`, with Go 1.26 or newer on the PATH"
        )
    return folder


def build() -> Path:
    """The folder of the programs, built when it is missing. Of two callers, one waits for the other."""
    folder = place()
    with _one_builder():
        if not folder.is_dir():
            _build(folder)
    return folder


def _build(folder: Path) -> None:
    if shutil.which("go") is None:
        raise NotBuilt(
            f"Kubernetes {kubernetes_version()} is built with Go 1.26 or newer, which is not on the PATH: https://go.dev/dl/"
        )
    print(f"building Kubernetes {kubernetes_version()} into {folder}: some minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as temporary:
        made = Path(temporary) / "programs"
        made.mkdir()
        subprocess.run(
            [
                "go",
                "build",
                "-trimpath",
                "-buildvcs=false",
                "-mod=readonly",
                "-ldflags",
                _link_flags(),
                "-o",
                made / BINARY,
                ".",
            ],
            cwd=MODULE,
            env=os.environ | {"CGO_ENABLED": "0"},
            check=True,
        )
        for program in PROGRAMS:
            (made / program).symlink_to(BINARY)
        made.rename(folder)


def _link_flags() -> str:
    """Without its version in the binary, the API server calls itself v0.0.0."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(
        ["-s -w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())]
    )


def _cache() -> Path:
    return Path.home() / ".cache" / "vecstow"


@contextmanager
def _one_builder() -> Iterator[None]:
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / "kubernetes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(build())
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
