"""The preloaded library: what it counts, what it lets happen, and that it misses nothing."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.faults.control import ALWAYS, Action, Call, Control, Fault, Kind
from tests.crash.faults.faulty_engine import FaultyEngine, poll
from tests.crash.faults.library import library, missing
from tests.crash.faults.workload import Workload
from tests.engine_process import VECSTOW

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

OPENED = "import os; fd = os.open('f', os.O_RDWR)\n"
"""In a folder where the file `f` holds ten bytes."""


class Program:
    """Python code that runs with the library, in the folder that it watches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.folder.mkdir()
        (self.folder / "f").write_bytes(b"0123456789")
        self.control = Control(folder / "control")

    def run(self, code: str, fault: Fault | None = None) -> tuple[int, str]:
        """Exit code, and what it wrote to its standard output."""
        if fault is not None:
            self.control.arm(fault)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            env=os.environ | self.control.environment(library(), self.folder),
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.strip()

    def changes(self) -> list[Call]:
        return [call for call in self.control.calls() if call.kind is not Kind.OPEN]

    @property
    def content(self) -> bytes:
        return (self.folder / "f").read_bytes()


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path.resolve())


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (OPENED + "os.write(fd, b'x')", [Call(Kind.WRITE, "f")]),
        (OPENED + "os.pwrite(fd, b'x', 3)", [Call(Kind.WRITE, "f")]),
        (OPENED + "os.writev(fd, [b'x', b'y'])", [Call(Kind.WRITE, "f")]),
        (OPENED + "os.pwritev(fd, [b'x', b'y'], 3)", [Call(Kind.WRITE, "f")]),
        (OPENED + "os.pwritev(fd, [b'x', b'y'], 3, os.RWF_DSYNC)", [Call(Kind.WRITE, "f")]),
        (OPENED + "os.ftruncate(fd, 3)", [Call(Kind.TRUNCATE, "f")]),
        ("import os; os.truncate('f', 3)", [Call(Kind.TRUNCATE, "f")]),
        (OPENED + "os.posix_fallocate(fd, 0, 99)", [Call(Kind.ALLOCATE, "f")]),
        (OPENED + "os.fsync(fd)", [Call(Kind.FSYNC, "f")]),
        (OPENED + "os.fdatasync(fd)", [Call(Kind.FDATASYNC, "f")]),
        ("import os; os.open('n', os.O_WRONLY | os.O_CREAT)", [Call(Kind.CREATE, "n")]),
        ("import os; os.open('f', os.O_WRONLY | os.O_TRUNC)", [Call(Kind.CREATE, "f")]),
        ("open('n', 'wb').write(b'x')", [Call(Kind.CREATE, "n"), Call(Kind.WRITE, "n")]),
        ("import os; os.rename('f', 'g')", [Call(Kind.RENAME, "f -> g")]),
        ("import os; os.link('f', 'g')", [Call(Kind.LINK, "f -> g")]),
        ("import os; os.unlink('f')", [Call(Kind.UNLINK, "f")]),
        ("import os; os.mkdir('n'); os.rmdir('n')", [Call(Kind.MKDIR, "n"), Call(Kind.RMDIR, "n")]),
        (
            "import os; d = os.open('.', os.O_RDONLY); os.rename('f', 'g', src_dir_fd=d, dst_dir_fd=d)",
            [Call(Kind.RENAME, "./f -> ./g")],
        ),
        (
            "import os; os.mkdir('n'); d = os.open('n', os.O_RDONLY)\n"
            "os.mkdir('m', dir_fd=d); os.open('o', os.O_CREAT, dir_fd=d)\n"
            "os.unlink('o', dir_fd=d); os.rmdir('m', dir_fd=d)",
            [
                Call(Kind.MKDIR, "n"),
                Call(Kind.MKDIR, "n/m"),
                Call(Kind.CREATE, "n/o"),
                Call(Kind.UNLINK, "n/o"),
                Call(Kind.RMDIR, "n/m"),
            ],
        ),
    ],
)
def test_each_call_is_counted_with_its_kind_and_path(program, code, calls):
    assert program.run(code)[0] == 0
    assert [Call(call.kind, call.path.replace("/./", "/")) for call in program.changes()] == [
        Call(call.kind, call.path.replace("./", "")) for call in calls
    ]


