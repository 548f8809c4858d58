"""The text index answers as BM25 over the present texts, however they came to be."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.unit.index.naive_bm25 import ranked
from vecstow_engine.index.text import dictionary, text_index
from vecstow_engine.index.text.text_index import TextIndex
from vecstow_engine.model.errors import DamagedFile

WORDS = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def index_of(*texts: str | None) -> TextIndex:
    index = TextIndex()
    index.put(np.arange(len(texts)), texts)
    return index


def found(index: TextIndex, query: str, k: int | None = 10, allowed: np.ndarray | None = None) -> list[int]:
    return index.search(query, k, allowed)[0].tolist()


def some_text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, range(1, len(WORDS) + 1), k=chance.randrange(12)))


def assert_answers_as(
    index: TextIndex, texts: dict[int, str], query: str, allowed: np.ndarray | None
) -> None:
    wanted = ranked(texts, query, None if allowed is None else set(np.flatnonzero(allowed).tolist()))
    for k in (1, 3, 10, None):
        got, scores = index.search(query, k, allowed)
        assert len(got) == len(set(got.tolist())) == len(list(wanted)[:k])
        assert scores.tolist() == pytest.approx([wanted[slot] for slot in got.tolist()], rel=1e-5)
        assert scores.tolist() == pytest.approx(list(wanted.values())[:k], rel=1e-5)
        assert sorted(zip(-scores, got, strict=True)) == list(zip(-scores, got, strict=True))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merges, full blocks, chunks and unused words after few documents."""
    monkeypatch.setattr(text_index, "MERGED_POSTINGS_MAX", 400)
    monkeypatch.setattr(text_index, "CHUNK_DOCUMENTS", 7)
    monkeypatch.setattr(text_index, "CHUNK_CHARACTERS", 200)
    monkeypatch.setattr(text_index, "_TIER_BITS_MIN", 3)
    monkeypatch.setattr(text_index, "_WORDS_KEPT", 8)


@pytest.mark.parametrize("seed", range(8))
def test_search_answers_as_the_formula_whatever_was_written(seed: int, small_parts: None) -> None:
    """Random writes, removals, slots in use again, and restarts."""
    chance = random.Random(seed)
    index, texts = TextIndex(), {}
    for _ in range(60):
        batch = chance.sample(range(120), chance.choice((1, 1, 3, 25)))
        if chance.random() < 0.3:
            index.remove(np.array(batch))
            texts = {slot: text for slot, text in texts.items() if slot not in batch}
        else:
            new = [some_text(chance) if chance.random() < 0.9 else None for _ in batch]
            index.put(np.array(batch), new)
            texts |= {slot: text or "" for slot, text in zip(batch, new, strict=True)}
        if chance.random() < 0.05:
            index = TextIndex.load(b"".join(index.save()), "text")
        query = " ".join(chance.choices(WORDS, k=3))
        allowed = np.array([chance.random() < 0.5 for _ in range(chance.randrange(140))], np.bool_)
        for mask in (None, allowed):
            assert_answers_as(index, texts, query, mask)
        assert index.count == sum(1 for text in texts.values() if text)


def test_text_is_found_when_put_returns() -> None:
    index = TextIndex()
    for slot in range(300):
        index.put(slots(slot), [f"common own{slot}"])
        assert found(index, f"own{slot}") == [slot]
    assert len(found(index, "common", None)) == 300


def test_former_text_of_a_slot_is_never_found() -> None:
    index = index_of("old words", "other words")
    index.put(slots(0), ["new text"])
    assert found(index, "old") == []
    assert found(index, "words") == [1]
    assert found(index, "new") == [0]
    index.put(slots(0), [None])
    assert found(index, "new") == []
    assert index.count == 1


def test_removal_of_an_unknown_slot_changes_nothing() -> None:
    index = index_of("text", None)
    index.remove(slots(1, 7, 100_000))
    index.remove(slots())
    assert found(index, "text") == [0]


@pytest.mark.parametrize("text", ["", "  ", "...", None])
def test_text_without_words_is_not_found_and_weighs_nothing(text: str | None) -> None:
    plain, index = index_of("a b", "a c d"), index_of("a b", "a c d", text)
    assert index.search("a b", 10)[1].tolist() == plain.search("a b", 10)[1].tolist()
    assert index.count == 2


@pytest.mark.parametrize("query", ["", "?!", "unheard of"])
def test_query_that_no_text_answers_finds_nothing(query: str) -> None:
    assert found(index_of("some text"), query) == []
    assert found(TextIndex(), query) == []


def test_equal_scores_come_by_slot() -> None:
    index = TextIndex()
    for slot in reversed(range(50)):
        index.put(slots(slot), ["same text"])
    assert found(index, "text", 7) == list(range(7))


def test_slots_beyond_the_mask_do_not_count() -> None:
    index = index_of("a", "a", "a")
    assert found(index, "a", 10, np.array([False, True])) == [1]
    assert found(index, "a", 10, np.zeros(0, np.bool_)) == []


@pytest.mark.parametrize("repeats", [255, 256, 512, 20_000])
def test_word_that_occurs_very_often_is_found(repeats: int) -> None:
    """Counts end at 255, and lengths do not."""
    index = index_of("a " * repeats, "b", "a b")
    assert sorted(found(index, "a")) == [0, 2]


