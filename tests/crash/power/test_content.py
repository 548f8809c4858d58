"""Which contents a file may have of what was not synced: by sectors, by steps, by lengths."""

import pytest

from tests.crash.power.content import (
    EVERYTHING,
    NOTHING,
    SECTOR_BYTES,
    Choice,
    all_but,
    by_chance,
    content_of,
    hole,
    lengths_after,
    none_of,
    only,
    up_to,
)
from tests.crash.power.hand_made import disk_after, opened, written

A, B, C = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES, b"c" * SECTOR_BYTES
ZEROS = bytes(SECTOR_BYTES)


def file_of(*lines):
    return disk_after(opened("a", 3), *lines).files[1]


APPENDED = written(3, A, 0), written(3, B, SECTOR_BYTES), written(3, C, 2 * SECTOR_BYTES)
REWRITTEN = written(3, A + A, 0), "1 fsync(3) = 0", written(3, B + B, 0), written(3, C, SECTOR_BYTES)


@pytest.mark.parametrize(
    ("choice", "content"),
    [
        (NOTHING, b""),
        (EVERYTHING, A + B + C),
        (Choice(up_to(1, 0)), A),
        (Choice(up_to(2, 0)), A + B),
        (Choice(only(2)), ZEROS + ZEROS + C),
        (Choice(all_but(1)), A + ZEROS + C),
        (Choice(hole(0, 0, 1)), ZEROS + B + C),
        (Choice(none_of, length=-1, extra=1.0), ZEROS * 3),
        (Choice(none_of, length=-1, extra=0.5), bytes(3 * SECTOR_BYTES // 2)),
        (Choice(only(2), length=0), ZEROS),
    ],
    ids=[
        "nothing", "everything", "the first alone", "the first two", "the last alone", "all but one",
        "all but a sector", "a length without data", "half of a length", "data beyond the length",
    ],
)  # fmt: skip
def test_appended_steps_are_there_in_any_part(choice, content):
    assert content_of(file_of(*APPENDED), choice) == content


def test_one_write_is_torn_at_a_sector():
    file = file_of(written(3, A + B + C, 0))
    assert content_of(file, Choice(up_to(0, 2), length=-1, extra=1.0)) == A + B + ZEROS
    assert content_of(file, Choice(up_to(0, 2), length=0)) == A + B + ZEROS


@pytest.mark.parametrize(
    ("choice", "content"),
    [
        (NOTHING, A + A),
        (EVERYTHING, B + C),
        (Choice(only(0)), B + B),
        (Choice(only(1)), A + C),
        (Choice(all_but(0)), A + A),
        (Choice(up_to(0, 1)), B + A),
    ],
    ids=["old", "new", "the first", "the last, where it is", "what lies over it goes too", "torn"],
)
def test_a_sector_has_the_content_after_some_of_its_writes(choice, content):
    assert content_of(file_of(*REWRITTEN), choice) == content


def test_sectors_choose_for_themselves_and_pages_together():
    file = file_of(written(3, b"x" * 64 * SECTOR_BYTES, 0))
    sectors = content_of(file, Choice(by_chance(1, 1), length=0))
    assert {sectors[at : at + SECTOR_BYTES] for at in range(0, len(sectors), SECTOR_BYTES)} == {
        ZEROS,
        b"x" * SECTOR_BYTES,
    }
    pages = content_of(file, Choice(by_chance(1, 8), length=0))
    assert {pages[at : at + 4096] for at in range(0, len(pages), 4096)} == {bytes(4096), b"x" * 4096}


def test_a_choice_by_chance_is_the_same_again():
    file = file_of(written(3, b"x" * 64 * SECTOR_BYTES, 0))
    contents = [content_of(file, Choice(by_chance(seed, 1))) for seed in (1, 1, 2)]
    assert contents[0] == contents[1] != contents[2]


def test_undone_cut_shows_the_old_end_and_done_cut_shows_zeros():
    """The zeros follow the bytes that were written after the cut."""
    file = file_of(written(3, A + A + A, 0), "1 fsync(3) = 0", "1 ftruncate(3, 0) = 0", written(3, B, 0))
    assert lengths_after(file) == [3 * SECTOR_BYTES, 0, SECTOR_BYTES]
    assert content_of(file, NOTHING) == A + A + A
    assert content_of(file, EVERYTHING) == B
    assert content_of(file, Choice(only(1), length=-1)) == B + A + A
    assert content_of(file, Choice(up_to(1, 9), length=-1)) == B + ZEROS + ZEROS


def test_what_is_durable_is_in_every_state():
    file = file_of(written(3, A, 0), "1 fsync(3) = 0", written(3, B, SECTOR_BYTES))
    for seed in range(20):
        assert content_of(file, Choice(by_chance(seed, 1))).startswith(A)
