"""References between pages and code: links, headings, paths, targets of make, metrics, settings, states."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.make_reference import PAGES as GENERATED
from vecstow_engine.service.collection import State
from vecstow_operator.vocabulary import Condition

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("charts/*/README.md")])
CODE = [
    path
    for folder in ("engine", "operator", "charts", "examples", "tests", "scripts", "benchmarks")
    for suffix in ("py", "md", "yaml", "tpl", "txt")
    for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
    if path != Path(__file__)
]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
QUOTED_HEADING = re.compile(r"docs/([\w-]+\.md), \\?\"([^\"\\]+)\\?\"")
PAGE_PATH = re.compile(r"\bdocs/([\w-]+\.md)\b(?!\.)")
PATH = re.compile(r"`((?:engine|operator|tests|docs|charts|crds|scripts|examples|benchmarks)/[^`\s:]*)`")
TARGET = re.compile(r"(?:`|^|^\$ |\.\n|    )make ([a-z][a-z-]+)", re.MULTILINE)
METRIC = re.compile(r"\bvecstow_(?!engine\b|operator\b)[a-z_]+")
SUFFIX = re.compile(r"_(total|bucket|count|sum)$")
VARIABLE = re.compile(r"\bVECSTOW_[A-Z_]+\b")
CONDITION = re.compile(r"condition=(\w+)|[Cc]ondition `(\w+)`")
OF_KUBERNETES = {"Complete"}
"""Conditions of other resources."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def broken_links(page: Path) -> Iterator[str]:
    for target, anchor in LINK.findall(page.read_text()):
        path = page.parent / target if target else page
        if not path.exists():
            yield f"{name_of(page)}: no file {target!r}"
        elif anchor and anchor not in anchors(path):
            yield f"{name_of(page)}: no heading {anchor!r} in {path.name}"


def words_of(pattern: re.Pattern[str], paths: list[Path]) -> dict[str, str]:
    """Return each word that the pattern finds, and the last file that has it."""
    return {
        word: name_of(path) for path in paths for found in pattern.finditer(path.read_text())
        for word in found.groups() or (found[0],) if word
    }  # fmt: skip


def exported_metrics() -> set[str]:
    """Return the metrics that the code names, without the endings that Prometheus adds."""
    sources = [ROOT / "engine/vecstow_engine/api", ROOT / "operator/vecstow_operator"]
    code = "\n".join(path.read_text() for folder in sources for path in folder.rglob("*.py"))
    return set(re.findall(r"\"(vecstow_[a-z_]+)\"", code)) - {"vecstow_engine", "vecstow_operator"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_quoted_headings_are_on_their_pages() -> None:
    """A hint names page and heading: `docs/operations.md, "Keys"`."""
    found = [
        (name_of(path), page, heading)
        for path in [*CODE, *PAGES]
        for page, heading in QUOTED_HEADING.findall(path.read_text())
    ]
    assert len(found) > 10
    missing = [
        each for each in found if each[2] not in [h.strip("`") for h in headings(ROOT / "docs" / each[1])]
    ]
    assert missing == []


def test_pages_that_code_names_are_there() -> None:
    named = words_of(PAGE_PATH, CODE)
    del named["a.md"]  # `docs/a.md` is the id of a point
    missing = {page: file for page, file in named.items() if not (ROOT / "docs" / page).exists()}
    assert len(named) > 8
    assert missing == {}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_of_the_project_are_there(page: Path) -> None:
    assert [path for path in PATH.findall(page.read_text()) if not list(ROOT.glob(path))] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_of_make_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall(page.read_text())) <= targets


def test_metrics_in_the_pages_are_exported() -> None:
    exported = exported_metrics()
    named = words_of(METRIC, PAGES)
    assert len(named) > 20
    assert {name: page for name, page in named.items() if not {name, SUFFIX.sub("", name)} & exported} == {}


def test_every_metric_is_in_a_reference() -> None:
    """Those of the engine are in docs/api.md, those of the operator in docs/operator.md."""
    pages = [ROOT / "docs" / "api.md", ROOT / "docs" / "operator.md"]
    documented = {SUFFIX.sub("", name) for name in words_of(METRIC, pages)}
    assert {name for name in exported_metrics() if SUFFIX.sub("", name) not in documented} == set()


def test_environment_variables_in_the_pages_are_read() -> None:
    """By a setting, or by code or Makefile of the tests."""
    known = set(VARIABLE.findall("".join(make() for make in GENERATED.values())))
    others = [ROOT / "Makefile", *ROOT.glob("tests/**/*.py"), *ROOT.glob("operator/**/*.py")]
    known |= set(words_of(VARIABLE, others))
    named = words_of(VARIABLE, [page for page in PAGES if page.name not in GENERATED])
    assert len(named) > 8
    assert {name: page for name, page in named.items() if name not in known} == {}


def test_conditions_in_the_pages_are_set() -> None:
    notes = list(ROOT.glob("charts/*/templates/NOTES.txt"))
    named = words_of(CONDITION, [*PAGES, *notes, *ROOT.glob("examples/**/*.yaml")])
    assert "Ready" in named
    assert named.keys() <= {str(condition) for condition in Condition} | OF_KUBERNETES


def test_states_of_the_runbook_are_those_of_collections() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page[page.index("| state | means | do |") :].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {str(state) for state in State} | {
        "offline"
    }
