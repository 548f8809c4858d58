"""Output has whole lines for pipes, nothing that steers a terminal, and one line per error."""

import io
import json
import sys

from vecstow_engine.cli.output import print_error, print_facts, print_json, print_line, print_table
from vecstow_engine.model.errors import NotFound


def test_a_table_in_a_pipe_is_plain_and_never_cut(capsys):
    long = "x" * 500
    print_table(("name", "vectors#"), [("a", 10_000), (long, None)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "vectors"]
    assert [line.split() for line in lines[1:]] == [["a", "10,000"], [long, "-"]]
    assert all(line == line.rstrip() for line in lines)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_only_the_last_column_is_cut(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    print_table(("distance#", "id", "payload"), [("0.1234", "a-long-identifier", "x" * 100)])
    _, row = sys.stdout.getvalue().splitlines()
    assert row.split()[:2] == ["0.1234", "a-long-identifier"]
    assert row.endswith("…")
    assert len(row) == 40


def test_brackets_in_a_cell_are_no_markup(capsys):
    print_table(("payload",), [("[bold]x[/bold] :smile:",)])
    assert "[bold]x[/bold] :smile:" in capsys.readouterr().out


def test_control_characters_are_shown_and_not_sent(capsys):
    print_line("a\x1b[31mb\x07\n\u202ec")
    print_table(("id",), [("a\x1b]0;title\x07",)])
    print_facts({"id": "a\x1b[2J"})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert out.splitlines()[0] == r"a\x1b[31mb\x07\n\u202ec"


def test_facts_stand_in_two_columns(capsys):
    print_facts({"name": "a", "vector_count": 1234, "ready": True, "reason": None, "withheld": []})
    assert capsys.readouterr().out == "name:         a\nvector count: 1,234\nready:        yes\n"


def test_json_is_one_document_that_keeps_every_character(capsys):
    document = {"name": "é\x1b", "n": [1, None]}
    print_json(document)
    assert json.loads(capsys.readouterr().out) == document


def test_an_error_is_one_line_and_its_hint_another_on_stderr(capsys):
    print_error(NotFound("no collection 'a\nb'", hint="vecstow ls lists them"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "vecstow: no collection 'a\\nb'\nhint: vecstow ls lists them\n"
