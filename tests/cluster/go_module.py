"""Programs that are built from a Go module of this repository, and kept for every later run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(".cache") / "vecstow"
"""Under the home folder: what is made once and kept."""


class NotBuilt(Exception):
    """Raised when the programs are missing and are not, or cannot be, built; its message says what to do."""


@dataclass(frozen=True)
class GoModule:
    """A folder with `go.mod` and `go.sum`, and the one binary that comes of it."""

    title: str
    """The name that people use."""
    name: str
    """The binary's."""
    folder: Path
    hint: str
    """The command to type when the binary is missing."""
    requirement: str = ""
    """The module in `go.mod` whose version is the binary's; none when the code lies in `folder` itself."""
    package: str = "."
    links: tuple[str, ...] = ()
    """More names of the binary, which goes by what it is called."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Go variables that tell the binary its version: {version}, {major} and {minor} are filled in."""

    @property
    def version(self) -> str:
        """As `v1.2.3`; empty without a `requirement`."""
        if not self.requirement:
            return ""
        line = rf"^(?:require)?\s+{re.escape(self.requirement)} (v\S+)( // indirect)?$"
        required = re.search(line, (self.folder / "go.mod").read_text(), re.MULTILINE)
        assert required is not None
        return required[1]

    def place(self) -> Path:
        """The folder of the programs, whether it is there or not: a changed module has another one."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.iterdir()):
            content = file.read_bytes()
            digest.update(f"{file.name} {len(content)}\n".encode() + content)
        return cache() / "-".join(filter(None, [self.name, self.version, digest.hexdigest()[:16]]))

    def built(self) -> Path:
        """The folder of the programs. Never builds: raises NotBuilt."""
        folder = self.place()
        if not folder.is_dir():
            raise NotBuilt(f"{self.full_name} is not built: {self.hint}, with Go 1.26 or newer on the PATH")
        return folder

    def build(self) -> Path:
        """The folder of the programs, built when it is missing. Of two callers, one waits for the other."""
        folder = self.place()
        with one_maker(self.name):
            if not folder.is_dir():
                self._build(folder)
        return folder

    @property
    def full_name(self) -> str:
        """The title, and the version where there is one."""
        return f"{self.title} {self.version}".strip()

    def _build(self, folder: Path) -> None:
        if shutil.which("go") is None:
            raise NotBuilt(
                f"{self.full_name} is built with Go 1.26 or newer, which is not on the PATH: https://go.dev/dl/"
            )
        print(f"building {self.full_name} into {folder}: some minutes", flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as temporary:
            made = Path(temporary) / "programs"
            made.mkdir()
            command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
            subprocess.run(
                [*command, "-ldflags", self._link_flags(), "-o", made / self.name, self.package],
                cwd=self.folder,
                env=os.environ | {"CGO_ENABLED": "0"},
                check=True,
            )
            for link in self.links:
                (made / link).symlink_to(self.name)
            made.rename(folder)

    def _link_flags(self) -> str:
        """Without its version in the binary, a program calls itself v0.0.0."""
        major, minor = [*self.version.removeprefix("v").split("."), ""][:2]
        parts = {"version": self.version, "major": major, "minor": minor}
        told = [f"-X {name}={value.format(**parts)}" for name, value in self.variables.items()]
        return " ".join(["-s -w", *told])


def cache() -> Path:
    """The folder of all that is kept."""
    return Path.home() / CACHE


@contextmanager
def one_maker(name: str) -> Iterator[None]:
    """Hold the lock of the process that makes `name`. A second process waits, and then finds `name` made."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
