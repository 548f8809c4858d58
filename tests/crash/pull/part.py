"""Real file systems, pulled away under load."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.planted.patches import REPOSITORY
from tests.crash.prove.part import Finding, Outcome, Part
from tests.crash.pull.disk import KINDS, PRIVATE, why_not

SECONDS_MAX = 120.0
TOLD_CHARACTERS = 3000


@dataclass(frozen=True)
class Pull:
    """One file system, pulled away once."""

    kind: str
    seed: int

    def run(self, folder: Path) -> Outcome:
        command = [*PRIVATE, sys.executable, "-m", "tests.crash.pull.cycle", self.kind, str(self.seed)]
        path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            command, cwd=folder, env=os.environ | {"PYTHONPATH": path},
            capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            what = f"{self.kind} pulled away, and afterwards:\n{done.stderr[-TOLD_CHARACTERS:]}"
            return Outcome(1, findings=[Finding(what, f"{self.kind} {self.seed}")])
        figures = json.loads(done.stdout.splitlines()[-1])
        return Outcome(1, facts=Counter({self.kind: 1} | figures))


def batches(depth: str, seed: int) -> Iterator[Pull]:
    """The kinds in turn, without end."""
    for number in itertools.count():
        for kind in KINDS:
            yield Pull(kind, 1000 * seed + number)


def again(text: str) -> Pull:
    """The case of a finding; the moment at which it is pulled differs a little each time."""
    kind, seed = text.split()
    return Pull(kind, int(seed))


PARTS = [
    Part(
        name="pulled-disks",
        unit="file systems pulled away",
        goals={"smoke": 0, "ci": 2, "night": 40},
        batches=batches,
        again=again,
        case_seconds=3.0,
        missing=why_not,
    )
]
