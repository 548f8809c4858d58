"""The rules of a disk that loses power, each by the shortest record in which it decides."""

import pytest

from tests.crash.power.content import EVERYTHING, NOTHING, content_of
from tests.crash.power.disk import chosen_names, reachable
from tests.crash.power.hand_made import at, disk_after, folder_synced, opened, written

MKDIR = f"1 mkdir({at('notes')}, 0750) = 0"


def bound(disk, inode=1):
    """Return the content that a file must have."""
    return content_of(disk.files[inode], NOTHING)


def possible(disk, inode=1):
    """Return the content of a file when every step is there."""
    return content_of(disk.files[inode], EVERYTHING)


def names(disk, *chosen):
    """The paths when the uncertain steps at these places happened."""
    count = sum(not step.durable for step in disk.name_steps)
    return {path for path, _ in reachable(chosen_names(disk, [place in chosen for place in range(count)]))}


def all_names(disk):
    return names(disk, *range(len(disk.name_steps)))


# Data -----------------------------------------------------------------------------------------------------


def test_nothing_is_durable_without_a_sync():
    disk = disk_after(opened("a", 3), written(3, "data", 0))
    assert (bound(disk), possible(disk)) == (b"", b"data")


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_sync_makes_data_and_length_durable(call):
    disk = disk_after(opened("a", 3), written(3, "data", 0), f"1 {call}(3) = 0", written(3, "DATA", 2))
    assert (bound(disk), possible(disk)) == (b"data", b"daDATA")


def test_a_write_that_had_not_ended_when_the_sync_began_is_not_durable():
    disk = disk_after(
        opened("a", 3),
        "1 clone3({flags=CLONE_FILES}, 88) = 2",
        '1 pwrite64(3, "\\x61", 1, 0 <unfinished ...>',
        "2 fdatasync(3 <unfinished ...>",
        "1 <... pwrite64 resumed>) = 1",
        "2 <... fdatasync resumed>) = 0",
    )
    assert (bound(disk), possible(disk)) == (b"", b"a")


def test_a_sync_through_another_descriptor_counts_for_the_file():
    disk = disk_after(opened("a", 3), written(3, "x", 0), opened("a", 4, "O_RDWR"), "1 fsync(4) = 0")
    assert bound(disk) == b"x"


def test_a_sync_of_another_file_does_not():
    disk = disk_after(opened("a", 3), opened("b", 4), written(3, "x", 0), "1 fsync(4) = 0")
    assert bound(disk) == b""


def test_a_cut_is_durable_with_the_next_sync_alone():
    before = opened("a", 3), written(3, "abc", 0), "1 fsync(3) = 0", "1 ftruncate(3, 1) = 0"
    assert (bound(disk_after(*before)), possible(disk_after(*before))) == (b"abc", b"a")
    assert bound(disk_after(*before, "1 fsync(3) = 0")) == b"a"


def test_what_a_failed_sync_covered_is_lost_to_later_ones():
    failed = "1 fdatasync(3) = -1 EIO (Input/output error)"
    disk = disk_after(opened("a", 3), written(3, "a", 0), failed, "1 fdatasync(3) = 0")
    assert (bound(disk), possible(disk)) == (b"", b"a")


def test_what_was_written_after_a_failed_sync_is_durable_with_the_next_one():
    failed = "1 fdatasync(3) = -1 EIO (Input/output error)"
    disk = disk_after(opened("a", 3), written(3, "ab", 0), failed, written(3, "c", 2), "1 fdatasync(3) = 0")
    assert bound(disk) == b"\0\0c"


def test_a_lost_write_does_not_come_back_over_a_durable_one():
    failed = "1 fdatasync(3) = -1 EIO (Input/output error)"
    disk = disk_after(
        opened("a", 3), written(3, "old", 0), failed, written(3, "new", 0), "1 fdatasync(3) = 0"
    )
    assert (bound(disk), possible(disk)) == (b"new", b"new")


# Names ----------------------------------------------------------------------------------------------------


def test_a_file_s_own_sync_does_not_make_its_name_durable():
    disk = disk_after(opened("a", 3), "1 fsync(3) = 0")
    assert (names(disk), all_names(disk)) == (set(), {"a"})


def test_a_folder_s_sync_makes_its_names_durable():
    disk = disk_after(opened("a", 3), *folder_synced(""))
    assert names(disk) == {"a"}


