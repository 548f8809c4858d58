"""A machine in the machine: processes and mounts of its own, which a power cut ends all at once."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.programs import Program

START_SECONDS_MAX = 20.0
END_SECONDS_MAX = 60.0
POLL_SECONDS = 0.02
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PREFIX = "vecstow-node-"
"""The number of the process that raised it follows, and what tells its machines apart."""
INIT = """\
set -eu
mount -t tmpfs -o mode=755 run /run
mount -t overlay -o lowerdir=/var,upperdir="$1/upper",workdir="$1/work" overlay /var
for kept in containerd kubelet; do
    mkdir -p /var/lib/$kept
    mount --bind "$1/$kept" /var/lib/$kept
done
: >"$1/started"
exec "$2"
"""
"""Steps of the first process before it reaps others. /run is new with each start. A folder of the machine
holds what is written to /var. Containers lie on no overlay, which the kernel would refuse."""


class Machine:
    """One machine. `folder` is for its disk; `init` is a program that reaps, and never ends."""

    def __init__(self, folder: Path, init: Path) -> None:
        self.folder = folder
        self.cgroup = f"{CGROUP_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        for part in ("upper", "work", "containerd", "kubelet"):
            (folder / part).mkdir(parents=True)
        script = ["sh", "-c", INIT, "init", str(folder), str(init)]
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        self._init = Program([*spaces, *script], folder / "init.log")
        self._programs: list[Program] = []
        self._started = folder / "started"
        self.pid = 0
        """Pid of the first process, seen from outside; 0 while the machine is off."""

    def start(self) -> None:
        """Switch on, and return when its file systems are there; raises StartFailed."""
        make_cgroups(self.cgroup)
        self._started.unlink(missing_ok=True)
        self._init.start()
        self._init.wait_until(self._started.exists, START_SECONDS_MAX)
        outer = self._init.pid
        self.pid = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])

    def cut_power(self) -> None:
        """SIGKILL to every process at once, and return when all are gone, and with them every mount."""
        if self.pid:
            first = os.pidfd_open(self.pid)
            os.kill(self.pid, signal.SIGKILL)
            gone, _, _ = select.select([first], [], [], END_SECONDS_MAX)
            os.close(first)
            assert gone, "the kernel could not end the machine"
            self.pid = 0
        for program in [*self._programs, self._init]:
            program.kill()
        self._programs.clear()
        remove_cgroups(self.cgroup)

    def start_program(self, *command: str | Path) -> Program:
        """Start a program, and do not wait; its log is named after it. It ends with the machine."""
        bound = ["setpriv", "--pdeathsig=KILL", "--", *command]
        program = Program(self.command(*bound), self.folder / f"{Path(command[0]).name}.log")
        self._programs.append(program)
        program.start()
        return program

    def run(self, *command: str | Path, input: str | None = None) -> str:
        """Run a command inside and return its output; raise CalledProcessError."""
        done = subprocess.run(self.command(*command), check=True, capture_output=True, text=True, input=input)
        return done.stdout

    def path(self, inside: str | Path) -> Path:
        """Where a path of the machine's is to be found from outside, while it is on."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def command(self, *command: str | Path) -> list[str | Path]:
        """A command that runs `command` inside."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--", *command]


def cgroup_folders(name: str) -> list[Path]:
    """The folders of a cgroup, one for each controller; `name` may be a pattern."""
    return list(CGROUPS.glob(f"*/{name}"))


def make_cgroups(name: str) -> None:
    """Make that under which all pods are: kubelet wants it there. What dead processes left is removed."""
    for left in cgroup_folders(f"{CGROUP_PREFIX}*"):
        if not Path(f"/proc/{left.name.removeprefix(CGROUP_PREFIX).split('-')[0]}").exists():
            remove_cgroups(left.name)
    for controller in CGROUPS.iterdir():
        (controller / name).mkdir(exist_ok=True)


def remove_cgroups(name: str) -> None:
    """Remove it with all below, each when its last process is gone, which takes the kernel a moment."""
    deadline = time.monotonic() + END_SECONDS_MAX
    for top in cgroup_folders(name):
        below = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        for folder in [*below, top]:
            while folder.is_dir():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_SECONDS)
