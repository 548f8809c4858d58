"""ARCHITECTURE.md names code that is there, and every module of both programs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGES = (ROOT / "engine" / "vecstow_engine", ROOT / "operator" / "vecstow_operator")
REFERENCES = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)))
FILES = sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE)))


def source(path: str) -> Path:
    """The file of a path below one of the two packages, or below the repository."""
    found = [base / path for base in (*PACKAGES, ROOT) if (base / path).is_file()]
    assert found, f"{path} is not there"
    return found[0]


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods (`Class.method`) of a module."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
    return names


@pytest.mark.parametrize(("path", "name"), REFERENCES)
def test_each_function_of_a_path_is_there(path, name):
    assert name in names_in(source(path))


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_there(path):
    source(path)


def test_there_are_steps_to_check():
    assert len(REFERENCES) > 50


def test_the_source_map_has_each_module_once():
    rows = re.findall(r"^\| `((?:engine|operator)/[\w/]+)/` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
    mapped = [f"{folder}/{name}.py" for folder, names in rows for name in re.findall(r"`(\w+)`", names)]
    modules = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in package.rglob("*.py")
        if not path.stem.startswith("__")
    }
    assert sorted(mapped) == sorted(modules)
