"""The output of strace is read back: each call once, with its two places in the record."""

import pytest

from tests.crash.power.hand_made import calls_of, text
from tests.crash.power.trace import TraceError, parse, strace


def test_a_call_of_one_line_enters_and_ends_there():
    [_, call] = calls_of("7 close(3) = 0", f"7 write(4, {text('ab')}, 2) = 2")
    assert (call.name, call.thread, call.entry, call.exit, call.result) == ("write", 7, 1, 1, 2)
    assert call.strings() == [b"ab"]
    assert call.plain() == ["4", text("ab"), "2"]


def test_an_interrupted_call_has_both_its_places():
    first, second = calls_of(
        "1 fdatasync(5 <unfinished ...>",
        "2 fsync(6) = 0",
        "1 <... fdatasync resumed>) = 0",
    )
    assert (first.entry, first.exit, first.plain()) == (0, 2, ["5"])
    assert (second.entry, second.exit) == (1, 1)


def test_what_comes_after_the_interruption_belongs_to_the_arguments():
    [call] = calls_of("1 getpeername(14,  <unfinished ...>", "1 <... getpeername resumed>{sa=1}, [16]) = 0")
    assert call.arguments == "14,  {sa=1}, [16]"


@pytest.mark.parametrize(
    "line", ["1 fsync(3) = -1 EIO (Input/output error)", "1 fsync(3) = -1 EIO (x) (INJECTED)"]
)
def test_a_failed_call_ended_with_its_error(line):
    [call] = calls_of(line)
    assert (call.error, call.exit, call.succeeded) == ("EIO", 0, False)


@pytest.mark.parametrize(
    "line",
    [
        "1 fsync(3) = ?",
        "1 fsync(3 <unfinished ...>) = ?",
        "1 fsync(3 <detached ...>",
        "1 fsync(3 <unfinished ...>",
    ],
)
def test_a_call_in_which_its_thread_was_killed_never_ended(line):
    [call] = calls_of(line)
    assert (call.exit, call.succeeded, call.plain()) == (None, False, ["3"])


def test_a_write_that_returned_nothing_was_cut_short_by_a_kill():
    [call] = calls_of('1 pwrite64(3, "\\x61\\x62", 2, 0) = 0')
    assert (call.exit, call.succeeded, call.strings()) == (None, False, [b"ab"])
    [call] = calls_of('1 write(3, "", 0) = 0')
    assert call.succeeded


def test_signals_and_ends_of_threads_are_no_calls():
    assert (
        calls_of(
            "1 --- SIGCHLD {si_signo=SIGCHLD} ---",
            "2 +++ killed by SIGKILL +++",
            "3 ???() = ?",
            "4 ???( <unfinished ...>",
        )
        == []
    )


def test_data_that_was_cut_is_refused():
    [call] = calls_of(f"1 write(3, {text('ab')}..., 9) = 9")
    with pytest.raises(TraceError, match="not recorded as a whole"):
        call.strings()


@pytest.mark.parametrize("line", ["strace: out of memory", "1 close(3)", "1 what", ""])
def test_a_line_that_is_not_understood_ends_the_reading(line):
    with pytest.raises(TraceError):
        calls_of(line)


def test_another_call_than_the_interrupted_one_does_not_resume():
    with pytest.raises(TraceError, match="resumes"):
        calls_of("1 fsync(3 <unfinished ...>", "1 <... write resumed>) = 0")


def test_positions_go_on_from_an_earlier_record():
    [call] = parse(["1 close(3) = 0"], first=70)
    assert call.entry == 70


def test_an_ended_pair_of_calls_in_one_thread_keeps_its_order(tmp_path):
    command = strace(tmp_path / "trace", ["true"], inject=["fsync:error=EIO:when=2"])
    assert command[-1] == "true"
    assert "inject=fsync:error=EIO:when=2" in command
