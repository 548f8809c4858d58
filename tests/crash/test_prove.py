"""Each part of the proof, a few seconds of it; `make prove` runs them all to a depth that says something."""

import pytest

from tests.crash.prove.__main__ import main
from tests.crash.prove.part import Outcome
from tests.crash.prove.parts import parts
from tests.crash.prove.runner import run_part

SEED = 7


@pytest.mark.parametrize("part", [p for p in parts().values() if p.goals["smoke"]], ids=lambda p: p.name)
@pytest.mark.timeout(300)
def test_a_little_of_the_proof_finds_nothing(part):
    if (why := part.missing()) is not None:
        pytest.skip(why)
    result = run_part(part, "smoke", part.goals["smoke"], SEED, lambda progress: None)
    assert not result.outcome.findings
    assert result.reached


def test_outcomes_are_counted_by_what_is_distinct():
    outcome = Outcome(2, digests={b"a", b"b"})
    outcome.add(Outcome(2, digests={b"b", b"c"}))
    assert (outcome.cases, outcome.count) == (4, 3)


def test_help_names_every_part(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prove", "--help"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().out
    assert [name for name in parts() if name not in told] == []
