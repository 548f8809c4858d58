"""docs/operator.md names every word that others see of the operator, and no other."""

import re
from pathlib import Path

import pytest

from vecstow_operator import vocabulary
from vecstow_operator.health import Metrics

TEXT = Path("docs/operator.md").read_text()
WORDS = TEXT[TEXT.index("## Words") : TEXT.index("## Rights")]
METRIC = re.compile(r"^vecstow_operator_\w+$")
SUFFIXES = {"counter": "_total"}


def first_cells(header):
    """The words in the first column of the table that begins so."""
    table = WORDS[WORDS.index(header) :].split("\n\n")[0]
    rows = table.splitlines()[2:]
    return [word for row in rows for word in re.findall(r"`([^`{]+)(?:\{[^`]*\})?`", row.split("|")[1])]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        pytest.param("| condition |", list(vocabulary.Condition), id="conditions"),
        pytest.param("| reason |", list(vocabulary.Reason), id="reasons"),
        pytest.param("| event |", list(vocabulary.EventReason), id="events"),
        pytest.param(
            "| label,",
            [*vocabulary.Label, *vocabulary.Annotation, vocabulary.FINALIZER],
            id="labels, annotations and the finalizer",
        ),
    ],
)
def test_every_word_is_in_its_table(header, words):
    assert sorted(first_cells(header)) == sorted(str(word) for word in words)


def test_every_metric_is_in_its_table():
    families = list(Metrics().registry.collect())
    names = {family.name + SUFFIXES.get(family.type, "") for family in families if METRIC.match(family.name)}
    assert set(first_cells("| metric of both roles |")) == names


@pytest.mark.parametrize("kind", [vocabulary.Reason, vocabulary.EventReason], ids=lambda kind: kind.__name__)
def test_every_reason_is_given_somewhere(kind):
    sources = [path.read_text() for path in Path("operator").rglob("*.py") if path.name != "vocabulary.py"]
    code = "\n".join(sources)
    assert [member for member in kind if f"{kind.__name__}.{member.name}" not in code] == []
