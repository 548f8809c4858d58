"""A text is taken apart into words that compare equal however they are written."""

import pytest

from vecstow_engine.index.text.words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(" \t,.;\x00\x7f", [], id="no words"),
        pytest.param("A quick, FOX's 2nd jump", ["a", "quick", "fox", "s", "2nd", "jump"], id="ASCII"),
        pytest.param("snake_case kebab-c a.b/c", ["snake", "case", "kebab", "c", "a", "b", "c"], id="joined"),
        pytest.param("Crème BRÛLÉE", ["creme", "brulee"], id="accents"),
        pytest.param("Cre\u0300me", ["creme"], id="accents that stand alone"),
        pytest.param("STRASSE Straße", ["strasse", "strasse"], id="sharp s"),
        pytest.param("İSTANBUL", ["istanbul"], id="dotted capital i"),
        pytest.param("\uff21\uff22\uff11 \ufb01ne \u2121", ["ab1", "fine", "tel"], id="width, ligatures"),
        pytest.param("Йод ёлка", ["иод", "елка"], id="Cyrillic"),
        pytest.param("ΣΊΣΥΦΟΣ σίσυφος", ["σισυφοσ", "σισυφοσ"], id="final sigma"),
        pytest.param("हिन्दी भाषा", ["हिन्दी", "भाषा"], id="vowel signs belong to words"),
        pytest.param("한국어 한국어", ["한국어", "한국어"], id="Hangul, composed or not"),
        pytest.param("日本語のテキスト", ["日", "本", "語", "の", "テキスト"], id="no spaces"),
        pytest.param("𠀀x", ["𠀀", "x"], id="beyond the BMP"),
        pytest.param("co\u00adoperate क्\u200dष", ["cooperate", "क्ष"], id="invisible joiners"),
        pytest.param("naïve snake_case", ["naive", "snake", "case"], id="no underscore beyond ASCII either"),
    ],
)  # fmt: skip
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_case_makes_no_difference_to_any_letter() -> None:
    """Each letter of the Latin, Greek and Cyrillic blocks; the dotless i shares its capital with the i."""
    for letter in map(chr, range(0x41, 0x530)):
        if letter != "\u0131":
            assert words_of(letter) == words_of(letter.upper()) == words_of(letter.lower()), letter
