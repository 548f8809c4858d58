"""From calls to what they did to the volume: descriptors, names, and no way around the model."""

import pytest

from tests.crash.power.cache import Cache
from tests.crash.power.events import Answered, Length, Link, Mapping, Mark, Rename, Sync, Unlink, Write
from tests.crash.power.hand_made import NEW, ROOT, at, calls_of, events_of, opened, text, written
from tests.crash.power.reader import WHOLE, Reader
from tests.crash.power.trace import TraceError


def tree_after(*lines):
    cache = Cache()
    events_of(*lines, cache=cache)
    return cache.tree()


def test_a_file_is_made_written_cut_and_renamed():
    found = tree_after(
        f"1 mkdir({at('notes')}, 0750) = 0",
        opened("notes/a.tmp", 3),
        written(3, "hello", 2),
        "1 ftruncate(3, 6) = 0",
        "1 close(3) = 0",
        f"1 rename({at('notes/a.tmp')}, {at('notes/a')}) = 0",
    )
    assert found == {"notes": None, "notes/a": b"\0\0hell"}


def test_what_lies_elsewhere_is_no_event():
    assert not events_of(
        f"1 openat(AT_FDCWD, {text('/elsewhere/a')}, {NEW}) = 3", written(3, "x", 0), "1 fsync(3) = 0"
    )


def test_failed_calls_changed_nothing():
    assert not events_of(
        f"1 unlink({at('a')}) = -1 ENOENT (No such file or directory)",
        f"1 openat(AT_FDCWD, {at('a')}, O_RDWR) = -1 ENOENT (No such file or directory)",
    )


def test_a_short_write_wrote_what_it_returned():
    lines = opened("a", 3), f"1 pwrite64(3, {text('abcdef')}, 6, 0) = 2"
    assert tree_after(*lines) == {"a": b"ab"}


def test_vectors_are_written_one_after_the_other_at_their_offset():
    parts = f"[{{iov_base={text('ab')}, iov_len=2}}, {{iov_base={text('cd')}, iov_len=2}}]"
    lines = opened("a", 3), f"1 pwritev2(3, {parts}, 2, 1, 0) = 4", f"1 writev(4, {parts}, 2) = 4"
    assert tree_after(*lines) == {"a": b"\0abcd"}


def test_plain_writes_follow_each_other_and_a_copied_descriptor_shares_the_place():
    lines = (
        opened("a", 3, "O_WRONLY|O_CREAT|O_TRUNC, 0666"),
        f"1 write(3, {text('ab')}, 2) = 2",
        "1 dup(3) = 4",
        f"1 write(4, {text('cd')}, 2) = 2",
        "1 lseek(3, 1, SEEK_SET) = 1",
        f"1 write(4, {text('X')}, 1) = 1",
    )
    assert tree_after(*lines) == {"a": b"aXcd"}


def test_an_appending_write_goes_to_the_end():
    lines = (
        opened("a", 3),
        written(3, "abc", 0),
        opened("a", 4, "O_WRONLY|O_APPEND"),
        f"1 write(4, {text('d')}, 1) = 1",
    )
    assert tree_after(*lines) == {"a": b"abcd"}


def test_opening_to_truncate_cuts_what_was_there():
    lines = opened("a", 3), written(3, "abc", 0), opened("a", 4, "O_WRONLY|O_CREAT|O_TRUNC, 0666")
    assert tree_after(*lines) == {"a": b""}


def test_a_thread_has_its_process_s_descriptors_and_a_forked_child_a_copy():
    found = tree_after(
        opened("a", 3),
        "1 clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD}, 88) = 2",
        "1 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD) = 9",
        opened("b", 4, thread=2),
        written(4, "thread", 0),
        "9 close(3) = 0",
        opened("c", 3, thread=9),
        written(3, "child", 0, thread=9),
        written(3, "parent", 0),
    )
    assert found == {"a": b"parent", "b": b"thread", "c": b"child"}