def test_a_folder_s_sync_says_nothing_of_the_names_above_and_below():
    disk = disk_after(MKDIR, opened("notes/a", 3), *folder_synced("notes"))
    assert (names(disk), names(disk, 0)) == (set(), {"notes", "notes/a"})
    disk = disk_after(MKDIR, opened("notes/a", 3), *folder_synced(""))
    assert (names(disk), all_names(disk)) == ({"notes"}, {"notes", "notes/a"})


def test_a_name_that_was_made_after_the_sync_began_is_not_durable():
    disk = disk_after(
        opened("", 9, "O_RDONLY|O_DIRECTORY"),
        "1 clone3({flags=CLONE_FILES}, 88) = 2",
        "1 fsync(9 <unfinished ...>",
        opened("a", 3, thread=2),
        "1 <... fsync resumed>) = 0",
    )
    assert names(disk) == set()


def test_a_removed_name_may_be_back_until_its_folder_is_synced():
    before = opened("a", 3), *folder_synced(""), f"1 unlink({at('a')}) = 0"
    assert (names(disk_after(*before)), all_names(disk_after(*before))) == ({"a"}, set())
    assert names(disk_after(*before, *folder_synced(""))) == set()


def test_a_rename_is_done_or_undone_as_one():
    disk = disk_after(opened("a", 3), *folder_synced(""), f"1 rename({at('a')}, {at('b')}) = 0")
    assert (names(disk), all_names(disk)) == ({"a"}, {"b"})


def test_a_rename_over_a_file_may_leave_the_older_one():
    disk = disk_after(
        opened("a", 3), written(3, "old", 0), "1 fsync(3) = 0", opened("a.tmp", 4), written(4, "new", 0),
        "1 fsync(4) = 0", *folder_synced(""), f"1 rename({at('a.tmp')}, {at('a')}) = 0",
    )  # fmt: skip
    assert dict(reachable(chosen_names(disk, [False]))) == {"a": 1, "a.tmp": 2}
    assert dict(reachable(chosen_names(disk, [True]))) == {"a": 2}


def test_a_rename_between_folders_is_durable_when_both_were_synced():
    before = MKDIR, opened("a", 3), *folder_synced(""), f"1 rename({at('a')}, {at('notes/a')}) = 0"
    for only in ("", "notes"):
        disk = disk_after(*before, *folder_synced(only))
        assert (names(disk), all_names(disk)) == ({"notes", "a"}, {"notes", "notes/a"})
    assert names(disk_after(*before, *folder_synced(""), *folder_synced("notes"))) == {"notes", "notes/a"}


def test_a_later_name_may_be_there_without_an_earlier_one():
    disk = disk_after(opened("a", 3), opened("b", 4))
    assert names(disk, 1) == {"b"}


def test_a_rename_may_be_done_without_the_making_of_what_it_renames():
    disk = disk_after(opened("a.tmp", 3), f"1 rename({at('a.tmp')}, {at('a')}) = 0")
    assert names(disk, 1) == {"a"}


def test_what_is_in_a_folder_without_a_name_is_gone():
    disk = disk_after(MKDIR, opened("notes/a", 3), *folder_synced("notes"))
    assert names(disk) == set()


def test_a_folder_has_one_name_though_an_older_rename_of_it_is_undone():
    to = f"1 mkdir({at('b')}, 0750) = 0"
    moved = f"1 rename({at('notes')}, {at('b/notes')}) = 0", f"1 rename({at('b/notes')}, {at('other')}) = 0"
    disk = disk_after(MKDIR, to, *folder_synced(""), *moved)
    assert names(disk, 1) == {"b", "other"}


def test_what_a_folder_s_failed_sync_covered_is_lost_to_later_ones():
    failed = folder_synced("", result="-1 EIO (Input/output error)")
    disk = disk_after(opened("a", 3), *failed, *folder_synced(""))
    assert (names(disk), all_names(disk)) == (set(), {"a"})


def test_both_names_of_a_linked_file_have_its_content():
    disk = disk_after(
        opened("a", 3), f"1 link({at('a')}, {at('b')}) = 0", written(3, "x", 0), "1 fsync(3) = 0"
    )
    assert dict(reachable(chosen_names(disk, [True, True]))) == {"a": 1, "b": 1}
    assert bound(disk) == b"x"
