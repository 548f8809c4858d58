"""The words that the documents of an index contain, each with a number; and the words near a misspelt one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

WORD_CHARACTERS_MAX: Final = 64
"""The characters of a word that count; those after them make no difference."""
WORDS_MAX: Final = 1 << 22
"""More distinct words are not indexed."""
NO_WORD: Final = (1 << 32) - 1
"""The number of the words that are not indexed."""
MISSPELT_CHARACTERS_MIN: Final = 4
"""A shorter word is near too many others."""
_WORD_OVERHEAD_BYTES: Final = 120
"""Memory of a word apart from its characters: string, number, and entry of the map (measured)."""
_PAGE_BITS: Final = 8


class Dictionary(dict[str, int]):
    """Word to number, in order of arrival. `dictionary[word]` adds a word that is new; `get` does not."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        super().__init__()
        self._characters: set[str] = set()
        self._word_bytes = 0
        for word in words:
            self[word]

    def __missing__(self, word: str) -> int:
        if len(word) > WORD_CHARACTERS_MAX:
            return self[word[:WORD_CHARACTERS_MAX]]
        if len(self) >= WORDS_MAX:
            return NO_WORD
        number = self[word] = len(self)
        self._characters.update(word)
        self._word_bytes += len(word)
        return number

    def numbers(self, words: list[str]) -> NDArray[np.uint32]:
        """Return the number of each word, shape (n,); add the words that are new."""
        return np.fromiter(map(self.__getitem__, words), np.uint32, len(words))

    def near(self, word: str) -> list[int]:
        """Return the numbers of the words at one edit from `word`; none for a short word, or one with digits.

        An edit inserts, removes or replaces a character, or exchanges two adjacent ones (Damerau, 1964).
        """
        if len(word) < MISSPELT_CHARACTERS_MIN or any(map(str.isdigit, word)):
            return []
        found = {self.get(edited) for edited in self._edits(word)}
        return sorted(number for number in found if number is not None)

    @property
    def bytes(self) -> int:
        """Bytes of memory, about."""
        return self._word_bytes + _WORD_OVERHEAD_BYTES * len(self)

    def bytes_with(self, words: Collection[str]) -> int:
        """Return the bytes of memory with these words, which are new and distinct."""
        return self.bytes + sum(map(len, words)) + _WORD_OVERHEAD_BYTES * len(words)

    def _edits(self, word: str) -> Iterator[str]:
        letters = self._letters_like(word)
        for at in range(len(word) + 1):
            before, after = word[:at], word[at:]
            yield before + after[1:]
            yield before + after[1:2] + after[:1] + after[2:]
            for letter in letters:
                yield before + letter + after
                yield before + letter + after[1:]

    def _letters_like(self, word: str) -> list[str]:
        """Return the known characters of the scripts of a word, at most 256 for each of its characters."""
        pages = {ord(character) >> _PAGE_BITS for character in word}
        return [character for character in tuple(self._characters) if ord(character) >> _PAGE_BITS in pages]
