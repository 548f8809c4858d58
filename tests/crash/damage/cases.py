"""Which file is damaged, in which way and where: decided by a seed and a number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from random import Random

from tests.crash.damage.kinds import KINDS, NotThis, Sources, damaged
from tests.crash.damage.volume import Volume

DRAWS_MAX = 4
WRITTEN_SHARE = 0.35
"""Share of the cases in which the damaged volume is written to, and started once more."""


@dataclass(frozen=True)
class Case:
    """One damaged file, and what is done with the volume then."""

    label: str
    kind: str
    content: bytes | None
    """The file's content after the damage; None: the file is gone."""
    seed: str
    """The seed of all that is drawn later."""
    writes: bool
    """Points are written afterwards."""

    def __str__(self) -> str:
        return f"{self.kind} of {self.label}"


def make_case(volume: Volume, seed: int, number: int, only: str = "") -> Case:
    """Case `number` of a seed: all files and kinds in a shuffled order, then all again, at other places.

    `only`: files whose label has this in it.
    """
    pairs = [(label, kind) for label in volume.labels if only in label for kind in KINDS]
    round_, place = divmod(number, len(pairs))
    Random(f"{seed} {round_}").shuffle(pairs)
    label, kind = pairs[place]
    chance = Random(f"{seed} {number}")
    kind, content = _damaged(volume, label, [kind, *chance.sample(list(KINDS), len(KINDS))], chance)
    return Case(label, kind, content, f"{seed} {number} then", chance.random() < WRITTEN_SHARE)


def _damaged(volume: Volume, label: str, kinds: Sequence[str], chance: Random) -> tuple[str, bytes | None]:
    """By the first kind that changes this file."""
    path = volume.labels[label]
    sources = Sources(volume.older.get(path, ()), _of_others(volume, label))
    for kind in kinds:
        for _ in range(DRAWS_MAX):
            try:
                return kind, damaged(kind, volume.files[path], chance, sources)
            except NotThis:
                continue
    raise AssertionError(f"{label} cannot be damaged")


def _of_others(volume: Volume, label: str) -> list[bytes]:
    """Files of the same sort in other collections' folders or logs."""
    wanted = PurePath(label)
    return [
        volume.files[path]
        for other, path in volume.labels.items()
        if PurePath(other).parent != wanted.parent
        and (PurePath(other).name == wanted.name or PurePath(other).suffix == wanted.suffix == ".log")
    ]
