"""The project's ground: make's targets, the locks, and a clone that stands alone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CITATION = re.compile(r"\b(?:test_)?(rule|promise)s?[ _](\d+(?:(?:, | and | to |_)\d+)*)")
LOCKS = ["requirements.lock", "requirements-build.lock", "tests/chart/checkov.lock"]


def tracked_files() -> list[Path]:
    """List what a clone holds."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only git knows which files belong to the project")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_help_lists_every_target() -> None:
    """A target without a `##` comment would be missing from `make help`."""
    help_text = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = {line.split()[0] for line in help_text.splitlines() if line.startswith("  ")}
    assert make_targets() == listed


def test_every_target_is_phony() -> None:
    """A file that is named like a target never hides it."""
    phony = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert phony == make_targets()


def test_setup_does_nothing_the_second_time() -> None:
    """An environment that matches the locks is left as it is."""
    if not (ROOT / ".venv" / ".locked-versions").exists():
        pytest.skip("these tests run outside make's environment")
    second = subprocess.run(["sh", "scripts/setup.sh"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert second.stdout == ""


def test_ci_calls_make_alone() -> None:
    """CI runs what a person runs: apart from system packages, .ci/run only calls make."""
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith('exec make "${@:-ci}"')


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_and_hashes_every_package(lock: str) -> None:
    """Each requirement has one version and at least one hash."""
    requirements = (ROOT / lock).read_text().replace("\\\n", " ").strip().splitlines()
    assert requirements
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_registry(lock: str) -> None:
    """The configuration of the person who installs says where packages come from."""
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_locks_agree_on_shared_packages() -> None:
    """hnswlib runs with the packages that it is compiled against."""
    pins = [
        dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+ ;[^\\\n]*|\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in LOCKS
    ]
    shared = pins[0].keys() & pins[1].keys()
    assert "numpy" in shared
    assert {name: pins[0][name] for name in shared} == {name: pins[1][name] for name in shared}


def test_project_names_no_path_outside_the_clone() -> None:
    """A clone stands alone: no tracked text mentions a folder next to it or a machine's own paths."""
    # Brackets keep this very line from matching.
    outside = re.compile(r"\.\./share[d]\b|/wor[k]/|/roo[t]/")
    naming = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix not in {".npy", ".gz", ".xz", ".lock"}
        and outside.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert naming == []


def test_operator_folder_is_no_package() -> None:
    """`operator/__init__.py` would shadow the standard library's module."""
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("package", ["engine/vecstow_engine", "operator/vecstow_operator"])
def test_package_is_typed(package: str) -> None:
    """Type checkers of other projects may use the annotations."""
    assert (ROOT / package / "py.typed").exists()


def test_every_rule_and_promise_that_is_cited_is_in_the_design() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    known = {
        "rule": set(re.findall(r"^\| \*\*Rule (\d+)\.\*\*", design, re.MULTILINE)),
        "promise": set(re.findall(r"^(\d+)\. \*\*", design, re.MULTILINE)),
    }
    cited = [
        (path.name, kind, number.lstrip("0"))
        for path in tracked_files()
        if path.suffix in (".py", ".md") and path.name != "test_project.py"
        for kind, numbers in CITATION.findall(path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", numbers)
    ]
    assert len(cited) > 100
    assert [each for each in cited if each[2] not in known[each[1]]] == []


def test_the_glossary_has_each_term_once_and_names_code_that_is_there() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| (operator )?`([\w/]+\.py)`(?: `(\w+)`)? \|$",
        (ROOT / "docs" / "glossary.md").read_text(),
        re.MULTILINE,
    )
    terms = [term for term, *_ in rows]
    assert len(terms) > 50
    assert sorted(terms) == sorted(set(terms))
    packages = {"": ROOT / "engine" / "vecstow_engine", "operator ": ROOT / "operator" / "vecstow_operator"}
    for _, package, path, name in rows:
        code = (packages[package] / path).read_text()
        assert not name or re.search(rf"^(class {name}\b|{name} ?[:=])", code, re.MULTILINE), (path, name)
