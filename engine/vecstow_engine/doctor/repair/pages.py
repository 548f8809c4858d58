"""The pages of a `points.db` as its last commit left them, whatever SQLite makes of the file. Read only.

Format: https://sqlite.org/fileformat2.html, "The Write-Ahead Log". A page that a whole, committed frame of
`-wal` holds comes from there; nothing else of a page is verified here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

PAGE_BYTES: Final = 4096
"""SQLite's default, which is never changed."""
_WAL_HEADER: Final = struct.Struct(">IIIIIIII")
_FRAME: Final = struct.Struct(">IIIIII")
_MAGIC: Final = 0x377F0682
"""The lowest bit says that the words under the checksums are big-endian."""
_MASK: Final = 0xFFFFFFFF


class PageFile:
    """Pages by number, from 1 on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.count = -(-os.fstat(self._fd).st_size // PAGE_BYTES)
        self._newer: dict[int, bytes] = {}
        for number, page, total in _committed(path.with_name(path.name + "-wal")):
            self._newer[number] = page
            self.count = total

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def page(self, number: int) -> bytes:
        """The bytes of a page; zeros where the file has none."""
        newer = self._newer.get(number)
        if newer is not None:
            return newer
        return os.pread(self._fd, PAGE_BYTES, self.offset(number)).ljust(PAGE_BYTES, b"\0")

    def offset(self, number: int) -> int:
        """Where a page begins in the database file."""
        return (number - 1) * PAGE_BYTES


def _committed(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """(page number, page, pages of the database) of every frame up to the last whole commit."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return
    waiting: list[tuple[int, bytes]] = []
    for number, total, page in _frames(raw):
        waiting.append((number, page))
        if total:
            yield from ((waiting_number, waiting_page, total) for waiting_number, waiting_page in waiting)
            waiting.clear()


def _frames(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(page number, pages of the database or 0, page) of the frames whose checksums follow each other."""
    if len(raw) < _WAL_HEADER.size:
        return
    magic, _, page_bytes, _, *salts, first, second = _WAL_HEADER.unpack_from(raw)
    words = ">u4" if magic & 1 else "<u4"
    sums = _checksum(raw[:24], words, (0, 0))
    if magic & ~1 != _MAGIC or page_bytes != PAGE_BYTES or sums != (first, second):
        return
    for start in range(_WAL_HEADER.size, len(raw) - _FRAME.size - PAGE_BYTES + 1, _FRAME.size + PAGE_BYTES):
        number, total, *frame_salts, first, second = _FRAME.unpack_from(raw, start)
        page = raw[start + _FRAME.size : start + _FRAME.size + PAGE_BYTES]
        sums = _checksum(raw[start : start + 8] + page, words, sums)
        if frame_salts != salts or sums != (first, second):
            return
        yield number, total, page


def _checksum(raw: bytes, words: str, sums: tuple[int, int]) -> tuple[int, int]:
    """SQLite's checksum of pairs of 32-bit words, continued from `sums`."""
    first, second = sums
    values = np.frombuffer(raw, words).tolist()
    for position in range(0, len(values), 2):
        first = (first + values[position] + second) & _MASK
        second = (second + values[position + 1] + first) & _MASK
    return first, second
