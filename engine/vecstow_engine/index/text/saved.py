"""The bytes of a saved text index, little-endian: sizes, words, and the arrays of each block.

    version, words, bytes of words, blocks     u32, u32, u64, u32
    documents, words, postings of each block   u32 each
    words                                        UTF-8, each with a line feed at its end, by rising number
    arrays of each block                       those of `Block.arrays`

The format is the cache's own: another version is refused, and the index is built again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.text.dictionary import Dictionary
from vecstow_engine.index.text.postings import Block
from vecstow_engine.model.errors import DamagedFile

VERSION: Final = 1
_HEAD: Final = struct.Struct("<IIQI")
_SIZES: Final = struct.Struct("<III")
Buffer: TypeAlias = bytes | memoryview
_Number = TypeVar("_Number", bound=np.generic)


def save(dictionary: Dictionary, blocks: Sequence[Block]) -> list[Buffer]:
    """Return the parts of the saved form, which stay as they are when texts are put or removed later."""
    words = "".join(f"{word}\n" for word in dictionary).encode()
    parts: list[Buffer] = [_HEAD.pack(VERSION, len(dictionary), len(words), len(blocks))]
    parts += [_SIZES.pack(len(s.slots), len(s.words), len(s.documents)) for s in blocks]
    parts.append(words)
    for block in blocks:
        slots, _, *others = block.arrays
        lengths = block.lengths.copy()  # a removal writes there
        parts += [array.data.cast("B") for array in (slots, lengths, *others)]
    return parts


def load(raw: Buffer, file: str) -> tuple[Dictionary, list[Block]]:
    """Return the content of bytes that `save` made; raise DamagedFile when their sizes contradict each other.

    The caller verifies a checksum before: damage within an array is not noticed here. Errors name `file`.
    """
    reader = _Reader(memoryview(raw), file)
    version, word_count, word_bytes, block_count = _HEAD.unpack(reader.take(_HEAD.size))
    if version != VERSION:
        raise DamagedFile(f"the text index has version {version}, not {VERSION}", file=file)
    sizes = [_SIZES.unpack(reader.take(_SIZES.size)) for _ in range(block_count)]
    dictionary = Dictionary(bytes(reader.take(word_bytes)).decode().split("\n")[:-1])
    blocks = [_block(reader, *each) for each in sizes]
    if len(dictionary) != word_count or reader.rest:
        raise DamagedFile("the sizes of the text index do not fit its content", file=file)
    return dictionary, blocks


def _block(reader: _Reader, documents: int, words: int, postings: int) -> Block:
    return Block(
        reader.array(np.uint32, documents), reader.array(np.float32, documents),
        reader.array(np.uint32, words), reader.array(np.uint32, words + 1),
        reader.array(np.uint16, postings), reader.array(np.uint8, postings),
    )  # fmt: skip


class _Reader:
    """A cursor over the bytes of a file."""

    def __init__(self, raw: memoryview, file: str) -> None:
        self._raw = raw
        self._file = file
        self._place = 0

    def take(self, size: int) -> memoryview:
        if size > self.rest:
            raise DamagedFile(
                f"the text index ends at byte {len(self._raw)}, before its content does", file=self._file
            )
        self._place += size
        return self._raw[self._place - size : self._place]

    @property
    def rest(self) -> int:
        """The number of bytes that are not taken yet."""
        return len(self._raw) - self._place

    def array(self, kind: type[_Number], count: int) -> NDArray[_Number]:
        """Return a copy of the next `count` numbers, which can be written."""
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind).copy()