def test_what_lies_beside_the_folder_is_not_counted(program):
    beside = program.folder.with_name("data.log")
    code = f"import os; fd = os.open({str(beside)!r}, os.O_CREAT | os.O_WRONLY); os.write(fd, b'x')"
    assert program.run(code, Fault(Action.FAIL, 1, times=ALWAYS))[0] == 0
    assert (program.control.total, beside.read_bytes()) == (0, b"x")


def test_threads_and_forked_children_count_together(program):
    code = OPENED + (
        "import threading\n"
        "def work(): [os.pwrite(fd, b'x', 0) for _ in range(50)]\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "child = os.fork()\n"
        "work()\n"
        "child and os.waitpid(child, 0)"
    )
    assert program.run(code)[0] == 0
    assert Counter(program.changes()) == {Call(Kind.WRITE, "f"): 300}


TRIED = OPENED + (
    "told = []\n"
    "for number in range(4):\n"
    "    try: told.append(os.pwrite(fd, b'abcdefgh', 0))\n"
    "    except OSError as error: told.append(-error.errno)\n"
    "print(*told)"
)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(Action.FAIL, 2), "8 -5 8 8"),
        (Fault(Action.FAIL, 2, number=errno.ENOSPC), "8 -28 8 8"),
        (Fault(Action.FAIL, 2, times=ALWAYS), "8 -5 -5 -5"),
        (Fault(Action.FAIL, 1, (Kind.FSYNC,)), "8 8 8 8"),
        (Fault(Action.FAIL, 1, pattern="elsewhere"), "8 8 8 8"),
        (Fault(Action.FAIL, 1, pattern="f"), "-5 8 8 8"),
        (Fault(Action.CUT, 2), "8 4 8 8"),
        (Fault(Action.CUT, 2, bytes=1, times=ALWAYS), "8 1 1 1"),
        (Fault(Action.CUT_THEN_FAIL, 2, times=2, number=errno.ENOSPC), "8 4 -28 8"),
        (Fault(Action.FAIL, 2, number=errno.EINTR), "8 8 8 8"),
    ],
)
def test_the_nth_call_fails_or_is_cut_short(program, fault, told):
    assert program.run(TRIED, fault) == (0, told)
    assert program.control.fired == len(told.split()) - told.split().count("8") + (
        fault.number == errno.EINTR
    )


def test_a_failed_call_is_not_made(program):
    program.run(TRIED, Fault(Action.FAIL, 1, times=ALWAYS))
    assert program.content == b"0123456789"


def test_a_file_of_many_parts_is_cut_across_them(program):
    code = OPENED + "print(os.pwritev(fd, [b'abc', b'def', b'ghi'], 0))"
    assert program.run(code, Fault(Action.CUT, 1, bytes=5)) == (0, "5")
    assert program.content == b"abcde56789"


@pytest.mark.parametrize(
    ("action", "content"),
    [
        (Action.KILL_BEFORE, b"0123456789"),
        (Action.KILL_TORN, b"abcd456789"),
        (Action.KILL_AFTER, b"abcdefgh89"),
    ],
)
def test_the_process_dies_before_in_or_after_a_call(program, action, content):
    code = OPENED + "os.pwrite(fd, b'abcdefgh', 0)\nos.unlink('f')"
    assert program.run(code, Fault(action, 1)) == (-signal.SIGKILL, "")
    assert program.content == content
    assert program.control.victim == Call(Kind.WRITE, "f")


