"""The words of a text, in the form in which they are compared: case, accents and width make no difference.

A word is a run of letters and digits (Unicode), without the underscore. A Chinese character and a hiragana
are words of their own, because these scripts put no space between words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

_SINGLE: Final = "\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ACCENTS: Final = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_JOINERS: Final = re.compile("[\u00ad\u200c\u200d]+")
"""Invisible characters inside of words: the soft hyphen, and two that shape the letters next to them."""
_MARKS_END: Final = 0x10000
_ASCII: Final = bytes(ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(128)) * 2
"""Letters in lower case, digits, and a space for any other byte."""


def words_of(text: str) -> list[str]:
    """Return the words of a text, in their order."""
    if text.isascii():
        return text.encode().translate(_ASCII).decode().split()
    found: list[str] = _unicode_words().findall(_folded(text))
    return found


def _folded(text: str) -> str:
    """Return a text without differences of case, accents and width.

    Letters are decomposed (NFKD), so that accents stand alone and can be left out, and composed again (NFKC).
    """
    decomposed = unicodedata.normalize("NFKD", _JOINERS.sub("", text).casefold())
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", decomposed)).casefold()


@cache
def _unicode_words() -> re.Pattern[str]:
    """Return the pattern of a word. Vowel signs, which Python's `\\w` lacks, belong to words."""
    everything = map(chr, range(0x300, _MARKS_END))
    marks = "".join(character for character in everything if unicodedata.category(character) in ("Mn", "Mc"))
    return re.compile(f"[{_SINGLE}]|(?:[^\\W_{_SINGLE}]|[{marks}])+")
