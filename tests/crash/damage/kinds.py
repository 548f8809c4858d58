"""Ways to damage a file: pure functions from its bytes to others. None takes the file away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

PAGE = 4096
SECTOR = 512
HEAD = 128
"""Headers are small, and a place drawn from the whole file seldom hits one."""


@dataclass(frozen=True)
class Sources:
    """Other contents that a damaged file may have instead of its own."""

    older: Sequence[bytes] = ()
    """Earlier contents of the file."""
    others: Sequence[bytes] = ()
    """The file of the same name of other collections."""


Kind: TypeAlias = Callable[[bytes, Random, Sources], "bytes | None"]
"""Raises NotThis where it would change nothing."""


class NotThis(Exception):
    """Raised when this kind of damage is none to this file."""


def place_in(raw: bytes, chance: Random) -> int:
    """Anywhere, near the beginning, or near the end."""
    if not raw:
        raise NotThis
    near = min(HEAD, len(raw))
    return chance.choice(
        (
            chance.randrange(len(raw)),
            chance.randrange(len(raw)),
            chance.randrange(near),
            -1 - chance.randrange(near),
        )
    ) % len(raw)


def flip(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """One bit."""
    place = place_in(raw, chance)
    return raw[:place] + bytes([raw[place] ^ 1 << chance.randrange(8)]) + raw[place + 1 :]


def flips(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Some bits, all over the file."""
    changed = bytearray(raw)
    for _ in range(chance.randint(2, 40)):
        changed[place_in(raw, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Its end is gone."""
    return raw[: place_in(raw, chance)]


def cut_at_a_page(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Its end is gone, from the beginning of a page or a sector on."""
    size = chance.choice((PAGE, SECTOR))
    return raw[: place_in(raw, chance) // size * size]


def grown_by_zeros(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Something follows its end."""
    return raw + bytes(chance.choice((1, SECTOR, PAGE, chance.randint(1, 3 * PAGE))))


def grown_by_noise(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Something follows its end."""
    return raw + chance.randbytes(chance.choice((1, SECTOR, PAGE, chance.randint(1, 3 * PAGE))))


def zero_sector(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """512 bytes never reached the disk."""
    return _overwrite(raw, _start(raw, chance, SECTOR), bytes(SECTOR))


def zero_page(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """4,096 bytes never reached the disk."""
    return _overwrite(raw, _start(raw, chance, PAGE), bytes(PAGE))


def noise_sector(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """512 bytes are another file's."""
    return _overwrite(raw, _start(raw, chance, SECTOR), chance.randbytes(SECTOR))


def swap_pages(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Two pages, or two sectors, have changed places."""
    size = PAGE if len(raw) >= 2 * PAGE and chance.random() < 0.7 else SECTOR
    whole = len(raw) // size
    if whole < 2:
        raise NotThis
    first, second = sorted(chance.sample(range(whole), 2))
    a, b = (raw[number * size : (number + 1) * size] for number in (first, second))
    return _overwrite(_overwrite(raw, first * size, b), second * size, a)


def older(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """Return an earlier content of the file."""
    return _one_of(sources.older, chance)


def older_page(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """One write of a page was lost."""
    before = _one_of(sources.older, chance)
    start = _start(raw, chance, PAGE)
    return _overwrite(raw, start, before[start : start + PAGE])


def of_another(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """The file of the same name of another collection."""
    return _one_of(sources.others, chance)


def removed(raw: bytes, chance: Random, sources: Sources) -> None:
    """It is gone."""
    return None


def emptied(raw: bytes, chance: Random, sources: Sources) -> bytes:
    """It has no bytes."""
    return b""


def _one_of(contents: Sequence[bytes], chance: Random) -> bytes:
    if not contents:
        raise NotThis
    return chance.choice(contents)


def _start(raw: bytes, chance: Random, size: int) -> int:
    return place_in(raw, chance) // size * size


def _overwrite(raw: bytes, start: int, content: bytes) -> bytes:
    """The length stays."""
    return (raw[:start] + content)[: len(raw)] + raw[start + len(content) :]


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        flip, flips, cut, cut_at_a_page, grown_by_zeros, grown_by_noise, zero_sector, zero_page, noise_sector,
        swap_pages, older, older_page, of_another, removed, emptied,
    )
}  # fmt: skip


def damaged(kind: str, raw: bytes, chance: Random, sources: Sources) -> bytes | None:
    """The other content; raises NotThis where it is the same."""
    changed = KINDS[kind](raw, chance, sources)
    if changed == raw:
        raise NotThis
    return changed
