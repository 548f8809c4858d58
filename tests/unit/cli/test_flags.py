"""Flags made from settings: one name each, the flag over the environment, and documents that are true."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from scripts.make_reference import DOCS, PAGES
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.cli.options import flags, gather, takes_flags
from vecstow_engine.cli.serving import FLAGS, ProcessSettings
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.service.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inner:
    """The inner ones.

    More of them.
    """

    wait_seconds: float = 1.5
    """How long,
    at most."""
    threads_max: int = field(default_factory=lambda: 7)
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """The outer ones."""

    folder: Path
    """Where."""
    other: Path | None = None
    inner: Inner = field(default_factory=Inner)
    loud: bool = False
    """Say more."""


def ask(arguments, environment=None):
    """Return the values that a command with these flags gets; a string is its complaint."""
    got = {}
    app = typer.Typer()

    @app.command()
    @takes_flags(flags(Outer))
    def command(**values):
        got.update(values)

    answer = CliRunner().invoke(app, arguments, env=environment or {})
    return got if answer.exit_code == 0 else answer.output


def test_each_field_is_a_flag_with_the_help_below_it():
    made = {flag.option: flag for flag in flags(Outer)}
    assert list(made) == ["--folder", "--other", "--wait-seconds", "--threads-max", "--loud"]
    assert made["--wait-seconds"].help == "How long, at most."
    assert made["--wait-seconds"].group == "The inner ones."
    assert made["--threads-max"].default is dataclasses.MISSING
    assert [option for option, flag in made.items() if flag.required] == ["--folder"]


def test_a_flag_wins_over_the_environment_and_that_over_the_default():
    environment = {"VECSTOW_WAIT_SECONDS": "2.5", "VECSTOW_LOUD": "true", "VECSTOW_FOLDER": "/env"}
    values = ask(["--wait-seconds", "3.5"], environment)
    assert gather(Outer, values) == Outer(folder=Path("/env"), loud=True, inner=Inner(wait_seconds=3.5))
    assert gather(Outer, ask(["--folder", "/a"])) == Outer(folder=Path("/a"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param([], "--folder", id="required"),
        pytest.param(["--folder", "a", "--threads-max", "0"], "--threads-max", id="a limit of nothing"),
        pytest.param(["--folder", "a", "--wait-seconds", "-1"], "--wait-seconds", id="below zero"),
        pytest.param(["--folder", "a", "--wait-seconds", "x"], "--wait-seconds", id="no number"),
    ],
)
def test_a_bad_value_is_refused_by_its_flags_name(arguments, complaint):
    assert complaint in ask(arguments)


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(InvalidInput, match="must be a finite number"):
        gather(Outer, {"folder": Path("a"), "wait_seconds": float(number)})


def test_no_two_settings_share_a_name_and_each_says_what_it_is():
    names = [flag.field for flag in FLAGS]
    assert len(names) == len(set(names))
    assert [flag.option for flag in FLAGS if not flag.help] == []


def test_the_defaults_of_serve_are_those_of_the_settings():
    """The values that the command line passes on, with no flag given, change nothing."""
    values = {flag.field: flag.default for flag in FLAGS if flag.default is not dataclasses.MISSING}
    assert gather(Settings, values | {"data": Path("d")}) == Settings(data=Path("d"))
    assert gather(HttpSettings, values) == HttpSettings()
    assert gather(ProcessSettings, values) == ProcessSettings()


def test_the_link_that_kubernetes_makes_for_a_service_is_no_port(vecstow, monkeypatch):
    monkeypatch.setenv("VECSTOW_PORT", "tcp://10.0.0.1:3030")
    assert "Missing option '--data'" in vecstow("serve")[2]


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_in_the_docs_is_what_the_code_says(name):
    """When this fails: .venv/bin/python scripts/make_reference.py"""
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]()


def test_an_empty_variable_counts_as_unset(monkeypatch):
    def served(**values):
        taken.update(values)

    taken = {}
    for flag in FLAGS:
        monkeypatch.setenv(flag.variable, "")
    app = typer.Typer()
    app.command()(takes_flags(FLAGS)(served))
    assert CliRunner().invoke(app, ["--data", "x"]).exit_code == 0
    assert gather(HttpSettings, taken) == HttpSettings()
    assert gather(ProcessSettings, taken) == ProcessSettings()
    assert CliRunner().invoke(app, []).exit_code == 2
