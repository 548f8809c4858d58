"""The images that the node runs, made here: no registry is asked for one.

`python -m tests.e2e.images` makes what is missing, which takes some minutes the first time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.go_module import cache, one_maker

ROOT = Path(__file__).parents[2]
IMAGE = "vecstow.test/vecstow:e2e"
DOCUMENTED_IMAGE = "docker.io/library/vecstow:0.2.0"
"""The name that Kubernetes makes of `vecstow:0.2.0`, the name in the docs and the examples."""
SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "python3")
INPUTS = (
    ".dockerignore",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "engine/vecstow_engine",
    "operator/vecstow_operator",
    "pyproject.toml",
    "requirements-build.lock",
    "requirements-image.lock",
)
"""The inputs of the project's image."""
KEPT = 2
"""How many archives of the project's image are kept, the newest ones: each is some 400 MB."""
STORE_BYTES_MAX = 10 << 30
"""Layers are kept for the next build; when they take more, all are rebuilt."""
PIP_OPTIONS = ("extra-index-url", "index-url", "proxy", "timeout", "trusted-host")
"""The settings of the machine's pip that a build needs."""


def archive() -> Path:
    """The project's image as a file that containerd imports, built when one of its inputs has changed."""
    wanted = cache() / f"image-{input_digest(ROOT)[:16]}.tar"
    with one_maker("images"):
        if not wanted.exists():
            _bound_store()
            _build(_base(), wanted)
        os.utime(wanted)
    for old in sorted(cache().glob("image-*.tar"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        old.unlink()
    return wanted


def input_digest(root: Path) -> str:
    """Over names and contents of all INPUTS, and what the base is made of."""
    digest = hashlib.sha256(_base_name().encode())
    for file in _files(root):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for name in INPUTS:
        path = root / name
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)


def _base_name() -> str:
    parts = " ".join([SUITE, *BASE_PACKAGES])
    return f"localhost/vecstow-base:{hashlib.sha256(parts.encode()).hexdigest()[:16]}"


def _bound_store() -> None:
    store = _store()
    if store.exists() and int(_run("du", "--summarize", "--bytes", str(store)).split()[0]) > STORE_BYTES_MAX:
        _buildah("rmi", "--all", "--force")


def _base() -> str:
    """The name of the base image in buildah's store: a small Debian with its own Python."""
    name = _base_name()
    if name in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return name
    print(f"making {name} by debootstrap: some minutes", flush=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="making-base-") as folder:
        include = f"--include={','.join(BASE_PACKAGES)}"
        _run("debootstrap", "--variant=minbase", include, SUITE, folder)
        for downloaded in (Path(folder) / "var" / "cache" / "apt").rglob("*.deb"):
            downloaded.unlink()
        container = _buildah("from", "scratch").strip()
        try:
            _buildah("add", "--quiet", container, folder)
            _buildah("commit", "--quiet", container, name)
        finally:
            _buildah("rm", container)
    return name


def _build(base: str, wanted: Path) -> None:
    print(f"building {IMAGE} into {wanted}", flush=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="building-") as temporary:
        pip = Path(temporary) / "pip.conf"
        pip.write_text(_pip_settings())
        secrets = {"pip": str(pip), "ca": ssl.get_default_verify_paths().cafile}
        _buildah(
            *["build", "--layers", "--network=host", "--timestamp=0", f"--build-arg=BASE_IMAGE={base}"],
            *[f"--secret=id={name},src={file}" for name, file in secrets.items() if file],
            *[f"--tag={IMAGE}", str(ROOT)],
        )
        made = Path(temporary) / "image.tar"
        _buildah("push", "--quiet", IMAGE, f"docker-archive:{made}:{IMAGE}")
        made.rename(wanted)


def _pip_settings() -> str:
    """A pip.conf of where this machine's pip finds packages, from its files and its environment alike."""
    listed = _run(sys.executable, "-m", "pip", "config", "list")
    settings = (line.partition("=") for line in listed.splitlines())
    known = {key.rpartition(".")[2]: value.strip("'") for key, _, value in settings}
    return "[global]\n" + "".join(f"{key} = {known[key]}\n" for key in PIP_OPTIONS if key in known)


def _store() -> Path:
    """Return the place of buildah's images and layers."""
    return cache() / "images"


def _buildah(*arguments: str) -> str:
    where = [f"--root={_store()}", f"--runroot={_store()}-run", "--storage-driver=overlay"]
    return _run("buildah", *where, *arguments)


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is missing: type `sh scripts/e2e-packages.sh`")
    # Nothing here is a container that must be kept in: a folder of its own is enough.
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    print(archive())
