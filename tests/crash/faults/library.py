"""The preloaded library, compiled once for each version of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("fault.c")
COMPILED = Path(tempfile.gettempdir()) / f"vecstow-faults-{os.getuid()}"
FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")


def missing() -> str | None:
    """Why it cannot be compiled here; None: it can."""
    return "gcc is not installed" if shutil.which("gcc") is None else None


def library() -> Path:
    """The compiled library."""
    digest = hashlib.blake2b(SOURCE.read_bytes() + " ".join(FLAGS).encode(), digest_size=8).hexdigest()
    path = COMPILED / f"{digest}.so"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        unnamed = path.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", *FLAGS, "-o", unnamed, SOURCE, "-ldl"], check=True)
        unnamed.rename(path)  # another worker may have made it meanwhile: the same
    return path
