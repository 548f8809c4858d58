"""The project's prose uses plain words: docstrings, comments, messages, pages and the charts' texts."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WORDS = {
    "a word of": "any part of",
    "anew": "again",
    "beside": "next to",
    "goes without": "needs no, has no",
    "nobody": "no client, no process, no person",
    "of which": "whose, or a sentence of its own",
    "somebody": "a person, a client",
    "such are": "for example",
    "thereof": "of it",
    "told": "reported, named, said",
    "whoever": "the client that, a person who",
}
OPENINGS = {
    "Of": "begin with the noun",
    "That": "begin with the fact itself, or a verb",
    "What": "begin with a verb (Return, List, Check) or a noun",
    "Who": "begin with the noun: the holder, the caller",
    "Whoever": "begin with the noun: each client that",
}
FORBIDDEN = re.compile(r"\b(" + "|".join(WORDS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)
OPENING = re.compile(rf"({'|'.join(OPENINGS)})\b")
PROGRAMS = ("engine", "operator")
CODE = (*PROGRAMS, "benchmarks", "scripts", "examples", "tests")
PAGES = ("docs/*.md", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
MANIFESTS = ("charts/**/*.yaml", "charts/**/*.tpl", "charts/**/*.txt", "charts/**/*.md*", "crds/*.yaml")


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, run of comments and, in the programs, message."""
    source = path.read_text(encoding="utf-8")
    strings = docstrings(ast.parse(source))
    if path.relative_to(ROOT).parts[0] in PROGRAMS:
        strings = messages(ast.parse(source))
    yield from strings
    comment, first, last = "", 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if line != last + 1:
            yield first, comment
            comment, first = "", line
        comment, last = f"{comment}{token.string.lstrip('#')}\n", line
    yield first, comment


def docstrings(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the line and the text of each docstring, those of fields and constants included."""
    return [
        (node.lineno, node.value.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def messages(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the line and the text of each string, docstrings included."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def findings(path: Path, line: int, text: str) -> list[str]:
    """Describe each forbidden word of a text that begins on a line of a file."""
    found = []
    prose = re.sub(r"`[^`\n]*`", lambda code: "`" * len(code[0]), text)
    for match in FORBIDDEN.finditer(prose):
        word = " ".join(match[0].lower().split())
        at = line + text.count("\n", 0, match.start())
        found.append(f"{path.relative_to(ROOT)}:{at}: {word!r}; write: {WORDS[word]}")
    return found


def files(folders: tuple[str, ...]) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", CODE)
def test_code_uses_plain_words(folder: str) -> None:
    """Docstrings and comments of all code, and the strings of both programs."""
    found = {
        each: None
        for path in files((folder,))
        if path != Path(__file__)
        for line, text in passages(path)
        for each in findings(path, line, text)
    }
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("pattern", [*PAGES, *MANIFESTS])
def test_texts_use_plain_words(pattern: str) -> None:
    paths = sorted(ROOT.glob(pattern))
    assert paths
    found = [each for path in paths for each in findings(path, 1, path.read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("folder", CODE)
def test_docstrings_begin_with_a_verb_or_a_noun(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[1]!r} begins a docstring; {OPENINGS[match[1]]}"
        for path in files((folder,))
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if (match := OPENING.match(text.lstrip()))
    ]
    assert not found, "\n" + "\n".join(found)