def test_a_child_that_is_seen_before_its_fork_returned_has_the_descriptors():
    found = tree_after(
        opened("a", 3),
        "1 fork( <unfinished ...>",
        written(3, "x", 0, thread=9),
        "1 <... fork resumed>) = 9",
    )
    assert found == {"a": b"x"}


def test_a_program_that_is_executed_has_only_what_was_left_open_for_it():
    with_write = (written(3, "x", 0), f"1 execve({text('/bin/true')}, [], 0x7f) = 0", written(3, "y", 0))
    assert tree_after(opened("a", 3), *with_write) == {"a": b"x"}
    assert tree_after(opened("a", 3, "O_RDWR|O_CREAT, 0640"), *with_write) == {"a": b"y"}


def test_a_number_is_used_again_while_its_close_returns():
    found = tree_after(
        "1 clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD}, 88) = 2",
        opened("a", 3),
        "1 close(3 <unfinished ...>",
        opened("b", 3, thread=2),
        "1 <... close resumed>) = 0",
        written(3, "x", 0),
    )
    assert found == {"a": b"", "b": b"x"}


def test_a_range_of_descriptors_is_closed():
    lines = opened("a", 3), opened("b", 4), "1 close_range(4, 4294967295, 0) = 0"
    assert tree_after(*lines, written(3, "x", 0), written(4, "y", 0)) == {"a": b"x", "b": b""}


def test_names_are_found_from_the_descriptor_of_their_folder():
    events = events_of(
        f"1 mkdir({at('notes')}, 0750) = 0",
        opened("notes/a", 3),
        opened("notes", 4, "O_RDONLY|O_DIRECTORY|O_CLOEXEC"),
        f"1 unlinkat(4, {text('a')}, 0) = 0",
        f"1 unlinkat(AT_FDCWD, {at('notes')}, AT_REMOVEDIR) = 0",
    )
    assert [(e.folder, e.name) for e in events if isinstance(e, Unlink)] == [(1, "a"), (0, "notes")]


def test_links_share_their_inode():
    lines = opened("a", 3), f"1 link({at('a')}, {at('b')}) = 0", written(3, "x", 0)
    assert tree_after(*lines) == {"a": b"x", "b": b"x"}


def test_syncs_tell_whether_they_succeeded():
    events = events_of(opened("a", 3), "1 fsync(3) = -1 EIO (Input/output error)", "1 fdatasync(3) = 0")
    assert [e.ok for e in events if isinstance(e, Sync)] == [False, True]


def test_room_that_is_allocated_grows_the_file():
    events = events_of(opened("a", 3), "1 fallocate(3, 0, 0, 100) = 0", "1 fallocate(3, 0, 0, 50) = 0")
    assert [e.length for e in events if isinstance(e, Length)] == [100]


def test_an_answer_is_known_by_the_client_s_port_and_its_number():
    peer = '{sa_family=AF_INET, sin_port=htons(4711), sin_addr=inet_addr("\\x31")}'
    events = events_of(
        "1 accept4(3, NULL, NULL, SOCK_CLOEXEC) = 14",
        f"1 getpeername(14, {peer}, [128 => 16]) = 0",
        f"1 write(14, {text('HTTP/1.1 200 OK')}, 15) = 15",
        f"1 write(14, {text('the body')}, 8) = 8",
        f"1 sendto(14, {text('HTTP/1.1 404 NO')}, 15, 0, NULL, 0 <unfinished ...>",
    )
    assert [(e.port, e.number, e.entry) for e in events if isinstance(e, Answered)] == [
        (4711, 0, 2),
        (4711, 1, 4),
    ]


def test_a_mark_is_what_a_program_asks_to_remove_and_is_not_there():
    [mark] = events_of(f"1 rmdir({text('/vecstow-mark/begin 3')}) = -1 ENOENT (No such file or directory)")
    assert isinstance(mark, Mark)
    assert mark.text == "begin 3"


