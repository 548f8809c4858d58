"""Reading the YAML files that `apply` is given: every document in them, and where it stands."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vecstow_engine.model.errors import InvalidInput, NotFound, TooLarge

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
SUFFIXES: Final = (".yaml", ".yml", ".json")
STDIN: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Document:
    """One decoded document and its source, such as `c.yaml, document 2`."""

    source: str
    content: Any


def read_documents(paths: list[Path]) -> Iterator[Document]:
    """The documents of files, of the YAML and JSON files directly in folders, and of stdin (`-`).

    Raises NotFound for a path that is not there or a folder without such a file, TooLarge, and InvalidInput
    with line and column for what is no YAML.
    """
    for path in paths:
        for file in _files(path):
            yield from load_resources(_read(file), "stdin" if file == STDIN else str(file))


def load_resources(text: str, source: str) -> Iterator[Document]:
    """Each document of `text`, lists (`kind: List`) opened, empty ones left out; raises InvalidInput."""
    try:
        documents = [content for content in yaml.load_all(text, _UniqueKeyLoader) if content is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as broken:
        raise InvalidInput(f"{source} is no valid YAML: {_one_line(broken)}") from broken
    for number, content in enumerate(documents, start=1):
        where = source if len(documents) == 1 else f"{source}, document {number}"
        if isinstance(content, dict) and content.get("kind") == "List":
            yield from _list_items(content, where)
        else:
            yield Document(where, content)


class _UniqueKeyLoader(yaml.SafeLoader):
    """As SafeLoader, but a key that stands twice in a mapping is an error, not a silent loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} stands twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _files(path: Path) -> list[Path]:
    if path == STDIN or path.is_file():
        return [path]
    if not path.is_dir():
        raise NotFound(f"{path} does not exist")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise NotFound(f"{path} has no file that ends in {', '.join(SUFFIXES)}")
    return files


def _read(file: Path) -> str:
    if file == STDIN:
        raw = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    else:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise TooLarge(f"{file} has more than {FILE_BYTES_MAX} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as broken:
        raise InvalidInput(f"{file} is not UTF-8: {broken.reason} at byte {broken.start}") from broken


def _list_items(content: dict[Any, Any], where: str) -> Iterator[Document]:
    items = content.get("items")
    if not isinstance(items, list):
        raise InvalidInput(f"{where}: a List must have items")
    for number, item in enumerate(items, start=1):
        yield Document(f"{where}, item {number}", item)


def _one_line(broken: Exception) -> str:
    mark = getattr(broken, "problem_mark", None)
    problem = getattr(broken, "problem", None) or str(broken).splitlines()[0]
    return problem if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
