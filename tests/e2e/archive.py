"""An image of one static program, written as `docker save` would, without a tool that builds images."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path


def write_archive(archive: Path, name: str, program: Path) -> None:
    """Write the image `name` into the file `archive`: it has `program` at its root, and starts it."""
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode="w") as layer:
        entry = tarfile.TarInfo(program.name)
        entry.mode, entry.size = 0o755, program.stat().st_size
        layer.addfile(entry, io.BytesIO(program.read_bytes()))
    digest = hashlib.sha256(inside.getvalue()).hexdigest()
    configuration = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as image:
        for member, content in (
            ("layer.tar", inside.getvalue()),
            ("config.json", json.dumps(configuration).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            image.addfile(entry, io.BytesIO(content))
