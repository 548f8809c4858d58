"""Planted bugs: patches of the engine, each with a head that says what it breaks and what must catch it.

A patch is a unified diff. It is applied by its text alone, which must stand in the file exactly once: line
numbers may be old, and nothing is guessed.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
FOLDER = Path(__file__).parent
_FIELD = re.compile(r"^(breaks|caught by|with|says): (.+)$", re.MULTILINE)
_FILE = re.compile(r"^--- a/(\S+)\n\+\+\+ b/\1\n", re.MULTILINE)
_HUNK = re.compile(r"^@@ .* @@.*\n", re.MULTILINE)


class DoesNotApply(Exception):
    """Raised when the code has moved on: the patch must follow it."""


@dataclass(frozen=True)
class Change:
    """One place of one file."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class PlantedBug:
    """A mistake that a person might make, and how it must come to light."""

    name: str
    story: str
    breaks: str
    """The promise."""
    part: str
    """The part of the proof that must find it."""
    arguments: tuple[str, ...]
    """Arguments of that part that make it quick."""
    says: str
    """Arguments of that part that make it quick."""
    changes: tuple[Change, ...]


def planted_bugs() -> list[PlantedBug]:
    """All of them, by their numbers."""
    return [read_bug(path) for path in sorted(FOLDER.glob("*.patch"))]


def read_bug(path: Path) -> PlantedBug:
    """The bug of a patch file; a head that lacks something is a KeyError."""
    text = path.read_text()
    head, *rest = _FILE.split(text)
    fields = dict(_FIELD.findall(head))
    changes = [
        change for file, hunks in zip(rest[::2], rest[1::2], strict=True) for change in _changes(file, hunks)
    ]
    return PlantedBug(
        path.stem, head.partition("\n\n")[0], fields["breaks"], fields["caught by"],
        tuple(shlex.split(fields.get("with", ""))), fields["says"], tuple(changes),
    )  # fmt: skip


def plant(bug: PlantedBug, folder: Path) -> Path:
    """A copy of `engine/` in `folder` that has the bug; returns what to put first on the path."""
    engine = folder / "engine"
    shutil.copytree(REPOSITORY / "engine", engine, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for change in bug.changes:
        apply(change, folder)
    return engine


def apply(change: Change, folder: Path) -> None:
    """Make one change; raises DoesNotApply unless its place is there once."""
    path = folder / change.file
    text = path.read_text()
    places = text.count(change.before)
    if places != 1:
        raise DoesNotApply(f"{change.file} has this {places} times:\n{change.before}")
    path.write_text(text.replace(change.before, change.after))


def _changes(file: str, hunks: str) -> list[Change]:
    return [Change(file, _side(hunk, "-"), _side(hunk, "+")) for hunk in _HUNK.split(hunks)[1:]]


def _side(hunk: str, sign: str) -> str:
    """The lines of a hunk before or after; an empty one is an empty line of both."""
    lines = hunk.splitlines(keepends=True)
    return "".join(
        line[1:] if line[0] in (sign, " ") else line for line in lines if line[0] in (sign, " ", "\n")
    )