def test_a_forked_child_that_is_killed_takes_its_parent_along(program):
    code = OPENED + (
        "child = os.fork()\n"
        "if child == 0: os.pwrite(fd, b'x', 0); os._exit(0)\n"
        "os.waitpid(child, 0); print('alive')"
    )
    assert program.run(code, Fault(Action.KILL_BEFORE, 1)) == (-signal.SIGKILL, "")


def test_a_driver_without_its_control_file_is_no_test_without_faults(program):
    program.control.path.unlink()
    assert program.run("pass")[0] == -signal.SIGABRT


# Nothing is missed ---------------------------------------------------------------------------------------

KINDS = {
    "write": Kind.WRITE, "pwrite64": Kind.WRITE, "writev": Kind.WRITE, "pwritev": Kind.WRITE,
    "pwritev2": Kind.WRITE, "ftruncate": Kind.TRUNCATE, "truncate": Kind.TRUNCATE,
    "fallocate": Kind.ALLOCATE, "rename": Kind.RENAME, "renameat": Kind.RENAME, "renameat2": Kind.RENAME,
    "unlink": Kind.UNLINK, "unlinkat": Kind.UNLINK, "rmdir": Kind.RMDIR, "mkdir": Kind.MKDIR,
    "mkdirat": Kind.MKDIR, "link": Kind.LINK, "linkat": Kind.LINK, "fsync": Kind.FSYNC,
    "fdatasync": Kind.FDATASYNC, "open": Kind.OPEN, "openat": Kind.OPEN, "creat": Kind.CREATE,
}  # fmt: skip
OTHERS = (
    "sync_file_range", "msync", "sendfile", "copy_file_range", "splice", "symlink", "symlinkat", "openat2",
    "mknod", "mknodat", "sync", "syncfs", "io_submit",
)  # fmt: skip
"""Ways to change a volume that the library does not know."""


class TracedEngine(FaultyEngine):
    """A server under the library and strace at once."""

    @property
    def trace(self) -> Path:
        return self.data.with_name("trace")

    def launch(self) -> None:
        command = ["strace", "-D", "-f", "-y", "-s", "0", "-o", self.trace]
        command += ["-e", "trace=" + ",".join([*KINDS, *OTHERS])]
        for name, value in self.environment.items():
            command += ["-E", f"{name}={value}"]
        command += [VECSTOW, "serve", "--data", self.data, "--port", str(self.port), *self.flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def traced(self) -> Counter[Kind]:
        """The calls on the volume, once strace has written all of them."""
        process = self.process
        assert process is not None
        assert self.stop() == 0
        last = re.compile(rf"^{process.pid} +\+\+\+ exited", re.MULTILINE)
        poll(lambda: last.search(self.trace.read_text()) is not None, "strace does not write all")
        on_volume = re.compile(rf'{re.escape(str(self.data))}(/|"|>)')
        lines = [line for line in self.trace.read_text().splitlines() if on_volume.search(line)]
        return Counter(_kind(line) for line in lines if "resumed>" not in line)


def _kind(line: str) -> Kind:
    match = re.match(r"\d+ +(\w+)\(", line)
    assert match is not None, line
    assert match[1] not in OTHERS, f"the library does not know {line}"
    kind = KINDS[match[1]]
    if kind is Kind.OPEN and re.search(r"O_(CREAT|TRUNC|TMPFILE)", line):
        return Kind.CREATE
    if kind is Kind.UNLINK and "AT_REMOVEDIR" in line:
        return Kind.RMDIR
    return kind


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_round_has_no_call_that_the_library_misses(tmp_path):
    folder = tmp_path.resolve()
    workload = Workload(1, folder / "outside" / "orphan")
    with TracedEngine(folder / "data", *workload.flags) as engine:
        assert engine.comes_up()
        workload.connect(engine.port)
        workload.found()
        workload.tidy(engine.data)
        for _, act in workload.steps():
            act()
        workload.disconnect()
        traced = engine.traced()
        counted = Counter(call.kind for call in engine.control.calls())
    assert counted == traced
    assert not set(Kind) - counted.keys()