@pytest.mark.parametrize(
    ("mapping", "found"),
    [
        ("NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0", True),
        ("NULL, 4096, PROT_READ, MAP_SHARED, 3, 0", True),
        ("NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE, 3, 0", False),
        ("NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0", False),
        ("NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 7, 0", False),
    ],
    ids=["writable", "could be made writable", "private", "no file", "another file"],
)
def test_memory_that_writes_a_file_is_seen(mapping, found):
    events = events_of(opened("a", 3), f"1 mmap({mapping}) = 0x7f0000000000")
    assert any(isinstance(event, Mapping) for event in events) == found


@pytest.mark.parametrize(
    "call",
    [
        "sendfile(3, 9, NULL, 10) = 10", "copy_file_range(9, NULL, 3, NULL, 10, 0) = 10",
        "splice(9, NULL, 3, NULL, 10, 0) = 10", "sync_file_range(3, 0, 0, SYNC_FILE_RANGE_WRITE) = 0",
        f"truncate({at('a')}, 3) = 0", f"symlink({text('x')}, {at('b')}) = 0",
        "io_uring_enter(5, 1, 1, 0) = 1",
        "ioctl(3, FICLONE, 9) = 0", f"chdir({text('/')}) = 0", "fallocate(3, FALLOC_FL_PUNCH_HOLE, 0, 9) = 0",
        f"rename({text('/elsewhere/x')}, {at('b')}) = 0", f"write(3, {text('x')}, 1) = 1",
        f"openat(AT_FDCWD, {at('')}, O_TMPFILE|O_RDWR, 0600) = 5",
    ],
    ids=lambda call: call.partition("(")[0],
)  # fmt: skip
def test_a_write_that_the_model_does_not_know_ends_the_reading(call):
    with pytest.raises(TraceError):
        events_of(opened("a", 3), f"1 {call}")


@pytest.mark.parametrize(
    "call", ["sendfile(8, 9, NULL, 10) = 10", "ioctl(3, TCGETS, 0x7f) = 0", "ioctl(1, FIONBIO, [1]) = 0"]
)
def test_the_same_calls_about_something_else_do_not_matter(call):
    assert [type(e) for e in events_of(opened("a", 3), f"1 {call}")] == [Link]


def test_data_that_is_not_whole_ends_the_reading():
    with pytest.raises(TraceError, match="not whole"):
        events_of(opened("a", 3), f"1 pwrite64(3, {text('ab')}, 9, 0) = 9")


@pytest.mark.parametrize("happened", [False, True])
def test_a_call_that_a_kill_cut_short_took_place_or_did_not(happened):
    cache = Cache()
    calls = calls_of(opened("a", 3), f"1 rename({at('a')}, {at('b')} <unfinished ...>")
    events = Reader(ROOT, cache).read(calls, {1: WHOLE} if happened else {})
    assert list(cache.tree()) == (["b"] if happened else ["a"])
    assert [type(e) for e in events] == ([Link, Rename] if happened else [Link])


@pytest.mark.parametrize(("pages", "length"), [(WHOLE, 9000), (1, 4000), (2, 8096), (3, 9000)])
def test_a_write_that_was_killed_ends_with_a_page(pages, length):
    cache = Cache()
    calls = calls_of(opened("a", 3), f"1 pwrite64(3, {text(b'x' * 9000)}, 9000, 96 <unfinished ...>")
    Reader(ROOT, cache).read(calls, {1: pages})
    assert cache.tree() == {"a": bytes(96) + b"x" * length}


def test_the_view_goes_on_over_processes():
    cache = Cache()
    events_of(opened("a", 3), written(3, "ab", 0), cache=cache)
    events = events_of(opened("a", 5, "O_RDWR"), written(5, "c", 1), cache=cache)
    assert cache.tree() == {"a": b"ac"}
    assert [(type(e), e.inode) for e in events] == [(Write, 1)]