def test_words_beyond_the_limits_of_a_document_are_not_indexed() -> None:
    many = "x " * text_index.DOCUMENT_WORDS_MAX + "late"
    long = "y" * 200
    index = index_of(many, long)
    assert found(index, "late") == []
    assert found(index, long) == [1]
    assert found(index, "y" * dictionary.WORD_CHARACTERS_MAX + "other end") == [1]
    assert found(index, "y" * (dictionary.WORD_CHARACTERS_MAX - 1)) == [1], "one letter less"


def test_distinct_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary, "WORDS_MAX", 3)
    index = index_of("one two", "three four", "five six")
    assert [found(index, word) for word in ("one", "three", "four", "five")] == [[0], [1], [], []]
    index.put(slots(3), ["two seven"])
    assert found(index, "two") == [0, 3]
    index.remove(slots(0, 1, 3))
    assert index.count == 0


def test_words_of_removed_texts_leave_the_memory(small_parts: None) -> None:
    """Each text has words of its own, and only few texts are live at a time."""
    index = TextIndex()
    sizes = []
    for slot in range(2000):
        index.put(slots(slot % 20), [f"{slot:x}a {slot:x}b common"])
        sizes.append(index.bytes)
    assert max(sizes) < 50_000
    assert len(found(index, "common", None)) == 20


def test_removed_texts_leave_the_memory() -> None:
    index = TextIndex()
    index.put(np.arange(1000), ["one two three"] * 1000)
    before = index.bytes
    index.remove(np.arange(900))
    assert index.bytes < before / 2
    index.remove(np.arange(900, 1000))
    assert found(index, "two") == []


@pytest.mark.parametrize(("limit", "value"), [("MERGED_POSTINGS_MAX", 400), ("DOCUMENTS_MAX", 100)])
def test_few_blocks_remain_and_none_is_too_large(
    limit: str, value: int, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_index, limit, value)
    index = TextIndex()
    for slot in range(1500):
        index.put(slots(slot), ["one two three"])
    blocks = index._content.blocks
    assert len(blocks) < 40
    assert max(len(block.documents) for block in blocks) <= min(400, 3 * value)
    assert len(found(index, "two", None)) == 1500


@pytest.mark.parametrize(
    ("query", "slot"),
    [
        pytest.param("deskop", 0, id="a letter lacks"),
        pytest.param("deskttop", 0, id="a letter too many"),
        pytest.param("desktap", 0, id="another letter"),
        pytest.param("dekstop", 0, id="two letters exchanged"),
        pytest.param("esktop", 0, id="the first letter lacks"),
        pytest.param("desktops", 0, id="a letter at the end"),
        pytest.param("Gerate", 1, id="no accent"),
        pytest.param("gerote", 1, id="another letter for one with an accent"),
        pytest.param("колекция", 2, id="Cyrillic"),
        pytest.param("dksetop", None, id="two edits"),
        pytest.param("dasktap", None, id="two letters"),
        pytest.param("fig", None, id="too short"),
        pytest.param("e4712", None, id="a number"),
    ],
)
def test_misspelt_word_finds_the_words_near_it(query: str, slot: int | None) -> None:
    index = index_of("desktop environment", "Geräte im Netz", "коллекция", "big dog e4711")
    assert found(index, query) == ([] if slot is None else [slot])


def test_known_word_does_not_find_the_words_near_it() -> None:
    assert found(index_of("house", "mouse"), "house") == [0]


def test_word_of_removed_texts_alone_counts_as_misspelt() -> None:
    index = index_of("house", "mouse", "other", "words")
    index.remove(slots(0))
    assert found(index, "house") == [1]


def test_words_near_a_misspelt_one_weigh_as_one_word() -> None:
    """A rare misspelling in a text weighs no more than the frequent word next to it."""
    index = index_of("desktop a", "desktop b", "desktop c", "desktup d", "a b c d")
    slots_found, scores = index.search("desktip", 10)
    assert sorted(slots_found.tolist()) == [0, 1, 2, 3]
    assert scores.max() == scores.min()


def test_more_words_near_a_misspelt_one_than_texts_still_find_them() -> None:
    assert found(index_of("desktop desktup deskttp"), "desktip") == [0]


def test_saved_index_keeps_its_answers_while_the_index_changes() -> None:
    index = index_of("some text", "other text")
    parts = index.save()
    index.put(slots(0, 1, 2), [None, "changed", "text"])
    loaded = TextIndex.load(b"".join(parts), "text")
    assert found(loaded, "text") == [0, 1]
    loaded.put(slots(1), ["again"])
    assert found(loaded, "text") == [0]


def test_bytes_of_another_length_are_refused() -> None:
    raw = b"".join(index_of("some text", "other text").save())
    for end in range(len(raw)):
        with pytest.raises(DamagedFile, match="ends at byte"):
            TextIndex.load(raw[:end], "file")
    with pytest.raises(DamagedFile, match="do not fit"):
        TextIndex.load(raw + b"x", "file")
    with pytest.raises(DamagedFile, match="version 2, not 1"):
        TextIndex.load(b"\x02" + raw[1:], "file")


def test_searches_during_writes_see_each_text_that_stays(small_parts: None) -> None:
    """While slots are written again and again, each search finds the texts that do not change, and once."""
    index = TextIndex()
    index.put(np.arange(0, 100), [f"stays {number}" for number in range(100)])
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(600):
                slot = 100 + number % 50
                index.put(slots(slot), [f"changes {number:x} {number:b}" if number % 3 else None])
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        searches = 0
        while not done.is_set() or searches < 3:
            answers = found(index, "stays misspeltt", None)
            assert sorted(answers) == list(range(100))
            changing = found(index, "changes", None)
            assert len(changing) == len(set(changing))
            searches += 1
        writing.result()
